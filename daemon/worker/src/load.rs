//! Loading the one model of this process.

use crate::convert;
use crate::link::{Link, LinkError};
use crate::memory::resident_bytes;
use crate::registry::{self, Open};
use crate::status::{self, Failure, chain};
use crate::threads::{Governor, Policy};
use crate::throttle::ThrottleLog;
use mote_api::{
    Backend, BackendKind, Candidate, Digest, Flavour, LoadError, LoadRequest, Manifest, Model,
    Placement, Rejection, Threads, Variant,
};
use mote_pipeline::{EmbeddingModel, GenerationModel, ROWS_MAX, TextModel};
use mote_wire::types::{LoadModel, Loaded, Progress, Stage, Status, WorkerEvent};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// The model of this process.
pub struct LoadedModel {
    /// Its manifest.
    pub manifest: Manifest,
    /// Where it runs.
    pub candidate: Candidate,
    /// The library, which stays for the life of the process: its models point into it.
    pub backend: &'static dyn Backend,
    /// What it was asked for.
    pub request: LoadRequest,
    /// Loaded and compiled; of several graphs, the one that the variant names first.
    pub model: Arc<dyn Model>,
    /// For models that make clips: all graphs, with tokenizer and scheduler.
    pub generation: Option<Arc<GenerationModel>>,
    /// For models that label frames: the names of classes; empty where there are none.
    pub labels: Vec<String>,
    /// Bytes that work beside the model may take, where they are counted for it.
    pub work_bytes_max: Option<u64>,
    /// For text models: with tokenizer and template.
    pub text: Option<Arc<TextModel>>,
    /// Text jobs that one run serves at most.
    pub rows_max: usize,
    /// Bytes that key and value caches may take together.
    pub cache_bytes_max: u64,
    /// For embedding models: with tokenizer.
    pub embedding: Option<Arc<EmbeddingModel>>,
    /// Its threads.
    pub governor: Arc<Governor>,
    /// What slows the machine down.
    pub throttle: Arc<ThrottleLog>,
    /// What the library placed where.
    pub placement: Placement,
    /// Time it took to load.
    pub load_us: u64,
}

/// Tells the broker that loading failed.
pub fn tell_failure(failure: Failure, link: &Link) -> Result<(), LinkError> {
    link.send(WorkerEvent::LoadFailed {
        status: failure.status,
        rejection_json: failure.rejection.as_deref().map_or(Vec::new(), json_of),
    })
}

/// A rejection as the broker reads it; empty when it cannot be written.
pub fn json_of(rejection: &Rejection) -> Vec<u8> {
    serde_json::to_vec(rejection).unwrap_or_else(|error| {
        log::error!("cannot write a rejection: {error}");
        Vec::new()
    })
}

/// Loads the model and answers the event that tells the broker of it.
pub fn load(
    command: &LoadModel,
    open: Open,
    link: &Link,
) -> Result<(LoadedModel, Loaded), Failure> {
    let started = Instant::now();
    let folder = PathBuf::from(&command.folder);
    let manifest: Manifest = from_json(&command.manifest_json, "manifest")?;
    let candidate: Candidate = from_json(&command.candidate_json, "candidate")?;
    let flavour: Flavour = from_json(&command.flavour_json, "flavour")?;
    let variant = manifest
        .variants
        .iter()
        .find(|v| v.name == candidate.variant);
    let variant = variant
        .ok_or_else(|| Status::invalid("variant", "is not in the manifest"))?
        .clone();
    if command.verify_digests {
        verify(&manifest, &variant, &folder, link)?;
    }
    let flavour_folder = Path::new(&command.flavour_folder);
    flavour
        .verify(flavour_folder)
        .map_err(|error| absent(&chain(&error)))?;
    let backend = open(&flavour, flavour_folder).map_err(|error| Failure {
        status: Status::ComputeFailed {
            operation: "open runtime".into(),
            cause: chain(&error),
        },
        rejection: Some(Box::new(Rejection::Absent {
            absence: error.absence,
        })),
    })?;
    // Of the three libraries only this one has threads that spin.
    let can_spin = candidate.backend == BackendKind::OnnxRuntime;
    let limit = command.threads.max(1) as usize;
    let at_first = command.threads_at_first.map_or(limit, |n| n as usize);
    let threads = Threads {
        count: at_first.clamp(1, limit),
        spin: command.spin && can_spin,
    };
    let backend: &dyn Backend = Box::leak(backend);
    let compiled = Path::new(&command.compiled_folder);
    let request = LoadRequest {
        file: folder.join(&variant.file),
        provider: candidate.provider.clone(),
        provider_options: registry::options(&flavour, &candidate.provider, candidate.device.kind),
        threads,
        forbid_cpu: command.forbid_cpu,
        dimensions: manifest.dimensions.clone(),
        compiled: compiled.is_dir().then(|| compiled.to_owned()),
        profile: None,
    };
    let model = backend.load(&request).map_err(|error| failure_of(&error))?;
    let parts = load_parts(backend, &request, (&folder, &variant))?;
    let models: Vec<_> = std::iter::once(&model)
        .chain(parts.values())
        .cloned()
        .collect();
    if let Some((spec, place)) = model.signature().first_open()
        && !manifest.dimensions.is_empty()
    {
        let input = spec.name.clone();
        return Err(failure_of(&LoadError::OpenDimension { input, place }));
    }
    let text = match &manifest.text {
        None => None,
        Some(spec) => {
            let opened = TextModel::open(&folder, spec, Arc::clone(&model));
            Some(Arc::new(opened.map_err(|error| {
                Failure::from(status::of_pipeline(&error))
            })?))
        }
    };
    // Of other ways it is not known that they take rows of different lengths as it is meant.
    let is_plain = candidate.reference_rank().is_some();
    let takes_rows = text.as_ref().is_some_and(|text| text.takes_rows());
    let rows_max = if is_plain && takes_rows { ROWS_MAX } else { 1 };
    log::debug!(rows = rows_max; "answers that one run serves");
    let embedding = match &manifest.embedding {
        None => None,
        Some(spec) => {
            let opened = EmbeddingModel::open(&folder, spec, Arc::clone(&model));
            Some(Arc::new(opened.map_err(|error| {
                Failure::from(status::of_pipeline(&error))
            })?))
        }
    };
    let opened = |error| Failure::from(status::of_pipeline(&error));
    let generation = match &manifest.generation {
        None => None,
        Some(spec) => {
            let main = Arc::clone(&model);
            let made = GenerationModel::open(&folder, spec, main, parts).map_err(opened)?;
            let memory = Some(command.cache_bytes_max).filter(|bytes| *bytes > 0);
            let made = made.with_identity(&command.model_digest);
            Some(Arc::new(made.with_memory(memory)))
        }
    };
    let labels = match &manifest.labels {
        Some(file) if manifest.labelling.is_some() => {
            mote_pipeline::read_labels(&folder.join(file)).map_err(opened)?
        }
        _ => Vec::new(),
    };
    let placement = placement_of(&models);
    let loaded = Loaded {
        placement_json: serde_json::to_vec(&placement)
            .map_err(|error| status::internal("write placement", &error))?,
        inputs: convert::specs(&model.signature().inputs),
        outputs: convert::specs(&model.signature().outputs),
        load_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
        rss_bytes: resident_bytes(),
        library_version: backend.version().to_owned(),
        sandbox: crate::sandbox::state(),
        jobs_per_run: u32::try_from(rows_max).unwrap_or(u32::MAX),
    };
    let policy = Policy {
        limit,
        follow: command.threads_follow_load,
        can_spin,
    };
    let governor = Arc::new(Governor::new(models, threads, policy));
    Ok((
        LoadedModel {
            manifest,
            candidate,
            backend,
            request,
            model,
            generation,
            labels,
            work_bytes_max: Some(command.cache_bytes_max).filter(|bytes| *bytes > 0),
            text,
            rows_max,
            cache_bytes_max: match command.cache_bytes_max {
                0 => u64::MAX,
                bytes => bytes,
            },
            embedding,
            governor,
            throttle: Arc::default(),
            placement,
            load_us: loaded.load_us,
        },
        loaded,
    ))
}

/// Loads the further graphs of a variant as the first one was. What is compiled of each has a folder of its
/// own.
fn load_parts(
    backend: &dyn Backend,
    first: &LoadRequest,
    (folder, variant): (&Path, &Variant),
) -> Result<BTreeMap<String, Arc<dyn Model>>, Failure> {
    let mut parts = BTreeMap::new();
    for (name, file) in &variant.parts {
        let compiled = first.compiled.as_ref().map(|folder| folder.join(name));
        if let Some(folder) = &compiled
            && let Err(error) = std::fs::create_dir_all(folder)
        {
            return Err(status::internal("make a folder for what is compiled", &error).into());
        }
        let request = LoadRequest {
            file: folder.join(file),
            compiled,
            ..first.clone()
        };
        let model = backend.load(&request).map_err(|error| failure_of(&error))?;
        parts.insert(name.clone(), model);
    }
    Ok(parts)
}

/// Where the nodes of all graphs went.
fn placement_of(models: &[Arc<dyn Model>]) -> Placement {
    let mut placements = models.iter().map(|model| model.placement());
    let first = placements.next().unwrap_or_default();
    placements.fold(first, Placement::with)
}

fn from_json<T: DeserializeOwned>(json: &[u8], field: &str) -> Result<T, Status> {
    serde_json::from_slice(json).map_err(|error| Status::invalid(field, error))
}

fn absent(why: &str) -> Failure {
    Failure {
        status: Status::ComputeFailed {
            operation: "verify runtime".into(),
            cause: why.into(),
        },
        rejection: Some(Box::new(Rejection::LoadFailed { why: why.into() })),
    }
}

fn failure_of(error: &LoadError) -> Failure {
    let rejection = match error {
        LoadError::Read { .. } | LoadError::Malformed { .. } => None,
        LoadError::UnsupportedOperators { operators, .. } => {
            Some(Rejection::UnsupportedOperators {
                operators: operators.clone(),
            })
        }
        LoadError::ProviderAbsent { absence, .. } => Some(Rejection::Absent {
            absence: absence.clone(),
        }),
        LoadError::CpuForbidden {
            nodes, cpu_nodes, ..
        } => Some(Rejection::FellBackToCpu {
            nodes: *nodes,
            cpu_nodes: *cpu_nodes,
        }),
        _ => Some(Rejection::LoadFailed { why: chain(error) }),
    };
    Failure {
        status: status::of_load(error),
        rejection: rejection.map(Box::new),
    }
}

/// Checks every file that the manifest names, and that it names the file to be loaded. A model
/// without digests (a lone file) has nothing to be checked against.
fn verify(
    manifest: &Manifest,
    variant: &Variant,
    folder: &Path,
    link: &Link,
) -> Result<(), Status> {
    let corrupt = |file: &str, why: String| Status::ModelCorrupt {
        file: file.into(),
        why,
    };
    if manifest.files.is_empty() {
        return Ok(());
    }
    for graph in variant.graphs() {
        let wanted = graph.to_string_lossy();
        if !manifest.files.contains_key(wanted.as_ref()) {
            return Err(corrupt(&wanted, "the manifest has no digest of it".into()));
        }
    }
    let total = manifest.files.len() as u64;
    for (done, (name, digest)) in manifest.files.iter().enumerate() {
        let progress = Progress {
            stage: Stage::Loading,
            done: done as u64,
            total: Some(total),
            remaining_ms: None,
        };
        link.send(WorkerEvent::LoadProgress(progress))
            .map_err(|error| status::internal("report progress", &error))?;
        let have = Digest::of_file(&folder.join(name))
            .map_err(|error| corrupt(name, error.to_string()))?;
        if have != *digest {
            return Err(corrupt(
                name,
                format!("it is {have}, the manifest says {digest}"),
            ));
        }
    }
    Ok(())
}
