//! Jobs: steps, segments, cancel, checkpoints.

use crate::support::{Folder, finish, finish_with_sound, frames, picture, request, whole};
use mote_pipeline::{
    GenerationJob, GenerationModel, GenerationRequest, GenerationSegment, GenerationStep,
    PipelineError, Rgb,
};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn start(model: &Arc<GenerationModel>, request: GenerationRequest) -> GenerationJob {
    GenerationJob::start(model, request, None).expect("it starts")
}

fn three_segments() -> GenerationRequest {
    let segment = |prompt: &str, frames| GenerationSegment {
        prompt: prompt.into(),
        frames: Some(frames),
    };
    GenerationRequest {
        segments: vec![
            segment("a red square moves left", 5),
            segment("a blue circle turns", 7),
            segment("a blue circle turns", 4),
        ],
        first_image: Some(picture(32, 32, 3)),
        steps: Some(2),
        ..request("")
    }
}

#[test]
fn a_step_is_one_run_or_one_frame() {
    let model = Folder::of("ltx").open();
    let mut job = start(&model, request("a red square"));
    let plan = job.plan().clone();
    assert_eq!((plan.frames, plan.steps, plan.audio), (9, 4, None));
    assert!(job.preview().expect("no run").is_none());
    let (steps, made) = finish(&mut job);
    assert_eq!(steps, "eddddfffffffff");
    assert_eq!(job.step_times_us().len(), 4);
    assert!(job.report().compute_us > 0);
    // What was encoded once is not encoded again, and the same seed gives the same clip.
    let mut again = start(&model, request("a red square"));
    let (steps, same) = finish(&mut again);
    assert_eq!(steps, "ddddfffffffff");
    assert_eq!(same, made);
    let other = frames(
        &model,
        GenerationRequest {
            seed: 8,
            ..request("a red square")
        },
    );
    assert_ne!(other, made);
}

#[test]
fn segments_go_on_from_the_last_frame_without_showing_it_twice() {
    let model = Folder::of("ltx").open();
    let mut job = start(&model, three_segments());
    assert_eq!(job.plan().segment_frames, [5, 7, 4]);
    assert_eq!((job.plan().frames, job.plan().steps), (16, 6));
    let (steps, made) = finish(&mut job);
    // The third prompt is known; the picture that each begins with is not.
    assert_eq!(steps, "eeddfffffeeddfffffffeddffff");
    assert_eq!((made[0].width, made[0].height, made.len()), (32, 32, 16));
    assert!(
        made.windows(2).all(|pair| pair[0] != pair[1]),
        "a frame is there twice"
    );
    // The second segment alone, from the frame before it.
    let alone = GenerationRequest {
        segments: vec![GenerationSegment {
            prompt: "a blue circle turns".into(),
            frames: Some(8),
        }],
        first_image: Some(made[4].clone()),
        steps: Some(2),
        ..request("")
    };
    assert_eq!(frames(&model, alone).len(), 8);
}

#[test]
fn models_that_hold_no_picture_repeat_the_last_frame_under_noise() {
    let folder = Folder::of("wan");
    let model = folder.open();
    let two = GenerationRequest {
        segments: vec![
            GenerationSegment::new("a red square"),
            GenerationSegment::new("a circle"),
        ],
        height: Some(16),
        frames: None,
        ..request("")
    };
    let two = GenerationRequest {
        segments: two
            .segments
            .into_iter()
            .zip([5, 4])
            .map(|(segment, frames)| GenerationSegment {
                frames: Some(frames),
                ..segment
            })
            .collect(),
        ..two
    };
    let mut job = start(&model, two);
    // Of four steps the first is left out: nine tenths are made anew.
    assert_eq!((job.plan().frames, job.plan().steps), (9, 4 + 3));
    assert_eq!(finish(&mut job).1.len(), 9);
}

#[test]
fn a_cancelled_step_can_be_asked_for_again() {
    let model = Folder::of("ltx").open();
    let whole = frames(&model, request("a red square turns"));
    let mut job = start(&model, request("a red square turns"));
    let canceller = job.canceller();
    let mut made = Vec::new();
    let mut cancelled = 0;
    loop {
        canceller.cancel();
        assert!(matches!(job.step(), Err(PipelineError::Cancelled)));
        cancelled += 1;
        match job.step().expect("it goes on") {
            GenerationStep::Frame(frame) => made.push(frame),
            GenerationStep::Ended => break,
            _ => {}
        }
    }
    assert!(cancelled > 13);
    assert_eq!(made, whole);
}

/// Goes on elsewhere after each of all steps.
fn resumes_anywhere(model: &Arc<GenerationModel>, request: &GenerationRequest) {
    let (whole, sound) = whole(model, request.clone());
    let mut job = start(model, request.clone());
    let (mut given, mut heard) = (0, 0);
    loop {
        let checkpoint = job.checkpoint();
        let resumed = GenerationJob::start(model, request.clone(), Some(&checkpoint));
        let mut resumed = resumed.expect("its own checkpoint");
        let channels = resumed
            .plan()
            .audio
            .map_or(1, |audio| audio.channels.into());
        resumed.skip(given, (heard / channels) as u64);
        let (_, rest, rest_of_sound) = finish_with_sound(&mut resumed);
        assert!(rest[..] == whole[given as usize..], "after {given} frames");
        assert!(
            rest_of_sound[..] == sound[heard..],
            "after {heard} numbers of sound"
        );
        match job.step().expect("it computes") {
            GenerationStep::Frame(_) => given += 1,
            GenerationStep::Audio(chunk) => heard += chunk.samples.len(),
            GenerationStep::Ended => return,
            _ => {}
        }
    }
}

#[test]
fn a_clip_is_the_same_wherever_it_was_interrupted() {
    resumes_anywhere(&Folder::of("ltx").open(), &three_segments());
    // A method that keeps earlier outputs, and two experts.
    let solver = GenerationRequest {
        scheduler: Some(mote_pipeline::SchedulerKind::DpmSolverMultistep),
        height: Some(16),
        frames: Some(5),
        ..request("a red square")
    };
    resumes_anywhere(&Folder::of("wan").open(), &solver);
    resumes_anywhere(&Folder::of("ltx2").open(), &three_segments());
    let steered = GenerationRequest {
        segments: vec![
            GenerationSegment {
                prompt: "a red square".into(),
                frames: Some(5),
            },
            GenerationSegment {
                prompt: "a blue circle".into(),
                frames: Some(4),
            },
        ],
        reference: Some(picture(20, 30, 0)),
        last_image: Some(picture(32, 16, 1)),
        height: Some(16),
        ..request("")
    };
    resumes_anywhere(&vace(), &steered);
}

fn vace() -> Arc<GenerationModel> {
    let folder = Folder::of("wan");
    folder.overlay("wan-vace").with_class("WanVACEPipeline");
    folder.remove("transformer_2");
    folder.edit("model_index.json", |index| {
        index["boundary_ratio"] = json!(null)
    });
    folder.open()
}

#[test]
fn references_and_ends_are_seen() {
    let model = vace();
    let plain = GenerationRequest {
        height: Some(16),
        frames: Some(5),
        ..request("a red square")
    };
    let mut job = start(&model, plain.clone());
    let (steps, alone) = finish(&mut job);
    assert_eq!(steps, "eeddddfffff", "a prompt, and nothing but grey");
    let with = |change: fn(&mut GenerationRequest)| {
        let mut asked = plain.clone();
        change(&mut asked);
        let mut job = start(&model, asked);
        let (steps, clip) = finish(&mut job);
        assert_eq!(clip.len(), alone.len());
        (steps.matches('e').count(), clip)
    };
    let (runs, referred) = with(|it| it.reference = Some(picture(32, 16, 0)));
    let (_, other) = with(|it| it.reference = Some(picture(32, 16, 2)));
    assert_eq!(runs, 2, "grey and the reference; the prompt is kept");
    let (runs, ended) = with(|it| it.last_image = Some(picture(32, 16, 0)));
    assert_eq!(runs, 2);
    assert!(referred != alone && other != referred && ended != alone && ended != referred);
}

#[test]
fn sound_is_as_long_as_the_clip_and_goes_over_at_seams() {
    let model = Folder::of("ltx2").open();
    let asked = || GenerationRequest {
        frame_rate: Some(25),
        ..three_segments()
    };
    let mut job = start(&model, asked());
    let audio = job.plan().audio.expect("it makes sound");
    assert_eq!(
        (audio.sample_rate, audio.channels, audio.samples),
        (8000, 2, 5120)
    );
    let (steps, frames, sound) = finish_with_sound(&mut job);
    assert_eq!((frames.len(), sound.len()), (16, 10240));
    // The sound of a frame that two segments share comes when the second of them is decoded.
    assert_eq!(steps, "eeddvvfafafafafeeddvvafafafafafafafeddvvafafafafa");
    let mut other = asked();
    other.segments[1].prompt = "a green triangle grows".into();
    let (_, other) = whole(&model, other);
    // 320 samples of two channels a frame: four frames are the first segment's alone.
    let (own, shared) = (4 * 640, 5 * 640);
    assert!(sound[..own] == other[..own]);
    assert!(sound[own..shared] != other[own..shared]);
    let step = |at: usize| (sound[at] - other[at]).abs();
    assert!(
        step(own) < 0.02 && step(own + 1) < 0.02,
        "it begins as the first"
    );
}

#[test]
fn sound_reaches_to_the_seam_where_no_frame_is_to_spare() {
    let model = Folder::of("ltx2").open();
    let shots = |count: usize| GenerationRequest {
        segments: vec![GenerationSegment::new("a red square"); count],
        frame_rate: Some(50),
        ..request("")
    };
    // 9 frames are 1440 samples, of which those of the last frame go over into the second shot's.
    let (_, two) = whole(&model, shots(2));
    let loud = |at: std::ops::Range<usize>| {
        let numbers = &two[2 * at.start..2 * at.end];
        numbers.iter().any(|it| it.abs() > 0.02)
    };
    for from in (1000..1500).step_by(20) {
        assert!(loud(from..from + 20), "silence at sample {from}");
    }
    // One shot alone ends as diffusers' does: 33 of 36 columns of the spectrogram.
    let alone = GenerationRequest {
        frame_rate: Some(25),
        ..shots(1)
    };
    let (_, one) = whole(&model, alone);
    assert!(one[2 * 2640..].iter().all(|it| *it == 0.0) && one[2 * 2639] != 0.0);
}

/// Stops a job at any time from another thread until it was stopped often, and has it go on.
fn cancelled_anywhere(model: &Arc<GenerationModel>, request: &GenerationRequest) {
    const CANCELS: usize = 60;
    let (frames, sound) = whole(model, request.clone());
    let mut job = start(model, request.clone());
    let canceller = job.canceller();
    let is_over = Arc::new(AtomicBool::new(false));
    let stopper = std::thread::spawn({
        let is_over = Arc::clone(&is_over);
        move || {
            let mut seed = 0x9e37_79b9_u64;
            while !is_over.load(Ordering::Acquire) {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                std::thread::sleep(std::time::Duration::from_micros((seed >> 33) % 700));
                canceller.cancel();
            }
        }
    });
    let (mut made, mut heard, mut cancelled) = (Vec::new(), Vec::new(), 0);
    loop {
        match job.step() {
            Err(PipelineError::Cancelled) => {
                cancelled += 1;
                is_over.fetch_or(cancelled >= CANCELS, Ordering::AcqRel);
            }
            Ok(GenerationStep::Frame(frame)) => made.push(frame),
            Ok(GenerationStep::Audio(chunk)) => heard.extend(chunk.samples),
            Ok(GenerationStep::Ended) => break,
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
    }
    is_over.store(true, Ordering::Release);
    stopper.join().expect("it ends");
    eprintln!("stopped {cancelled} times");
    assert!(cancelled > 5 && made == frames && heard == sound);
}

#[test]
fn whatever_is_stopped_in_the_middle_is_done_again() {
    cancelled_anywhere(&Folder::of("ltx2").open(), &three_segments());
    let small = GenerationRequest {
        height: Some(16),
        frames: Some(5),
        first_image: Some(picture(32, 16, 0)),
        last_image: Some(picture(32, 16, 1)),
        ..request("a red square")
    };
    let pair = Folder::of("wan");
    pair.overlay("wan-clip-pair")
        .with_class("WanImageToVideoPipeline");
    pair.remove("transformer_2");
    pair.edit("model_index.json", |index| {
        index["boundary_ratio"] = json!(null)
    });
    cancelled_anywhere(&pair.open(), &small);
    let referred = GenerationRequest {
        reference: Some(picture(32, 16, 2)),
        ..small
    };
    cancelled_anywhere(&vace(), &referred);
}

#[test]
fn checkpoints_of_something_else_are_refused() {
    let model = Folder::of("ltx").open();
    let mut job = start(&model, request("a red square"));
    for _ in 0..3 {
        job.step().expect("it computes");
    }
    let good = job.checkpoint();
    let go_on = |request, bytes: &[u8]| GenerationJob::start(&model, request, Some(bytes)).err();
    assert!(go_on(request("a red square"), &good).is_none());
    let other_seed = GenerationRequest {
        seed: 8,
        ..request("a red square")
    };
    let mut damaged = vec![Vec::new(), b"motegen1".to_vec(), vec![0; 4096]];
    for cut in [9, 80, 100, good.len() - 1] {
        damaged.push(good[..cut].to_vec());
    }
    damaged.push([&good[..], &[0]].concat());
    let mut long = good.clone();
    // The number of prompts, after the version and the digest.
    let at = 8 + 64;
    long[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    damaged.push(long);
    let refused = damaged
        .iter()
        .map(|bytes| go_on(request("a red square"), bytes));
    for error in refused.chain([go_on(other_seed, &good)]) {
        assert!(
            matches!(error, Some(PipelineError::Checkpoint { .. })),
            "{error:?}"
        );
    }
    let other_model = Folder::of("ltx");
    let other_model = other_model.open_with(|spec| spec.decode_timestep = Some(0.5));
    let other_model = other_model.expect("the parts fit");
    let error = GenerationJob::start(&other_model, request("a red square"), Some(&good)).err();
    assert!(
        matches!(error, Some(PipelineError::Checkpoint { .. })),
        "{error:?}"
    );
}

#[test]
fn a_prompt_can_change_from_the_next_segment_on() {
    let model = Folder::of("ltx").open();
    let mut changed = three_segments();
    changed.segments[1].prompt = "a green triangle grows".into();
    changed.segments[2].prompt = "a green triangle grows".into();
    let want = frames(&model, changed);
    let mut job = start(&model, three_segments());
    for _ in 0..3 {
        job.step().expect("it computes");
    }
    let from = job.set_prompt("a green triangle grows".into(), None);
    assert_eq!(from.expect("two segments follow"), 1);
    let checkpoint = job.checkpoint();
    assert_eq!(finish(&mut job).1, want);
    let error = job.set_prompt("a".into(), None).expect_err("none follows");
    assert!(error.to_string().starts_with("prompt: "), "{error}");
    let mut resumed = GenerationJob::start(&model, three_segments(), Some(&checkpoint))
        .expect("its own checkpoint");
    assert_eq!(finish(&mut resumed).1, want);
    // The first segment begins with the job, whenever the prompt comes.
    let mut early = start(&model, three_segments());
    let from = early.set_prompt("a green triangle grows".into(), None);
    assert_eq!(from.expect("two segments follow"), 1);
    assert_eq!(finish(&mut early).1, want);
    // A job that takes over from one that had begun the second segment.
    let mut late = three_segments();
    late.segments[2].prompt = "a green triangle grows".into();
    let want = frames(&model, late);
    let mut again = start(&model, three_segments());
    let from = again.set_prompt("a green triangle grows".into(), Some(2));
    assert_eq!(from.expect("one segment follows"), 2);
    assert_eq!(finish(&mut again).1, want);
}

#[test]
fn the_preview_resembles_the_clip_more_and_more() {
    let model = Folder::of("ltx").open();
    let mut job = start(&model, request("a red square"));
    let mut previews = Vec::new();
    let mut made = Vec::new();
    loop {
        match job.step().expect("it computes") {
            GenerationStep::Denoised { .. } => {
                let preview = job.preview().expect("it computes");
                previews.push(preview.expect("there was a step"));
            }
            GenerationStep::Frame(frame) => made.push(frame),
            GenerationStep::Ended => break,
            _ => {}
        }
    }
    assert_eq!(previews.len(), 4);
    let middle = &made[made.len() / 2];
    let distance = |picture: &Rgb| {
        let pairs = picture.rgb8.iter().zip(&middle.rgb8);
        pairs.map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>()
    };
    assert_eq!((previews[3].width, previews[3].height), (32, 32));
    assert!(distance(&previews[3]) < distance(&previews[0]));
}
