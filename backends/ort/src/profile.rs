//! Reads the profile that the library writes of its runs: a JSON list of events in the format of
//! Chrome's tracing, one per kernel and run (`core/common/profiler.cc` of ONNX Runtime).

use mote_api::{Profile, ProfileShare};
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// The library stops at a million events of about a kibibyte; a few runs take less than this.
const PROFILE_BYTES_MAX: u64 = 256 << 20;
/// What the names of files begin with; the library adds the time and an ending.
pub(crate) const PREFIX: &str = "profile";
/// An event of a node's kernel, not of what comes before and after it.
const KERNEL_ENDING: &str = "_kernel_time";

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    name: String,
    /// In microseconds.
    #[serde(default)]
    dur: u64,
    #[serde(default)]
    args: Arguments,
}

#[derive(Default, Deserialize)]
struct Arguments {
    #[serde(default)]
    provider: String,
    #[serde(default)]
    node_index: String,
}

/// Kernels of one provider.
#[derive(Default)]
struct Kernels {
    /// By name and place, as names need not be unique.
    known: HashSet<(String, String)>,
    time_us: u64,
}

/// What the profile in `file` says.
pub(crate) fn read(file: &Path) -> io::Result<Profile> {
    let opened = File::open(file)?;
    if opened.metadata()?.len() > PROFILE_BYTES_MAX {
        let why = format!("the profile has more than {PROFILE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    parse(BufReader::new(opened.take(PROFILE_BYTES_MAX)))
}

fn parse(text: impl Read) -> io::Result<Profile> {
    let events: Vec<Event> = serde_json::from_reader(text)?;
    let mut providers: BTreeMap<String, Kernels> = BTreeMap::new();
    for event in events {
        if !event.name.ends_with(KERNEL_ENDING) || event.args.provider.is_empty() {
            continue;
        }
        let kernels = providers.entry(event.args.provider).or_default();
        kernels.known.insert((event.name, event.args.node_index));
        kernels.time_us += event.dur;
    }
    let share = |(provider, kernels): (String, Kernels)| ProfileShare {
        provider,
        kernels: u32::try_from(kernels.known.len()).unwrap_or(u32::MAX),
        time_us: kernels.time_us,
    };
    let mut shares: Vec<_> = providers.into_iter().map(share).collect();
    shares.sort_by_key(|share| std::cmp::Reverse(share.time_us));
    Ok(Profile { shares })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_counted_once_and_their_times_added() {
        let event = |name: &str, provider: &str, at: u32, dur: u32| {
            format!(
                r#"{{"cat":"Node","name":"{name}","dur":{dur},"args":{{"provider":"{provider}","node_index":"{at}","more":[1]}}}}"#
            )
        };
        let text = [
            r#"{"cat":"Session","name":"model_run","dur":9,"args":{}}"#.to_owned(),
            event("a_kernel_time", "One", 0, 3),
            event("a_kernel_time", "One", 0, 4),
            event("a_kernel_time", "One", 1, 5),
            event("a_fence_before", "One", 1, 100),
            event("b_kernel_time", "Two", 2, 50),
        ];
        let profile = parse(format!("[{}]", text.join(",")).as_bytes()).expect("a profile");
        let share = |provider: &str, kernels, time_us| ProfileShare {
            provider: provider.into(),
            kernels,
            time_us,
        };
        assert_eq!(profile.shares, [share("Two", 1, 50), share("One", 2, 12)]);
        assert!(parse("[{}".as_bytes()).is_err());
    }
}
