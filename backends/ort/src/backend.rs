//! Loading the library, once per process, and [`Backend`] over it.

use crate::failure::{chain, note_logged, open_absence};
use crate::model::OrtModel;
use crate::plugins::plug_in;
use crate::probe;
use crate::providers::{CPU_PROVIDER, Provider};
use crate::sys::{self, LibraryError};
use mote_api::{
    Absence, Backend, BackendKind, Capability, LoadError, LoadRequest, Model, ProbeError,
};
use ort::environment::Environment;
use ort::logging::LogLevel;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Where the library's own log messages go.
const LOG_TARGET: &str = "onnxruntime";

/// An ONNX Runtime library, loaded for the life of the process.
pub struct OrtBackend {
    library: Library,
    flavour: String,
    plugins: Vec<(String, PathBuf)>,
    options: ProviderOptions,
}

/// Options per provider.
type ProviderOptions = BTreeMap<String, BTreeMap<String, String>>;

#[derive(Clone)]
struct Library {
    path: PathBuf,
    version: String,
    environment: Environment,
}

/// The library that this process loaded; the runtime cannot hold a second one.
static LOADED: Mutex<Option<Library>> = Mutex::new(None);

impl OrtBackend {
    /// Loads the shared library at `library`; `flavour_name` is what its capabilities are
    /// reported under. Loading the same file again is cheap.
    ///
    /// # Errors
    /// When the file is missing, unreadable, no ONNX Runtime, older than the API Mote needs, or
    /// misses a library of its own; or when this process has loaded another one before.
    pub fn load(library: &Path, flavour_name: &str) -> Result<Self, ProbeError> {
        let opened = open(library).map_err(|absence| ProbeError {
            library: library.display().to_string(),
            absence,
        })?;
        Ok(Self {
            library: opened,
            flavour: flavour_name.to_owned(),
            plugins: Vec::new(),
            options: BTreeMap::new(),
        })
    }

    /// With providers that come in libraries of their own, and the options to probe with. A library
    /// is not opened before its provider is probed or loaded on, so that one cannot hurt the others.
    #[must_use]
    pub fn with(self, plugins: Vec<(String, PathBuf)>, options: ProviderOptions) -> Self {
        Self {
            plugins,
            options,
            ..self
        }
    }

    /// Opens the library of a provider that has one of its own.
    fn plug(&self, provider: &str) -> Result<(), Absence> {
        let mut plugins = self.plugins.iter();
        match plugins.find(|(name, _)| name == provider) {
            None => Ok(()),
            Some((_, library)) => self
                .register_plugin(provider, library)
                .map_err(|refused| refused.absence),
        }
    }

    /// Registers a library that brings the execution provider `provider` (a plug-in: QNN,
    /// OpenVINO and others come this way). [`Backend::probe`] and [`Backend::load`] of all backends
    /// in this process know the provider from then on, whether or not Mote has heard of it before.
    ///
    /// # Errors
    /// When the library does not load, or brings a provider that Mote has not heard of and no
    /// device for it.
    pub fn register_plugin(&self, provider: &str, library: &Path) -> Result<(), ProbeError> {
        let refuse = |absence| ProbeError {
            library: library.display().to_string(),
            absence,
        };
        if !library.exists() {
            let name = library.display().to_string();
            return Err(refuse(Absence::LibraryMissing { name }));
        }
        plug_in(&self.library.environment, provider, library).map_err(refuse)
    }
}

fn open(library: &Path) -> Result<Library, Absence> {
    let name = library.display().to_string();
    let path = library.canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Absence::LibraryMissing { name: name.clone() },
        std::io::ErrorKind::PermissionDenied => Absence::NoPermission { path: name.clone() },
        _ => Absence::LibraryRejected {
            name: name.clone(),
            why: error.to_string(),
        },
    })?;
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = &*loaded {
        if known.path == path {
            return Ok(known.clone());
        }
        let why = format!("this process already uses {}", known.path.display());
        return Err(Absence::LibraryRejected { name, why });
    }
    let version = checked_version(&path)?;
    let rejected = |why: String| Absence::LibraryRejected {
        name: name.clone(),
        why,
    };
    let environment = ort::init_from(&path)
        .map_err(|error| rejected(error.to_string()))?
        .with_name("mote")
        .with_telemetry(false)
        .with_logger(Arc::new(|level, category, _, _, message| {
            if matches!(level, LogLevel::Error | LogLevel::Fatal) {
                note_logged(message);
            }
            log::log!(target: LOG_TARGET, log_level(level), "{category}: {message}");
        }))
        .build()
        .map_err(|error| rejected(error.message().to_owned()))?;
    environment.set_log_level(wanted_level());
    Ok(loaded
        .insert(Library {
            path,
            version,
            environment,
        })
        .clone())
}

/// The version of the library, when it is an ONNX Runtime new enough.
fn checked_version(path: &Path) -> Result<String, Absence> {
    let rejected = |why: &str| Absence::LibraryRejected {
        name: path.display().to_string(),
        why: why.to_owned(),
    };
    let version = sys::library_version(path).map_err(|error| match error {
        LibraryError::Open(error) => open_absence(path, &chain(&error)),
        LibraryError::NoEntry => Absence::SymbolMissing {
            symbol: sys::ENTRY_SYMBOL.into(),
        },
        LibraryError::NoVersion => rejected("it does not tell its version"),
    })?;
    let mut numbers = version.split('.').map(|number| number.parse::<u32>());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(1)), Some(Ok(minor))) if minor >= ort::MINOR_VERSION => Ok(version),
        (Some(Ok(1)), Some(Ok(_))) => Err(Absence::VersionSkew {
            have: version,
            need: format!("1.{}", ort::MINOR_VERSION),
        }),
        _ => Err(rejected(&format!("its version is {version:?}"))),
    }
}

fn log_level(level: LogLevel) -> log::Level {
    match level {
        LogLevel::Verbose => log::Level::Trace,
        LogLevel::Info => log::Level::Debug,
        LogLevel::Warning => log::Level::Warn,
        LogLevel::Error | LogLevel::Fatal => log::Level::Error,
    }
}

/// The least level the library should bother to format.
fn wanted_level() -> LogLevel {
    match log::max_level() {
        log::LevelFilter::Trace => LogLevel::Verbose,
        log::LevelFilter::Debug => LogLevel::Info,
        log::LevelFilter::Info | log::LevelFilter::Warn => LogLevel::Warning,
        // Errors are wanted even when nobody logs: they explain those that are answered.
        log::LevelFilter::Error | log::LevelFilter::Off => LogLevel::Error,
    }
}

impl Backend for OrtBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::OnnxRuntime
    }

    fn version(&self) -> &str {
        &self.library.version
    }

    fn providers(&self) -> Vec<String> {
        let mut names = probe::names();
        let own = self.plugins.iter().map(|(name, _)| name.clone());
        names.extend(own.filter(|name| !names.contains(name)).collect::<Vec<_>>());
        names
    }

    fn probe_provider(&self, provider: &str) -> Vec<Capability> {
        let options = self.options.get(provider).into_iter().flatten();
        let options: Vec<_> = options.map(|(k, v)| (k.clone(), v.clone())).collect();
        let found = match self.plug(provider) {
            Ok(()) => probe::run(&self.library.environment, provider, &options),
            Err(absence) => vec![probe::Outcome::absent(provider, absence)],
        };
        let capability = |outcome: probe::Outcome| Capability {
            flavour: self.flavour.clone(),
            backend: BackendKind::OnnxRuntime,
            library_version: self.library.version.clone(),
            provider: outcome.provider,
            device: outcome.device,
            absence: outcome.absence,
        };
        found.into_iter().map(capability).collect()
    }

    /// An empty provider is the CPU. Options of the CPU are session configuration entries.
    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Model>, LoadError> {
        let name = match request.provider.as_str() {
            "" => CPU_PROVIDER,
            name => name,
        };
        let absent = |absence| LoadError::ProviderAbsent {
            provider: name.to_owned(),
            absence,
        };
        self.plug(name).map_err(absent)?;
        let rows = Provider::chosen(name, &request.provider_options);
        let row = rows.first().ok_or_else(|| absent(Absence::NotCompiledIn))?;
        let library = &self.library;
        let model = OrtModel::load(&library.environment, &library.version, row, request)?;
        Ok(Arc::new(model))
    }
}
