//! What pipelines leave on the device: state of streams, frames of clips, caches of language models.

use super::{APART, BYTES, CPU, Device, filled, load, place, sum, value_of};
use crate::onnx::{Attribute, BFLOAT16, Dim::Is, Dim::Named, FLOAT, FLOAT16, Graph, INT64};
use crate::{ModelFile, backend};
use mote_api::{Backend, ClipSpec, Manifest, StreamSpec};
use mote_pipeline::{Check, Interpolator, NamedTensor, RgbFrame, StreamSession};
use std::path::Path;

#[test]
fn a_stream_leaves_its_state_on_the_device() {
    let device = Device::plug_in();
    let spec = StreamSpec {
        state: vec![mote_api::StateTensor {
            input: "past".into(),
            output: "next".into(),
            shape: vec![2, 3],
        }],
        constant: Vec::new(),
    };
    let model = load(&sum(), APART);
    let mut stream = StreamSession::open(&model, Some(&spec)).expect("opens");
    assert_eq!(
        stream.state_places().expect("known"),
        [place(APART, 2 * BYTES)]
    );
    let x = NamedTensor {
        name: "x".into(),
        tensor: filled(1.),
    };
    for _ in 0..2 {
        for round in 1..=10u8 {
            let push = || {
                stream
                    .push(std::slice::from_ref(&x), &[])
                    .expect("computes")
            };
            let (result, crossed) = device.crossed(push);
            assert_eq!(value_of(&result.outputs[0].tensor), 2. * f32::from(round));
            let bytes = (crossed.to_device_bytes, crossed.to_host_bytes);
            assert_eq!(bytes, (BYTES, BYTES));
            // The first found its state filled with zeros.
            let filled = if round == 1 { BYTES } else { 0 };
            assert_eq!(result.report.bytes_copied, 2 * BYTES + filled);
        }
        stream.reset().expect("resets");
    }
}

/// `middle` = `first` + (`second` − `first`) · `time`, for pictures of any size.
fn blend() -> Graph {
    let frame = [Is(1), Is(3), Named("h"), Named("w")];
    Graph::new()
        .input("first", FLOAT, &frame)
        .input("second", FLOAT, &frame)
        .input("time", FLOAT, &[Is(1), Is(1), Is(1), Is(1)])
        .output("middle", FLOAT, &frame)
        .node("Sub", &["second", "first"], &["way"])
        .node("Mul", &["way", "time"], &["part"])
        .node("Add", &["first", "part"], &["middle"])
}

fn frame([width, height]: [usize; 2], rgb8: &[u8]) -> RgbFrame<'_> {
    RgbFrame {
        width,
        height,
        rgb8,
    }
}

#[test]
fn a_clip_brings_each_frame_to_the_device_once() {
    let device = Device::plug_in();
    let spec = ClipSpec {
        first: "first".into(),
        second: "second".into(),
        timestep: "time".into(),
        output: "middle".into(),
        pad_multiple: 2,
    };
    let model = load(&blend(), APART);
    let mut between = Interpolator::open(&model, &spec).expect("fits");
    // Two sizes, the second after the first.
    for (width, height) in [(2, 2), (4, 6)] {
        let picture = |value: u8| vec![value; width * height * 3];
        let bytes = (width * height * 3 * 4) as u64;
        let used = device.counts().used_bytes;
        between
            .load(frame([width, height], &picture(0)))
            .expect("fits");
        for round in 1..=4u8 {
            let (earlier, later) = ((round - 1) * 40, round * 40);
            let (told, crossed) = device.crossed(|| {
                let picture = picture(later);
                let frame = frame([width, height], &picture);
                between.advance(frame, 4).expect("fits");
                let next = || between.next_between().expect("computes");
                std::iter::from_fn(next)
                    .map(|rgb| rgb.rgb8)
                    .collect::<Vec<_>>()
            });
            let step = (later - earlier) / 4;
            let want = [1, 2, 3].map(|nth| picture(earlier + nth * step));
            assert_eq!(told, want, "{width}x{height} round {round}");
            // The later frame and three times; three frames between.
            assert_eq!(crossed.to_device_bytes, bytes + 3 * 4);
            assert_eq!(crossed.to_host_bytes, 3 * bytes);
        }
        assert!(device.counts().used_bytes <= used + 2 * (bytes + 4096));
    }
}

const CONTEXT: u64 = 256;
const VOCAB: u64 = 5;

/// A decoder in 16-bit floats; its logits depend on the tokens of a run.
fn half_decoder(element: u64) -> Graph {
    let cache = [Is(1), Is(1), Is(CONTEXT), Is(1)];
    let to = |element: u64| [("to", Attribute::Int(element as i64))];
    let mut graph = Graph::new()
        .input("input_ids", INT64, &[Is(1), Named("s")])
        .output("logits", element, &[Is(1), Is(1), Is(VOCAB)])
        .node_with("Cast", &["input_ids"], &["ids"], &to(FLOAT))
        .node("ReduceSum", &["ids", "axis"], &["sum"])
        .node("Mul", &["sum", "weights"], &["wide"])
        .node_with("Cast", &["wide"], &["narrow"], &to(element))
        .node("Identity", &["narrow"], &["logits"])
        .integers("axis", &[1])
        .constant("weights", &[1, 1, VOCAB], &[0.25, -0.5, 0.75, 1.5, -2.]);
    for part in ["key", "value"] {
        let (past, present) = (
            format!("past_key_values.0.{part}"),
            format!("present.0.{part}"),
        );
        graph = graph
            .input(&past, element, &cache)
            .output(&present, element, &cache)
            .node("Identity", &[&past], &[&present]);
    }
    graph
}

/// A decoder whose logits depend on all tokens so far, through both caches.
fn decoder() -> Graph {
    let cache = [Is(1), Is(1), Is(CONTEXT), Is(1)];
    let (past, present) = (
        ["past_key_values.0.key", "past_key_values.0.value"],
        ["present.0.key", "present.0.value"],
    );
    let weights: Vec<f32> = (0..CONTEXT * VOCAB)
        .map(|at| (at % 7) as f32 / 64. - 0.04)
        .collect();
    let graph = Graph::new()
        .input("input_ids", INT64, &[Is(1), Named("s")])
        .input(past[0], FLOAT, &cache)
        .input(past[1], FLOAT, &cache)
        .output("logits", FLOAT, &[Is(1), Is(1), Is(VOCAB)])
        .output(present[0], FLOAT, &cache)
        .output(present[1], FLOAT, &cache)
        .node_with(
            "Cast",
            &["input_ids"],
            &["ids"],
            &[("to", Attribute::Int(FLOAT as i64))],
        )
        .node_with(
            "ReduceSum",
            &["ids"],
            &["sum"],
            &[("keepdims", Attribute::Int(0))],
        )
        .node("Mul", &["sum", "eighth"], &["added"])
        .node("Add", &[past[0], "added"], &[present[0]])
        .node("Sub", &[past[1], "sum"], &[present[1]])
        .node("Mul", &[present[0], present[1]], &["both"])
        .node("Reshape", &["both", "row"], &["flat"])
        .node("MatMul", &["flat", "weights"], &["logits"]);
    graph
        .integers("row", &[1, 1, CONTEXT as i64])
        .constant("eighth", &[], &[0.125])
        .constant("weights", &[CONTEXT, VOCAB], &weights)
}

fn manifest() -> Manifest {
    let text = format!(
        "format = 1\nname = \"m\"\ntask = \"text-generation\"\n[text]\ntokenizer = \"t.json\"\n\
         context_tokens = {CONTEXT}\nvocab = {VOCAB}\nlayers = 1\nkv_heads = 1\nhead_dim = 1\n\
         eos_token_ids = [1]\n[[variant]]\nname = \"v\"\nbackend = \"onnxruntime\"\n\
         file = \"m.onnx\"\nprecision = \"f32\"\n"
    );
    Manifest::parse(&text, Path::new("mote.toml")).expect("a good manifest")
}

#[test]
fn a_language_model_leaves_its_cache_on_the_device() {
    let device = Device::plug_in();
    for (graph, element_bytes) in [
        (decoder(), 4),
        (half_decoder(FLOAT16), 2),
        (half_decoder(BFLOAT16), 2),
    ] {
        let file = ModelFile::new(&graph.encode());
        let cache_bytes = CONTEXT * element_bytes;
        let mut samples = Vec::new();
        for provider in [CPU, APART] {
            let mut request = file.request();
            request.provider = provider.into();
            let model = backend().load(&request).expect("a good model");
            let (check, filled) = device.crossed(|| Check::prepare(&manifest(), &model));
            let mut check = check.expect("fits");
            check.run().expect("computes");
            let (_, crossed) = device.crossed(|| check.run().expect("computes"));
            if provider == APART {
                assert_eq!(filled.to_device_bytes, 2 * cache_bytes, "zeros, once");
                // A step brings tokens or what the CPU made of them, and takes logits or what the
                // CPU needs for them.
                let steps = 1 + 8;
                assert!(crossed.to_host_bytes >= steps * VOCAB * element_bytes);
                assert!(crossed.to_host_bytes <= steps * VOCAB * 8, "{crossed:?}");
                assert!(crossed.to_device_bytes < cache_bytes, "{crossed:?}");
            }
            samples.push(check.samples().expect("has run"));
        }
        let difference = samples[0].difference(&samples[1]);
        assert!(difference.error < 1e-5, "{difference:?}");
    }
}
