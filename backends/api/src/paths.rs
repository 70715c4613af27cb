//! Where models, runtimes and state lie, by the XDG base directory specification, each with an
//! environment variable that overrides it.

use std::path::PathBuf;

/// Folders of one user's Mote, and of the system's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Model stores, the writable one first.
    pub stores: Vec<PathBuf>,
    /// Folders that hold one folder per runtime flavour, the writable one first.
    pub runtimes: Vec<PathBuf>,
    /// Downloads and compile caches; may be deleted at any time.
    pub cache: PathBuf,
    /// Probe results, measurements.
    pub state: PathBuf,
}

impl Paths {
    /// From the environment: `MOTE_STORE`, `MOTE_RUNTIMES`, `MOTE_CACHE` and `MOTE_STATE` replace
    /// the user's folders, and the first two hide the system's too.
    pub fn from_env() -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
        let home = variable("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from);
        let base = |name: &str, default: &str| {
            let set = variable(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute());
            set.unwrap_or_else(|| home.join(default)).join("mote")
        };
        let cache =
            variable("MOTE_CACHE").map_or_else(|| base("XDG_CACHE_HOME", ".cache"), PathBuf::from);
        let data = base("XDG_DATA_HOME", ".local/share");
        let stores = match variable("MOTE_STORE") {
            Some(path) => vec![PathBuf::from(path)],
            None => vec![
                data.join("models"),
                "/var/lib/mote/models".into(),
                "/usr/share/mote/models".into(),
            ],
        };
        let runtimes = match variable("MOTE_RUNTIMES") {
            Some(path) => vec![PathBuf::from(path)],
            None => vec![
                data.join("runtimes"),
                "/var/lib/mote/runtimes".into(),
                "/usr/lib/mote/runtimes".into(),
            ],
        };
        let state = variable("MOTE_STATE")
            .map_or_else(|| base("XDG_STATE_HOME", ".local/state"), PathBuf::from);
        Self {
            stores,
            runtimes,
            cache,
            state,
        }
    }
}
