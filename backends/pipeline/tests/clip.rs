//! Frame interpolation against a model that blends linearly and checks what it is given.

mod support;

use mote_api::{ClipSpec, DType, Model, Signature, Tensor};
use mote_pipeline::{FrameWindow, Interpolator, PipelineError, Rgb, WindowStep};
use proptest::prelude::*;
use std::sync::Arc;
use support::{Changes, Log, closure_model, mix, refuse, spec};

const MULTIPLE: usize = 8;

fn clip_spec() -> ClipSpec {
    ClipSpec {
        first: "img0".into(),
        second: "img1".into(),
        timestep: "t".into(),
        output: "out".into(),
        pad_multiple: MULTIPLE,
    }
}

fn signature() -> Signature {
    Signature {
        inputs: vec![
            spec("img0", DType::F32, &[1, 3, -1, -1]),
            spec("img1", DType::F32, &[1, 3, -1, -1]),
            spec("t", DType::F32, &[1, 1, 1, 1]),
        ],
        outputs: vec![spec("out", DType::F32, &[1, 3, -1, -1])],
    }
}

fn blender() -> (Arc<dyn Model>, Arc<Log>) {
    closure_model(signature(), |run| {
        let [a, b] = [0, 1].map(|i| run.inputs[i].read::<f32>().expect("f32"));
        let t = run.inputs[2].read::<f32>()?[0];
        let shape = run.inputs[0].shape();
        if shape[2] % MULTIPLE != 0 || shape[3] % MULTIPLE != 0 {
            return Err(refuse("frames are not padded"));
        }
        let blend: Vec<f32> = a
            .iter()
            .zip(&b)
            .map(|(a, b)| a * (1.0 - t) + b * t)
            .collect();
        Ok(vec![Some(Tensor::from_slice(shape, &blend)?)])
    })
}

fn frame(width: usize, height: usize, seed: u64) -> Rgb {
    let rgb8 = (0..width * height * 3)
        .map(|i| mix(seed, i as u64) as u8)
        .collect();
    Rgb {
        width,
        height,
        rgb8,
    }
}

/// The blend by definition, rounded to the nearest; off by one where rounding may go both ways.
fn assert_blend(have: &Rgb, a: &Rgb, b: &Rgb, t: f64) {
    assert_eq!((have.width, have.height), (a.width, a.height));
    for ((&have, &a), &b) in have.rgb8.iter().zip(&a.rgb8).zip(&b.rgb8) {
        let want = f64::from(a) * (1.0 - t) + f64::from(b) * t;
        assert!((f64::from(have) - want).abs() <= 0.501, "{have} for {want}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn frames_of_any_size_come_back_whole_and_in_order(
        width in 1usize..40,
        height in 1usize..40,
        seed: u64,
        factor in prop::sample::select(vec![2u32, 4]),
        frames in 0usize..5,
    ) {
        let (model, log) = blender();
        let interpolator = Interpolator::open(&model, &clip_spec()).expect("opens");
        let mut window = FrameWindow::new(interpolator, factor).expect("2 or 4");
        let input: Vec<Rgb> = (0..frames as u64).map(|i| frame(width, height, mix(seed, i))).collect();
        let mut next = input.iter();
        let mut output = Vec::new();
        loop {
            match window.step().expect("runs") {
                WindowStep::NeedsFrame => match next.next() {
                    Some(frame) => window.push(frame.clone()).expect("fits"),
                    None => window.end(),
                },
                WindowStep::Original(frame) => output.push((true, frame)),
                WindowStep::Between(frame) => output.push((false, frame)),
                WindowStep::Ended => break,
            }
        }
        let factor = factor as usize;
        let runs = frames.saturating_sub(1) * (factor - 1);
        prop_assert_eq!(output.len(), frames + runs);
        prop_assert_eq!((log.runs(), window.interpolator().steps()), (runs, runs as u64));
        for (at, (is_original, have)) in output.iter().enumerate() {
            let (index, part) = (at / factor, at % factor);
            prop_assert_eq!(*is_original, part == 0);
            if part == 0 {
                prop_assert_eq!(have, &input[index]);
            } else {
                assert_blend(have, &input[index], &input[index + 1], part as f64 / factor as f64);
            }
        }
    }
}

#[test]
fn a_model_that_repeats_its_input_gives_the_very_same_bytes() {
    let (model, _) = closure_model(signature(), |run| Ok(vec![Some(run.inputs[1].clone())]));
    let mut interpolator = Interpolator::open(&model, &clip_spec()).expect("opens");
    for (width, height) in [(1, 1), (8, 8), (9, 7), (33, 2)] {
        let [a, b] = [1, 2].map(|seed| frame(width, height, seed));
        interpolator
            .start_pair(a.as_frame(), b.as_frame(), 2)
            .expect("fits");
        assert_eq!(interpolator.next_between().expect("runs"), Some(b));
        assert_eq!(interpolator.next_between().expect("nothing left"), None);
    }
}

#[test]
fn a_cancelled_frame_can_be_asked_for_again() {
    let (model, _) = blender();
    let mut interpolator = Interpolator::open(&model, &clip_spec()).expect("opens");
    let [a, b] = [3, 4].map(|seed| frame(10, 6, seed));
    interpolator
        .start_pair(a.as_frame(), b.as_frame(), 4)
        .expect("fits");
    let first = interpolator
        .next_between()
        .expect("runs")
        .expect("of three");
    assert_blend(&first, &a, &b, 0.25);
    interpolator.canceller().cancel();
    assert!(matches!(
        interpolator.next_between(),
        Err(PipelineError::Cancelled)
    ));
    let second = interpolator
        .next_between()
        .expect("runs")
        .expect("of three");
    assert_blend(&second, &a, &b, 0.5);
    assert_eq!(interpolator.steps(), 2);
}

#[test]
fn frames_and_factors_that_do_not_fit_are_refused() {
    let (model, _) = blender();
    let mut interpolator = Interpolator::open(&model, &clip_spec()).expect("opens");
    let [a, b] = [(8, 8), (8, 9)].map(|(w, h)| frame(w, h, 5));
    let short = Rgb {
        rgb8: vec![0; 10],
        ..a.clone()
    };
    let empty = frame(0, 8, 5);
    let huge = Rgb {
        width: usize::MAX / 2,
        height: 3,
        rgb8: Vec::new(),
    };
    let field = |result: Result<(), PipelineError>| match result {
        Err(PipelineError::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(interpolator.advance(a.as_frame(), 2)), "frame");
    for bad in [&b, &short, &empty, &huge] {
        let result = interpolator.start_pair(a.as_frame(), bad.as_frame(), 2);
        assert_eq!(field(result), "frame");
    }
    for factor in [0, 1, 3, 8] {
        let result = interpolator.start_pair(a.as_frame(), a.as_frame(), factor);
        assert_eq!(field(result), "factor");
    }
    let mut window = FrameWindow::new(interpolator, 2).expect("2");
    window.push(a.clone()).expect("fits");
    assert_eq!(field(window.push(a.clone())), "frame");
    assert_eq!(window.step().expect("no run"), WindowStep::Original(a));
    assert_eq!(field(window.push(b)), "frame");
}

#[test]
fn models_that_are_not_what_the_manifest_says_are_refused_by_tensor() {
    let cases: Changes<(Signature, ClipSpec)> = vec![
        ("frame0", |c| c.1.first = "frame0".into()),
        ("result", |c| c.1.output = "result".into()),
        ("img1", |s| s.0.inputs[1].dtype = DType::U8),
        ("img0", |s| s.0.inputs[0].shape[1] = Some(4)),
        ("t", |s| s.0.inputs[2].shape = vec![Some(2)]),
        ("scale", |s| {
            s.0.inputs.push(spec("scale", DType::F32, &[1]))
        }),
    ];
    for (want, change) in cases {
        let mut parts = (signature(), clip_spec());
        change(&mut parts);
        let (signature, clip) = parts;
        let (model, _) = closure_model(signature, |_| Ok(Vec::new()));
        match Interpolator::open(&model, &clip).err() {
            Some(PipelineError::Graph { tensor, .. }) => assert_eq!(tensor, want),
            other => panic!("{want}: {other:?}"),
        }
    }
    let mut fixed = signature();
    fixed.inputs[0].shape = vec![Some(1), Some(3), Some(16), Some(16)];
    let (model, _) = closure_model(fixed, |_| Ok(Vec::new()));
    let mut interpolator = Interpolator::open(&model, &clip_spec()).expect("opens");
    let [fits, not] = [(9, 16), (16, 17)].map(|(w, h)| frame(w, h, 1));
    assert!(interpolator.load(fits.as_frame()).is_ok());
    let error = interpolator.load(not.as_frame()).expect_err("24 rows");
    assert!(matches!(error, PipelineError::Invalid { .. }));
}
