//! Pipelines of `tests/models/diffusion`, loaded.

use mote_api::{Backend, GenerationSpec, LoadRequest, Manifest, Model, Threads};
use mote_ort::OrtBackend;
use mote_pipeline::{
    GenerationJob, GenerationModel, GenerationRequest, GenerationSegment, GenerationStep,
    PipelineError, Rgb,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Tokens that prompts of the tiny pipelines are padded to.
const PROMPT_TOKENS: u32 = 12;

pub fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/diffusion")
}

fn backend() -> &'static OrtBackend {
    static BACKEND: OnceLock<OrtBackend> = OnceLock::new();
    BACKEND.get_or_init(|| {
        let library = std::env::var_os("MOTE_TEST_ORT_LIBRARY").unwrap_or_else(|| {
            panic!(
                "MOTE_TEST_ORT_LIBRARY is not set; run the tests with tests/run, which fetches it"
            )
        });
        OrtBackend::load(Path::new(&library), "onnxruntime-test").expect("the library under test")
    })
}

fn load(file: PathBuf) -> Arc<dyn Model> {
    let request = LoadRequest {
        file,
        threads: Threads::SINGLE,
        ..LoadRequest::default()
    };
    backend().load(&request).expect("the graph loads")
}

/// A copy of a folder, to be changed.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn of(name: &str) -> Self {
        // A model's name, which this folder's becomes, does not begin with a dot.
        let copy = tempfile::Builder::new().prefix("tiny-").tempdir();
        let copy = copy.expect("a folder");
        copy_all(&models().join(name), copy.path());
        Self(copy)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Changes a JSON file.
    pub fn edit(&self, file: &str, change: impl FnOnce(&mut Value)) -> &Self {
        let path = self.path().join(file);
        let text = fs::read(&path).expect("the file");
        let mut value = serde_json::from_slice(&text).expect("JSON");
        change(&mut value);
        fs::write(&path, value.to_string()).expect("written");
        self
    }

    pub fn with_class(&self, class: &str) -> &Self {
        self.edit("model_index.json", |index| {
            index["_class_name"] = class.into()
        })
    }

    /// Takes files of another folder in place of its own.
    pub fn overlay(&self, name: &str) -> &Self {
        copy_all(&models().join(name), self.path());
        self
    }

    pub fn remove(&self, part: &str) -> &Self {
        fs::remove_dir_all(self.path().join(part)).expect("the part");
        self
    }

    pub fn open(&self) -> Arc<GenerationModel> {
        self.open_with(|_| {}).expect("the parts fit")
    }

    pub fn open_with(
        &self,
        change: impl FnOnce(&mut GenerationSpec),
    ) -> Result<Arc<GenerationModel>, PipelineError> {
        let folder = self.path();
        let manifest = Manifest::inferred_pipeline(folder).expect("a pipeline");
        let variant = &manifest.variants[0];
        let mut spec = manifest.generation.clone().expect("a section");
        spec.prompt_tokens = Some(PROMPT_TOKENS);
        change(&mut spec);
        let parts: BTreeMap<String, Arc<dyn Model>> = variant
            .parts
            .iter()
            .map(|(name, file)| (name.clone(), load(folder.join(file))))
            .collect();
        let denoiser = load(folder.join(&variant.file));
        GenerationModel::open(folder, &spec, denoiser, parts).map(Arc::new)
    }
}

fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder in git") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            fs::create_dir_all(&target).expect("made");
            copy_all(&path, &target);
        } else {
            fs::copy(&path, &target).expect("copied");
        }
    }
}

/// A picture by the rule of `pipelines.py`.
pub fn picture(width: usize, height: usize, number: usize) -> Rgb {
    let value = |x: usize, y: usize, c: usize| {
        ((x * (3 + number) + y * 5 + c * 60 + number * 40) % 256) as u8
    };
    let mut rgb8 = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            rgb8.extend([0, 1, 2].map(|c| value(x, y, c)));
        }
    }
    Rgb {
        width,
        height,
        rgb8,
    }
}

/// A request for one segment.
pub fn request(prompt: &str) -> GenerationRequest {
    GenerationRequest {
        segments: vec![GenerationSegment::new(prompt)],
        width: Some(32),
        height: Some(32),
        frames: Some(9),
        steps: Some(4),
        guidance: Some(1.0),
        seed: 7,
        ..GenerationRequest::default()
    }
}

/// All steps to the end: what they were, in short, and the frames.
pub fn finish(job: &mut GenerationJob) -> (String, Vec<Rgb>) {
    let (steps, frames, _) = finish_with_sound(job);
    (steps, frames)
}

/// Likewise, and the sound from the first sample that is given, without gaps.
pub fn finish_with_sound(job: &mut GenerationJob) -> (String, Vec<Rgb>, Vec<f32>) {
    let mut steps = String::new();
    let mut frames = Vec::new();
    let mut sound = Vec::new();
    let mut next = None;
    let channels = job
        .plan()
        .audio
        .map_or(1, |audio| u64::from(audio.channels));
    loop {
        match job.step().expect("it computes") {
            GenerationStep::Encoded => steps.push('e'),
            GenerationStep::Denoised { .. } => steps.push('d'),
            GenerationStep::Decoded => steps.push('v'),
            GenerationStep::Frame(frame) => {
                steps.push('f');
                frames.push(frame);
            }
            GenerationStep::Audio(chunk) => {
                steps.push('a');
                let expected = next.unwrap_or(chunk.sample_index);
                assert_eq!(chunk.sample_index, expected, "sound has no gaps");
                next = Some(expected + chunk.samples.len() as u64 / channels);
                sound.extend(chunk.samples);
            }
            GenerationStep::Ended => return (steps, frames, sound),
        }
    }
}

/// Frames and sound of a whole clip.
pub fn whole(model: &Arc<GenerationModel>, request: GenerationRequest) -> (Vec<Rgb>, Vec<f32>) {
    let mut job = GenerationJob::start(model, request, None).expect("it starts");
    let (_, frames, sound) = finish_with_sound(&mut job);
    (frames, sound)
}

pub fn frames(model: &Arc<GenerationModel>, request: GenerationRequest) -> Vec<Rgb> {
    let mut job = GenerationJob::start(model, request, None).expect("it starts");
    finish(&mut job).1
}
