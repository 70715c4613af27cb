//! A runtime flavour: one set of libraries that a worker process loads, described by a
//! `runtime.toml` beside them.

use crate::capability::DeviceKind;
use crate::digest::Digest;
use crate::manifest::BackendKind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// Name of the description in a flavour's folder.
pub const RUNTIME_FILE_NAME: &str = "runtime.toml";
/// The flavour that is always there, compiled into the worker.
pub const TRACT_FLAVOUR: &str = "tract";
const RUNTIME_FILE_BYTES_MAX: u64 = 64 << 10;
/// Files of one flavour.
const FILES_MAX: usize = 256;
/// Plug-ins of one flavour.
const PLUGINS_MAX: usize = 16;
/// Providers that a flavour exists for.
const EXPECTS_MAX: usize = 16;
/// Places a vendor's libraries read besides.
const READS_MAX: usize = 32;
/// Providers with options.
const PROVIDERS_WITH_OPTIONS_MAX: usize = 32;
/// Options of one provider.
const OPTIONS_MAX: usize = 128;
/// Longest name of a provider or of an option.
const NAME_BYTES_MAX: usize = 127;
/// Longest value of an option.
const VALUE_BYTES_MAX: usize = 4 << 10;

/// A set of libraries of one inference runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flavour {
    /// Version of this file's format: 1.
    pub format: u32,
    /// Name: `onnxruntime-cpu`, `tflite`, …
    pub name: String,
    /// Inference library.
    pub backend: BackendKind,
    /// The library's version as packaged.
    pub version: String,
    /// The library to load: a file name in the folder, or an absolute path of a vendor's build.
    pub library: PathBuf,
    /// Licence as the package states it.
    pub licence: String,
    /// The providers it is installed for: each should work where its hardware is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expects: Vec<String>,
    /// What the libraries read outside the folder and the system's library folders: absolute paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reads: Vec<PathBuf>,
    /// Providers and delegates in libraries of their own.
    #[serde(default, rename = "plugin", skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<Plugin>,
    /// Options per provider, in the provider's own words; used by probes and by every load.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, BTreeMap<String, String>>,
    /// Every file of the folder that is loaded, with its digest.
    #[serde(default)]
    pub files: Vec<FlavourFile>,
}

/// A provider of ONNX Runtime or a delegate of TFLite in a library of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plugin {
    /// Name of the provider: for ONNX Runtime the library's own, for a delegate any.
    pub provider: String,
    /// A file name in the folder, or an absolute path.
    pub library: PathBuf,
    /// What a delegate computes on, as the runtime cannot tell; an NPU unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<DeviceKind>,
    /// What to call that device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

/// One file of a flavour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlavourFile {
    /// File name in the folder.
    pub name: PathBuf,
    /// Its bytes.
    pub bytes: u64,
    /// Its digest.
    pub digest: Digest,
}

/// Why a flavour's folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum FlavourError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        cause: std::io::Error,
    },
    #[error("{} is larger than {RUNTIME_FILE_BYTES_MAX} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("{} is not a runtime description", path.display())]
    Parse {
        path: PathBuf,
        #[source]
        cause: Box<toml::de::Error>,
    },
    #[error("{} has format {have}; this version reads format 1", path.display())]
    Format { path: PathBuf, have: u32 },
    #[error("{}: {field} {why}", path.display())]
    Invalid {
        path: PathBuf,
        field: String,
        why: String,
    },
    #[error("{} does not match its digest", path.display())]
    Altered { path: PathBuf },
}

impl Flavour {
    /// The built-in tract flavour.
    pub fn tract(version: &str) -> Self {
        Self {
            format: 1,
            name: TRACT_FLAVOUR.into(),
            backend: BackendKind::Tract,
            version: version.into(),
            library: PathBuf::new(),
            licence: "MIT OR Apache-2.0".into(),
            expects: Vec::new(),
            reads: Vec::new(),
            plugins: Vec::new(),
            options: BTreeMap::new(),
            files: Vec::new(),
        }
    }

    /// Reads the description in `folder`.
    ///
    /// # Errors
    /// When it is missing, too large, or not of a known format.
    pub fn read(folder: &Path) -> Result<Self, FlavourError> {
        let path = folder.join(RUNTIME_FILE_NAME);
        let read = |cause| FlavourError::Read {
            path: path.clone(),
            cause,
        };
        if std::fs::metadata(&path).map_err(read)?.len() > RUNTIME_FILE_BYTES_MAX {
            return Err(FlavourError::TooLarge { path });
        }
        let text = std::fs::read_to_string(&path).map_err(read)?;
        let flavour: Self = toml::from_str(&text).map_err(|cause| FlavourError::Parse {
            path: path.clone(),
            cause: Box::new(cause),
        })?;
        if flavour.format != 1 {
            let have = flavour.format;
            return Err(FlavourError::Format { path, have });
        }
        match flavour.check() {
            Ok(()) => Ok(flavour),
            Err((field, why)) => Err(FlavourError::Invalid { path, field, why }),
        }
    }

    /// The backend that a description names, even if the rest of it does not hold.
    pub fn backend_of(folder: &Path) -> Option<BackendKind> {
        let path = folder.join(RUNTIME_FILE_NAME);
        if std::fs::metadata(&path).ok()?.len() > RUNTIME_FILE_BYTES_MAX {
            return None;
        }
        let mut table: toml::Table = toml::from_str(&std::fs::read_to_string(&path).ok()?).ok()?;
        table.remove("backend")?.try_into().ok()
    }

    /// What of a description does not hold: a field, and why.
    fn check(&self) -> Result<(), (String, String)> {
        let bounded = |field: &str, have: usize, most: usize| match have <= most {
            true => Ok(()),
            false => Err((
                field.to_owned(),
                format!("has {have} entries; {most} are allowed"),
            )),
        };
        bounded("files", self.files.len(), FILES_MAX)?;
        bounded("plugin", self.plugins.len(), PLUGINS_MAX)?;
        bounded("expects", self.expects.len(), EXPECTS_MAX)?;
        bounded("reads", self.reads.len(), READS_MAX)?;
        bounded("options", self.options.len(), PROVIDERS_WITH_OPTIONS_MAX)?;
        for name in &self.expects {
            check_name("expects", name)?;
        }
        for path in &self.reads {
            let named = path
                .components()
                .any(|part| matches!(part, Component::Normal(_)));
            if !path.is_absolute() || !named {
                let why = format!("names {}, which is no absolute path", path.display());
                return Err(("reads".into(), why));
            }
        }
        for (index, plugin) in self.plugins.iter().enumerate() {
            let field = format!("plugin[{index}].provider");
            check_name(&field, &plugin.provider)?;
            let mut others = self.plugins[..index].iter();
            if others.any(|other| other.provider == plugin.provider) {
                return Err((field, format!("is {} once more", plugin.provider)));
            }
            if plugin.library.file_name().is_none() {
                return Err((format!("plugin[{index}].library"), "names no file".into()));
            }
        }
        for (provider, options) in &self.options {
            let field = format!("options.{provider}");
            check_name("options", provider)?;
            bounded(&field, options.len(), OPTIONS_MAX)?;
            for (key, value) in options {
                check_name(&field, key)?;
                if value.len() > VALUE_BYTES_MAX || value.contains('\0') {
                    let why =
                        format!("is longer than {VALUE_BYTES_MAX} bytes or holds a zero byte");
                    return Err((format!("{field}.{key}"), why));
                }
            }
        }
        Ok(())
    }

    /// Options of a provider.
    pub fn options_of(&self, provider: &str) -> Vec<(String, String)> {
        let options = self.options.get(provider).into_iter().flatten();
        options
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// Whether the CPU alone is what it is installed for, or nothing is said.
    pub fn is_general(&self) -> bool {
        self.expects.is_empty()
    }

    /// Where the library of a plug-in lies when the description was read from `folder`.
    pub fn plugin_path(&self, plugin: &Plugin, folder: &Path) -> PathBuf {
        folder.join(&plugin.library)
    }

    /// Where the library lies when the description was read from `folder`.
    pub fn library_path(&self, folder: &Path) -> PathBuf {
        folder.join(&self.library)
    }

    /// Checks size and digest of every file.
    ///
    /// # Errors
    /// Names the first file that is missing or altered.
    pub fn verify(&self, folder: &Path) -> Result<(), FlavourError> {
        for file in &self.files {
            let path = folder.join(&file.name);
            let read = |cause| FlavourError::Read {
                path: path.clone(),
                cause,
            };
            let same_size = std::fs::metadata(&path).map_err(read)?.len() == file.bytes;
            if !same_size || Digest::of_file(&path).map_err(read)? != file.digest {
                return Err(FlavourError::Altered { path });
            }
        }
        Ok(())
    }
}

fn check_name(field: &str, name: &str) -> Result<(), (String, String)> {
    let fits = !name.is_empty() && name.len() <= NAME_BYTES_MAX;
    match fits && !name.chars().any(char::is_control) {
        true => Ok(()),
        false => {
            let why =
                format!("has a name that is empty, longer than {NAME_BYTES_MAX} bytes or no text");
            Err((field.to_owned(), why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "format = 1\nname = \"x\"\nbackend = \"onnxruntime\"\nversion = \"1\"\n\
        library = \"/opt/vendor/lib/libonnxruntime.so\"\nlicence = \"MIT\"\n";

    fn read(rest: &str) -> Result<Flavour, FlavourError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(RUNTIME_FILE_NAME);
        std::fs::write(path, format!("{HEAD}{rest}")).expect("written");
        Flavour::read(folder.path())
    }

    #[test]
    fn plugins_and_options_are_read_and_written() {
        let text = "expects = [\"QNNExecutionProvider\"]\nreads = [\"/opt/qcom\"]\n\
            [[plugin]]\nprovider = \"QNNExecutionProvider\"\nlibrary = \"libqnn.so\"\n\
            [[plugin]]\nprovider = \"edgetpu\"\nlibrary = \"/usr/lib/libedgetpu.so.1\"\n\
            kind = \"npu\"\ndevice = \"Coral Edge TPU\"\n\
            [options.QNNExecutionProvider]\nhtp_performance_mode = \"burst\"\n";
        let flavour = read(text).expect("it holds");
        assert_eq!(
            flavour.options_of("QNNExecutionProvider"),
            [("htp_performance_mode".into(), "burst".into())]
        );
        assert!(flavour.options_of("edgetpu").is_empty());
        let folder = Path::new("/runtimes/x");
        let library = Path::new("/opt/vendor/lib/libonnxruntime.so");
        assert_eq!(flavour.library_path(folder), library);
        let paths: Vec<_> = flavour
            .plugins
            .iter()
            .map(|one| flavour.plugin_path(one, folder))
            .collect();
        assert_eq!(
            paths,
            [
                Path::new("/runtimes/x/libqnn.so"),
                Path::new("/usr/lib/libedgetpu.so.1")
            ]
        );
        assert_eq!(flavour.plugins[1].kind, Some(DeviceKind::Npu));
        let written = toml::to_string_pretty(&flavour).expect("it can be written");
        let again: Flavour = toml::from_str(&written).expect("it can be read");
        assert_eq!(again, flavour);
        let json = serde_json::to_vec(&flavour).expect("it can be written");
        assert_eq!(
            serde_json::from_slice::<Flavour>(&json).expect("read"),
            flavour
        );
    }

    #[test]
    fn what_does_not_hold_is_named() {
        let plugin = "[[plugin]]\nprovider = \"p\"\nlibrary = \"l.so\"\n";
        let many: String = (0..=OPTIONS_MAX)
            .map(|n| format!("k{n} = \"\"\n"))
            .collect();
        for (rest, field) in [
            (plugin.repeat(2), "plugin[1].provider"),
            (plugin.replace("l.so", "/"), "plugin[0].library"),
            (plugin.replace("\"p\"", "\"\""), "plugin[0].provider"),
            ("reads = [\"opt\"]".into(), "reads"),
            ("reads = [\"/\"]".into(), "reads"),
            (format!("[options.P]\n{many}"), "options.P"),
            ("[options.P]\nk = \"a\\u0000b\"".into(), "options.P.k"),
            (
                format!("expects = [{}]", "\"a\",".repeat(EXPECTS_MAX + 1)),
                "expects",
            ),
        ] {
            match read(&rest) {
                Err(FlavourError::Invalid { field: named, .. }) => assert_eq!(named, field),
                other => panic!("{rest}: {other:?}"),
            }
        }
        assert!(matches!(
            read("unknown = 1"),
            Err(FlavourError::Parse { .. })
        ));
    }
}
