//! Two clients and one device.

use crate::{ONNXRUNTIME, language, own_daemon};
use anyhow::{Context, Result};
use mote_client::{
    ClipEvent, ClipFormat, GenerationEvent, Priority, Stage, TransformClip, WorkOptions,
};
use mote_tests::prepared;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Frames of the clip; the test is over long before they are.
const FRAMES_IN: u64 = 200;
/// Steps of the clip that may become known while an answer begins: the one in progress, and one that
/// was told before and read after.
const STEPS_MAX: u64 = 2;

fn urgent(priority: Priority) -> WorkOptions {
    WorkOptions {
        priority,
        ..ONNXRUNTIME.required()
    }
}

#[test]
fn a_chat_waits_for_one_step_of_a_clip_in_the_background() -> Result<()> {
    let daemon = own_daemon()?;
    let (clips, chats) = (daemon.client()?, daemon.client()?);
    // Loading is no part of the wait.
    chats.load("smollm2-135m-moe", &urgent(Priority::Interactive))?;
    let output = tempfile::tempfile()?;
    let request = TransformClip {
        model: "rife".into(),
        factor: 2,
        output_format: ClipFormat::PngStream,
        frames_max: Some(FRAMES_IN),
        width_max: Some(320),
        height_max: None,
        frame_rate: None,
        encoder_speed: None,
        preview_every: None,
        tile_side_max: None,
        options: urgent(Priority::Background),
        input: File::open(prepared("MOTE_CACHE")?.join("files/sample-clips/bikes.mp4"))?.into(),
        output: output.into(),
        contact_sheet: None,
    };
    let transform = clips.transform_clip(request)?;
    let cancel = transform.canceller();
    let steps = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&steps);
    let reader = thread::spawn(move || -> Result<()> {
        for event in transform {
            if let Ok(ClipEvent::Progress(progress)) = &event
                && progress.stage == Stage::Transform
            {
                told.store(progress.done, Ordering::SeqCst);
            }
            anyhow::ensure!(
                !matches!(&event, Ok(ClipEvent::Done(_))),
                "the clip is too short"
            );
        }
        Ok(())
    });
    let known = || steps.load(Ordering::SeqCst);
    while known() < 2 {
        anyhow::ensure!(!reader.is_finished(), "the clip ended before it began");
        thread::sleep(Duration::from_millis(1));
    }

    let before = known();
    let mut question = language::ask("smollm2-135m-moe", "What is the capital of France?");
    question.options = urgent(Priority::Interactive);
    let mut answer = chats.generate(question)?;
    let first = answer.find(|event| matches!(event, Ok(GenerationEvent::Token(_)) | Err(_)));
    first.context("the answer has no token")??;
    let meanwhile = known() - before;
    assert!(
        meanwhile <= STEPS_MAX,
        "{meanwhile} steps of the clip went first"
    );
    for event in answer {
        event?;
    }

    // It goes on when nobody is in front of it.
    let paused = known();
    while known() <= paused {
        anyhow::ensure!(!reader.is_finished(), "the clip ended while it was paused");
        thread::sleep(Duration::from_millis(1));
    }
    cancel.cancel()?;
    reader.join().expect("the reader does not panic")
}
