//! Labellers of our own over frames, beside what onnxruntime and a plain decoder in Python make of them
//! (`tests/models/labels/train.py`).

use crate::backend;
use mote_api::{Backend, LoadRequest, Manifest, Threads};
use mote_pipeline::{LabelStep, Labelled, Labeller, Rgb, read_labels};
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};

/// Difference allowed between scores.
const SCORE_ERROR_MAX: f32 = 1e-3;
/// Difference allowed between edges of boxes, in pixels.
const EDGE_ERROR_MAX: f32 = 0.05;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/models/labels")
        .join(name)
}

fn label(name: &str, frames: &[Rgb]) -> Vec<Labelled> {
    let folder = folder(name);
    let manifest = Manifest::read(&folder).expect("a good manifest");
    let request = LoadRequest {
        file: folder.join(&manifest.variants[0].file),
        threads: Threads::SINGLE,
        ..LoadRequest::default()
    };
    let model = backend().load(&request).expect("the model loads");
    let labels = manifest.labels.as_ref().expect("a labels file");
    let names = read_labels(&folder.join(labels)).expect("labels");
    let mut labeller = Labeller::open(&model, &manifest, names).expect("the graph fits");
    let (mut next, mut out) = (frames.iter(), Vec::new());
    loop {
        match labeller.step().expect("runs") {
            LabelStep::NeedsFrame => match next.next() {
                Some(frame) => labeller.push(frame.clone()).expect("fits"),
                None => labeller.end(),
            },
            LabelStep::Labelled(labelled) => out.push(labelled),
            LabelStep::Ended => return out,
        }
    }
}

/// A frame of bytes `[height, width, 3]`.
fn frame(shape: &[usize], rgb8: &[u8]) -> Rgb {
    Rgb {
        width: shape[1],
        height: shape[0],
        rgb8: rgb8.to_vec(),
    }
}

#[test]
fn a_detector_finds_what_the_plain_decoder_finds() {
    let bytes = std::fs::read(folder("shapes/frames.safetensors")).expect("it is in git");
    let file = SafeTensors::deserialize(&bytes).expect("it parses");
    let json = std::fs::read_to_string(folder("shapes/boxes.json")).expect("it is in git");
    let golden: Vec<Vec<[f32; 6]>> = serde_json::from_str(&json).expect("rows of six numbers");
    let frames = (0..golden.len()).map(|at| {
        let tensor = file.tensor(&format!("frame{at}")).expect("it is there");
        frame(tensor.shape(), tensor.data())
    });
    let out = label("shapes", &frames.collect::<Vec<_>>());
    assert_eq!(out.len(), golden.len());
    let mut found = 0;
    for (labelled, rows) in out.iter().zip(&golden) {
        assert_eq!(
            labelled.boxes.len(),
            rows.len(),
            "{labelled:?} for {rows:?}"
        );
        for (it, row) in labelled.boxes.iter().zip(rows) {
            let name = ["circle", "square", "triangle"][row[0] as usize];
            assert_eq!((it.class as f32, it.label.as_str()), (row[0], name));
            assert!(
                (it.score - row[1]).abs() <= SCORE_ERROR_MAX,
                "{it:?} for {row:?}"
            );
            for (have, want) in [it.x0, it.y0, it.x1, it.y1].iter().zip(&row[2..]) {
                assert!((have - want).abs() <= EDGE_ERROR_MAX, "{it:?} for {row:?}");
            }
            found += 1;
        }
    }
    assert!(
        found >= golden.len(),
        "a golden without boxes proves nothing"
    );
}

#[test]
fn a_classifier_with_a_state_follows_what_moves() {
    let bytes = std::fs::read(folder("motion/scores.safetensors")).expect("it is in git");
    let file = SafeTensors::deserialize(&bytes).expect("it parses");
    let frames = file.tensor("frames").expect("it is there");
    let shape = &frames.shape()[1..];
    let frames = frames.data().chunks_exact(shape.iter().product());
    let out = label(
        "motion",
        &frames.map(|rgb8| frame(shape, rgb8)).collect::<Vec<_>>(),
    );
    let scores = file.tensor("scores").expect("it is there");
    let scores: Vec<f32> = scores
        .data()
        .chunks_exact(4)
        .map(|word| f32::from_le_bytes(word.try_into().expect("four bytes")))
        .collect();
    assert_eq!(out.len() * 5, scores.len());
    for (labelled, scores) in out.iter().zip(scores.chunks_exact(5)) {
        assert_eq!(labelled.labels.len(), 5);
        for label in &labelled.labels {
            let want = scores[label.class as usize];
            assert!(
                (label.score - want).abs() <= SCORE_ERROR_MAX,
                "{label:?} for {want}"
            );
        }
        assert!(labelled.labels.is_sorted_by(|a, b| a.score >= b.score));
    }
}
