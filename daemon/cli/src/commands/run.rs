//! `mote run`: tensors and pictures in, tensors out.

use crate::args::Run;
use crate::arrays::{self, Array};
use crate::commands::models::{dtype_text, spec_text};
use crate::interrupt;
use crate::output::PendingFolder;
use crate::ui::Ui;
use crate::work::options;
use anyhow::{Context, Result, bail, ensure};
use mote_api::{InputHint, Manifest, PictureLayout};
use mote_client::{Client, InferResult, Input, OwnedTensor};
use mote_wire::types::{DType, ModelDetails, TensorSpec};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Serialize)]
struct Output {
    name: String,
    dtype: DType,
    shape: Vec<u64>,
    file: Option<PathBuf>,
    /// The largest element and where it is, for a quick look.
    largest: Option<(usize, f64)>,
}

#[derive(Serialize)]
struct Ran {
    outputs: Vec<Output>,
    receipt: mote_wire::types::Receipt,
}

/// Runs a model once.
pub fn run(client: &Arc<Client>, args: &Run, ui: &Ui) -> Result<()> {
    for given in &args.inputs {
        let (_, file) = named(given);
        ensure!(file.is_file(), "there is no file {}", file.display());
    }
    let out = args.out.as_deref().map(PendingFolder::create).transpose()?;
    let spinner = ui.spinner("load");
    let details = load(client, args)?;
    let manifest = Manifest::parse(&details.manifest_toml, Path::new(&args.model))
        .context("the daemon's manifest does not parse")?;
    let mut inputs = Vec::new();
    for given in &args.inputs {
        inputs.push(input(given, args, &details, &manifest)?);
    }
    spinner.set_prefix("run");
    let result = infer(client, args, inputs);
    spinner.finish_and_clear();
    let result = result?;
    let mut outputs = Vec::new();
    for tensor in &result.outputs {
        outputs.push(output(tensor, args.out.as_deref(), out.as_ref())?);
    }
    if let Some(out) = out {
        out.keep(|_| false)?;
    }
    let ran = Ran {
        outputs,
        receipt: result.done.receipt,
    };
    let text = text(&ran, &manifest, &details);
    ui.result(&ran, text)
}

/// Inputs and outputs are known once it is loaded, and it is loaded where it is to run.
fn load(client: &Arc<Client>, args: &Run) -> Result<ModelDetails> {
    let details = client.inspect(&args.model)?;
    let verb = match details.model.task.as_str() {
        "text-generation" => Some("generate"),
        "embedding" => Some("embed"),
        "frame-interpolation" => Some("clip"),
        _ => None,
    };
    if let Some(verb) = verb {
        bail!("{} is run by `mote {verb}`", args.model);
    }
    let (client, model) = (Arc::clone(client), args.model.clone());
    let options = options(&args.work);
    interrupt::wait(move || {
        client.load(&model, &options)?;
        Ok(client.inspect(&model)?)
    })
}

fn infer(client: &Arc<Client>, args: &Run, inputs: Vec<(String, Array)>) -> Result<InferResult> {
    let (client, model) = (Arc::clone(client), args.model.clone());
    let options = options(&args.work);
    interrupt::wait(move || {
        let given: Vec<_> = inputs
            .iter()
            .map(|(name, array)| Input::bytes(name, array.dtype, &array.shape, &array.bytes))
            .collect();
        Ok(client.infer(&model, &given, &[], &options)?)
    })
}

/// What is told of an output, which is also written when there is a folder for it.
fn output(
    tensor: &OwnedTensor,
    folder: Option<&Path>,
    pending: Option<&PendingFolder>,
) -> Result<Output> {
    let bytes = tensor.bytes().context("an output did not come back")?;
    let array = Array {
        dtype: tensor.dtype,
        shape: tensor.shape.clone(),
        bytes: bytes.to_vec(),
    };
    let mut file = None;
    if let (Some(folder), Some(pending)) = (folder, pending) {
        let name = format!("{}.npy", file_name(&tensor.name));
        arrays::write_npy(&pending.folder().join(&name), &array)?;
        file = Some(folder.join(name));
    }
    Ok(Output {
        name: tensor.name.clone(),
        dtype: array.dtype,
        largest: array.largest(),
        shape: array.shape,
        file,
    })
}

fn text(ran: &Ran, manifest: &Manifest, details: &ModelDetails) -> String {
    let labels = manifest.labels.as_ref().and_then(|file| {
        // A label is an extra: without the file the number alone is shown.
        std::fs::read_to_string(Path::new(&details.folder).join(file)).ok()
    });
    let lines = ran.outputs.iter().map(|output| {
        let dtype = dtype_text(output.dtype);
        let mut line = format!("{} {dtype} {:?}", output.name, output.shape);
        if let Some((index, value)) = output.largest {
            let position = position(index as u64, &output.shape);
            // Labels name the last dimension; the others are batches.
            let class = position
                .last()
                .and_then(|&class| usize::try_from(class).ok());
            let label = labels
                .as_ref()
                .zip(class)
                .and_then(|(labels, class)| labels.lines().nth(class));
            let label = label.map_or(String::new(), |label| format!(" {label:?}"));
            line.push_str(&format!(", largest {value:.6} at {position:?}{label}"));
        }
        if let Some(file) = &output.file {
            line.push_str(&format!(" → {}", file.display()));
        }
        line
    });
    lines
        .chain([crate::receipt::receipt_text(&ran.receipt)])
        .collect::<Vec<_>>()
        .join("\n")
}

/// Where the element that is `index`-th in row-major order lies.
fn position(mut index: u64, shape: &[u64]) -> Vec<u64> {
    let mut position = vec![0; shape.len()];
    for (place, &dim) in position.iter_mut().zip(shape).rev() {
        let dim = dim.max(1);
        (*place, index) = (index % dim, index / dim);
    }
    position
}

/// Names of tensors may hold slashes and colons.
fn file_name(name: &str) -> String {
    let keep = |c: char| {
        if c.is_ascii_alphanumeric() || "-_.".contains(c) {
            c
        } else {
            '_'
        }
    };
    name.chars().map(keep).collect()
}

/// `NAME=FILE`, or a file alone.
fn named(given: &str) -> (Option<&str>, &Path) {
    match given.split_once('=') {
        Some((name, file)) => (Some(name), Path::new(file)),
        None => (None, Path::new(given)),
    }
}

fn input(
    given: &str,
    args: &Run,
    details: &ModelDetails,
    manifest: &Manifest,
) -> Result<(String, Array)> {
    let (name, file) = named(given);
    let spec = match name {
        Some(name) => details.inputs.iter().find(|spec| spec.name == name),
        None if details.inputs.len() == 1 => details.inputs.first(),
        None => None,
    };
    let spec = spec.with_context(|| {
        let names: Vec<_> = details.inputs.iter().map(spec_text).collect();
        format!("{given:?} names no input; there is {}", names.join("; "))
    })?;
    let array = match file.extension().and_then(|extension| extension.to_str()) {
        Some("npy") => arrays::read_npy(file)?,
        Some("png" | "jpg" | "jpeg") => picture(file, spec, args, manifest)?,
        _ => bail!("{} is neither .npy nor .png nor .jpg", file.display()),
    };
    ensure!(
        array.dtype == spec.dtype,
        "{} holds {}, the input wants {}",
        file.display(),
        dtype_text(array.dtype),
        spec_text(spec)
    );
    Ok((spec.name.clone(), array))
}

fn picture(file: &Path, spec: &TensorSpec, args: &Run, manifest: &Manifest) -> Result<Array> {
    ensure!(
        spec.dtype == DType::F32,
        "pictures go into f32 inputs, {} is not",
        spec_text(spec)
    );
    let hint = manifest.inputs.iter().find(|hint| hint.name == spec.name);
    let channels_first = match hint {
        Some(hint) => hint.layout == PictureLayout::Nchw,
        None => spec.shape.get(1).copied().flatten() == Some(3),
    };
    let plain = InputHint::plain(&spec.name, PictureLayout::Nchw);
    let size = picture_size(spec, args, channels_first)?;
    arrays::read_picture(file, size, channels_first, hint.unwrap_or(&plain))
}

fn picture_size(spec: &TensorSpec, args: &Run, channels_first: bool) -> Result<Option<(u32, u32)>> {
    ensure!(
        spec.shape.len() == 4,
        "{} takes no picture",
        spec_text(spec)
    );
    let (height, width) = if channels_first { (2, 3) } else { (1, 2) };
    if let (Some(height), Some(width)) = (spec.shape[height], spec.shape[width]) {
        let side = |side: u64| u32::try_from(side).context("the input is too large for a picture");
        return Ok(Some((side(width)?, side(height)?)));
    }
    let Some(size) = &args.size else {
        return Ok(None);
    };
    let (width, height) = size.split_once('x').context("--size is WIDTHxHEIGHT")?;
    Ok(Some((
        width.parse().context("--size")?,
        height.parse().context("--size")?,
    )))
}

#[cfg(test)]
mod tests {
    use super::position;

    #[test]
    fn positions_are_row_major() {
        assert!(position(0, &[]).is_empty());
        assert_eq!(position(347, &[3, 214]), [1, 133]);
        assert_eq!(position(23, &[2, 3, 4]), [1, 2, 3]);
    }
}
