//! `mote clip`.

use crate::args::Clip;
use crate::interrupt;
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
    ensure!(args.factor != 3, "frames grow by a factor of 2 or 4");
    let result = Target::create(&args.out, args.force)?;
    let done = match transform(client, args, &result, ui) {
        Ok(done) => done,
        Err(error) => {
            result.discard();
            return Err(error);
        }
    };
    let frames = done.receipt.frames_out;
    let path = result.keep()?;
    if args.receipt && !ui.json {
        ui.note(receipt_text(&done.receipt));
    }
    ui.result(&done, format!("{frames} frames in {}", path.display()))
}

/// Sends the clip through the daemon; progress on standard error, Ctrl-C cancels.
pub fn transform(client: &Client, args: &Clip, target: &Target, ui: &Ui) -> Result<Done> {
    let contact_sheet = match &args.contact_sheet {
        Some(path) => Some(create(path, args.force)?.into()),
        None => None,
    };
    let request = TransformClip {
        model: args.model.clone(),
        factor: args.factor,
        output_format: target.format,
        frames_max: args.frames_max,
        width_max: args.width_max,
        height_max: args.height_max,
        frame_rate: args.frame_rate,
        encoder_speed: args.speed,
        preview_every: None,
        options: options(&args.work),
        input: open_input(&args.input)?,
        output: target.descriptor()?,
        contact_sheet,
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

fn create(path: &Path, force: bool) -> Result<File> {
    let mut options = File::options();
    options.read(true).write(true);
    if force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    options
        .open(path)
        .with_context(|| match path.exists() && !force {
            true => format!("{} exists; replace it with --force", path.display()),
            false => format!("cannot create {}", path.display()),
        })
}

/// Where the result goes: beside its final place until it is complete.
pub struct Target {
    /// How it is written.
    pub format: ClipFormat,
    path: PathBuf,
    file: tempfile::NamedTempFile,
}

impl Target {
    /// By the name's extension; a name without one is a folder of PNG files.
    pub fn create(path: &Path, force: bool) -> Result<Self> {
        let format = match path.extension().and_then(|extension| extension.to_str()) {
            Some("mp4") => ClipFormat::Mp4Av1,
            Some("gif") => ClipFormat::Gif,
            None => ClipFormat::PngStream,
            Some(other) => bail!("clips are written as .mp4, .gif or a folder, not .{other}"),
        };
        if path.exists() && !force {
            bail!("{} exists; replace it with --force", path.display());
        }
        let folder = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let file = tempfile::Builder::new()
            .prefix(".mote-clip-")
            .tempfile_in(folder)
            .with_context(|| format!("cannot create a file in {}", folder.display()))?;
        Ok(Self {
            format,
            path: path.to_path_buf(),
            file,
        })
    }

    fn descriptor(&self) -> Result<OwnedFd> {
        let file = self
            .file
            .as_file()
            .try_clone()
            .context("cannot hand the result's file on")?;
        Ok(file.into())
    }

    /// Puts the complete result in its place.
    pub fn keep(self) -> Result<PathBuf> {
        if self.format == ClipFormat::PngStream {
            pngs::split(self.file.as_file(), &self.path)?;
            return Ok(self.path);
        }
        let failed = || format!("cannot put {} in place", self.path.display());
        set_permissions(self.file.as_file())?;
        self.file
            .persist(&self.path)
            .map_err(|error| error.error)
            .with_context(failed)?;
        Ok(self.path)
    }

    fn discard(self) {
        if let Err(error) = self.file.close() {
            log::warn!("cannot remove an unfinished result: {error}");
        }
    }
}

/// As a file made without a detour would have them: all that the user's mask allows.
fn set_permissions(file: &File) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mask = nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    nix::sys::stat::umask(mask);
    let mode = 0o666 & !mask.bits();
    file.set_permissions(std::fs::Permissions::from_mode(mode))
        .context("cannot set the result's permissions")
}
