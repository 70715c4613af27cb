//! `mote clip`.

use crate::args::Clip;
use crate::interrupt;
use crate::output::{PendingFile, PendingFolder, keep_all, parent_of};
use crate::pngs;
use crate::receipt::receipt_text;
use crate::ui::Ui;
use crate::work::options;
use anyhow::{Context, Result, bail, ensure};
use mote_client::{Client, ClipEvent};
use mote_wire::types::{ClipFormat, Done, Stage, TransformClip};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Transforms a clip file.
pub fn clip(client: &Client, args: &Clip, ui: &Ui) -> Result<()> {
    let results = Results::create(args)?;
    let done = transform(client, args, &results, ui)?;
    results.keep()?;
    if args.receipt && !ui.json {
        ui.note(receipt_text(&done.receipt));
    }
    let frames = done.receipt.frames_out;
    ui.result(&done, format!("{frames} frames in {}", args.out.display()))
}

/// Sends the clip through the daemon; progress on standard error, Ctrl-C cancels.
pub fn transform(client: &Client, args: &Clip, results: &Results, ui: &Ui) -> Result<Done> {
    let request = TransformClip {
        model: args.model.clone(),
        factor: args.factor,
        output_format: results.format,
        frames_max: args.frames_max,
        width_max: args.width_max,
        height_max: args.height_max,
        frame_rate: args.frame_rate,
        encoder_speed: args.speed,
        preview_every: None,
        options: options(&args.work),
        input: open_input(&args.input)?,
        output: results.clip.descriptor()?,
        contact_sheet: results.sheet.as_ref().map(descriptor).transpose()?,
    };
    let bar = ui.count_bar("load", 0);
    let transform = client.transform_clip(request)?;
    let _watch = interrupt::Watch::start(transform.canceller())?;
    for event in transform {
        match event.map_err(interrupt::or_interrupted)? {
            ClipEvent::Progress(progress) => {
                bar.set_prefix(match progress.stage {
                    Stage::Queued => "wait",
                    Stage::Loading => "load",
                    Stage::Compiling => "compile",
                    _ => "frames",
                });
                bar.set_length(progress.total.unwrap_or(progress.done));
                bar.set_position(progress.done);
            }
            ClipEvent::Done(done) => {
                bar.finish_and_clear();
                return Ok(*done);
            }
            ClipEvent::Accepted { .. } | ClipEvent::Preview(_) => {}
        }
    }
    bail!("the daemon ended the clip without a receipt")
}

fn open_input(path: &Path) -> Result<OwnedFd> {
    if path.is_dir() {
        return pngs::join(path);
    }
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(file.into())
}

fn descriptor(pending: &PendingFile) -> Result<OwnedFd> {
    let file = pending.file().try_clone();
    Ok(file.context("cannot hand a result's file on")?.into())
}

/// Where results go: beside their final places until all are complete.
pub struct Results {
    format: ClipFormat,
    clip: Place,
    sheet: Option<PendingFile>,
}

enum Place {
    File(PendingFile),
    /// PNG files one after another in a file without a name, and the folder they are to fill.
    Folder {
        stream: File,
        path: PathBuf,
    },
}

impl Results {
    /// By the name's extension; a name without one is a folder of PNG files.
    pub fn create(args: &Clip) -> Result<Self> {
        let (path, force) = (args.out.as_path(), args.force);
        let extension = path.extension().and_then(|extension| extension.to_str());
        let format = match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("mp4") => ClipFormat::Mp4Av1,
            Some("gif") => ClipFormat::Gif,
            None => ClipFormat::PngStream,
            Some(other) => bail!("clips are written as .mp4, .gif or a folder, not .{other}"),
        };
        ensure!(
            args.contact_sheet.as_deref() != Some(path),
            "the clip and its contact sheet cannot be one file"
        );
        let sheet = args.contact_sheet.as_deref();
        Ok(Self {
            format,
            clip: match format {
                ClipFormat::PngStream => Place::folder(path, force)?,
                ClipFormat::Mp4Av1 | ClipFormat::Gif => {
                    Place::File(PendingFile::create(path, force)?)
                }
            },
            sheet: sheet
                .map(|sheet| PendingFile::create(sheet, force))
                .transpose()?,
        })
    }

    /// Puts the complete results in their places.
    pub fn keep(self) -> Result<()> {
        let mut files: Vec<_> = self.sheet.into_iter().collect();
        match self.clip {
            Place::File(clip) => {
                files.push(clip);
                keep_all(files)
            }
            Place::Folder { stream, path } => {
                let folder = PendingFolder::create(&path)?;
                pngs::split(&stream, &folder.folder())?;
                keep_all(files)?;
                folder.keep(pngs::is_frame)
            }
        }
    }
}

impl Place {
    fn folder(path: &Path, force: bool) -> Result<Self> {
        ensure!(
            path.is_dir() || !path.exists(),
            "{} is a file; frames go into a folder",
            path.display()
        );
        if path.exists() && !force {
            bail!(
                "{} exists; replace the frames in it with --force",
                path.display()
            );
        }
        let parent = parent_of(path)?;
        let stream = tempfile::tempfile_in(parent)
            .with_context(|| format!("cannot create a file in {}", parent.display()))?;
        Ok(Self::Folder {
            stream,
            path: path.to_owned(),
        })
    }

    fn descriptor(&self) -> Result<OwnedFd> {
        match self {
            Self::File(pending) => descriptor(pending),
            Self::Folder { stream, .. } => {
                let file = stream.try_clone();
                Ok(file.context("cannot hand the frames' file on")?.into())
            }
        }
    }
}
