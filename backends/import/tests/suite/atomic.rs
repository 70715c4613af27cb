//! A model folder appears complete or not at all.

use std::{fs, path::Path, sync::atomic::Ordering};

use mote_import::{
    Carve, ImportError, ImportOption, ImportOptions, RecipeError, Stage, TokenizerError, import,
};
use tempfile::{TempDir, tempdir};

use super::{
    gguf_file::{GgufFile, Meta, Tensor},
    tiny::{self, Checkpoint, RecipeParts, SEED},
};

struct Scene {
    folder: TempDir,
    options: ImportOptions,
}

impl Scene {
    fn new(file: &GgufFile) -> Self {
        eprintln!("seed {SEED}");
        let folder = tempdir().expect("temporary folders can be made");
        let source = file.write(&folder);
        let target = folder.path().join("models").join("tiny");
        Self {
            options: ImportOptions::new(source, target, "tiny"),
            folder,
        }
    }

    fn refusal(&self) -> ImportError {
        let error = import(&self.options, &mut |_| ()).expect_err("the import must fail");
        self.assert_nothing_left();
        error
    }

    fn assert_nothing_left(&self) {
        assert_eq!(names(&self.folder.path().join("models")), [""; 0]);
    }
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .map(|entry| {
            let name = entry.expect("the folder can be listed").file_name();
            name.to_string_lossy().into_owned()
        })
        .collect()
}

#[test]
fn a_finished_import_leaves_the_folder_and_nothing_else() {
    let scene = Scene::new(&Checkpoint::new().file);
    import(&scene.options, &mut |_| ()).expect("the import succeeds");
    assert_eq!(names(&scene.folder.path().join("models")), ["tiny"]);
}

#[test]
fn cancelling_at_any_point_leaves_nothing() {
    let scene = Scene::new(&Checkpoint::new().file);
    let mut calls = 0;
    import(&scene.options, &mut |_| calls += 1).expect("the import succeeds");
    assert!(calls > 20, "progress is reported tensor by tensor: {calls}");
    fs::remove_dir_all(&scene.options.folder).expect("the folder can be removed");
    for stop in (0..calls - 1).step_by(3) {
        scene.options.cancel.store(false, Ordering::Relaxed);
        let mut seen = 0;
        let result = import(&scene.options, &mut |_| {
            scene.options.cancel.store(seen >= stop, Ordering::Relaxed);
            seen += 1;
        });
        assert!(
            matches!(result, Err(ImportError::Cancelled)),
            "cancelled after {stop} of {calls}"
        );
        assert_eq!(seen, stop + 1, "the very next step notices");
        scene.assert_nothing_left();
    }
}

#[test]
fn progress_grows_to_its_total_in_every_phase() {
    let scene = Scene::new(&Checkpoint::new().file);
    let mut seen = Vec::new();
    import(&scene.options, &mut |progress| seen.push(progress)).expect("the import succeeds");
    let phase = |stage| match stage {
        Stage::Digest => 0,
        Stage::Outer | Stage::Layer { .. } => 1,
        Stage::Verify => 2,
    };
    for number in 0..3 {
        let steps: Vec<_> = seen
            .iter()
            .filter(|progress| phase(progress.stage) == number)
            .collect();
        assert!(
            steps
                .windows(2)
                .all(|pair| pair[0].bytes_done <= pair[1].bytes_done),
            "phase {number}"
        );
        let last = steps.last().expect("every phase reports");
        assert_eq!(last.bytes_done, last.bytes_total, "phase {number}");
    }
}

#[test]
fn an_existing_target_is_left_alone() {
    let scene = Scene::new(&Checkpoint::new().file);
    fs::create_dir_all(&scene.options.folder).expect("folders can be made");
    fs::write(scene.options.folder.join("precious"), "kept").expect("files can be written");
    assert!(matches!(
        import(&scene.options, &mut |_| ()),
        Err(ImportError::TargetExists { .. })
    ));
    assert_eq!(names(&scene.options.folder), ["precious"]);
}

#[test]
fn a_weight_that_is_not_finite_stops_the_import_late() {
    let mut file = Checkpoint::new().file;
    let last = file.tensors.last_mut().expect("the checkpoint has tensors");
    let end = last.data.len();
    last.data[end - 4..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    assert!(matches!(
        Scene::new(&file).refusal(),
        ImportError::Checkpoint(_)
    ));
}

#[test]
fn a_recipe_of_another_checkpoint_stops_the_import() {
    let mut scene = Scene::new(&Checkpoint::new().file);
    scene.options.carve = Some(Carve {
        recipe: RecipeParts::new(b"another file").bytes().into(),
        experts_per_token: None,
    });
    assert!(matches!(
        scene.refusal(),
        ImportError::Recipe(RecipeError::OtherSource { .. })
    ));
}

#[test]
fn an_unknown_tokenizer_is_refused_by_name() {
    for (key, value) in [
        ("tokenizer.ggml.pre", "unheard-of"),
        ("tokenizer.ggml.model", "rwkv"),
    ] {
        let mut file = tiny::metadata(GgufFile::default(), &[key]).meta(key, Meta::Text(value));
        file.tensors = Checkpoint::new().file.tensors;
        match Scene::new(&file).refusal() {
            ImportError::Tokenizer(
                TokenizerError::UnsupportedPreTokenizer { name }
                | TokenizerError::UnsupportedModel { name },
            ) => assert_eq!(name, value),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn impossible_options_are_named() {
    let refusal = |change: fn(&mut ImportOptions)| {
        let mut scene = Scene::new(&Checkpoint::new().file);
        change(&mut scene.options);
        match scene.refusal() {
            ImportError::Option { option } => option,
            other => panic!("{other}"),
        }
    };
    for name in ["", "../x", ".hidden", "a b"] {
        let mut scene = Scene::new(&Checkpoint::new().file);
        scene.options.name = name.to_owned();
        assert!(matches!(
            scene.refusal(),
            ImportError::Option {
                option: ImportOption::Name
            }
        ));
    }
    for change in [
        (|options| options.context_tokens = Some(0)) as fn(&mut ImportOptions),
        |options| options.context_tokens = Some(4097),
    ] {
        let option = refusal(change);
        assert_eq!(option, ImportOption::ContextTokens { tokens_max: 4096 });
        assert!(option.to_string().contains("4096"));
    }
}

#[test]
fn a_missing_source_is_refused() {
    let mut scene = Scene::new(&GgufFile::default().tensor(Tensor::f32("a", &[1], &[1.0])));
    scene.options.source = scene.folder.path().join("absent.gguf");
    assert!(matches!(scene.refusal(), ImportError::Source(_)));
}
