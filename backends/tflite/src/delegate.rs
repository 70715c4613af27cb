//! Delegates: XNNPACK of the library, and external ones by path.
#![allow(unsafe_code, reason = "the door for delegates")]

use crate::reporter::{report_plugin, take_plugin_text};
use crate::sys::{self, Api};
use crate::{PATH, THEN, XNNPACK};
use mote_api::{Absence, BackendError, LoadError, Threads};
use std::ffi::{CString, c_char};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

/// Oldest version whose XNNPACK options this crate can pass (see [`sys::XnnpackOptions`]).
const XNNPACK_VERSION_MIN: (u32, u32) = (2, 13);
/// More threads than this are not started.
const THREADS_MAX: usize = 256;
const CREATE_SYMBOL: &str = "tflite_plugin_create_delegate";
const DESTROY_SYMBOL: &str = "tflite_plugin_destroy_delegate";

type ReportError = unsafe extern "C" fn(*const c_char);
type Create = unsafe extern "C" fn(
    *const *const c_char,
    *const *const c_char,
    usize,
    Option<ReportError>,
) -> *mut sys::Delegate;
type Destroy = unsafe extern "C" fn(*mut sys::Delegate);

/// How to make the delegate that a load request asks for: once per interpreter.
pub(crate) enum DelegateKind {
    /// The built-in kernels alone.
    None,
    /// XNNPACK with so many threads.
    Xnnpack { threads: i32 },
    /// A plug-in, and then XNNPACK with so many threads for what it leaves.
    External(Plugin, Option<i32>),
}

/// A shared object with the two functions of an external delegate.
pub(crate) struct Plugin {
    create: Create,
    destroy: Destroy,
    options: Vec<(CString, CString)>,
}

/// A delegate, deleted by whom it was made. Interpreters that it was applied to go first.
pub(crate) struct Delegate {
    raw: NonNull<sys::Delegate>,
    delete: Destroy,
    /// The library whose code `delete` may be.
    _api: Arc<Api>,
}

impl Drop for Delegate {
    fn drop(&mut self) {
        // SAFETY: made by the counterpart of `delete`, deleted once, after its interpreter.
        unsafe { (self.delete)(self.raw.as_ptr()) };
    }
}

impl Delegate {
    /// The library's object.
    pub fn raw(&self) -> *mut sys::Delegate {
        self.raw.as_ptr()
    }
}

/// As many threads as the library takes in an `int`.
pub(crate) fn thread_count(threads: Threads) -> i32 {
    i32::try_from(threads.count.clamp(1, THREADS_MAX)).unwrap_or(1)
}

/// Why XNNPACK cannot be had from this library, if so.
pub(crate) fn xnnpack_absence(api: &Api) -> Option<Absence> {
    let bound = api.xnnpack_options.is_some()
        && api.xnnpack_create.is_some()
        && api.xnnpack_delete.is_some();
    if !bound {
        return Some(Absence::NotCompiledIn);
    }
    let have = api.version_text();
    let mut numbers = have.split('.').map(|part| part.parse::<u32>());
    let version = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => (0, 0),
    };
    let (major, minor) = XNNPACK_VERSION_MIN;
    (version < XNNPACK_VERSION_MIN).then(|| Absence::VersionSkew {
        have,
        need: format!("{major}.{minor}"),
    })
}

impl DelegateKind {
    /// Makes one for an interpreter; `None` when the built-in kernels are to run alone.
    pub fn make(&self, api: &Arc<Api>) -> Result<Option<Delegate>, LoadError> {
        match self {
            Self::None => Ok(None),
            Self::Xnnpack { threads } => xnnpack(api, *threads).map(Some),
            Self::External(plugin, _) => plugin.make(api).map(Some),
        }
    }

    /// Makes the one that is applied after it, if one is asked for.
    pub fn make_second(&self, api: &Arc<Api>) -> Result<Option<Delegate>, LoadError> {
        match self {
            Self::External(_, Some(threads)) => xnnpack(api, *threads).map(Some),
            _ => Ok(None),
        }
    }
}

fn xnnpack(api: &Arc<Api>, threads: i32) -> Result<Delegate, LoadError> {
    let absent = |absence| LoadError::ProviderAbsent {
        provider: crate::XNNPACK.into(),
        absence,
    };
    if let Some(absence) = xnnpack_absence(api) {
        return Err(absent(absence));
    }
    let (Some(options), Some(create), Some(delete)) =
        (api.xnnpack_options, api.xnnpack_create, api.xnnpack_delete)
    else {
        return Err(absent(Absence::NotCompiledIn));
    };
    // SAFETY: the version was checked, so the options come back through memory (see
    // XnnpackOptions), of which the library reads as much as it wrote.
    let raw = unsafe {
        let mut options = options();
        options.num_threads = threads;
        create(&raw const options)
    };
    match NonNull::new(raw) {
        Some(raw) => Ok(Delegate {
            raw,
            delete,
            _api: api.clone(),
        }),
        None => Err(LoadError::Session(BackendError::new(
            "TfLiteXNNPackDelegateCreate",
            "it gave no delegate",
        ))),
    }
}

/// Whether the options ask for XNNPACK after a plug-in.
///
/// # Errors
/// When they ask for something else.
pub(crate) fn then_xnnpack(options: &[(String, String)]) -> Result<bool, Absence> {
    match options.iter().find(|(key, _)| key == THEN) {
        None => Ok(false),
        Some((_, value)) if value == XNNPACK => Ok(true),
        Some((key, value)) => Err(Absence::OptionUnknown {
            key: format!("{key} = {value}"),
            known: vec![format!(
                "{THEN} ({XNNPACK}: computes what the delegate leaves)"
            )],
        }),
    }
}

impl Plugin {
    /// Loads the shared object that the option `path` names; the other options are the plug-in's.
    pub fn load(options: &[(String, String)]) -> Result<Self, Absence> {
        let path = options.iter().find(|(key, _)| key == PATH);
        let (_, path) = path.ok_or_else(|| Absence::LibraryMissing {
            name: "(the provider option `path` names none)".into(),
        })?;
        let library = sys::open_for_ever(Path::new(path))?;
        let missing = |symbol: &str| Absence::SymbolMissing {
            symbol: symbol.into(),
        };
        // SAFETY: these are the types that external_delegate.h declares for the two symbols, and
        // the library stays mapped.
        let (create, destroy) = unsafe {
            let create = library.get::<Create>(CREATE_SYMBOL.as_bytes());
            let destroy = library.get::<Destroy>(DESTROY_SYMBOL.as_bytes());
            (
                *create.map_err(|_| missing(CREATE_SYMBOL))?,
                *destroy.map_err(|_| missing(DESTROY_SYMBOL))?,
            )
        };
        let c_string = |text: &String| {
            CString::new(text.as_str()).map_err(|_| Absence::ProbeFailed {
                why: format!("option {text:?} holds a zero byte"),
            })
        };
        let options = options
            .iter()
            .filter(|(key, _)| key != PATH && key != THEN)
            .map(|(key, value)| Ok((c_string(key)?, c_string(value)?)))
            .collect::<Result<_, Absence>>()?;
        Ok(Self {
            create,
            destroy,
            options,
        })
    }

    fn make(&self, api: &Arc<Api>) -> Result<Delegate, LoadError> {
        let pointers = |pick: fn(&(CString, CString)) -> &CString| -> Vec<*const c_char> {
            let options = self.options.iter();
            options.map(|option| pick(option).as_ptr()).collect()
        };
        let (keys, values) = (pointers(|option| &option.0), pointers(|option| &option.1));
        take_plugin_text();
        // SAFETY: both arrays hold as many C strings as the count says and live over the call.
        let raw = unsafe {
            (self.create)(
                keys.as_ptr(),
                values.as_ptr(),
                keys.len(),
                Some(report_plugin),
            )
        };
        match NonNull::new(raw) {
            Some(raw) => Ok(Delegate {
                raw,
                delete: self.destroy,
                _api: api.clone(),
            }),
            None => {
                let text = take_plugin_text();
                let why = if text.is_empty() {
                    format!("{CREATE_SYMBOL} gave no delegate")
                } else {
                    text
                };
                Err(LoadError::ProviderAbsent {
                    provider: crate::EXTERNAL.into(),
                    absence: Absence::ProbeFailed { why },
                })
            }
        }
    }
}
