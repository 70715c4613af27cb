//! `mote run`: tensors and pictures in, tensors out.

use crate::args::Run;
use crate::arrays::{self, Array};
use crate::commands::models::spec_text;
use crate::ui::Ui;
use crate::work::options;
use anyhow::{Context, Result, bail, ensure};
use mote_api::{InputHint, Manifest};
use mote_client::{Client, Input};
use mote_wire::types::{DType, ModelDetails, TensorSpec};
use serde::Serialize;
use std::path::{Path, PathBuf};

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
pub fn run(client: &Client, args: &Run, ui: &Ui) -> Result<()> {
    let spinner = ui.spinner("load");
    // Inputs and outputs are known once it is loaded, and it is loaded where it is to run.
    client.load(&args.model, &options(&args.work))?;
    let details = client.inspect(&args.model)?;
    let manifest = Manifest::parse(&details.manifest_toml, Path::new(&args.model))
        .context("the daemon's manifest does not parse")?;
    let mut inputs = Vec::new();
    for given in &args.inputs {
        inputs.push(input(given, args, &details, &manifest)?);
    }
    let given: Vec<_> = inputs
        .iter()
        .map(|(name, array)| as_input(name, array))
        .collect();
    let result = client.infer(&args.model, &given, &[], &options(&args.work));
    spinner.finish_and_clear();
    let result = result?;
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mut outputs = Vec::new();
    for tensor in &result.outputs {
        let bytes = tensor
            .bytes()
            .context("an output did not come back")?
            .to_vec();
        let array = Array {
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
            bytes,
        };
        let file = match &args.out {
            None => None,
            Some(folder) => {
                let path = folder.join(format!("{}.npy", file_name(&tensor.name)));
                arrays::write_npy(&path, &array)?;
                Some(path)
            }
        };
        let (name, largest) = (tensor.name.clone(), array.largest());
        outputs.push(Output {
            name,
            dtype: array.dtype,
            shape: array.shape,
            file,
            largest,
        });
    }
    let ran = Ran {
        outputs,
        receipt: result.done.receipt,
    };
    let text = text(&ran, &manifest, &details);
    ui.result(&ran, text)
}

fn text(ran: &Ran, manifest: &Manifest, details: &ModelDetails) -> String {
    let labels = manifest.labels.as_ref().and_then(|file| {
        // A label is an extra: without the file the number alone is shown.
        std::fs::read_to_string(Path::new(&details.folder).join(file)).ok()
    });
    let lines = ran.outputs.iter().map(|output| {
        let dtype = format!("{:?}", output.dtype).to_lowercase();
        let mut line = format!("{} {dtype} {:?}", output.name, output.shape);
        if let Some((index, value)) = output.largest {
            let label = labels.as_ref().and_then(|labels| labels.lines().nth(index));
            let label = label.map_or(String::new(), |label| format!(" {label:?}"));
            line.push_str(&format!(", largest {value:.6} at {index}{label}"));
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

fn as_input<'a>(name: &'a str, array: &'a Array) -> Input<'a> {
    Input::bytes(name, array.dtype, &array.shape, &array.bytes)
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

fn input(
    given: &str,
    args: &Run,
    details: &ModelDetails,
    manifest: &Manifest,
) -> Result<(String, Array)> {
    let (name, file) = match given.split_once('=') {
        Some((name, file)) => (Some(name), Path::new(file)),
        None => (None, Path::new(given)),
    };
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
        "{} holds {:?}, the input wants {}",
        file.display(),
        array.dtype,
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
        Some(hint) => hint.layout == "nchw",
        None => spec.shape.get(1).copied().flatten() == Some(3),
    };
    let plain = InputHint {
        name: spec.name.clone(),
        layout: String::new(),
        scale: 1.0 / 255.0,
        mean: [0.0; 3],
        std: [1.0; 3],
    };
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
