//! What a clip's graphs are given, with graphs made of closures.

mod support;

use mote_api::{DType, GenerationSpec, Model, Signature, Tensor};
use mote_pipeline::{
    GenerationJob, GenerationModel, GenerationRequest, GenerationSegment, GenerationStep,
    PipelineError,
};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use support::{Log, closure_model, spec};

/// Inputs of each run of the denoiser, by position.
type Seen = Arc<Mutex<Vec<Vec<Tensor>>>>;

const TOKENIZER: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],
    "normalizer":null,"pre_tokenizer":{"type":"Whitespace"},"post_processor":null,"decoder":null,
    "model":{"type":"WordLevel","vocab":{"<pad>":0,"<unk>":1,"red":2},"unk_token":"<unk>"}}"#;
const SCHEDULER: &str = r#"{"_class_name":"FlowMatchEulerDiscreteScheduler","shift":1.0}"#;

fn write(folder: &Path, file: &str, text: &str) {
    let file = folder.join(file);
    fs::create_dir_all(file.parent().expect("a folder")).expect("made");
    fs::write(file, text).expect("written");
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let vae = r#"{"latent_channels":2,"spatial_compression_ratio":4,"temporal_compression_ratio":4,
        "latents_mean":[0.0,0.0],"latents_std":[1.0,1.0]}"#;
    for (file, text) in [
        ("model_index.json", r#"{"_class_name":"LTXPipeline"}"#),
        ("vae_decoder/config.json", vae),
        ("transformer/config.json", "{}"),
        ("scheduler/scheduler_config.json", SCHEDULER),
        ("tokenizer/tokenizer.json", TOKENIZER),
    ] {
        write(folder.path(), file, text);
    }
    folder
}

fn filled(dtype: DType, shape: &[usize]) -> Tensor {
    Tensor::zeroed(dtype, shape).expect("small")
}

fn parts(float: DType) -> BTreeMap<String, Arc<dyn Model>> {
    let text = Signature {
        inputs: vec![spec("input_ids", DType::I32, &[1, -1])],
        outputs: vec![spec("last_hidden_state", float, &[1, -1, 3])],
    };
    let text = closure_model(text, move |run| {
        Ok(vec![Some(filled(float, &[1, run.inputs[0].shape()[1], 3]))])
    });
    let decoder = Signature {
        inputs: vec![spec("latent_sample", float, &[1, 2, -1, -1, -1])],
        outputs: vec![spec("sample", float, &[1, 3, -1, -1, -1])],
    };
    let decoder = closure_model(decoder, move |run| {
        let shape = run.inputs[0].shape();
        let frames = (shape[2] - 1) * 4 + 1;
        Ok(vec![Some(filled(
            float,
            &[1, 3, frames, shape[3] * 4, shape[4] * 4],
        ))])
    });
    let named = [("text_encoder", text.0), ("vae_decoder", decoder.0)];
    named.map(|(name, model)| (name.to_owned(), model)).into()
}

/// A denoiser that gives zeros; `batch` is -1 for any.
fn denoiser(float: DType, batch: i64, guidance: bool) -> (Arc<dyn Model>, Arc<Log>, Seen) {
    let mut inputs = vec![
        spec("hidden_states", float, &[batch, -1, 2]),
        spec("encoder_hidden_states", float, &[batch, -1, 3]),
        spec("timestep", DType::I64, &[batch]),
        spec("video_coords", DType::F32, &[batch, 3, -1]),
    ];
    inputs.extend(guidance.then(|| spec("guidance", float, &[batch])));
    let signature = Signature {
        inputs,
        outputs: vec![spec("sample", float, &[batch, -1, 2])],
    };
    let seen = Seen::default();
    let kept = Arc::clone(&seen);
    let (model, log) = closure_model(signature, move |run| {
        let copies = run.inputs.iter().map(|input| {
            let bytes = input.read_bytes().expect("readable");
            Tensor::from_bytes(input.dtype(), input.shape(), &bytes).expect("small")
        });
        kept.lock().expect("not poisoned").push(copies.collect());
        Ok(vec![Some(filled(float, run.inputs[0].shape()))])
    });
    (model, log, seen)
}

fn open(denoiser: Arc<dyn Model>, float: DType) -> Result<Arc<GenerationModel>, PipelineError> {
    opened(denoiser, float).map(Arc::new)
}

fn opened(denoiser: Arc<dyn Model>, float: DType) -> Result<GenerationModel, PipelineError> {
    let said = GenerationSpec {
        prompt_tokens: Some(5),
        ..GenerationSpec::default()
    };
    GenerationModel::open(folder().path(), &said, denoiser, parts(float))
}

fn request(guidance: f32) -> GenerationRequest {
    GenerationRequest {
        segments: vec![GenerationSegment::new("red")],
        width: Some(8),
        height: Some(4),
        frames: Some(5),
        frame_rate: Some(10),
        steps: Some(2),
        guidance: Some(guidance),
        ..GenerationRequest::default()
    }
}

fn run(model: &Arc<GenerationModel>, request: GenerationRequest) -> usize {
    let mut job = GenerationJob::start(model, request, None).expect("it starts");
    let mut frames = 0;
    loop {
        match job.step().expect("it computes") {
            GenerationStep::Frame(_) => frames += 1,
            GenerationStep::Ended => return frames,
            _ => {}
        }
    }
}

#[test]
fn inputs_are_what_the_signature_says() {
    let (graph, log, seen) = denoiser(DType::F16, -1, false);
    let model = open(graph, DType::F16).expect("the parts fit");
    assert_eq!(run(&model, request(1.0)), 5);
    assert_eq!(log.runs(), 2);
    let seen = seen.lock().expect("not poisoned");
    let shapes: Vec<_> = seen[0]
        .iter()
        .map(|tensor| tensor.shape().to_vec())
        .collect();
    assert_eq!(
        shapes,
        [vec![1, 4, 2], vec![1, 5, 3], vec![1], vec![1, 3, 4]]
    );
    let times: Vec<i64> = seen
        .iter()
        .flat_map(|run| run[2].read::<i64>().expect("i64"))
        .collect();
    assert_eq!(times, [1000, 500]);
    // Two latent frames of one row and two columns: seconds, rows, columns.
    let coordinates = seen[0][3].read::<f32>().expect("f32");
    assert_eq!(
        coordinates,
        [0.0, 0.0, 0.4, 0.4, 0.0, 0.0, 0.0, 0.0, 0.0, 4.0, 0.0, 4.0]
    );
}

#[test]
fn guidance_takes_a_pair_or_two_runs_or_an_input() {
    for (batch, rows, runs) in [(-1, 2, 2), (1, 1, 4)] {
        let (graph, log, seen) = denoiser(DType::F32, batch, false);
        let model = open(graph, DType::F32).expect("the parts fit");
        run(&model, request(3.0));
        assert_eq!(log.runs(), runs);
        let seen = seen.lock().expect("not poisoned");
        assert!(seen.iter().all(|run| run[0].shape() == [rows, 4, 2]));
    }
    let (graph, log, seen) = denoiser(DType::F32, -1, true);
    let model = open(graph, DType::F32).expect("the parts fit");
    run(&model, request(3.0));
    assert_eq!(log.runs(), 2);
    let seen = seen.lock().expect("not poisoned");
    assert_eq!(seen[0][4].read::<f32>().expect("f32"), [3.0]);
    let negative = GenerationRequest {
        negative_prompt: Some("red".into()),
        ..request(3.0)
    };
    let error = GenerationJob::start(&model, negative, None)
        .err()
        .expect("no use");
    assert!(
        error.to_string().starts_with("negative_prompt: "),
        "{error}"
    );
}

#[test]
fn graphs_that_do_not_fit_are_refused_by_tensor() {
    let refusal = |change: fn(&mut Signature)| {
        let (graph, ..) = denoiser(DType::F32, -1, false);
        let mut signature = graph.signature().clone();
        change(&mut signature);
        let (graph, _) = closure_model(signature, |_| Ok(Vec::new()));
        match open(graph, DType::F32).err() {
            Some(PipelineError::Graph { tensor, .. }) => tensor,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        refusal(|it| it.inputs[0].shape[2] = Some(3)),
        "hidden_states"
    );
    assert_eq!(
        refusal(|it| it.inputs[0].dtype = DType::U8),
        "hidden_states"
    );
    assert_eq!(
        refusal(|it| it.inputs[1].shape[2] = Some(4)),
        "encoder_hidden_states"
    );
    assert_eq!(refusal(|it| it.inputs[2].shape = vec![None; 3]), "timestep");
    assert_eq!(refusal(|it| drop(it.inputs.remove(3))), "video_coords");
    assert_eq!(refusal(|it| it.outputs[0].shape[2] = Some(9)), "sample");
    assert_eq!(
        refusal(|it| it.inputs[3].name = "image_latents".into()),
        "video_coords"
    );
    let extra = |it: &mut Signature| it.inputs.push(spec("pooled", DType::F32, &[1]));
    assert_eq!(refusal(extra), "pooled");
}

#[test]
fn clips_of_a_model_share_its_memory_and_give_it_back() {
    // 5 frames of 8 x 4, 13 samples of two latent frames of one row and two columns, and a text of 5 tokens twice.
    let need: u64 = 4 * (3 * 5 * 8 * 4 + 13 * 2 * 2 * 2 + 2 * 5 * 3);
    let model = |bytes_max| {
        let (graph, ..) = denoiser(DType::F32, -1, false);
        let model = opened(graph, DType::F32).expect("the parts fit");
        Arc::new(model.with_memory(Some(bytes_max)))
    };
    let refused = |model: &Arc<GenerationModel>| match GenerationJob::start(
        model,
        request(1.0),
        None,
    )
    .err()
    {
        Some(PipelineError::MemoryFull {
            need_bytes,
            have_bytes,
            bytes_max,
        }) => [need_bytes, have_bytes, bytes_max],
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&model(need - 1)), [need, need - 1, need - 1]);
    let model = model(2 * need + 1);
    let one = GenerationJob::start(&model, request(1.0), None).expect("it fits");
    let other = GenerationJob::start(&model, request(1.0), None).expect("it fits");
    assert_eq!(refused(&model), [need, 1, 2 * need + 1]);
    drop(one);
    assert_eq!(run(&model, request(1.0)), 5);
    drop(other);
    assert_eq!(run(&model, request(1.0)), 5);
}
