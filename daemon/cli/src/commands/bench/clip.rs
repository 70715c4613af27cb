//! Frame interpolation of the sample clip through the daemon, file to file.

use crate::args;
use crate::bench::stats::Samples;
use crate::commands::clip::{Results, transform};
use crate::commands::demo::{CLIP_FILE, CLIPS};
use crate::daemon::Daemon;
use crate::fetch::{self, Pins};
use crate::interrupt;
use crate::ui::Ui;
use anyhow::{Context, Result};
use mote_api::Paths;
use mote_client::Client;
use mote_wire::types::Receipt;
use serde::Serialize;
use std::path::Path;

const MODEL: &str = "rife";
/// Frames of the sample clip that are read, at their own size.
const FRAMES_IN: u64 = 24;
const ROUNDS: u32 = 3;

/// Medians of a few rounds on a model that is loaded.
#[derive(Default, Serialize)]
pub struct Clip {
    model: String,
    backend: String,
    threads: u32,
    width: u32,
    height: u32,
    frames_in: u64,
    frames_out: u64,
    /// Frames written per second, from the first step to the last.
    frames_per_s: f64,
    ms_per_frame: f64,
    /// In the library, per frame that was not in the input.
    inference_ms_per_new_frame: f64,
    /// What takes the time.
    shares: Shares,
}

#[derive(Default, Serialize)]
struct Shares {
    /// Reading and scaling the input.
    decode: f64,
    /// In the library.
    inference: f64,
    /// Writing the result.
    encode: f64,
    /// The rest: turning frames into tensors and back, waiting between processes.
    rest: f64,
}

/// Measures, when the model and the clip are there.
pub fn measure(ui: &Ui) -> Result<Option<Clip>> {
    let (pins, paths) = (Pins::read()?, Paths::from_env());
    let clips = pins.get(CLIPS)?;
    if !fetch::is_there(clips, &paths) {
        ui.note(format!(
            "the sample clips are not there: clips are not measured (see `mote fetch {CLIPS}`)"
        ));
        return Ok(None);
    }
    let daemon = Daemon::private()?;
    let models = daemon.client.models()?;
    if !models.iter().any(|model| model.name == MODEL) {
        ui.note(format!(
            "{MODEL} is not installed: clips are not measured (see `mote models install`)"
        ));
        return Ok(None);
    }
    let source = fetch::folder_of(clips, &paths).join(CLIP_FILE);
    let folder = tempfile::tempdir().context("cannot create a folder")?;
    let (width, height) = warm_up(&daemon.client, &source, folder.path(), ui)?;
    let mut samples = Measured::default();
    for _ in 0..ROUNDS {
        interrupt::check()?;
        let request = request(&source, &folder.path().join("clip.mp4"), FRAMES_IN);
        // Dropped with its results, which nobody wants.
        let results = Results::create(&request)?;
        samples.push(transform(&daemon.client, &request, &results, ui)?.receipt);
    }
    Ok(Some(Clip {
        width,
        height,
        ..samples.clip()
    }))
}

/// Loads the model, and tells the size of the frames.
fn warm_up(client: &Client, source: &Path, folder: &Path, ui: &Ui) -> Result<(u32, u32)> {
    let frames = folder.join("frames");
    let request = request(source, &frames, 2);
    let results = Results::create(&request)?;
    transform(client, &request, &results, ui)?;
    results.keep()?;
    image::image_dimensions(frames.join("frame-00000.png")).context("cannot read a frame")
}

fn request(source: &Path, out: &Path, frames: u64) -> args::Clip {
    args::Clip {
        model: MODEL.to_owned(),
        input: Some(source.to_owned()),
        generate: args::GenerateClipArgs::default(),
        out: out.to_owned(),
        factor: Some(2),
        tile_side_max: None,
        show: false,
        contact_sheet: None,
        frames_max: Some(frames),
        width_max: None,
        height_max: None,
        frame_rate: None,
        speed: None,
        force: false,
        receipt: false,
        work: args::Work::default(),
    }
}

#[derive(Default)]
struct Measured {
    total: Samples,
    decode: Samples,
    inference: Samples,
    encode: Samples,
    last: Receipt,
}

impl Measured {
    fn push(&mut self, receipt: Receipt) {
        let waited_us = receipt.queue_us + receipt.load_us;
        let total_us = receipt.total_us.saturating_sub(waited_us).max(1) as f64;
        self.total.push_us(total_us);
        for (samples, us) in [
            (&mut self.decode, receipt.media_decode_us),
            (&mut self.inference, receipt.compute_us),
            (&mut self.encode, receipt.media_encode_us),
        ] {
            samples.push_us(us as f64);
        }
        self.last = receipt;
    }

    fn clip(self) -> Clip {
        let median = |samples: &Samples| samples.quantile(0.5);
        let (total_us, inference_us) = (median(&self.total), median(&self.inference));
        let share = |samples: &Samples| median(samples) / total_us;
        let [decode, inference, encode] = [&self.decode, &self.inference, &self.encode].map(share);
        let receipt = self.last;
        let new_frames = receipt.frames_out.saturating_sub(receipt.frames_in).max(1);
        let frames_out = receipt.frames_out.max(1) as f64;
        Clip {
            model: receipt.model,
            backend: receipt.backend,
            threads: receipt.threads,
            width: 0,
            height: 0,
            frames_in: receipt.frames_in,
            frames_out: receipt.frames_out,
            frames_per_s: frames_out * 1e6 / total_us,
            ms_per_frame: total_us / 1e3 / frames_out,
            inference_ms_per_new_frame: inference_us / 1e3 / new_frames as f64,
            shares: Shares {
                decode,
                inference,
                encode,
                rest: (1.0 - decode - inference - encode).max(0.0),
            },
        }
    }
}

/// A few lines for people.
pub fn text(clip: &Clip) -> String {
    let percent = |share: f64| share * 100.0;
    format!(
        "{}, {}x{}, {} frames in, {} out: {:.1} frames/s, {:.1} ms per frame, {:.1} ms in the library per new frame\n  decode {:.0} %, inference {:.0} %, encode {:.0} %, the rest {:.0} % ({}, {} threads)",
        clip.model,
        clip.width,
        clip.height,
        clip.frames_in,
        clip.frames_out,
        clip.frames_per_s,
        clip.ms_per_frame,
        clip.inference_ms_per_new_frame,
        percent(clip.shares.decode),
        percent(clip.shares.inference),
        percent(clip.shares.encode),
        percent(clip.shares.rest),
        clip.backend,
        clip.threads
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_follow_from_the_median_receipt() {
        let mut measured = Measured::default();
        for us in [3_000_000, 1_000_000, 2_000_000] {
            measured.push(Receipt {
                total_us: us + 500,
                queue_us: 200,
                load_us: 300,
                media_decode_us: us / 10,
                compute_us: us / 2,
                media_encode_us: us / 5,
                frames_in: 6,
                frames_out: 11,
                ..Receipt::default()
            });
        }
        let clip = measured.clip();
        assert_eq!((clip.frames_per_s, clip.ms_per_frame), (5.5, 2000.0 / 11.0));
        assert_eq!(clip.inference_ms_per_new_frame, 200.0);
        let shares = [
            clip.shares.decode,
            clip.shares.inference,
            clip.shares.encode,
            clip.shares.rest,
        ];
        for (share, wanted) in shares.iter().zip([0.1, 0.5, 0.2, 0.2]) {
            assert!((share - wanted).abs() < 1e-9, "{shares:?}");
        }
    }
}
