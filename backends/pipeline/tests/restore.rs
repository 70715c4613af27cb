//! Restoration against models made of closures: what frames a run is given, what tiles come to, ends of
//! clips, states, cancelling, limits.

mod support;

use mote_api::{
    DType, FrameLayout, FrameState, Model, Padding, RestorationKind, RestorationSpec, Signature,
    Tensor, ValueRange, WindowGives, WindowJoin,
};
use mote_pipeline::{
    FilterStep, FrameFilter, FrameWindow, Interpolator, PipelineError, Planes, PlanesStep,
    RestorationOptions, Restorer, Rgb,
};
use proptest::prelude::*;
use std::sync::Arc;
use support::{Changes, Log, closure_model, mix, spec};

fn recurrent(before: usize, after: usize) -> RestorationSpec {
    RestorationSpec {
        kind: RestorationKind::Recurrent,
        frames: "x".into(),
        output: "y".into(),
        layout: FrameLayout::Channels,
        scale: 1,
        before,
        after,
        window: 0,
        gives: WindowGives::All,
        overlap: 0,
        join: WindowJoin::Discard,
        state: Vec::new(),
        pad_multiple: 1,
        padding: Padding::Edge,
        range: ValueRange::Unit,
        tile_halo: 0,
        tile_feather: 0,
        bytes_per_pixel: Some(100),
    }
}

fn windowed(window: usize, overlap: usize) -> RestorationSpec {
    RestorationSpec {
        kind: RestorationKind::Windowed,
        layout: FrameLayout::Sequence,
        window,
        overlap,
        ..recurrent(0, 0)
    }
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

/// A frame of one colour.
fn flat(value: u8) -> Rgb {
    Rgb {
        width: 4,
        height: 2,
        rgb8: vec![value; 4 * 2 * 3],
    }
}

fn all(restorer: &mut Restorer, frames: &[Rgb]) -> Vec<Planes> {
    let (mut next, mut out) = (frames.iter(), Vec::new());
    loop {
        match restorer.step_planes().expect("runs") {
            PlanesStep::NeedsFrame => match next.next() {
                Some(frame) => restorer.push(frame.clone()).expect("fits"),
                None => restorer.end(),
            },
            PlanesStep::Working { done, total } => assert!(done < total),
            PlanesStep::Frame(planes) => out.push(planes),
            PlanesStep::Ended => return out,
        }
    }
}

/// First values of the frames in bytes.
fn bytes(frames: &[Planes]) -> Vec<f32> {
    frames
        .iter()
        .map(|planes| planes.values[0] * 255.0)
        .collect()
}

fn signature(inputs: &[&str], outputs: &[&str], rank: usize) -> Signature {
    let of = |name: &&str| spec(name, DType::F32, &vec![-1; rank]);
    Signature {
        inputs: inputs.iter().map(of).collect(),
        outputs: outputs.iter().map(of).collect(),
    }
}

/// Planes [c, h, w], each pixel the mean of those around it within `radius`, zero beyond the edges, as in a net
/// of convolutions; then each pixel `scale` x `scale` times.
fn blurred(planes: &[f32], [c, h, w]: [usize; 3], radius: usize, scale: usize) -> Vec<f32> {
    let side = (2 * radius + 1) as f32;
    let mut out = vec![0.0; c * h * w * scale * scale];
    for channel in 0..c {
        for y in 0..h {
            for x in 0..w {
                let mut sum = 0.0;
                for v in y.saturating_sub(radius)..(y + radius + 1).min(h) {
                    for u in x.saturating_sub(radius)..(x + radius + 1).min(w) {
                        sum += planes[(channel * h + v) * w + u];
                    }
                }
                for v in 0..scale {
                    for u in 0..scale {
                        let row = (channel * h + y) * scale + v;
                        out[row * w * scale + x * scale + u] = sum / side / side;
                    }
                }
            }
        }
    }
    out
}

/// Blurs and enlarges the middle one of its frames; a state adds up what went before, pixel by pixel.
fn blurrer(spec: &RestorationSpec, radius: usize) -> (Arc<dyn Model>, Arc<Log>) {
    let (scale, before, multiple) = (spec.scale, spec.before, spec.pad_multiple);
    let signature = match spec.state.is_empty() {
        true => signature(&["x"], &["y"], 4),
        false => signature(&["x", "s"], &["y", "t"], 4),
    };
    closure_model(signature, move |run| {
        let shape = run.inputs[0].shape();
        let (h, w) = (shape[2], shape[3]);
        assert!(
            h % multiple == 0 && w % multiple == 0,
            "{shape:?} is not padded"
        );
        let x = run.inputs[0].read::<f32>()?;
        let mut middle = x[before * 3 * h * w..][..3 * h * w].to_vec();
        if let Some(state) = run.inputs.get(1) {
            for (x, s) in middle.iter_mut().zip(state.read::<f32>()?) {
                *x = *x * 0.5 + s * 0.5;
            }
        }
        let out = blurred(&middle, [3, h, w], radius, scale);
        let out = Tensor::from_slice(&[1, 3, h * scale, w * scale], &out)?;
        let next = Tensor::from_slice(&[1, 3, h, w], &middle)?;
        // Rubbish in the state of a run that is cancelled must not matter.
        if let (true, Some(target)) = (run.cancelled, run.targets.get(1).and_then(Option::as_ref)) {
            target.write(&vec![f32::NAN; 3 * h * w])?;
        }
        Ok([Some(out), Some(next)]
            .into_iter()
            .take(run.targets.len())
            .collect())
    })
}

fn with_state(mut spec: RestorationSpec) -> RestorationSpec {
    spec.state = vec![FrameState {
        input: "s".into(),
        output: "t".into(),
        channels: 3,
        scale: 1,
        divisor: 1,
    }];
    spec
}

fn open(model: &Arc<dyn Model>, spec: &RestorationSpec, side: Option<usize>) -> Restorer {
    let options = RestorationOptions {
        tile_side_max: side,
        memory_bytes_max: None,
    };
    Restorer::open(model, spec, &options).expect("opens")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Net by definition: each frame on its own, padded at once.
    #[test]
    fn tiles_give_what_the_whole_frame_gives(
        width in 1usize..70,
        height in 1usize..40,
        seed: u64,
        radius in 0usize..4,
        more_halo in 0usize..3,
        feather in 0usize..5,
        multiple in prop::sample::select(vec![1usize, 4]),
        scale in 1usize..3,
        has_state: bool,
    ) {
        let plain = RestorationSpec {
            scale,
            pad_multiple: multiple,
            padding: Padding::Reflect,
            tile_halo: radius + more_halo,
            tile_feather: feather,
            ..recurrent(1, 1)
        };
        let spec = if has_state { with_state(plain) } else { plain };
        let (model, log) = blurrer(&spec, radius);
        let clip: Vec<Rgb> = (0..3).map(|i| frame(width, height, mix(seed, i))).collect();
        let whole = all(&mut open(&model, &spec, None), &clip);
        prop_assert_eq!(log.runs(), 3);
        let mut tiled = open(&model, &spec, Some(32));
        let out = all(&mut tiled, &clip);
        let tiling = tiled.tiling().expect("there was a frame");
        prop_assert!(tiling.tile[0] <= 32 && tiling.tile[1] <= 32);
        prop_assert_eq!(tiled.steps(), 3 * tiling.tiles() as u64);
        let sessions = if has_state { tiling.tiles() } else { 1 };
        prop_assert_eq!(log.sessions(), 1 + sessions);
        prop_assert_eq!(out.len(), 3);
        for (have, want) in out.iter().zip(&whole) {
            prop_assert_eq!((have.width, have.height), (width * scale, height * scale));
            prop_assert_eq!((want.width, want.height), (width * scale, height * scale));
            let worst = have.values.iter().zip(&want.values).map(|(a, b)| (a - b).abs());
            let worst = worst.fold(0.0, f32::max);
            prop_assert!(worst <= 1e-6, "{worst}, seed {seed}");
        }
    }
}

/// The largest change of slope along rows, in 255ths, away from the frame's own edges.
fn largest_kink(planes: &Planes, margin: usize) -> f32 {
    let mut largest = 0.0f32;
    for row in planes.values.chunks_exact(planes.width).take(planes.height) {
        for at in row[margin..row.len() - margin].windows(3) {
            largest = largest.max((at[0] - 2.0 * at[1] + at[2]).abs() * 255.0);
        }
    }
    largest
}

#[test]
fn a_gradient_shows_no_seams_even_where_the_model_looks_beyond_the_halo() {
    const RADIUS: usize = 6;
    let (width, height) = (160, 4);
    let ramp = |i: usize| (64 + (i / 3 % width) * 3 / 4) as u8;
    let gradient = Rgb {
        width,
        height,
        rgb8: (0..width * height * 3).map(ramp).collect(),
    };
    let kink = |halo: usize, feather: usize| {
        let spec = RestorationSpec {
            tile_halo: halo,
            tile_feather: feather,
            ..recurrent(0, 0)
        };
        let (model, _) = blurrer(&spec, RADIUS);
        let mut restorer = open(&model, &spec, Some(56));
        let out = all(&mut restorer, std::slice::from_ref(&gradient));
        assert!(restorer.tiling().expect("a frame").lefts.len() > 2);
        largest_kink(&out[0], RADIUS + 1)
    };
    // Steps of a byte, blurred over 13 pixels.
    let smooth = kink(RADIUS, 0);
    assert!(smooth < 0.2, "{smooth}");
    let cut = kink(2, 0);
    assert!(cut > 2.0, "the model has to look beyond: {cut}");
    let faded = kink(4, 12);
    assert!(faded < cut / 5.0, "{faded} of {cut}");
}

#[test]
fn each_frame_comes_with_those_around_it_and_ends_are_repeated() {
    let spec = recurrent(2, 1);
    // Frames weigh 1000, 100, 10 and 1 in the first pixel.
    let (model, _) = closure_model(signature(&["x"], &["y"], 4), |run| {
        let x = run.inputs[0].read::<f32>()?;
        let frames: Vec<f32> = x
            .chunks(x.len() / 4)
            .map(|frame| frame[0] * 255.0)
            .collect();
        let code = frames
            .iter()
            .fold(0.0, |code, frame| code * 10.0 + frame.round());
        let out = vec![code / 255.0; x.len() / 4];
        Ok(vec![Some(Tensor::from_slice(&[1, 3, 2, 4], &out)?)])
    });
    for (count, want) in [
        (0, &[][..]),
        (1, &[1111.]),
        (2, &[1112., 1122.]),
        (4, &[1112., 1123., 1234., 2344.]),
    ] {
        let clip: Vec<Rgb> = (1..=count).map(flat).collect();
        let mut restorer = open(&model, &spec, None);
        let out = bytes(&all(&mut restorer, &clip));
        let rounded: Vec<f32> = out.iter().map(|value| value.round()).collect();
        assert_eq!(rounded, want);
        assert_eq!(restorer.frames_out(u64::from(count)), want.len() as u64);
    }
}

/// Gives each frame of its window back, plus its place in it times 20.
fn placer() -> Arc<dyn Model> {
    let (model, _) = closure_model(signature(&["x"], &["y"], 5), |run| {
        let shape = run.inputs[0].shape();
        let mut x = run.inputs[0].read::<f32>()?;
        let of_frame = x.len() / shape[1];
        for (place, frame) in x.chunks_mut(of_frame).enumerate() {
            frame
                .iter_mut()
                .for_each(|value| *value += place as f32 * 20.0 / 255.0);
        }
        Ok(vec![Some(Tensor::from_slice(shape, &x)?)])
    });
    model
}

#[test]
fn windows_overlap_and_the_last_ends_with_the_clip() {
    let model = placer();
    // (frames, places in their windows) for a window of 4 that has 2 in common with the next.
    for (count, places) in [
        (0, &[][..]),
        (1, &[0.]),
        (3, &[0., 1., 2.]),
        (4, &[0., 1., 2., 3.]),
        // 0..4, 1..5: the last reaches back, and gives what the first did not.
        (5, &[0., 1., 2., 2., 3.]),
        (6, &[0., 1., 2., 1., 2., 3.]),
        (7, &[0., 1., 2., 1., 2., 2., 3.]),
        (8, &[0., 1., 2., 1., 2., 1., 2., 3.]),
    ] {
        let clip: Vec<Rgb> = (0..count).map(flat).collect();
        let out = bytes(&all(&mut open(&model, &windowed(4, 2), None), &clip));
        let have: Vec<f32> = out
            .iter()
            .enumerate()
            .map(|(at, value)| ((value - at as f32) / 20.0).round())
            .collect();
        assert_eq!(have, places, "{count} frames");
    }
}

#[test]
fn windows_that_blend_fade_into_each_other() {
    let model = placer();
    let spec = RestorationSpec {
        join: WindowJoin::Blend,
        ..windowed(4, 2)
    };
    for (count, places) in [
        (4, &[0., 1., 2., 3.][..]),
        // Windows 0..4 and 2..6: places 2 and 0 by thirds, then 3 and 1.
        (6, &[0., 1., 4. / 3., 5. / 3., 2., 3.]),
        // Windows 0..4 and 1..5: frames 2 and 3 are in both, at 2 and 1, and 3 and 2.
        (5, &[0., 1., 5. / 3., 7. / 3., 3.]),
        (8, &[0., 1., 4. / 3., 5. / 3., 4. / 3., 5. / 3., 2., 3.]),
    ] {
        let clip: Vec<Rgb> = (0..count).map(flat).collect();
        let out = bytes(&all(&mut open(&model, &spec, None), &clip));
        for (at, (value, place)) in out.iter().zip(places).enumerate() {
            let have = (value - at as f32) / 20.0;
            assert!(
                (have - place).abs() < 1e-4,
                "{count} frames, {at}: {have} for {place}"
            );
        }
        assert_eq!(out.len(), places.len());
    }
}

#[test]
fn a_window_of_which_the_middle_is_given_slides() {
    let spec = RestorationSpec {
        gives: WindowGives::Middle,
        ..windowed(3, 0)
    };
    let inputs = vec![self::spec("x", DType::F32, &[1, 3, 3, -1, -1])];
    let outputs = vec![self::spec("y", DType::F32, &[1, 3, -1, -1])];
    let (model, log) = closure_model(Signature { inputs, outputs }, |run| {
        let x = run.inputs[0].read::<f32>()?;
        let third = x.len() / 3;
        let of = |at: usize| (x[at * third] * 255.0).round();
        let code = (of(0) * 100.0 + of(1) * 10.0 + of(2)) / 255.0;
        Ok(vec![Some(Tensor::from_slice(
            &[1, 3, 2, 4],
            &vec![code; third],
        )?)])
    });
    let clip: Vec<Rgb> = (1..=4).map(flat).collect();
    let out = bytes(&all(&mut open(&model, &spec, None), &clip));
    let out: Vec<f32> = out.iter().map(|value| value.round()).collect();
    assert_eq!(out, [112., 123., 234., 344.]);
    assert_eq!(log.sessions(), 1);
}

#[test]
fn an_output_that_is_a_state_too_goes_on_unrounded() {
    let mut spec = recurrent(0, 0);
    spec.scale = 2;
    spec.range = ValueRange::Byte;
    spec.state = vec![FrameState {
        input: "s".into(),
        output: "y".into(),
        channels: 3,
        scale: 2,
        divisor: 1,
    }];
    // Half of what was made before, and more than white on top.
    let (model, _) = closure_model(signature(&["x", "s"], &["y"], 4), |run| {
        let was = run.inputs[1].read::<f32>()?;
        let x = run.inputs[0].read::<f32>()?[0];
        let out: Vec<f32> = was.iter().map(|was| was / 2.0 + 200.3 + x).collect();
        Ok(vec![Some(Tensor::from_slice(run.inputs[1].shape(), &out)?)])
    });
    let clip = [flat(1), flat(2), flat(3)];
    let mut restorer = open(&model, &spec, None);
    assert_eq!(restorer.size_out(4, 2), (8, 4));
    let out = bytes(&all(&mut restorer, &clip));
    let want = [201.3, 302.95, 354.775];
    for (have, want) in out.iter().zip(want) {
        assert!((have - want).abs() < 1e-3, "{have} for {want}");
    }
    let mut restorer = open(&model, &spec, None);
    restorer.push(flat(1)).expect("the first");
    restorer.end();
    let FilterStep::Frame(rgb) = restorer.step().expect("runs") else {
        panic!("one run is enough")
    };
    assert_eq!(rgb.rgb8, vec![201; 8 * 4 * 3]);
}

#[test]
fn a_cancelled_tile_is_computed_again_and_one_call_stops_one_run() {
    let spec = with_state(RestorationSpec {
        tile_halo: 1,
        ..recurrent(0, 0)
    });
    let clip: Vec<Rgb> = (0..3).map(|seed| frame(40, 8, seed)).collect();
    let (model, _) = blurrer(&spec, 1);
    let want = all(&mut open(&model, &spec, Some(16)), &clip);
    let (model, log) = blurrer(&spec, 1);
    let mut restorer = open(&model, &spec, Some(16));
    // The handle is older than the sessions; one cancel comes in between, the other during a run.
    let canceller = restorer.canceller();
    canceller.cancel();
    let during = restorer.canceller();
    log.on_run(move |number| {
        if number == 5 {
            during.cancel();
        }
    });
    let (mut next, mut out, mut cancelled) = (clip.iter(), Vec::new(), 0);
    loop {
        match restorer.step_planes() {
            Ok(PlanesStep::NeedsFrame) => match next.next() {
                Some(frame) => restorer.push(frame.clone()).expect("fits"),
                None => restorer.end(),
            },
            Ok(PlanesStep::Working { .. }) => {}
            Ok(PlanesStep::Frame(planes)) => out.push(planes),
            Ok(PlanesStep::Ended) => break,
            Err(PipelineError::Cancelled) => cancelled += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((cancelled, out), (2, want));
    let tiles = restorer.tiling().expect("frames").tiles();
    assert_eq!(
        (log.runs(), restorer.steps()),
        (3 * tiles + 1, 3 * tiles as u64)
    );
}

#[test]
fn memory_decides_about_tiles_and_too_little_is_refused() {
    let spec = RestorationSpec {
        tile_halo: 1,
        bytes_per_pixel: Some(10_000),
        ..recurrent(0, 0)
    };
    let (model, _) = blurrer(&spec, 1);
    let with = |memory_bytes_max| {
        let options = RestorationOptions {
            tile_side_max: None,
            memory_bytes_max: Some(memory_bytes_max),
        };
        Restorer::open(&model, &spec, &options).expect("opens")
    };
    let clip = [frame(64, 64, 1)];
    let mut whole = with(64 * 64 * 11_000);
    let want = all(&mut whole, &clip);
    let mut parts = with(64 * 64 * 11_000 / 4);
    assert_eq!(all(&mut parts, &clip), want);
    assert_eq!(whole.tiling().expect("a frame").tiles(), 1);
    let tiling = parts.tiling().expect("a frame");
    assert!(tiling.tiles() >= 4 && tiling.memory_bytes(&spec) <= 64 * 64 * 11_000 / 4);
    let refused = with(1000)
        .push(clip[0].clone())
        .expect_err("not even the frames");
    assert!(
        refused.to_string().contains("1000 may be used"),
        "{refused}"
    );
}

#[test]
fn a_model_of_a_fixed_size_gets_tiles_of_that() {
    let spec = RestorationSpec {
        tile_halo: 2,
        pad_multiple: 8,
        ..recurrent(0, 0)
    };
    let mut fixed = signature(&["x"], &["y"], 4);
    fixed.inputs[0].shape = [1, 3, 16, 24].map(Some).to_vec();
    let (model, _) = closure_model(fixed.clone(), |run| Ok(vec![Some(run.inputs[0].clone())]));
    for (width, height) in [(5, 3), (24, 16), (25, 17), (100, 50)] {
        let clip = [frame(width, height, 7)];
        let mut restorer = open(&model, &spec, None);
        let out = all(&mut restorer, &clip);
        assert_eq!(out[0].to_rgb(), clip[0]);
        assert_eq!(restorer.tiling().expect("a frame").tile, [16, 24]);
    }
    fixed.inputs[0].shape[3] = Some(20);
    let (model, _) = closure_model(fixed, |run| Ok(vec![Some(run.inputs[0].clone())]));
    let refused = Restorer::open(&model, &spec, &RestorationOptions::default());
    assert!(matches!(refused.err(), Some(PipelineError::Graph { .. })));
}

#[test]
fn frames_that_do_not_fit_are_refused() {
    let spec = recurrent(0, 0);
    let (model, _) = blurrer(&spec, 0);
    let mut restorer = open(&model, &spec, None);
    let field = |result: Result<(), PipelineError>| match result {
        Err(PipelineError::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let short = Rgb {
        rgb8: vec![0; 3],
        ..flat(1)
    };
    let huge = Rgb {
        width: usize::MAX / 2,
        height: 3,
        rgb8: Vec::new(),
    };
    for bad in [frame(0, 4, 1), short, huge] {
        assert_eq!(field(restorer.push(bad)), "frame");
    }
    restorer.push(flat(1)).expect("fits");
    assert_eq!(field(restorer.push(flat(2))), "frame");
    assert!(matches!(restorer.step(), Ok(FilterStep::Frame(_))));
    assert_eq!(field(restorer.push(frame(4, 3, 1))), "frame");
    restorer.push(flat(2)).expect("fits");
    restorer.end();
    assert!(matches!(restorer.step(), Ok(FilterStep::Frame(_))));
    assert_eq!(restorer.step().expect("nothing left"), FilterStep::Ended);
    assert_eq!(field(restorer.push(flat(3))), "frame");
    // What would be too large afterwards is refused before.
    let spec = RestorationSpec {
        scale: 8,
        ..recurrent(0, 0)
    };
    let mut restorer = open(&blurrer(&spec, 0).0, &spec, None);
    assert_eq!(field(restorer.push(frame(1024, 1024, 1))), "frame");
}

#[test]
fn models_that_are_not_what_the_manifest_says_are_refused_by_tensor() {
    let cases: Changes<(Signature, RestorationSpec)> = vec![
        ("pictures", |c| c.1.frames = "pictures".into()),
        ("result", |c| c.1.output = "result".into()),
        ("hidden", |c| c.1.state[0].input = "hidden".into()),
        ("next", |c| c.1.state[0].output = "next".into()),
        ("x", |c| c.0.inputs[0].dtype = DType::U8),
        ("x", |c| c.0.inputs[0].shape[1] = Some(9)),
        ("y", |c| c.0.outputs[0].shape[1] = Some(1)),
        ("s", |c| c.0.inputs[1].shape[1] = Some(64)),
        ("t", |c| c.0.outputs[1].dtype = DType::F16),
        ("x", |c| c.1.layout = FrameLayout::Sequence),
        ("s", |c| c.1.state.clear()),
        ("rate", |c| c.0.inputs.push(spec("rate", DType::F32, &[1]))),
    ];
    for (want, change) in cases {
        let mut parts = (
            signature(&["x", "s"], &["y", "t"], 4),
            with_state(recurrent(0, 0)),
        );
        change(&mut parts);
        let (model, _) = closure_model(parts.0, |_| Ok(Vec::new()));
        match Restorer::open(&model, &parts.1, &RestorationOptions::default()).err() {
            Some(PipelineError::Graph { tensor, .. }) => assert_eq!(tensor, want),
            other => panic!("{want}: {other:?}"),
        }
    }
}

#[test]
fn interpolation_and_restoration_are_one_to_those_who_drive_them() {
    let restored = recurrent(0, 0);
    let times = vec![
        spec("a", DType::F32, &[1, 3, -1, -1]),
        spec("b", DType::F32, &[1, 3, -1, -1]),
        spec("t", DType::F32, &[1, 1, 1, 1]),
    ];
    let outputs = vec![spec("y", DType::F32, &[1, 3, -1, -1])];
    let signature = Signature {
        inputs: times,
        outputs,
    };
    let (repeater, _) = closure_model(signature, |run| Ok(vec![Some(run.inputs[0].clone())]));
    let clip = mote_api::ClipSpec {
        first: "a".into(),
        second: "b".into(),
        timestep: "t".into(),
        output: "y".into(),
        pad_multiple: 4,
    };
    let interpolator = Interpolator::open(&repeater, &clip).expect("opens");
    let filters: [(Box<dyn FrameFilter>, u64); 2] = [
        (Box::new(open(&blurrer(&restored, 0).0, &restored, None)), 3),
        (Box::new(FrameWindow::new(interpolator, 2).expect("2")), 5),
    ];
    for (mut filter, want) in filters {
        let mut frames = (1..=3).map(flat);
        let mut out = 0;
        loop {
            match filter.step().expect("runs") {
                FilterStep::NeedsFrame => match frames.next() {
                    Some(frame) => filter.push(frame).expect("fits"),
                    None => filter.end(),
                },
                FilterStep::Working { .. } => {}
                FilterStep::Frame(frame) => {
                    assert_eq!((frame.width, frame.height), filter.size_out(4, 2));
                    out += 1;
                }
                FilterStep::Ended => break,
            }
        }
        assert_eq!((out, filter.frames_out(3)), (want, want));
        assert_eq!((filter.frames_out(0), filter.frames_out(1)), (0, 1));
        assert!(filter.steps() > 0 && filter.report().compute_us > 0);
    }
}
