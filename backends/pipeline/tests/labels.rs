//! Labelling against models made of closures: what a model is given, what is made of its numbers, states,
//! windows, boxes on their way back to the frame.

mod support;

use mote_api::{DType, Manifest, Model, Signature, Tensor, TensorSpec};
use mote_pipeline::{Label, LabelStep, Labelled, LabelledBox, Labeller, PipelineError, Rgb};
use proptest::prelude::*;
use std::sync::Arc;
use support::{Log, Run, closure_model, mix, spec};

fn manifest(labelling: &str) -> Manifest {
    let text = format!(
        "format = 1\nname = \"m\"\ntask = \"clip-labelling\"\n[[variant]]\nname = \"a\"\n\
         backend = \"onnxruntime\"\nfile = \"m.onnx\"\nprecision = \"f32\"\n{labelling}"
    );
    Manifest::parse(&text, std::path::Path::new("mote.toml")).expect("a good manifest")
}

fn names(all: &[&str]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

fn picture(width: usize, height: usize, colour: impl Fn(usize, usize) -> [u8; 3]) -> Rgb {
    let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    Rgb {
        width,
        height,
        rgb8: pixels.flat_map(|(x, y)| colour(x, y)).collect(),
    }
}

fn all(labeller: &mut Labeller, frames: &[Rgb]) -> Vec<Labelled> {
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

fn model(
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    compute: impl Fn(&Run<'_>) -> Vec<Tensor> + Send + Sync + 'static,
) -> (Arc<dyn Model>, Arc<Log>) {
    closure_model(Signature { inputs, outputs }, move |run| {
        Ok(compute(run).into_iter().map(Some).collect())
    })
}

fn tensor(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_slice(shape, values).expect("fits")
}

const CLASSIFIER: &str = "[labelling]\nkind = \"classification\"\ninput = \"x\"\n\
    fit = \"stretch\"\nWINDOW\n[labelling.classification]\noutput = \"y\"\nactivation = \"softmax\"\n\
    top = 2\n";

#[test]
fn a_classifier_gives_its_best_labels() {
    let inputs = vec![spec("x", DType::F32, &[1, 3, 4, 4])];
    let outputs = vec![spec("y", DType::F32, &[1, 3])];
    // The logits are the three colours.
    let (model, _) = model(inputs, outputs, |run| {
        let x = run.inputs[0].read::<f32>().expect("f32");
        vec![tensor(&[1, 3], &[x[0] * 2.0, x[16] * 2.0, x[32] * 2.0])]
    });
    let manifest = manifest(&CLASSIFIER.replace("WINDOW", ""));
    let mut labeller =
        Labeller::open(&model, &manifest, names(&["red", "green", "blue"])).expect("opens");
    let clip = [
        picture(9, 5, |_, _| [0, 255, 0]),
        picture(2, 7, |_, _| [255, 0, 255]),
    ];
    let out = all(&mut labeller, &clip);
    let e2 = 2f32.exp();
    let first = &out[0].labels;
    assert_eq!(
        (out[0].frame_index, out[0].frame_count, first.len()),
        (0, 1, 2)
    );
    let best = Label {
        class: 1,
        label: "green".into(),
        score: e2 / (e2 + 2.0),
    };
    assert_eq!((first[0].class, &first[0].label), (best.class, &best.label));
    assert!((first[0].score - best.score).abs() < 1e-6);
    // The first of equals comes first.
    assert_eq!(
        (
            out[1].frame_index,
            out[1].labels[0].class,
            out[1].labels[1].class
        ),
        (1, 0, 2)
    );
    assert_eq!((out.len(), labeller.steps()), (2, 2));
    assert!(out.iter().all(|labelled| labelled.boxes.is_empty()));

    let refused = Labeller::open(&model, &manifest, names(&["red", "green"]));
    assert!(matches!(refused.err(), Some(PipelineError::Graph { tensor, .. }) if tensor == "y"));
    let mut nameless = Labeller::open(&model, &manifest, Vec::new()).expect("opens");
    assert_eq!(all(&mut nameless, &clip)[0].labels[0].label, "1");
}

#[test]
fn pictures_are_given_as_the_manifest_says() {
    let hint = "[[input]]\nname = \"x\"\nlayout = \"nhwc\"\nscale = 0.1\nmean = [1.0, 2.0, 3.0]\n\
        std = [1.0, 2.0, 4.0]\n";
    let text = CLASSIFIER.replace("WINDOW", "colours = \"bgr\"\nwidth = 2\nheight = 1");
    let inputs = vec![spec("x", DType::F32, &[1, -1, -1, 3])];
    let outputs = vec![spec("y", DType::F32, &[1, 6])];
    let text = text
        .replace("softmax", "none")
        .replace("top = 2", "top = 6");
    let (model, _) = model(inputs, outputs, |run| {
        assert_eq!(run.inputs[0].shape(), [1, 1, 2, 3]);
        vec![tensor(&[1, 6], &run.inputs[0].read::<f32>().expect("f32"))]
    });
    let mut labeller =
        Labeller::open(&model, &manifest(&format!("{hint}{text}")), Vec::new()).expect("opens");
    let clip = [picture(2, 1, |x, _| [[200, 150, 110], [250, 160, 100]][x])];
    let mut labels = all(&mut labeller, &clip).remove(0).labels;
    labels.sort_by_key(|label| label.class);
    let have: Vec<f32> = labels.iter().map(|label| label.score).collect();
    // Blue, green, red of both pixels: value / 10, less the mean, by the deviation.
    let want = [10.0, 6.5, 4.25, 9.0, 7.0, 5.5];
    assert_eq!(have.len(), want.len());
    for (have, want) in have.iter().zip(want) {
        assert!((have - want).abs() < 1e-4, "{have} for {want}");
    }
}

#[test]
fn windows_of_frames_go_through_a_clip() {
    // What comes out codes the red values of the window's frames.
    for (layout, shape) in [
        ("ntchw", [1, 3, 3, 2, 2]),
        ("ncthw", [1, 3, 3, 2, 2]),
        ("nthwc", [1, 3, 2, 2, 3]),
    ] {
        let inputs = vec![spec("x", DType::F32, &shape)];
        let outputs = vec![spec("y", DType::F32, &[1])];
        let step = if layout == "ncthw" { 4 } else { 12 };
        let (model, _) = model(inputs, outputs, move |run| {
            let x = run.inputs[0].read::<f32>().expect("f32");
            vec![tensor(&[1], &[x[0] * 100.0 + x[step] * 10.0 + x[2 * step]])]
        });
        let hint = format!(
            "[[input]]\nname = \"x\"\nlayout = \"{layout}\"\nscale = 1.0\nmean = [0.0, 0.0, 0.0]\n\
             std = [1.0, 1.0, 1.0]\n"
        );
        for (stride, count, want) in [
            (3, 0, &[][..]),
            (3, 2, &[(0, 2, 122.)]),
            (3, 3, &[(0, 3, 123.)]),
            (3, 7, &[(0, 3, 123.), (3, 3, 456.), (6, 1, 777.)]),
            (2, 5, &[(0, 3, 123.), (2, 3, 345.)]),
            (2, 6, &[(0, 3, 123.), (2, 3, 345.), (4, 2, 566.)]),
            (1, 4, &[(0, 3, 123.), (1, 3, 234.)]),
        ] {
            let text = CLASSIFIER.replace("WINDOW", &format!("window = 3\nstride = {stride}"));
            let text = format!("{hint}{}", text.replace("softmax", "none"));
            let mut labeller = Labeller::open(&model, &manifest(&text), Vec::new()).expect("opens");
            let clip: Vec<Rgb> = (1..=count)
                .map(|n| picture(3, 3, |_, _| [n, 0, 0]))
                .collect();
            let out = all(&mut labeller, &clip);
            let have: Vec<_> = out
                .iter()
                .map(|it| (it.frame_index, it.frame_count, it.labels[0].score.round()))
                .collect();
            assert_eq!(have, want, "{layout}, {count} frames, every {stride}");
        }
    }
}

fn counter() -> (Arc<dyn Model>, Arc<Log>) {
    let inputs = vec![
        spec("x", DType::F32, &[1, 3, 1, 1]),
        spec("h", DType::F32, &[1, 1]),
    ];
    let outputs = vec![
        spec("y", DType::F32, &[1, 1]),
        spec("hn", DType::F32, &[1, 1]),
    ];
    model(inputs, outputs, |run| {
        let sum = run.inputs[0].read::<f32>().expect("f32")[0] * 255.0
            + run.inputs[1].read::<f32>().expect("f32")[0];
        vec![tensor(&[1, 1], &[sum]), tensor(&[1, 1], &[sum])]
    })
}

const COUNTER: &str = "state = [{ input = \"h\", output = \"hn\", shape = [1, 1] }]";

#[test]
fn states_go_from_frame_to_frame_also_around_a_cancel() {
    let (model, log) = counter();
    let text = CLASSIFIER
        .replace("WINDOW", COUNTER)
        .replace("softmax", "none");
    let mut labeller = Labeller::open(&model, &manifest(&text), Vec::new()).expect("opens");
    let canceller = labeller.canceller();
    log.on_run(move |number| {
        if number == 2 {
            canceller.cancel();
        }
    });
    let (mut scores, mut cancelled) = (Vec::new(), 0);
    for value in [1, 2, 4] {
        labeller
            .push(picture(1, 1, |_, _| [value, 0, 0]))
            .expect("fits");
        loop {
            match labeller.step() {
                Ok(LabelStep::Labelled(it)) => scores.push(it.labels[0].score.round()),
                Ok(LabelStep::NeedsFrame) => break,
                Err(PipelineError::Cancelled) => cancelled += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!((scores, cancelled), (vec![1., 3., 7.], 1));
    let late = labeller.push(picture(0, 1, |_, _| [0; 3]));
    assert!(matches!(late, Err(PipelineError::Invalid { .. })));
}

#[test]
fn scores_are_smoothed_and_must_be_numbers() {
    let (model, _) = counter();
    let more = format!("{COUNTER}\nsmoothing = 0.75");
    let text = CLASSIFIER
        .replace("WINDOW", &more)
        .replace("softmax", "none");
    let mut labeller = Labeller::open(&model, &manifest(&text), Vec::new()).expect("opens");
    let clip = [8, 8, 0].map(|value| picture(1, 1, |_, _| [value, 0, 0]));
    let out = all(&mut labeller, &clip);
    let have: Vec<f32> = out.iter().map(|it| it.labels[0].score).collect();
    // Sums 8, 16, 16, each a quarter of the way.
    for (have, want) in have.iter().zip([8.0, 10.0, 11.5]) {
        assert!((have - want).abs() < 1e-4, "{have} for {want}");
    }
    for rubbish in [f32::NAN, f32::INFINITY] {
        let inputs = vec![spec("x", DType::F32, &[1, 3, 1, 1])];
        let outputs = vec![spec("y", DType::F32, &[1, 2])];
        let (model, _) = self::model(inputs, outputs, move |_| {
            vec![tensor(&[1, 2], &[0.0, rubbish])]
        });
        let text = CLASSIFIER.replace("WINDOW", "");
        let mut labeller = Labeller::open(&model, &manifest(&text), Vec::new()).expect("opens");
        labeller.push(picture(1, 1, |_, _| [0; 3])).expect("fits");
        let error = labeller.step().expect_err("no numbers");
        assert!(
            matches!(error, PipelineError::Scores { frame_index: 0, .. }),
            "{error}"
        );
    }
}

const SIDES: (usize, usize) = (48, 32);

/// A detector that finds what is white and says so in a way that the text describes.
fn finder(text: &str) -> Labeller {
    let inputs = vec![spec(
        "x",
        DType::F32,
        &[1, 3, SIDES.1 as i64, SIDES.0 as i64],
    )];
    let outputs = vec![spec("y", DType::F32, &[1, -1, -1])];
    let (format, is_rows) = (text.to_owned(), text.contains("\"rows\""));
    let is_normalised = text.contains("normalised");
    let (model, _) = model(inputs, outputs, move |run| {
        let x = run.inputs[0].read::<f32>().expect("f32");
        let (w, h) = SIDES;
        // Edges to a part of a pixel: a row of grey is a part of a white one.
        let bright = |at: usize| ((x[at] - 0.1) / 0.9).clamp(0.0, 1.0);
        let row = |y: usize| (0..w).map(|x| bright(y * w + x)).fold(0.0, f32::max);
        let column = |x: usize| (0..h).map(|y| bright(y * w + x)).fold(0.0, f32::max);
        let span = |values: Vec<f32>| {
            let first = values.iter().position(|&v| v > 0.0).unwrap_or(0);
            let last = values.iter().rposition(|&v| v > 0.0).unwrap_or(0);
            let end = last as f32 + values[last];
            (first as f32 + 1.0 - values[first], end)
        };
        let (x0, x1) = span((0..w).map(column).collect());
        let (y0, y1) = span((0..h).map(row).collect());
        let numbers = if format.contains("xyxy") {
            [x0, y0, x1, y1]
        } else if format.contains("cxcywh") {
            [(x0 + x1) / 2.0, (y0 + y1) / 2.0, x1 - x0, y1 - y0]
        } else {
            [x0, y0, x1 - x0, y1 - y0]
        };
        let scale = match is_normalised {
            true => [1.0 / w as f32, 1.0 / h as f32],
            false => [1.0, 1.0],
        };
        let sides: Vec<f32> = (0..4).map(|side| numbers[side] * scale[side % 2]).collect();
        // Three candidates of 4 sides and 2 classes: one that is not sure, one that is, and rubbish.
        let candidates = [
            [&sides[..], &[0.1, 0.1]].concat(),
            [&sides[..], &[0.2, 0.9]].concat(),
            vec![f32::NAN, 0.0, f32::INFINITY, 1.0, f32::NAN, 0.95],
        ];
        vec![match is_rows {
            true => tensor(&[1, 3, 6], &candidates.concat()),
            false => {
                let columns = (0..6).flat_map(|n| candidates.iter().map(move |c| c[n]));
                tensor(&[1, 6, 3], &columns.collect::<Vec<_>>())
            }
        }]
    });
    Labeller::open(&model, &manifest(text), names(&["cat", "dog"])).expect("opens")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn boxes_come_back_to_the_frame_from_any_fit_and_format(
        width in 20usize..120,
        height in 20usize..120,
        seed: u64,
        fit in prop::sample::select(vec!["letterbox", "corner", "stretch"]),
        format in prop::sample::select(vec!["xyxy", "xywh", "cxcywh"]),
        layout in prop::sample::select(vec!["rows", "columns"]),
        coordinates in prop::sample::select(vec!["pixels", "normalised"]),
    ) {
        // With letterboxes, what is white must be brighter than the grey beside the frame.
        let text = format!(
            "[[input]]\nname = \"x\"\nlayout = \"nchw\"\nscale = 0.0070922\nmean = [0.8085, 0.8085, 0.8085]\n\
             std = [1.0, 1.0, 1.0]\n[labelling]\nkind = \"detection\"\ninput = \"x\"\nfit = \"{fit}\"\n\
             [labelling.detection]\nboxes = \"y\"\nformat = \"{format}\"\nlayout = \"{layout}\"\n\
             coordinates = \"{coordinates}\"\n"
        );
        let part = |n, side: usize| mix(seed, n) as usize % (side / 2);
        let (x0, y0) = (part(0, width), part(1, height));
        let (x1, y1) = (x0 + 4 + part(2, width - 8), y0 + 4 + part(3, height - 8));
        // The finder sees the edges of nothing that is narrower than this in its input.
        let scale = (SIDES.0 as f64 / width as f64).min(SIDES.1 as f64 / height as f64);
        prop_assume!((x1 - x0).min(y1 - y0) as f64 * scale >= 3.0);
        let inside = |x, y| (x0..x1).contains(&x) && (y0..y1).contains(&y);
        let frame = picture(width, height, |x, y| [if inside(x, y) { 255 } else { 0 }; 3]);
        let out = all(&mut finder(&text), &[frame]).remove(0);
        prop_assert_eq!(out.boxes.len(), 1);
        let found = &out.boxes[0];
        prop_assert_eq!((found.class, found.label.as_str(), found.score), (1, "dog", 0.9));
        // As near as what the model sees allows: a pixel and a half of it.
        let shrunk = (width as f32 / 48.0).max(height as f32 / 32.0).max(1.0) * 1.5;
        for (have, want) in [(found.x0, x0), (found.y0, y0), (found.x1, x1), (found.y1, y1)] {
            prop_assert!((have - want as f32).abs() <= shrunk, "{found:?} for {x0} {y0} {x1} {y1}");
        }
    }
}

/// A detector of one frame that answers with these boxes, in pixels of a frame of 100 x 100.
fn fixed(boxes: &[[f32; 4]], scores: &[Vec<f32>], more: &str) -> Labeller {
    let inputs = vec![spec("x", DType::F32, &[1, 3, 100, 100])];
    let outputs = vec![
        spec("b", DType::F32, &[1, -1, 4]),
        spec("s", DType::F32, &[1, -1, -1]),
    ];
    let (count, classes) = (boxes.len(), scores.first().map_or(1, Vec::len));
    let (boxes, scores) = (boxes.concat(), scores.concat());
    let (model, _) = model(inputs, outputs, move |_| {
        vec![
            tensor(&[1, count, 4], &boxes),
            tensor(&[1, count, classes], &scores),
        ]
    });
    let text = format!(
        "[labelling]\nkind = \"detection\"\ninput = \"x\"\n[labelling.detection]\nboxes = \"b\"\n\
         scores = \"s\"\nlayout = \"rows\"\nformat = \"xyxy\"\n{more}"
    );
    Labeller::open(&model, &manifest(&text), Vec::new()).expect("opens")
}

fn overlap(a: &LabelledBox, b: &LabelledBox) -> f32 {
    let across = (a.x1.min(b.x1) - a.x0.max(b.x0)).max(0.0);
    let down = (a.y1.min(b.y1) - a.y0.max(b.y0)).max(0.0);
    let area = |it: &LabelledBox| (it.x1 - it.x0) * (it.y1 - it.y0);
    across * down / (area(a) + area(b) - across * down)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn no_two_boxes_say_the_same_and_no_better_one_is_missing(
        seed: u64,
        count in 1usize..80,
        across_classes: bool,
    ) {
        let part = |n: usize, k: u64| (mix(mix(seed, n as u64), k) % 1000) as f32 / 1000.0;
        let boxes: Vec<[f32; 4]> = (0..count)
            .map(|n| {
                let (x, y) = (part(n, 0) * 70.0, part(n, 1) * 70.0);
                [x, y, x + 5.0 + part(n, 2) * 25.0, y + 5.0 + part(n, 3) * 25.0]
            })
            .collect();
        let scores: Vec<Vec<f32>> = (0..count).map(|n| vec![part(n, 4), part(n, 5)]).collect();
        let more = format!("across_classes = {across_classes}\nscore_min = 0.5\noverlap_max = 0.3\n");
        let out = all(&mut fixed(&boxes, &scores, &more), &[picture(100, 100, |_, _| [0; 3])]);
        let kept = &out[0].boxes;
        let rivals = |a: &LabelledBox, b: &LabelledBox| across_classes || a.class == b.class;
        for (at, one) in kept.iter().enumerate() {
            for other in &kept[..at] {
                prop_assert!(other.score >= one.score);
                prop_assert!(!rivals(one, other) || overlap(one, other) <= 0.3001);
            }
        }
        // Whatever was left out was not sure enough, or is shown by a better one.
        for (edges, scores) in boxes.iter().zip(&scores) {
            let class = u32::from(scores[1] > scores[0]);
            let score = scores[class as usize];
            let [x0, y0, x1, y1] = *edges;
            let it = LabelledBox { x0, y0, x1, y1, class, label: String::new(), score };
            let is_kept = kept.iter().any(|k| (k.x0 - x0).abs() < 1e-3 && k.score == score);
            let is_beaten =
                kept.iter().any(|k| k.score >= score && rivals(k, &it) && overlap(k, &it) > 0.2999);
            prop_assert!(is_kept || is_beaten || score < 0.5, "{it:?}");
        }
    }
}

#[test]
fn boxes_are_bounded_cut_off_and_smoothed() {
    let many: Vec<[f32; 4]> = (0..50)
        .map(|n| [n as f32 * 2.0, 0.0, n as f32 * 2.0 + 1.0, 9.0])
        .collect();
    let scores: Vec<Vec<f32>> = (0..50).map(|n| vec![0.5 + n as f32 / 200.0]).collect();
    let frame = [picture(100, 100, |_, _| [0; 3])];
    let out = all(&mut fixed(&many, &scores, "boxes_max = 3\n"), &frame);
    let have: Vec<f32> = out[0].boxes.iter().map(|it| it.x0).collect();
    assert_eq!(have, [98.0, 96.0, 94.0]);
    assert_eq!(out[0].boxes[0].label, "0");

    let edges = [
        [-5.0, 90.0, 500.0, 120.0],
        [200.0, 1.0, 300.0, 2.0],
        [9.0, 9.0, 8.0, 8.0],
    ];
    let out = all(&mut fixed(&edges, &vec![vec![0.9]; 3], ""), &frame);
    let [only] = &out[0].boxes[..] else {
        panic!("{out:?}")
    };
    assert_eq!(
        (only.x0, only.y0, only.x1, only.y1),
        (0.0, 90.0, 100.0, 100.0)
    );

    // What lies outside takes no place, and drops nothing that it overlaps.
    let edges = [
        [200.0, 1.0, 300.0, 2.0],
        [100.0, 0.0, 200.0, 50.0],
        [90.0, 0.0, 200.0, 50.0],
    ];
    let scores = [vec![0.9], vec![0.8], vec![0.7]];
    let out = all(&mut fixed(&edges, &scores, "boxes_max = 1\n"), &frame);
    let [only] = &out[0].boxes[..] else {
        panic!("{out:?}")
    };
    assert_eq!((only.x0, only.x1, only.score), (90.0, 100.0, 0.7));

    // A box that moves by 4 pixels is shown half way; one far off is another thing.
    let inputs = vec![spec("x", DType::F32, &[1, 3, 4, 100])];
    let outputs = vec![spec("b", DType::F32, &[1, 6, 1])];
    let (model, _) = model(inputs, outputs, |run| {
        let x = run.inputs[0].read::<f32>().expect("f32")[0] * 255.0;
        vec![tensor(&[1, 6, 1], &[x, 1.0, x + 20.0, 3.0, 0.8, 0.5])]
    });
    let text = "[labelling]\nkind = \"detection\"\ninput = \"x\"\nsmoothing = 0.5\n\
        [labelling.detection]\nboxes = \"b\"\nformat = \"xyxy\"\nobjectness = true\n";
    let mut labeller = Labeller::open(&model, &manifest(text), Vec::new()).expect("opens");
    let clip = [0, 4, 90].map(|x| picture(100, 4, |_, _| [x, 0, 0]));
    let out = all(&mut labeller, &clip);
    for (labelled, want) in out.iter().zip([0.0, 2.0, 90.0]) {
        let [only] = &labelled.boxes[..] else {
            panic!("{out:?}")
        };
        assert!((only.x0 - want).abs() < 1e-3, "{only:?}");
        // What it is, times whether it is anything.
        assert!((only.score - 0.4).abs() < 1e-6, "{only:?}");
    }
}

/// A detector that answers with boxes of these classes, ten at most, side by side in a frame of 100 x 100.
fn of_classes(classes: Tensor, labels: &[&str]) -> Labeller {
    let inputs = vec![spec("x", DType::F32, &[1, 3, 100, 100])];
    let outputs = vec![
        spec("b", DType::F32, &[1, -1, 4]),
        spec("s", DType::F32, &[1, -1]),
        spec("c", classes.dtype(), &[1, -1]),
    ];
    let count = classes.elements().min(10);
    let boxes: Vec<f32> = (0..count)
        .flat_map(|n| [n as f32 * 10.0, 0.0, n as f32 * 10.0 + 9.0, 9.0])
        .collect();
    let (model, _) = model(inputs, outputs, move |_| {
        vec![
            tensor(&[1, count, 4], &boxes),
            tensor(&[1, count], &vec![0.9; count]),
            classes.clone(),
        ]
    });
    let text = "[labelling]\nkind = \"detection\"\ninput = \"x\"\n[labelling.detection]\nboxes = \"b\"\n\
        scores = \"s\"\nclasses = \"c\"\nlayout = \"rows\"\nformat = \"xyxy\"\n";
    Labeller::open(&model, &manifest(text), names(labels)).expect("opens")
}

#[test]
fn what_is_no_class_is_not_shown() {
    let frame = [picture(100, 100, |_, _| [0; 3])];
    let classes = |labels: &[&str], tensor: Tensor| -> Vec<u32> {
        let out = all(&mut of_classes(tensor, labels), &frame);
        out[0].boxes.iter().map(|it| it.class).collect()
    };
    let floats = [
        f32::NAN,
        1.0,
        -1.0,
        f32::INFINITY,
        4_294_967_296.0,
        2.0,
        0.0,
    ];
    let floats = || tensor(&[1, 7], &floats);
    assert_eq!(classes(&[], floats()), [1, 2, 0]);
    assert_eq!(classes(&["cat", "dog"], floats()), [1, 0]);
    let longs = || Tensor::from_slice(&[1, 4], &[-1_i64, 1, 1 << 32, 2]).expect("fits");
    assert_eq!(classes(&[], longs()), [1, 2]);
    assert_eq!(classes(&["cat", "dog"], longs()), [1]);
    let ints = || Tensor::from_slice(&[1, 3], &[i32::MIN, 1, 2]).expect("fits");
    assert_eq!(classes(&[], ints()), [1, 2]);
    assert_eq!(classes(&["cat", "dog"], ints()), [1]);

    let many = Tensor::zeroed(DType::I32, &[1, (1 << 24) + 1]).expect("memory");
    let mut labeller = of_classes(many, &[]);
    labeller.push(frame[0].clone()).expect("fits");
    let error = labeller.step().expect_err("too many");
    assert!(
        matches!(&error, PipelineError::Graph { tensor, .. } if tensor == "c"),
        "{error}"
    );
}

#[test]
fn outputs_that_are_no_candidates_are_refused() {
    for (boxes, scores) in [
        ([1, 7, 4], [1, 6, 2]),
        ([1, 7, 3], [1, 7, 2]),
        ([2, 7, 4], [1, 7, 2]),
        ([1, 7, 4], [1, 7, 3]),
    ] {
        let inputs = vec![spec("x", DType::F32, &[1, 3, 8, 8])];
        let outputs = vec![
            spec("b", DType::F32, &[-1, -1, -1]),
            spec("s", DType::F32, &[-1, -1, -1]),
        ];
        let zeros = |shape: [usize; 3]| tensor(&shape, &vec![0.5; shape.iter().product()]);
        let (model, _) = model(inputs, outputs, move |_| vec![zeros(boxes), zeros(scores)]);
        let text = "[labelling]\nkind = \"detection\"\ninput = \"x\"\n[labelling.detection]\n\
            boxes = \"b\"\nscores = \"s\"\nlayout = \"rows\"\nformat = \"xyxy\"\n";
        let labels = names(&["a", "b"]);
        let mut labeller = Labeller::open(&model, &manifest(text), labels).expect("opens");
        labeller.push(picture(8, 8, |_, _| [0; 3])).expect("fits");
        let error = labeller.step().expect_err("does not fit");
        assert!(matches!(error, PipelineError::Graph { .. }), "{error}");
    }
}

#[test]
fn models_that_are_not_what_the_manifest_says_are_refused_by_tensor() {
    let input = |shape: &[i64]| vec![spec("x", DType::F32, shape)];
    let output = vec![spec("y", DType::F32, &[1, 3])];
    let plain = CLASSIFIER.replace("WINDOW", "");
    let cases: Vec<(&str, Vec<TensorSpec>, Vec<TensorSpec>, String)> = vec![
        ("x", input(&[1, 3, -1, -1]), output.clone(), plain.clone()),
        ("x", input(&[1, 1, 4, 4]), output.clone(), plain.clone()),
        ("x", input(&[1, 3, 4]), output.clone(), plain.clone()),
        ("x", input(&[1, 3, 9999, 4]), output.clone(), plain.clone()),
        (
            "x",
            vec![spec("x", DType::I64, &[1, 3, 4, 4])],
            output.clone(),
            plain.clone(),
        ),
        (
            "y",
            input(&[1, 3, 4, 4]),
            vec![spec("y", DType::I64, &[1, 3])],
            plain.clone(),
        ),
        (
            "y",
            input(&[1, 3, 4, 4]),
            vec![spec("z", DType::F32, &[1, 3])],
            plain.clone(),
        ),
        (
            "x",
            input(&[1, 3, 4, 4]),
            output.clone(),
            CLASSIFIER.replace("WINDOW", "window = 2"),
        ),
        (
            "x",
            input(&[1, 3, 4, 4]),
            output.clone(),
            CLASSIFIER.replace("WINDOW", "width = 5"),
        ),
        (
            "h",
            input(&[1, 3, 4, 4]),
            output.clone(),
            CLASSIFIER.replace("WINDOW", COUNTER),
        ),
        (
            "rate",
            [input(&[1, 3, 4, 4]), vec![spec("rate", DType::F32, &[1])]].concat(),
            output.clone(),
            plain.clone(),
        ),
    ];
    for (want, inputs, outputs, text) in cases {
        let (model, _) = model(inputs, outputs, |_| Vec::new());
        match Labeller::open(&model, &manifest(&text), Vec::new()).err() {
            Some(PipelineError::Graph { tensor, .. }) => assert_eq!(tensor, want),
            other => panic!("{want}: {other:?}"),
        }
    }
}
