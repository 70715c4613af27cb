//! Embedding against models whose vectors depend on every token, on padding and on neither.

mod support;

use half::f16;
use mote_api::{
    BackendKind, DType, EmbeddingSpec, Manifest, Pooling, RunError, Signature, Task, Tensor,
};
use mote_pipeline::{
    Check, EmbeddingJob, EmbeddingKind, EmbeddingModel, EmbeddingRequest, EmbeddingStats,
    EmbeddingStep, Embeddings, PipelineError, SessionPool,
};
use std::path::Path;
use std::sync::Arc;
use support::text::{EOS, IM_START, VOCAB, write_folder};
use support::{Changes, Log, Outputs, Run, closure_model, mix, refuse, spec};

const CONTEXT: usize = 40;
const WIDTH: usize = 3;
const PAD: u32 = 7;

/// The form of the graph.
#[derive(Clone, Copy)]
struct Form {
    pooling: Pooling,
    /// Texts and tokens of a run, where fixed.
    size: (i64, i64),
    /// A decoder as the importer makes it, which takes one text.
    decoder: bool,
    half: bool,
}

const OPEN: Form = Form {
    pooling: Pooling::Mean,
    size: (-1, -1),
    decoder: false,
    half: false,
};

fn manifest(form: Form) -> EmbeddingSpec {
    EmbeddingSpec {
        tokenizer: "tokenizer.json".into(),
        context_tokens: CONTEXT,
        vocab: VOCAB,
        dimensions: WIDTH,
        pooling: form.pooling,
        normalise: true,
        query_prefix: "find: ".into(),
        document_prefix: "is: ".into(),
        pad_token_id: PAD,
        texts_per_run: None,
        moe: None,
    }
}

fn signature(form: Form) -> Signature {
    let (rows, columns) = form.size;
    let float = if form.half { DType::F16 } else { DType::F32 };
    let width = WIDTH as i64;
    let mut inputs = vec![spec("input_ids", DType::I64, &[rows, columns])];
    if form.decoder {
        inputs.push(spec("seqlens_k", DType::I32, &[rows]));
        inputs.push(spec("total_sequence_length", DType::I32, &[1]));
    } else {
        inputs.push(spec("attention_mask", DType::I64, &[rows, columns]));
        inputs.push(spec("token_type_ids", DType::I32, &[rows, columns]));
        inputs.push(spec("position_ids", DType::I64, &[rows, columns]));
    }
    let output = match form.pooling {
        Pooling::Graph => spec("sentence_embedding", float, &[rows, width]),
        _ => spec("last_hidden_state", float, &[rows, columns, width]),
    };
    let other = spec("pooler_output", DType::F32, &[rows, 1]);
    Signature {
        inputs,
        outputs: vec![other, output],
    }
}

/// The vector of the token behind `before`, which all of those take part in.
fn of_token(before: &[i64]) -> [f32; WIDTH] {
    let state = before.iter().fold(3, |state, &id| mix(state, id as u64));
    let value = |at: usize| (mix(state, at as u64) >> 44) as f32 / (1u64 << 19) as f32 - 1.0;
    std::array::from_fn(value)
}

/// The tokens of a row, behind which there must be padding alone.
fn tokens_of(row: &[i64], mask: &[i64]) -> Result<Vec<i64>, RunError> {
    let count = mask.iter().take_while(|&&one| one == 1).count();
    let is_padding = row[count..].iter().all(|&id| id == i64::from(PAD));
    if count == 0 || !is_padding || mask[count..].iter().any(|&one| one != 0) {
        return Err(refuse("padding is not behind the tokens"));
    }
    Ok(row[..count].to_vec())
}

fn compute(form: Form, run: &Run<'_>) -> Outputs {
    let ids = run.inputs[0].read::<i64>()?;
    let &[rows, columns] = run.inputs[0].shape() else {
        return Err(refuse("rank"));
    };
    let mask = if form.decoder {
        let last = run.inputs[1].read::<i32>()?;
        if rows != 1 || last != [columns as i32 - 1] {
            return Err(refuse("it is no single text"));
        }
        if run.inputs[2].read::<i32>()? != [columns as i32] {
            return Err(refuse("total_sequence_length is wrong"));
        }
        vec![1; columns]
    } else {
        let types = run.inputs[2].read::<i32>()?;
        if types.iter().any(|&kind| kind != 0) {
            return Err(refuse("token types are wrong"));
        }
        run.inputs[1].read::<i64>()?
    };
    let mut values = Vec::new();
    for row in 0..rows {
        let part = row * columns..(row + 1) * columns;
        let tokens = tokens_of(&ids[part.clone()], &mask[part])?;
        match form.pooling {
            Pooling::Graph => values.extend(of_token(&tokens)),
            _ => {
                for at in 0..columns {
                    let known = &tokens[..tokens.len().min(at + 1)];
                    let noise = if at < tokens.len() { 0.0 } else { 1e6 };
                    values.extend(of_token(known).map(|value| value + noise));
                }
            }
        }
    }
    let shape = match form.pooling {
        Pooling::Graph => vec![rows, WIDTH],
        _ => vec![rows, columns, WIDTH],
    };
    let output = if form.half {
        let values: Vec<f16> = values.into_iter().map(f16::from_f32).collect();
        Tensor::from_slice(&shape, &values)?
    } else {
        Tensor::from_slice(&shape, &values)?
    };
    Ok(vec![None, Some(output)])
}

/// Tokens are bytes, between one at the beginning and one at the end.
fn write_files(folder: &Path) {
    write_folder(folder);
    let file = folder.join("tokenizer.json");
    let text = std::fs::read_to_string(&file).expect("readable");
    let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    json["post_processor"] = serde_json::json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "<|im_end|>", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            "<|im_start|>": {"id": "<|im_start|>", "ids": [IM_START], "tokens": ["<|im_start|>"]},
            "<|im_end|>": {"id": "<|im_end|>", "ids": [EOS], "tokens": ["<|im_end|>"]},
        },
    });
    std::fs::write(file, json.to_string()).expect("writable");
}

fn open_with(form: Form, spec: &EmbeddingSpec) -> (Arc<EmbeddingModel>, Arc<Log>) {
    let folder = tempfile::tempdir().expect("a folder");
    write_files(folder.path());
    let (model, log) = closure_model(signature(form), move |run| compute(form, run));
    let model = EmbeddingModel::open(folder.path(), spec, model).expect("opens");
    (Arc::new(model), log)
}

fn open(form: Form) -> (Arc<EmbeddingModel>, Arc<Log>) {
    open_with(form, &manifest(form))
}

fn request(texts: &[&str]) -> EmbeddingRequest {
    EmbeddingRequest::new(texts.iter().map(|text| (*text).to_owned()).collect())
}

fn start(
    model: &Arc<EmbeddingModel>,
    request: &EmbeddingRequest,
) -> Result<EmbeddingJob, PipelineError> {
    EmbeddingJob::start(model, &mut SessionPool::new(), request)
}

/// Runs a job to its end; progress must grow.
fn finish(job: &mut EmbeddingJob) -> Result<Embeddings, PipelineError> {
    let mut before = 0;
    loop {
        match job.step()? {
            EmbeddingStep::Computed { done, total } => {
                assert!(before < done && done < total);
                before = done;
            }
            EmbeddingStep::Finished(embeddings) => return Ok(embeddings),
        }
    }
}

fn embed(model: &Arc<EmbeddingModel>, request: &EmbeddingRequest) -> (Embeddings, EmbeddingStats) {
    let mut job = start(model, request).expect("starts");
    let embeddings = finish(&mut job).expect("runs");
    (embeddings, job.stats())
}

fn vectors(embeddings: &Embeddings) -> Vec<Vec<f32>> {
    let width = embeddings.vectors.shape()[1];
    let values = embeddings.vectors.read::<f32>().expect("f32");
    values.chunks(width).map(<[f32]>::to_vec).collect()
}

/// What is meant, text by text.
fn reference(pooling: Pooling, text: &str) -> Vec<f32> {
    let ids = text.bytes().map(i64::from);
    let ids = std::iter::once(IM_START.into()).chain(ids);
    let ids: Vec<i64> = ids.chain([EOS.into()]).collect();
    let vector = match pooling {
        Pooling::Last | Pooling::Graph => of_token(&ids),
        Pooling::Cls => of_token(&ids[..1]),
        Pooling::Mean => {
            let all: Vec<_> = (1..=ids.len()).map(|end| of_token(&ids[..end])).collect();
            let mean = |at: usize| all.iter().map(|it| it[at]).sum::<f32>() / all.len() as f32;
            std::array::from_fn(mean)
        }
    };
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    vector.iter().map(|value| value / length).collect()
}

fn assert_near(have: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(have.len(), want.len());
    let error = have.iter().zip(want).map(|(a, b)| (a - b).abs());
    let error = error.fold(0.0, f32::max);
    assert!(error <= tolerance, "{have:?} is not {want:?}");
}

/// Of many lengths, out of order, some of them equal.
fn many() -> Vec<String> {
    let lengths = [1, 30, 2, 17, 17, 5, 38, 1, 9, 33];
    let letter = |at: usize| char::from(b'B' + (at % 23) as u8);
    let text = |(nth, length): (usize, &usize)| (0..*length).map(move |at| letter(at * nth + nth));
    let texts = lengths.iter().enumerate().map(text);
    texts.map(Iterator::collect).collect()
}

#[test]
fn vectors_are_those_of_each_text_alone_in_every_form_of_graph() {
    for pooling in [Pooling::Mean, Pooling::Last, Pooling::Cls, Pooling::Graph] {
        let sizes = [(-1, -1), (1, -1), (4, -1), (-1, 64), (4, 40)];
        for (size, half) in sizes.iter().flat_map(|&size| [(size, false), (size, true)]) {
            let form = Form {
                pooling,
                size,
                half,
                decoder: false,
            };
            let (model, log) = open(form);
            let texts = many();
            let (have, stats) = embed(&model, &EmbeddingRequest::new(texts.clone()));
            assert_eq!(have.vectors.shape(), [texts.len(), WIDTH]);
            for (text, vector) in texts.iter().zip(vectors(&have)) {
                let tolerance = if half { 2e-2 } else { 1e-6 };
                assert_near(&vector, &reference(pooling, text), tolerance);
            }
            let tokens: Vec<u32> = texts.iter().map(|text| text.len() as u32 + 2).collect();
            assert_eq!(have.tokens, tokens);
            assert!(have.truncated.is_empty());
            assert_eq!(stats.steps as usize, log.runs());
            assert_eq!(stats.texts as usize, texts.len());
            assert_eq!(
                stats.tokens,
                tokens.iter().map(|&n| u64::from(n)).sum::<u64>()
            );
            let alone = size.0 == 1;
            assert_eq!(log.runs() == texts.len(), alone, "{size:?}: {}", log.runs());
        }
    }
}

#[test]
fn a_decoder_takes_one_text_at_a_time() {
    let form = Form {
        pooling: Pooling::Last,
        decoder: true,
        ..OPEN
    };
    let (model, log) = open(form);
    let texts = many();
    let (have, _) = embed(&model, &EmbeddingRequest::new(texts.clone()));
    for (text, vector) in texts.iter().zip(vectors(&have)) {
        assert_near(&vector, &reference(Pooling::Last, text), 1e-6);
    }
    assert_eq!(log.runs(), texts.len());
}

#[test]
fn fewer_dimensions_are_the_first_ones_normed_again() {
    let (model, _) = open(OPEN);
    let mut asked = request(&["ocean"]);
    let whole = vectors(&embed(&model, &asked).0).remove(0);
    asked.dimensions = Some(2);
    let cut = vectors(&embed(&model, &asked).0).remove(0);
    let length = (whole[0].powi(2) + whole[1].powi(2)).sqrt();
    assert_near(&cut, &[whole[0] / length, whole[1] / length], 1e-6);

    let plain = EmbeddingSpec {
        normalise: false,
        ..manifest(OPEN)
    };
    let (model, _) = open_with(OPEN, &plain);
    asked.dimensions = None;
    let whole = vectors(&embed(&model, &asked).0).remove(0);
    asked.dimensions = Some(2);
    assert_eq!(vectors(&embed(&model, &asked).0), [&whole[..2]]);
}

#[test]
fn a_prefix_is_that_of_what_the_texts_are() {
    let (model, _) = open(OPEN);
    let mut asked = request(&["ocean"]);
    for (kind, text) in [
        (EmbeddingKind::Plain, "ocean"),
        (EmbeddingKind::Query, "find: ocean"),
        (EmbeddingKind::Document, "is: ocean"),
    ] {
        asked.kind = kind;
        let (have, _) = embed(&model, &asked);
        assert_near(&vectors(&have)[0], &reference(Pooling::Mean, text), 1e-6);
        assert_eq!(have.tokens, [text.len() as u32 + 2]);
    }
}

#[test]
fn a_text_over_the_context_is_refused_or_cut_before_its_last_token() {
    let (model, log) = open(Form {
        pooling: Pooling::Last,
        ..OPEN
    });
    let fits = "f".repeat(CONTEXT - 2);
    let long = format!("{fits}x");
    let mut asked = request(&["short", &fits, &long, "short"]);
    match start(&model, &asked).err() {
        Some(PipelineError::TextTooLong {
            index: 2,
            tokens,
            context_tokens,
        }) => assert_eq!((tokens, context_tokens), (41, 40)),
        other => panic!("{other:?}"),
    }
    assert_eq!(log.runs(), 0);
    asked.truncate = true;
    let (have, _) = embed(&model, &asked);
    assert_eq!(have.truncated, [2]);
    assert_eq!(have.tokens, [7, 40, 40, 7]);
    let vectors = vectors(&have);
    assert_near(&vectors[2], &reference(Pooling::Last, &fits), 1e-6);
    assert_eq!(vectors[1], vectors[2]);
    assert_eq!(vectors[0], vectors[3]);
}

#[test]
fn what_cannot_be_carried_out_is_refused_before_anything_is_computed() {
    let (model, log) = open(OPEN);
    let changes: Changes<EmbeddingRequest> = vec![
        ("texts", |asked| asked.texts.clear()),
        ("texts[1]", |asked| asked.texts[1].clear()),
        ("dimensions", |asked| asked.dimensions = Some(0)),
        ("dimensions", |asked| asked.dimensions = Some(WIDTH + 1)),
    ];
    for (name, change) in changes {
        let mut asked = request(&["one", "two"]);
        change(&mut asked);
        match start(&model, &asked).err() {
            Some(PipelineError::Invalid { field, .. }) => assert_eq!(field, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    assert_eq!((log.runs(), log.sessions()), (0, 0));
}

#[test]
fn graphs_that_do_not_fit_are_refused_by_name() {
    fn ids(signature: &mut Signature) {
        signature.inputs.remove(0);
    }
    let changes: Changes<Signature> = vec![
        ("input_ids", ids),
        ("pixels", |it| it.inputs[1].name = "pixels".into()),
        ("input_ids", |it| it.inputs[0].dtype = DType::F32),
        ("attention_mask", |it| it.inputs[1].shape = vec![None]),
        ("last_hidden_state", |it| it.outputs.truncate(1)),
        ("last_hidden_state", |it| it.outputs[1].shape[2] = Some(9)),
        ("last_hidden_state", |it| it.outputs[1].dtype = DType::I8),
        ("input_ids", |it| it.inputs[0].shape[1] = Some(CONTEXT - 1)),
        ("attention_mask", |it| {
            it.inputs.remove(1);
            it.inputs[0].shape[0] = Some(2);
        }),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    write_files(folder.path());
    for (name, change) in changes {
        let mut changed = signature(OPEN);
        change(&mut changed);
        let (model, _) = closure_model(changed, |_| Err(refuse("never run")));
        match EmbeddingModel::open(folder.path(), &manifest(OPEN), model).err() {
            Some(PipelineError::Graph { tensor, .. }) => assert_eq!(tensor, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    // A tokenizer that leaves no room for a text.
    let (model, _) = closure_model(signature(OPEN), |_| Err(refuse("never run")));
    let tight = EmbeddingSpec {
        context_tokens: 2,
        ..manifest(OPEN)
    };
    let refused = EmbeddingModel::open(folder.path(), &tight, model).err();
    assert!(
        matches!(refused, Some(PipelineError::MalformedFile { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_cancel_ends_its_job_within_a_run_and_no_other() {
    let (model, log) = open(OPEN);
    let mut pool = SessionPool::new();
    let asked = EmbeddingRequest::new(many());
    let mut job = EmbeddingJob::start(&model, &mut pool, &asked).expect("starts");
    let canceller = job.canceller();
    log.on_run(move |run| {
        if run == 2 {
            canceller.cancel();
        }
    });
    assert!(matches!(job.step(), Ok(EmbeddingStep::Computed { .. })));
    assert!(matches!(job.step(), Err(PipelineError::Cancelled)));
    let late = job.canceller();
    job.finish(&mut pool);
    let mut job = EmbeddingJob::start(&model, &mut pool, &asked).expect("starts");
    late.cancel();
    let have = finish(&mut job).expect("it is not the one that was cancelled");
    assert_eq!(vectors(&have), vectors(&embed(&model, &asked).0));
    job.finish(&mut pool);
    // One session for the first two, one for the third, which had a pool of its own.
    assert_eq!(log.sessions(), 2);
}

#[test]
fn what_is_no_vector_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    write_files(folder.path());
    for (values, width) in [(vec![f32::NAN; 6], WIDTH), (vec![1.0; 8], WIDTH + 1)] {
        let mut open = signature(OPEN);
        open.outputs[1].shape[2] = None;
        let (model, _) = closure_model(open, move |run| {
            let columns = run.inputs[0].shape()[1];
            let values: Vec<f32> = values
                .iter()
                .cycle()
                .take(columns * width)
                .copied()
                .collect();
            let output = Tensor::from_slice(&[1, columns, width], &values)?;
            Ok(vec![None, Some(output)])
        });
        let model = EmbeddingModel::open(folder.path(), &manifest(OPEN), model).expect("opens");
        let mut job = start(&Arc::new(model), &request(&["t"])).expect("starts");
        match job.step() {
            Err(PipelineError::Vector { .. }) => assert_eq!(width, WIDTH),
            Err(PipelineError::Graph { .. }) => assert_eq!(width, WIDTH + 1),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_check_input_is_a_text_and_the_same_each_time() {
    for decoder in [false, true] {
        let form = Form {
            pooling: Pooling::Last,
            decoder,
            ..OPEN
        };
        let mut manifest_of = Manifest::inferred(Path::new("m.onnx")).expect("onnx is known");
        manifest_of.task = Task::Embedding;
        manifest_of.embedding = Some(manifest(form));
        assert_eq!(manifest_of.variants[0].backend, BackendKind::OnnxRuntime);
        let samples = || {
            let (model, log) = closure_model(signature(form), move |run| {
                assert_eq!(run.inputs[0].shape(), [1, 32]);
                compute(form, run)
            });
            let mut check = Check::prepare(&manifest_of, &model).expect("prepared");
            check.run().expect("runs");
            check.run().expect("runs");
            assert_eq!(log.runs(), 2);
            check.samples().expect("samples")
        };
        assert_eq!(samples().difference(&samples()).error, 0.0);
    }
}
