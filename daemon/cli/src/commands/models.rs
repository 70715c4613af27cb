//! `mote models`.

use crate::args::Models;
use crate::interrupt;
use crate::store;
use crate::ui::{Ui, bytes_text};
use anyhow::Result;
use mote_client::Client;
use mote_wire::types::{DType, ModelDetails, ModelInfo, TensorSpec};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Serialize)]
struct Stored {
    name: String,
    folder: PathBuf,
}

/// Installs or removes; needs no daemon, but tells one that runs.
pub fn change(verb: &Models, daemon: Option<&Client>, ui: &Ui) -> Result<()> {
    let (stored, done) = match verb {
        Models::Install {
            source,
            name,
            replace,
        } => {
            let (name, folder) = store::install(source, name.as_deref(), *replace, ui)?;
            (Stored { name, folder }, "installed")
        }
        Models::Remove { model } => {
            let folder = store::remove(model)?;
            (
                Stored {
                    name: model.clone(),
                    folder,
                },
                "removed",
            )
        }
        Models::List | Models::Inspect { .. } => return Ok(()),
    };
    if let Some(daemon) = daemon {
        daemon.rescan()?;
    }
    let text = format!("{} {done}: {}", stored.name, stored.folder.display());
    ui.result(&stored, text)
}

/// All models of the catalogue.
pub fn list(client: &Client, ui: &Ui) -> Result<()> {
    let models = client.models()?;
    let lines: Vec<_> = models.iter().map(line).collect();
    let text = match lines.is_empty() {
        true => "no models; `mote fetch` and `mote import` bring some".to_owned(),
        false => lines.join("\n"),
    };
    ui.result(&models, text)
}

fn line(model: &ModelInfo) -> String {
    if let Some(problem) = &model.problem {
        return format!("{:22} cannot be served: {problem}", model.name);
    }
    let backends: Vec<_> = model.variants.iter().map(|v| v.backend.as_str()).collect();
    let loaded = if model.loaded { "loaded" } else { "" };
    format!(
        "{:22} {:20} {:>11} {:7} {:20} {}",
        model.name,
        model.task,
        bytes_text(model.bytes),
        loaded,
        backends.join(", "),
        model.description
    )
    .trim_end()
    .to_owned()
}

/// One model.
pub fn inspect(client: &Arc<Client>, model: &str, load: bool, ui: &Ui) -> Result<()> {
    let details = if load {
        let spinner = ui.spinner("load");
        let (client, model) = (Arc::clone(client), model.to_owned());
        let details = interrupt::wait(move || Ok(client.inspect_loaded(&model)?));
        spinner.finish_and_clear();
        details?
    } else {
        client.inspect(model)?
    };
    ui.result(&details, details_text(&details))
}

fn details_text(details: &ModelDetails) -> String {
    let mut lines = vec![
        line(&details.model),
        format!("folder   {}", details.folder),
        format!("digest   {}", details.model.digest),
        format!("licence  {}", details.model.licence),
        format!("source   {}", details.model.source),
    ];
    for variant in &details.model.variants {
        lines.push(format!(
            "variant  {}: {} {}, {}",
            variant.name,
            variant.backend,
            variant.precision,
            bytes_text(variant.weights_bytes)
        ));
    }
    lines.extend(
        details
            .inputs
            .iter()
            .map(|spec| format!("input    {}", spec_text(spec))),
    );
    lines.extend(
        details
            .outputs
            .iter()
            .map(|spec| format!("output   {}", spec_text(spec))),
    );
    if details.inputs.is_empty() {
        lines.push("inputs and outputs are known once it is loaded: add --load".into());
    }
    let origin = if details.inferred {
        "inferred from the files"
    } else {
        "from mote.toml"
    };
    lines.push(format!(
        "manifest, {origin}:\n{}",
        details.manifest_toml.trim_end()
    ));
    lines.join("\n")
}

/// `name f32 [1, ?, 3]`.
pub fn spec_text(spec: &TensorSpec) -> String {
    let dims = spec
        .shape
        .iter()
        .map(|dim| dim.map_or("?".to_owned(), |dim| dim.to_string()));
    format!(
        "{} {} [{}]",
        spec.name,
        dtype_text(spec.dtype),
        dims.collect::<Vec<_>>().join(", ")
    )
}

/// `f32`.
pub fn dtype_text(dtype: DType) -> String {
    format!("{dtype:?}").to_lowercase()
}
