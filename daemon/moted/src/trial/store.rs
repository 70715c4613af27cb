//! What trials found, kept in a file: nothing is tried twice.

use crate::limits::TRIALS_BYTES_MAX;
use crate::policy::trials::Record;
use crate::probe::machine_stamp;
use crate::state::StateFile;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A file of another format is dropped: everything in it can be found out again.
const FORMAT: u32 = 1;
const FILE_NAME: &str = "trials.json";

#[derive(Debug, Deserialize)]
struct File {
    format: u32,
    /// Of broker, worker, kernel and devices.
    machine: String,
    records: Vec<Record>,
}

#[derive(Debug, Serialize)]
struct FileRef<'a> {
    format: u32,
    machine: &'a str,
    records: &'a [Record],
}

/// The file of trials.
#[derive(Debug)]
pub struct TrialStore {
    file: StateFile,
    machine: String,
}

impl TrialStore {
    /// In the state folder, for trials made by the program `worker`.
    pub fn new(state: &Path, worker: &Path) -> Self {
        Self {
            file: StateFile::new(state, FILE_NAME, TRIALS_BYTES_MAX),
            machine: machine_stamp(worker),
        }
    }

    /// What was found on this machine as it is.
    pub fn read(&self) -> Vec<Record> {
        let file = self.file.read::<File>();
        let file = file.filter(|file| file.format == FORMAT && file.machine == self.machine);
        file.map_or(Vec::new(), |file| file.records)
    }

    /// Keeps what was found; of too much, the newest half.
    pub fn keep(&self, records: &[Record]) {
        self.file.keep(records, |records| {
            serde_json::to_vec(&FileRef {
                format: FORMAT,
                machine: &self.machine,
                records,
            })
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_api::{
        BackendKind, Candidate, DeviceInfo, DeviceKind, Digest, Precision, Rejection, Verdict,
    };

    fn record(digest: &str) -> Record {
        Record {
            digest: digest.into(),
            candidate: Candidate {
                variant: "v".into(),
                backend: BackendKind::Tract,
                flavour: "tract".into(),
                provider: "tract-cpu".into(),
                device: DeviceInfo {
                    id: "cpu".into(),
                    kind: DeviceKind::Cpu,
                    name: "a cpu".into(),
                    simulated: false,
                },
                precision: Precision::F32,
            },
            stamp: Digest::of(b"files"),
            verdict: Verdict::Rejected(Rejection::TrialCrashed { signal: 11 }),
            tried_at_s: 7,
        }
    }

    #[test]
    fn records_come_back_on_the_same_machine_and_in_the_same_format_only() {
        let state = tempfile::tempdir().expect("folder");
        let worker = state.path().join("worker");
        std::fs::write(&worker, "one").expect("file");
        let store = || TrialStore::new(state.path(), &worker);
        assert_eq!(store().read(), []);
        store().keep(&[record("a"), record("b")]);
        assert_eq!(store().read(), [record("a"), record("b")]);

        let path = state.path().join(FILE_NAME);
        let kept = std::fs::read_to_string(&path).expect("kept");
        std::fs::write(&path, kept.replace("\"format\":1", "\"format\":2")).expect("file");
        assert_eq!(store().read(), []);
        std::fs::write(&path, &kept[..kept.len() / 2]).expect("file");
        assert_eq!(store().read(), []);
        std::fs::write(&path, kept).expect("file");
        assert_eq!(store().read().len(), 2);
        std::fs::write(&worker, "another worker").expect("file");
        assert_eq!(store().read(), []);
    }
}
