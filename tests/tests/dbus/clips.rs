//! Clips of words, and what is seen in them, for callers that speak no protobuf. The models are tiny
//! and random; what they compute is tried elsewhere, here it is the same as on the wire.

use crate::harness::{Caller, Options, Stage, error, number, text, with};
use anyhow::{Context, Result, ensure};
use mote_client::{ClipEvent, ClipFormat, ClipSegment, GenerateClip, LabelClip, WorkOptions};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::fs::FileExt;
use zbus::message::Message;

const CLIP_MODEL: &str = "ltx";
const LABEL_MODEL: &str = "shapes";
const SIDE: u32 = 32;
const FRAMES: u32 = 9;
const FRAME_BYTES: usize = (3 * SIDE * SIDE) as usize;
/// So many that there is time to do something between them.
const STEPS: u32 = 300;
const SEED: u64 = 7;
const SHOTS: [&str; 2] = ["a red square moves left", "a blue circle turns"];

/// What each call asks for, whichever way.
fn options() -> Options<'static> {
    Options::from([
        ("guidance", 1.0.into()),
        ("seed", SEED.into()),
        ("steps", STEPS.into()),
        ("width", SIDE.into()),
        ("height", SIDE.into()),
        ("format", "raw-rgb8".into()),
        ("require_flavour", "onnxruntime-cpu".into()),
    ])
}

/// The same clip through the wire.
fn on_the_wire(stage: &Stage, shots: &[&str]) -> Result<Vec<u8>> {
    let output = tempfile::tempfile()?;
    let segment = |prompt: &&str| ClipSegment {
        prompt: (*prompt).into(),
        frames: Some(FRAMES),
    };
    let request = GenerateClip {
        segments: shots.iter().map(segment).collect(),
        guidance: Some(1.0),
        seed: Some(SEED),
        steps: Some(STEPS),
        width: Some(SIDE),
        height: Some(SIDE),
        output_format: ClipFormat::RawRgb8,
        options: WorkOptions {
            require_flavour: Some("onnxruntime-cpu".into()),
            ..WorkOptions::default()
        },
        ..GenerateClip::new(CLIP_MODEL, "", output.try_clone()?.into())
    };
    for event in stage.daemon.client()?.generate_clip(request)? {
        event?;
    }
    content(output)
}

fn content(mut file: File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn is_png(file: &File) -> Result<bool> {
    let mut head = [0; 8];
    file.read_exact_at(&mut head, 0)?;
    Ok(&head == b"\x89PNG\r\n\x1a\n")
}

fn path_of(reply: &Message) -> Result<String> {
    let body = reply.body();
    Ok(body.deserialize::<zbus::ObjectPath<'_>>()?.to_string())
}

/// Begins a clip of these shots; its job.
async fn generate(
    caller: &mut Caller,
    output: &File,
    shots: &[&str],
    options: Options<'_>,
) -> Result<String> {
    let segments: Vec<_> = shots.iter().map(|prompt| (*prompt, FRAMES)).collect();
    let body = (CLIP_MODEL, segments, zbus::Fd::from(output), options);
    path_of(&caller.manager("GenerateClip", &body).await??)
}

/// Tells a job something that takes no more than options.
async fn tell(caller: &mut Caller, job: &str, method: &str) -> Result<()> {
    let none = Options::new();
    caller.object((job, "Job"), method, &none).await??;
    Ok(())
}

/// Waits until so many steps are done.
async fn step_to(caller: &mut Caller, job: &str, steps: u64) -> Result<u64> {
    loop {
        let signal = caller.signal(job, "ProgressChanged").await?;
        let (stage, done, total, _): (String, u64, u64, u64) = signal.body().deserialize()?;
        if stage == "denoise" && done >= steps {
            ensure!(total >= u64::from(STEPS), "{total} steps in all");
            return Ok(done);
        }
    }
}

/// What becomes of the next prompt that was set.
async fn steered(caller: &mut Caller, job: &str) -> Result<(bool, u32, String)> {
    let signal = caller.signal(job, "Steered").await?;
    Ok(signal.body().deserialize()?)
}

#[test]
fn a_clip_of_words_is_that_of_the_wire_and_is_previewed() -> Result<()> {
    let stage = Stage::clips()?;
    let wanted = on_the_wire(&stage, &SHOTS)?;
    assert_eq!(wanted.len(), 2 * FRAMES as usize * FRAME_BYTES);
    with(async {
        let mut caller = stage.caller().await?;
        let (output, sheet) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let mut options = options();
        options.insert("preview_every", 100_u32.into());
        options.insert("contact_sheet", zbus::Fd::from(&sheet).into());
        let job = generate(&mut caller, &output, &SHOTS, options).await?;
        let preview = caller.signal(&job, "Preview").await?;
        let body = preview.body();
        let (step, width, _, picture): (u64, u32, u32, zbus::OwnedFd) = body.deserialize()?;
        assert_eq!((step % 100, width), (0, SIDE));
        let picture = File::from(std::os::fd::OwnedFd::from(picture));
        assert!(is_png(&picture)?);
        let (_, status, receipt) = caller.follow(&job).await?;
        assert_eq!(status, "ok", "{receipt:?}");
        assert_eq!(number(&receipt, "seed"), Some(SEED));
        assert_eq!(number(&receipt, "frames_out"), Some(u64::from(2 * FRAMES)));
        assert_eq!(number(&receipt, "steps"), Some(u64::from(2 * STEPS)));
        let scheduler = text(&receipt, "scheduler");
        assert_eq!(scheduler, "FlowMatchEulerDiscreteScheduler");
        assert!(receipt.contains_key("step_times_us"), "{receipt:?}");
        // This model makes no sound.
        assert_eq!(number(&receipt, "audio_samples_out"), Some(0));
        assert_eq!(text(&receipt, "audio_codec"), "");
        assert!(is_png(&sheet)?);
        assert!(content(output)? == wanted);
        Ok(())
    })
}

#[test]
fn a_clip_is_halted_goes_on_and_is_steered() -> Result<()> {
    let stage = Stage::clips()?;
    let other = "a green digit grows";
    let planned = on_the_wire(&stage, &SHOTS)?;
    let wanted = on_the_wire(&stage, &[SHOTS[0], other])?;
    with(async {
        let mut caller = stage.caller().await?;
        let output = tempfile::tempfile()?;
        let job = generate(&mut caller, &output, &SHOTS, options()).await?;
        let before = step_to(&mut caller, &job, 2).await?;
        tell(&mut caller, &job, "Pause").await?;
        let steer = (other, Options::new());
        caller.object((&job, "Job"), "Steer", &steer).await??;
        assert_eq!(steered(&mut caller, &job).await?, (true, 1, String::new()));
        let long = ("a green digit grows ".repeat(100), Options::new());
        caller.object((&job, "Job"), "Steer", &long).await??;
        let (taken, _, why) = steered(&mut caller, &job).await?;
        assert!(!taken && why.contains("tokens"), "{why}");
        // What was under way has come by the time the daemon has been silent for so long.
        let silence = std::time::Duration::from_millis(500);
        let mut last = before;
        while let Ok(done) = tokio::time::timeout(silence, step_to(&mut caller, &job, 1)).await {
            last = done?;
        }
        assert!(last < u64::from(STEPS), "it did not halt");
        assert_eq!(
            text(&caller.properties(&job, "Job").await?, "State"),
            "running"
        );
        tell(&mut caller, &job, "Resume").await?;
        let (_, status, receipt) = caller.follow(&job).await?;
        assert_eq!(status, "ok", "{receipt:?}");
        let steered = content(output)?;
        assert!(steered == wanted && steered != planned);
        // One that has ended hears nothing.
        tell(&mut caller, &job, "Pause").await?;
        tell(&mut caller, &job, "Resume").await?;
        let refused = error(caller.object((&job, "Job"), "Steer", &steer).await?)?;
        assert_eq!(refused.name, "org.moted.Error.Invalid");
        assert_eq!(text(&refused.fields, "why"), "it has ended");
        Ok(())
    })
}

#[test]
fn a_cancelled_clip_goes_on_from_its_checkpoint_and_a_paused_one_is_cancelled() -> Result<()> {
    let stage = Stage::clips()?;
    let wanted = on_the_wire(&stage, &SHOTS)?;
    with(async {
        let mut caller = stage.caller().await?;
        let (output, kept) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let with_checkpoint = || {
            let mut options = options();
            options.insert("checkpoint", zbus::Fd::from(&kept).into());
            options
        };
        let job = generate(&mut caller, &output, &SHOTS, with_checkpoint()).await?;
        let done = step_to(&mut caller, &job, 5).await?;
        tell(&mut caller, &job, "Pause").await?;
        tell(&mut caller, &job, "Cancel").await?;
        let (_, status, _) = caller.follow(&job).await?;
        assert_eq!(status, "cancelled");
        output.set_len(0)?;
        let job = generate(&mut caller, &output, &SHOTS, with_checkpoint()).await?;
        let (_, status, receipt) = caller.follow(&job).await?;
        assert_eq!(status, "ok", "{receipt:?}");
        assert!(number(&receipt, "resumed_steps").is_some_and(|steps| steps >= done));
        assert!(content(output)? == wanted);
        Ok(())
    })
}

#[test]
fn prompts_that_come_while_a_clip_ends_are_told_of_before_that() -> Result<()> {
    let stage = Stage::clips()?;
    with(async {
        let mut caller = stage.caller().await?;
        let output = tempfile::tempfile()?;
        let job = generate(&mut caller, &output, &SHOTS[..1], options()).await?;
        step_to(&mut caller, &job, 2).await?;
        // There is one shot, and it has begun.
        let steer = ("a green digit grows", Options::new());
        caller.object((&job, "Job"), "Steer", &steer).await??;
        let (taken, segment, why) = steered(&mut caller, &job).await?;
        assert_eq!((taken, segment), (false, 0));
        assert!(why.contains("no segment follows"), "{why}");
        caller.object((&job, "Job"), "Steer", &steer).await??;
        tell(&mut caller, &job, "Cancel").await?;
        // Whoever heard of it last, it is told of.
        let (taken, _, why) = steered(&mut caller, &job).await?;
        assert!(!taken && !why.is_empty());
        let (_, status, _) = caller.follow(&job).await?;
        assert_eq!(status, "cancelled");

        let input = tempfile::tempfile()?;
        let body = (LABEL_MODEL, zbus::Fd::from(&input), Options::new());
        let job = path_of(&caller.manager("LabelClip", &body).await??)?;
        let refused = error(caller.object((&job, "Job"), "Steer", &steer).await?)?;
        assert_eq!(refused.name, "org.moted.Error.Invalid");
        assert_eq!(text(&refused.fields, "field"), "job");
        Ok(())
    })
}

#[test]
fn clips_that_cannot_be_made_are_refused_by_name() -> Result<()> {
    let stage = Stage::clips()?;
    with(async {
        let mut caller = stage.caller().await?;
        let output = tempfile::tempfile()?;
        for (name, value) in [("format", "avi".into()), ("no_such", 1_u32.into())] {
            let body = (
                CLIP_MODEL,
                vec![(SHOTS[0], 0_u32)],
                zbus::Fd::from(&output),
                Options::from([(name, value)]),
            );
            let refused = error(caller.manager("GenerateClip", &body).await?)?;
            assert_eq!(refused.name, "org.moted.Error.Invalid");
            assert_eq!(text(&refused.fields, "field"), format!("options[{name}]"));
        }
        for (shots, options, status) in [
            (&SHOTS[..0], Options::new(), "invalid"),
            (
                &SHOTS,
                Options::from([("steps", 1_000_000_u32.into())]),
                "limit_exceeded",
            ),
            (
                &SHOTS,
                Options::from([("width", 1_000_000_u32.into())]),
                "limit_exceeded",
            ),
            (&SHOTS, Options::from([("strength", 0.5.into())]), "invalid"),
            (
                &SHOTS,
                Options::from([("scheduler", "no such".into())]),
                "invalid",
            ),
        ] {
            let job = generate(&mut caller, &output, shots, options).await?;
            let (_, ended, receipt) = caller.follow(&job).await?;
            assert_eq!(ended, status, "{receipt:?}");
        }
        Ok(())
    })
}

/// Class, name and score.
type Label = (u32, String, f64);
/// What `Labels` tells.
type Labels = (u64, u64, Vec<Label>, Vec<(Label, (f64, f64, f64, f64))>);

fn labels_on_the_wire(stage: &Stage, clip: &File) -> Result<Vec<Labels>> {
    let request = LabelClip {
        model: LABEL_MODEL.into(),
        frames_max: None,
        every: Some(2),
        frame_rate: None,
        labels_max: None,
        score_min: Some(0.0),
        options: WorkOptions::default(),
        input: clip.try_clone()?.into(),
    };
    let mut told = Vec::new();
    for event in stage.daemon.client()?.label_clip(request)? {
        let ClipEvent::Labels(seen) = event? else {
            continue;
        };
        let label = |one: mote_client::Label| (one.class, one.label, f64::from(one.score));
        let place = |one: mote_client::LabelBox| {
            let [x0, y0, x1, y1] = [one.x0, one.y0, one.x1, one.y1].map(f64::from);
            (label(one.label), (x0, y0, x1, y1))
        };
        let labels = seen.labels.into_iter().map(label).collect();
        let boxes = seen.boxes.into_iter().map(place).collect();
        told.push((seen.frame_index, seen.time_us, labels, boxes));
    }
    Ok(told)
}

#[test]
fn labels_are_those_of_the_wire() -> Result<()> {
    let stage = Stage::clips()?;
    let bikes = mote_tests::prepared("MOTE_CACHE")?.join("files/sample-clips/bikes.mp4");
    let short = tempfile::tempfile()?;
    std::io::copy(&mut File::open(bikes)?, &mut &short)?;
    let wanted = labels_on_the_wire(&stage, &short)?;
    assert!(wanted.iter().any(|(.., boxes)| !boxes.is_empty()));
    with(async {
        let mut caller = stage.caller().await?;
        let options = Options::from([("every", 2_u32.into()), ("score_min", 0.0.into())]);
        let body = (LABEL_MODEL, zbus::Fd::from(&short), options);
        let job = path_of(&caller.manager("LabelClip", &body).await??)?;
        for wanted in &wanted {
            let signal = caller.signal(&job, "Labels").await?;
            let told: Labels = signal.body().deserialize()?;
            assert_eq!(told, *wanted);
        }
        let (_, status, receipt) = caller.follow(&job).await?;
        assert_eq!(status, "ok", "{receipt:?}");
        assert!(number(&receipt, "frames_in").context("frames")? >= wanted.len() as u64);
        Ok(())
    })
}
