//! The one table of backends.

use mote_api::{
    Absence, Backend, BackendKind, DeviceInfo, DeviceKind, DriverPath, Flavour, Plugin, ProbeError,
};
use std::path::Path;

/// Opens the library of a flavour that was read from `folder`.
///
/// # Errors
/// With the typed reason why the library cannot be used.
pub type Open = fn(&Flavour, &Path) -> Result<Box<dyn Backend>, ProbeError>;

/// The backends of a release build.
///
/// # Errors
/// With the typed reason why the library cannot be used.
pub fn open(flavour: &Flavour, folder: &Path) -> Result<Box<dyn Backend>, ProbeError> {
    let library = flavour.library_path(folder);
    match flavour.backend {
        BackendKind::Tract => Ok(Box::new(mote_tract::TractBackend::new())),
        BackendKind::OnnxRuntime => {
            let plugins = flavour.plugins.iter();
            let plugins =
                plugins.map(|one| (one.provider.clone(), flavour.plugin_path(one, folder)));
            let backend = mote_ort::OrtBackend::load(&library, &flavour.name)?;
            Ok(Box::new(
                backend.with(plugins.collect(), flavour.options.clone()),
            ))
        }
        BackendKind::Tflite => {
            if let Some(linked) = mote_tflite::linked(&library, &flavour.name) {
                return Ok(linked);
            }
            let delegates = flavour.plugins.iter();
            let delegates = delegates.map(|one| delegate(flavour, one, folder));
            let backend = mote_tflite::TfliteBackend::load(&library, &flavour.name)?;
            let backend = backend.with_delegates(delegates.collect());
            let npu_options = flavour.options_of(mote_tflite::LITERT_NPU);
            Ok(Box::new(backend.with_npu_options(npu_options)))
        }
        BackendKind::Fake => Err(ProbeError {
            library: BackendKind::Fake.to_string(),
            absence: Absence::NotCompiledIn,
        }),
    }
}

fn delegate(flavour: &Flavour, plugin: &Plugin, folder: &Path) -> mote_tflite::Delegate {
    let kind = plugin.kind.unwrap_or(DeviceKind::Npu);
    let id = match kind {
        DeviceKind::Cpu => kind.to_string(),
        DeviceKind::Gpu | DeviceKind::Npu => format!("{kind}0"),
    };
    mote_tflite::Delegate {
        name: plugin.provider.clone(),
        library: flavour.plugin_path(plugin, folder),
        options: flavour.options_of(&plugin.provider),
        device: DeviceInfo {
            id,
            kind,
            name: plugin.device.as_ref().unwrap_or(&plugin.provider).clone(),
            simulated: false,
        },
    }
}

/// A provider whose library lies beside the flavour's, though its description does not name it.
pub fn found_beside(flavour: &Flavour, folder: &Path) -> Option<&'static str> {
    let is_there = flavour.backend == BackendKind::Tflite
        && mote_tflite::has_dispatch_beside(&flavour.library_path(folder));
    is_there.then_some(mote_tflite::LITERT_NPU)
}

/// Options of a provider for a model that is to run on a kind of device: those of the flavour, and
/// the one that chooses the kind where a provider has several.
pub fn options(flavour: &Flavour, provider: &str, kind: DeviceKind) -> Vec<(String, String)> {
    let mut options = flavour.options_of(provider);
    if flavour.backend == BackendKind::OnnxRuntime {
        let of_kind = mote_ort::device_options(provider, kind);
        let is_said = |key: &str| {
            flavour
                .options
                .get(provider)
                .is_some_and(|o| o.contains_key(key))
        };
        options.extend(of_kind.into_iter().filter(|(key, _)| !is_said(key)));
    }
    options
}

/// Whether a provider keeps what it compiles, given a folder.
pub fn keeps_compiled(backend: BackendKind, provider: &str) -> bool {
    backend == BackendKind::OnnxRuntime && mote_ort::keeps_compiled(provider)
}

/// What the driver of a provider opens beside the runtime's files; without a name, the drivers of
/// all providers that a probe of the backend looks for.
pub fn driver_paths(backend: BackendKind, provider: Option<&str>) -> Vec<&'static DriverPath> {
    match (backend, provider) {
        (BackendKind::OnnxRuntime, provider) => mote_ort::driver_paths(provider).collect(),
        (BackendKind::Tflite, Some(provider)) => {
            mote_tflite::driver_paths(provider).iter().collect()
        }
        // Whether it has delegates is for the flavour to say.
        (BackendKind::Tflite, None) | (BackendKind::Tract | BackendKind::Fake, _) => Vec::new(),
    }
}
