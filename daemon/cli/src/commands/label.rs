//! `mote label`: what is seen in a clip.

use crate::args::Label;
use crate::commands::clip::{open_input, show_progress};
use crate::interrupt;
use crate::receipt::receipt_text;
use crate::ui::Ui;
use crate::work::options;
use anyhow::{Result, bail, ensure};
use mote_client::{Client, ClipEvent};
use mote_wire::types::{FrameLabels, LabelClip, Receipt};
use serde::Serialize;
use std::fmt::Write;

/// Frames whose labels are kept for JSON.
const FRAMES_MAX: usize = 1 << 20;

/// All that was seen.
#[derive(Serialize)]
struct Seen {
    frames: Vec<FrameLabels>,
    receipt: Receipt,
}

/// Tells what is seen in a clip, line by line as it is seen, or as JSON in the end.
pub fn label(client: &Client, args: &Label, ui: &Ui) -> Result<()> {
    let work = client.label_clip(LabelClip {
        model: args.model.clone(),
        frames_max: args.frames_max,
        every: args.every,
        frame_rate: args.frame_rate,
        labels_max: args.labels_max,
        score_min: args.score_min,
        options: options(&args.work),
        input: open_input(&args.input)?,
    })?;
    let bar = ui.count_bar("load", 0);
    let _watch = interrupt::Watch::start(work.canceller())?;
    let mut frames = Vec::new();
    for event in work {
        match event.map_err(interrupt::or_interrupted)? {
            ClipEvent::Progress(progress) => show_progress(&bar, &progress),
            ClipEvent::Labels(labels) if ui.json => {
                ensure!(
                    frames.len() < FRAMES_MAX,
                    "there are more than {FRAMES_MAX} frames"
                );
                frames.push(labels);
            }
            ClipEvent::Labels(labels) => {
                let line = line(&labels);
                bar.suspend(|| ui.stream(&line))?;
            }
            ClipEvent::Done(done) => {
                bar.finish_and_clear();
                let receipt = done.receipt;
                if args.receipt && !ui.json {
                    ui.note(receipt_text(&receipt));
                }
                return match ui.json {
                    true => ui.result(&Seen { frames, receipt }, ""),
                    false => Ok(()),
                };
            }
            ClipEvent::Accepted { .. }
            | ClipEvent::Preview(_)
            | ClipEvent::Frame(_)
            | ClipEvent::Audio(_)
            | ClipEvent::Steered(_) => {}
        }
    }
    bail!("the daemon ended without a receipt")
}

fn line(seen: &FrameLabels) -> String {
    let mut text = format!(
        "{:>6} {:>9.3} s ",
        seen.frame_index,
        seen.time_us as f64 / 1e6
    );
    let mut separator = "";
    for label in &seen.labels {
        let _ = write!(
            text,
            "{separator} {} {:.2}",
            name(&label.label, label.class),
            label.score
        );
        separator = ",";
    }
    for seen in &seen.boxes {
        let _ = write!(
            text,
            "{separator} {} {:.2} at {:.0},{:.0} to {:.0},{:.0}",
            name(&seen.label.label, seen.label.class),
            seen.label.score,
            seen.x0,
            seen.y0,
            seen.x1,
            seen.y1
        );
        separator = ",";
    }
    if separator.is_empty() {
        text.push_str(" nothing");
    }
    text.push('\n');
    text
}

fn name(label: &str, class: u32) -> String {
    match label.is_empty() {
        true => format!("class {class}"),
        false => label.to_owned(),
    }
}
