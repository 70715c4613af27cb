//! `mote import`.

use crate::args::{AlsoFormat, Bits, CacheArg, Import, LayoutArg, PoolingArg};
use crate::fetch::{self, Pins};
use crate::interrupt;
use crate::ui::{Ui, bytes_text};
use anyhow::{Context, Result, bail, ensure};
use mote_api::{Manifest, Paths};
use mote_import::{
    CacheStorage, Carve, Element, Embedding, ImportOptions, ImportReport, Layout, Licence, Pooling,
    Precision, Progress, Stage, Storage, Target,
};
use serde::Serialize;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Name of the built-in recipe, and of the model it makes.
pub const MOE_RECIPE: &str = "smollm2-135m-moe";
/// The checkpoint that is imported when none is named.
pub const DEFAULT_CHECKPOINT: &str = "smollm2-135m-gguf";
const DEFAULT_CHECKPOINT_FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const DEFAULT_MODEL: &str = "smollm2-135m";
/// Entries of a folder without weights that are looked at for what to name instead.
const FOLDER_ENTRIES_MAX: usize = 10_000;
/// Larger recipes are refused unread.
const RECIPE_FILE_BYTES_MAX: u64 = 64 << 20;

#[derive(Serialize)]
struct Imported {
    name: String,
    folder: PathBuf,
    weights_bytes: u64,
    parameters: u64,
    experts_per_token: Option<usize>,
    peak_resident_bytes: Option<u64>,
    also: Vec<Written>,
}

/// The weights in the format of other programs.
#[derive(Serialize)]
struct Written {
    format: AlsoFormat,
    folder: PathBuf,
    weights_bytes: u64,
}

/// Folders that go away again unless they are kept.
#[derive(Default)]
struct Unfinished(Vec<PathBuf>);

impl Unfinished {
    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        for folder in &self.0 {
            if let Err(error) = std::fs::remove_dir_all(folder) {
                log::warn!("cannot remove {}: {error}", folder.display());
            }
        }
    }
}

/// Imports a checkpoint into the store, and writes it for other programs. All of it, or nothing.
pub fn import(args: &Import, ui: &Ui) -> Result<()> {
    let paths = Paths::from_env();
    let name = name(args)?;
    check_store(args, &paths, &name)?;
    let also = targets(args, &name)?;
    let (mut unfinished, mut written) = (Unfinished::default(), Vec::new());
    for (format, folder) in also {
        let target = match format {
            AlsoFormat::Hf => Target::HuggingFace(Element::F32),
            AlsoFormat::Gguf => Target::Gguf(precision(args)),
        };
        let what = match format {
            AlsoFormat::Hf => "for Hugging Face",
            AlsoFormat::Gguf => "as GGUF",
        };
        ui.note(format!("write the weights {what} in {}", folder.display()));
        let report = run(&options(args, &paths, &folder, target)?, ui)?;
        unfinished.0.push(folder.clone());
        interrupt::check()?;
        written.push(Written {
            format,
            folder,
            weights_bytes: report.weights_bytes,
        });
    }
    let report = import_into(args, &paths, ui)?;
    unfinished.keep();
    let imported = Imported {
        name: report.name.clone(),
        folder: report.folder.clone(),
        weights_bytes: report.weights_bytes,
        parameters: report.parameters,
        experts_per_token: report.moe.map(|moe| moe.experts_per_token),
        peak_resident_bytes: report.peak_resident_bytes,
        also: written,
    };
    let text = text(&imported, &report);
    ui.result(&imported, text)
}

fn text(imported: &Imported, report: &ImportReport) -> String {
    let moe = report.moe.map_or(String::new(), |moe| {
        format!(
            ", {} of {} routed experts per token",
            moe.experts_per_token, moe.experts
        )
    });
    let mut lines = vec![format!(
        "{} imported: {} of weights{moe} in {}",
        imported.name,
        bytes_text(imported.weights_bytes),
        imported.folder.display()
    )];
    lines.extend(imported.also.iter().map(|written| {
        format!(
            "also written: {} of weights in {}",
            bytes_text(written.weights_bytes),
            written.folder.display()
        )
    }));
    lines.join("\n")
}

/// What `--also` asks for, before anything is written.
fn targets(args: &Import, name: &str) -> Result<Vec<(AlsoFormat, PathBuf)>> {
    let mut targets: Vec<(AlsoFormat, PathBuf)> = Vec::new();
    for also in &args.also {
        let suffix = match also.format {
            AlsoFormat::Hf => "hf",
            AlsoFormat::Gguf => "gguf",
        };
        let own = || PathBuf::from(format!("{name}-{suffix}"));
        let folder = also.folder.clone().unwrap_or_else(own);
        if folder.exists() {
            bail!("{} is there already", folder.display());
        }
        if targets.iter().any(|(_, other)| *other == folder) {
            bail!("--also names {} twice", folder.display());
        }
        targets.push((also.format, folder));
    }
    Ok(targets)
}

fn name(args: &Import) -> Result<String> {
    Ok(match (&args.name, &args.recipe) {
        (Some(name), _) => name.clone(),
        (None, Some(recipe)) if recipe == MOE_RECIPE => MOE_RECIPE.to_owned(),
        (None, None) if args.checkpoint.is_none() => DEFAULT_MODEL.to_owned(),
        (None, _) => bail!("name the model with --name"),
    })
}

fn check_store(args: &Import, paths: &Paths, name: &str) -> Result<()> {
    ensure!(Manifest::is_name(name), "{name:?} cannot name a model");
    if paths.stores[0].join(name).exists() && !args.replace {
        bail!("there is a model {name:?} already; replace it with --replace");
    }
    Ok(())
}

/// Imports a checkpoint into the store and answers what was made.
pub fn import_into(args: &Import, paths: &Paths, ui: &Ui) -> Result<ImportReport> {
    let name = name(args)?;
    check_store(args, paths, &name)?;
    let store = &paths.stores[0];
    std::fs::create_dir_all(store).with_context(|| format!("cannot create {}", store.display()))?;
    let folder = store.join(&name);
    // A model that is replaced stays in place until the new one is complete.
    let fresh = store.join(format!(".{name}-import-{}", std::process::id()));
    let target = Target::Mote(precision(args));
    let mut report = run(&options(args, paths, &fresh, target)?, ui)?;
    let unfinished = Unfinished(vec![fresh.clone()]);
    interrupt::check()?;
    fetch::put_in_place(&fresh, &folder)?;
    unfinished.keep();
    report.folder = folder;
    Ok(report)
}

/// How weights and caches are stored.
fn precision(args: &Import) -> Precision {
    let head = args.head_bits.unwrap_or(match args.bits {
        Bits::Four => Bits::Eight,
        bits => bits,
    });
    Precision {
        head: storage(head),
        cache: args.cache.map(|cache| match cache {
            CacheArg::F32 => CacheStorage::F32,
            CacheArg::F16 => CacheStorage::F16,
            CacheArg::I8 => CacheStorage::Int8,
        }),
        layout: match args.layout {
            LayoutArg::Kernels => Layout::Kernels,
            LayoutArg::Stock => Layout::Stock,
        },
        ..Precision::uniform(storage(args.bits))
    }
}

fn storage(bits: Bits) -> Storage {
    match bits {
        Bits::Four => Storage::Int4,
        Bits::Eight => Storage::Int8,
        Bits::Sixteen => Storage::F16,
        Bits::ThirtyTwo => Storage::F32,
    }
}

fn options(args: &Import, paths: &Paths, folder: &Path, target: Target) -> Result<ImportOptions> {
    let (source, licence) = source(args, paths)?;
    let mut options = ImportOptions::new(source, folder, name(args)?);
    options.source_name = match &args.checkpoint {
        Some(path) => own_name(path),
        None => "SmolLM2-135M-Instruct".to_owned(),
    };
    options.licence = licence;
    options.context_tokens = args.context_tokens;
    options.target = target;
    options.cancel = interrupt::flag();
    options.embedding = args.embedding.then_some(Embedding {
        pooling: args.pooling.map(|pooling| match pooling {
            PoolingArg::Last => Pooling::Last,
            PoolingArg::Mean => Pooling::Mean,
        }),
    });
    if let Some(recipe) = &args.recipe {
        let recipe = recipe_bytes(recipe)?;
        options.carve = Some(Carve {
            recipe,
            experts_per_token: args.experts_per_token,
        });
    } else if args.experts_per_token.is_some() {
        bail!("--experts-per-token goes with --recipe");
    }
    Ok(options)
}

fn source(args: &Import, paths: &Paths) -> Result<(PathBuf, Licence)> {
    if let Some(path) = &args.checkpoint {
        check_kind(path)?;
        return Ok((path.clone(), Licence::default()));
    }
    let pins = Pins::read()?;
    let item = pins.get(DEFAULT_CHECKPOINT)?;
    if !fetch::is_there(item, paths) {
        bail!("the checkpoint is not there; get it with `mote fetch {DEFAULT_CHECKPOINT}`");
    }
    let folder = fetch::folder_of(item, paths);
    let text = std::fs::read_to_string(folder.join("LICENSE"))
        .with_context(|| format!("cannot read the licence in {}", folder.display()))?;
    let licence = Licence {
        id: item.licence.clone(),
        text,
    };
    Ok((folder.join(DEFAULT_CHECKPOINT_FILE), licence))
}

/// What `path` is called, wherever it is seen from.
fn own_name(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = whole.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Says what to name instead when `path` is no checkpoint that can be read.
fn check_kind(path: &Path) -> Result<()> {
    let is_folder = std::fs::metadata(path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .is_dir();
    let is = |extension: &str| path.extension().is_some_and(|found| found == extension);
    if !is_folder {
        let alone = is("safetensors") || is("json");
        ensure!(!alone, "name the folder that {} is in", path.display());
        return Ok(());
    }
    let there = |name: &str| path.join(name).exists();
    if there("model.safetensors") || there("model.safetensors.index.json") {
        return Ok(());
    }
    let entries = std::fs::read_dir(path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .take(FOLDER_ENTRIES_MAX);
    let paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    let having = |extension: &str| {
        let mut found = paths.iter();
        found.find(|path| path.extension().is_some_and(|one| one == extension))
    };
    if let Some(gguf) = having("gguf") {
        bail!(
            "{} holds GGUF files: name one, such as {}",
            path.display(),
            gguf.display()
        );
    }
    if let Some(pickle) = having("bin").or(having("pth")).or(having("pt")) {
        bail!(
            "{} is a pickle, which may run code when it is read; save the model as safetensors \
             (transformers: save_pretrained)",
            pickle.display()
        );
    }
    bail!("{} has no model.safetensors", path.display())
}

fn recipe_bytes(recipe: &str) -> Result<Cow<'static, [u8]>> {
    if recipe == MOE_RECIPE {
        return Ok(Cow::Borrowed(mote_import::SMOLLM2_135M_MOE_RECIPE));
    }
    let path = Path::new(recipe);
    let meta = std::fs::metadata(path)
        .with_context(|| format!("{recipe} is neither a built-in recipe nor a file"))?;
    if meta.len() > RECIPE_FILE_BYTES_MAX {
        bail!("{recipe} is larger than a recipe may be ({RECIPE_FILE_BYTES_MAX} bytes)");
    }
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {recipe}"))?;
    Ok(Cow::Owned(bytes))
}

fn run(options: &ImportOptions, ui: &Ui) -> Result<ImportReport> {
    let bar = ui.bytes_bar(&options.name, 0);
    let mut progress = |progress: Progress| {
        bar.set_length(progress.bytes_total);
        bar.set_position(progress.bytes_done);
        bar.set_prefix(match progress.stage {
            Stage::Digest => "check the weights".to_owned(),
            Stage::Outer => "convert embedding".to_owned(),
            Stage::Layer { index, count } => format!("convert layer {}/{count}", index + 1),
            Stage::Verify => "verify".to_owned(),
        });
    };
    let report = mote_import::import(options, &mut progress);
    bar.finish_and_clear();
    if report.is_err() {
        interrupt::check()?;
    }
    report.with_context(|| format!("cannot import {}", options.source.display()))
}
