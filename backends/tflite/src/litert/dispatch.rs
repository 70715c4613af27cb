//! A vendor's libraries for its NPU: where they lie, and whether they can be used.

use super::LITERT_NPU;
use super::objects::Places;
use crate::Delegate;
use crate::sys::{open_for_ever, symbol_missing};
use mote_api::Absence;
use std::ffi::CString;
use std::path::{Path, PathBuf};

/// LiteRT finds a vendor's library by this beginning of its name.
const DISPATCH_NAME: &str = "libLiteRtDispatch";
const DISPATCH_SYMBOL: &[u8] = b"LiteRtDispatchGetApi\0";
/// A folder with more entries is not searched to its end.
const ENTRIES_MAX: usize = 1024;

/// Options of the provider, each with what its value is.
const OPTIONS: [(&str, &str); 4] = [
    (COMPILER_DIR, "folder of the vendor's compiler plug-in"),
    (CACHE_DIR, "folder for models that it has compiled"),
    (
        SELF_TEST,
        "the self-test's model, compiled for this NPU, where there is no compiler plug-in",
    ),
    (
        "vendor.NAME",
        "TOML for the vendor's libraries, by the name that they know it by",
    ),
];
const COMPILER_DIR: &str = "compiler_dir";
const CACHE_DIR: &str = "cache_dir";
const SELF_TEST: &str = "self_test";
const VENDOR: &str = "vendor.";

/// What a flavour says of an NPU, its libraries found to be there.
pub(crate) struct Dispatch {
    folder: PathBuf,
    compiler: Option<PathBuf>,
    cache: Option<PathBuf>,
    pub self_test: Option<PathBuf>,
    /// What the vendor's libraries read: their names, and TOML.
    pub vendor: Vec<(CString, CString)>,
}

impl Dispatch {
    /// The library that `named` names, or else the one beside LiteRT's own library.
    ///
    /// # Errors
    /// With the typed reason why there is none, or why it cannot be used.
    pub fn find(
        named: Option<&Delegate>,
        beside: &Path,
        options: &[(String, String)],
    ) -> Result<Self, Absence> {
        let known =
            |key: &str| key.starts_with(VENDOR) || OPTIONS.iter().any(|(known, _)| *known == key);
        if let Some((key, _)) = options.iter().find(|(key, _)| !known(key)) {
            let known = OPTIONS.iter();
            return Err(Absence::OptionUnknown {
                key: key.clone(),
                known: known.map(|(key, what)| format!("{key} ({what})")).collect(),
            });
        }
        let library = match named {
            Some(named) => named.library.clone(),
            None => only_one_in(folder_of(beside))?,
        };
        usable(&library)?;
        let option = |wanted: &str| {
            let value = options.iter().find(|(key, _)| key == wanted);
            value.map(|(_, value)| PathBuf::from(value))
        };
        Ok(Self {
            folder: folder_of(&library).into(),
            compiler: option(COMPILER_DIR),
            cache: option(CACHE_DIR),
            self_test: option(SELF_TEST),
            vendor: of_vendor(options)?,
        })
    }

    /// Where the library is to look.
    pub fn places(&self) -> Places<'_> {
        Places {
            dispatch: &self.folder,
            compiler: self.compiler.as_deref(),
            cache: self.cache.as_deref(),
        }
    }

    /// Whether models need not have been compiled for this NPU before.
    pub fn has_compiler(&self) -> bool {
        self.compiler.is_some()
    }
}

fn of_vendor(options: &[(String, String)]) -> Result<Vec<(CString, CString)>, Absence> {
    let named = options
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(VENDOR)?, value)));
    let c_string = |text: &str| {
        CString::new(text).map_err(|_| Absence::ProbeFailed {
            why: format!("option {text:?} holds a zero byte"),
        })
    };
    named
        .map(|(name, toml)| Ok((c_string(name)?, c_string(toml)?)))
        .collect()
}

fn is_dispatch(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with(DISPATCH_NAME) && name.contains(".so")
}

/// Whether a dispatch library lies beside this library.
pub fn has_dispatch_beside(library: &Path) -> bool {
    !dispatch_libraries_in(folder_of(library)).is_empty()
}

fn folder_of(library: &Path) -> &Path {
    library.parent().unwrap_or(Path::new("."))
}

fn dispatch_libraries_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let paths = entries
        .take(ENTRIES_MAX)
        .flatten()
        .map(|entry| entry.path());
    let mut found: Vec<PathBuf> = paths.filter(|path| is_dispatch(path)).collect();
    found.sort();
    found
}

/// LiteRT is told a folder and takes the first library that it finds there.
fn only_one_in(folder: &Path) -> Result<PathBuf, Absence> {
    let found = dispatch_libraries_in(folder);
    match found.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(Absence::DriverMissing {
            name: format!("{DISPATCH_NAME}_*.so"),
        }),
        [first, ..] => Err(Absence::LibraryRejected {
            name: first.display().to_string(),
            why: format!(
                "it is one of {} in its folder, of which {LITERT_NPU} could be any",
                found.len()
            ),
        }),
    }
}

/// Opens the library, as LiteRT itself only would for a model that was compiled, and then tell no
/// more than a status.
fn usable(library: &Path) -> Result<(), Absence> {
    let name = library.display().to_string();
    if !is_dispatch(library) {
        let why = format!("LiteRT finds such libraries by names like {DISPATCH_NAME}_VENDOR.so");
        return Err(Absence::LibraryRejected { name, why });
    }
    let opened = open_for_ever(library)?;
    if !crate::sys::exports(&opened, DISPATCH_SYMBOL) {
        return Err(symbol_missing(DISPATCH_SYMBOL));
    }
    only_one_in(folder_of(library)).map(|_| ())
}
