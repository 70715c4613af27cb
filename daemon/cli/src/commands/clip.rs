//! `mote clip`: clips out of clips, and out of words.

use crate::args::Clip;
use crate::interrupt;
use crate::output::{PendingFile, PendingFolder, keep_all, parent_of};
use crate::picture;
use crate::pngs;
use crate::receipt::{lost_sound, receipt_text};
use crate::store;
use crate::ui::Ui;
use crate::work::options;
use anyhow::{Context, Result, bail, ensure};
use indicatif::ProgressBar;
use mote_client::{Client, ClientError, ClipEvent, ClipWork, Status};
use mote_wire::types::{
    ClipFormat, ClipSegment, Done, GenerateClip, Progress, Stage, TransformClip,
};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// What "default" stands for: the model that comes with Mote and makes clips of words.
pub const DEFAULT_MODEL: &str = "shapes-clip";
/// Previews of a clip that is transformed: of about every so many frames.
const SHOWN_EVERY: u32 = 8;

/// Transforms a clip file, or makes a clip of words.
pub fn clip(client: &Client, args: &Clip, ui: &Ui) -> Result<()> {
    if args.model == "default"
        && let Err(ClientError::Refused(Status::ModelNotFound { .. })) =
            client.inspect(DEFAULT_MODEL)
    {
        let source = store::bundled(DEFAULT_MODEL)?;
        let source = source.canonicalize().unwrap_or(source);
        bail!(
            "{DEFAULT_MODEL} is not installed; install it with: mote models install {}",
            source.display()
        );
    }
    let results = Results::create(args)?;
    let done = match args.generate.prompt.is_empty() {
        true => transform(client, args, &results, ui)?,
        false => generate(client, args, &results, ui)?,
    };
    results.keep()?;
    if let Some(warning) = lost_sound(&done.receipt) {
        ui.note(warning);
    }
    if args.receipt && !ui.json {
        ui.note(receipt_text(&done.receipt));
    }
    let frames = done.receipt.frames_out;
    ui.result(&done, format!("{frames} frames in {}", args.out.display()))
}

fn model(args: &Clip) -> String {
    match args.model.as_str() {
        "default" => DEFAULT_MODEL.to_owned(),
        other => other.to_owned(),
    }
}

/// Sends the clip through the daemon; progress on standard error, Ctrl-C cancels.
pub fn transform(client: &Client, args: &Clip, results: &Results, ui: &Ui) -> Result<Done> {
    let Some(input) = &args.input else {
        bail!("there is neither a clip to be transformed nor a --prompt to make one of");
    };
    let model = model(args);
    let factor = match args.factor {
        Some(factor) => factor,
        None if is_restorer(client, &model)? => 0,
        None => 2,
    };
    let request = TransformClip {
        model,
        factor,
        output_format: results.format,
        frames_max: args.frames_max,
        width_max: args.width_max,
        height_max: args.height_max,
        frame_rate: args.frame_rate,
        encoder_speed: args.speed,
        preview_every: shows(args, ui).then_some(SHOWN_EVERY),
        tile_side_max: args.tile_side_max,
        options: options(&args.work),
        input: open_input(input)?,
        output: results.clip.descriptor()?,
        contact_sheet: results.sheet.as_ref().map(descriptor).transpose()?,
    };
    follow(client.transform_clip(request)?, ui)
}

/// Whether the model gives one frame for each.
fn is_restorer(client: &Client, model: &str) -> Result<bool> {
    let details = client.inspect(model)?;
    Ok(details.model.task == "frame-restoration")
}

/// Has a clip made of words; progress on standard error, Ctrl-C cancels.
pub fn generate(client: &Client, args: &Clip, results: &Results, ui: &Ui) -> Result<Done> {
    let given = &args.generate;
    let open = |path: &Option<PathBuf>| path.as_deref().map(open_input).transpose();
    let segment = |prompt: &String| ClipSegment {
        prompt: prompt.clone(),
        frames: given.frames,
    };
    let request = GenerateClip {
        segments: given.prompt.iter().map(segment).collect(),
        negative_prompt: given.negative_prompt.clone().unwrap_or_default(),
        guidance: given.guidance,
        seed: given.seed,
        steps: given.steps,
        width: given.width,
        height: given.height,
        frame_rate: args.frame_rate,
        scheduler: given.scheduler.clone(),
        strength: given.strength,
        output_format: results.format,
        encoder_speed: args.speed,
        preview_every: shows(args, ui).then_some(1),
        options: options(&args.work),
        contact_sheet: results.sheet.as_ref().map(descriptor).transpose()?,
        first_image: open(&given.first_image)?,
        last_image: open(&given.last_image)?,
        reference_image: open(&given.reference_image)?,
        source: open(&args.input)?,
        checkpoint: given
            .checkpoint
            .as_deref()
            .map(open_checkpoint)
            .transpose()?,
        ..GenerateClip::new(model(args), "", results.clip.descriptor()?)
    };
    follow(client.generate_clip(request)?, ui)
}

fn open_checkpoint(path: &Path) -> Result<OwnedFd> {
    let mut how = File::options();
    let file = how
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    Ok(file.into())
}

/// Whether previews are wanted and can be drawn.
fn shows(args: &Clip, ui: &Ui) -> bool {
    if args.show && !picture::can_draw() {
        ui.note(
            "this terminal does not say that it has 24-bit colours (COLORTERM): nothing is shown",
        );
        return false;
    }
    args.show
}

fn follow(work: ClipWork, ui: &Ui) -> Result<Done> {
    let bar = ui.count_bar("load", 0);
    let _watch = interrupt::Watch::start(work.canceller())?;
    for event in work {
        match event.map_err(interrupt::or_interrupted)? {
            ClipEvent::Progress(progress) => show_progress(&bar, &progress),
            ClipEvent::Preview(preview) => {
                // A picture that cannot be drawn is no reason to end the work.
                let drawn = picture::text(&preview.png);
                bar.suspend(|| match drawn {
                    Ok(drawn) => ui.aside(&drawn),
                    Err(error) => ui.note(format!("a preview is not shown: {error:#}")),
                });
            }
            ClipEvent::Done(done) => {
                bar.finish_and_clear();
                return Ok(*done);
            }
            ClipEvent::Accepted { .. }
            | ClipEvent::Frame(_)
            | ClipEvent::Audio(_)
            | ClipEvent::Labels(_)
            | ClipEvent::Steered(_) => {}
        }
    }
    bail!("the daemon ended the clip without a receipt")
}

/// How far a clip is.
pub fn show_progress(bar: &ProgressBar, progress: &Progress) {
    bar.set_prefix(match progress.stage {
        Stage::Queued => "wait",
        Stage::Loading => "load",
        Stage::Compiling => "compile",
        Stage::Denoise => "steps",
        Stage::Label => "look",
        _ => "frames",
    });
    bar.set_length(progress.total.unwrap_or(progress.done));
    bar.set_position(progress.done);
}

/// A clip file, or a folder of frames as one.
pub fn open_input(path: &Path) -> Result<OwnedFd> {
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
            Some("webm") => ClipFormat::WebmAv1,
            Some("gif") => ClipFormat::Gif,
            Some("webp") => ClipFormat::Webp,
            Some("y4m") => ClipFormat::Y4m,
            Some("rgb") => ClipFormat::RawRgb8,
            None => ClipFormat::PngStream,
            Some(other) => bail!(
                "clips are written as .mp4, .webm, .gif, .webp, .y4m, .rgb or a folder, not .{other}"
            ),
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
                _ => Place::File(PendingFile::create(path, force)?),
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
