//! Temperatures and throttling as sysfs tells them.
//!
//! Paths and meanings: the kernel's `Documentation/ABI/testing/sysfs-class-thermal` and
//! `Documentation/ABI/testing/sysfs-devices-system-cpu` (`thermal_throttle`, x86 only).

use crate::limits::{
    COOLING_DEVICES_MAX, SYSFS_BYTES_MAX, THROTTLE_CORES_MAX, TRIPS_MAX, ZONE_NAME_BYTES_MAX,
    ZONES_MAX,
};
use crate::policy::power::{Reading, Trip, TripKind, Zone};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Instant;

/// Beginnings of the types of cooling devices that cool by slowing something down that computes. Fans
/// do not, and `TCC Offset` is a setting.
const SLOWING: [&str; 7] = [
    "Processor",
    "cpufreq",
    "thermal-cpufreq",
    "devfreq",
    "thermal-devfreq",
    "thermal-idle",
    "intel_powerclamp",
];

/// What there is to be read, found once.
#[derive(Debug)]
pub struct Sensors {
    zones: Vec<ZoneFiles>,
    cooling: Vec<(String, PathBuf)>,
    counters: Vec<PathBuf>,
}

#[derive(Debug)]
struct ZoneFiles {
    name: String,
    temperature: PathBuf,
    trips: Vec<Trip>,
}

impl Sensors {
    /// Looks for sensors below `root`, which is `/sys` but in tests.
    pub fn find(root: &Path) -> Self {
        let thermal = root.join("class/thermal");
        let cpus = root.join("devices/system/cpu");
        let counters = entries(&cpus, "cpu", THROTTLE_CORES_MAX).into_iter();
        let counters = counters.flat_map(|cpu| {
            ["core_throttle_count", "package_throttle_count"]
                .map(|name| cpu.join("thermal_throttle").join(name))
        });
        let zones = entries(&thermal, "thermal_zone", ZONES_MAX);
        let cooling = entries(&thermal, "cooling_device", COOLING_DEVICES_MAX);
        Self {
            zones: zones.iter().filter_map(|folder| zone(folder)).collect(),
            cooling: cooling
                .iter()
                .filter_map(|folder| cooling_device(folder))
                .collect(),
            counters: counters
                .filter(|file| number::<u64>(file).is_some())
                .collect(),
        }
    }

    /// Whether there is nothing to read here.
    pub fn is_empty(&self) -> bool {
        self.zones.is_empty() && self.cooling.is_empty() && self.counters.is_empty()
    }

    /// Reads them all. A sensor may take milliseconds to answer, and may not answer at all.
    pub fn read(&self) -> Reading {
        let zones = self.zones.iter().filter_map(|zone| {
            Some(Zone {
                name: zone.name.clone(),
                millidegrees: number(&zone.temperature)?,
                trips: zone.trips.clone(),
            })
        });
        let states: Vec<(&String, i64)> = self
            .cooling
            .iter()
            .filter_map(|(name, state)| Some((name, number(state)?)))
            .collect();
        let slowed = states.iter().filter(|(_, state)| *state > 0);
        let slowed = slowed.map(|(name, _)| (*name).clone()).collect();
        let counts: Vec<u64> = self
            .counters
            .iter()
            .filter_map(|file| number(file))
            .collect();
        let sum = counts
            .iter()
            .fold(0u64, |sum, count| sum.saturating_add(*count));
        Reading {
            at: Instant::now(),
            zones: zones.collect(),
            slowed: (!states.is_empty()).then_some(slowed),
            throttled: (!counts.is_empty()).then_some(sum),
        }
    }
}

/// Folders whose name is `prefix` and a number, in the order of the numbers.
fn entries(folder: &Path, prefix: &str, limit: usize) -> Vec<PathBuf> {
    let listing = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = listing
        .filter_map(|entry| {
            let name = entry.file_name();
            let index = name.to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((index, entry.path()))
        })
        .collect();
    found.sort();
    found.truncate(limit);
    found.into_iter().map(|(_, path)| path).collect()
}

/// A zone that is switched on and has trip points.
fn zone(folder: &Path) -> Option<ZoneFiles> {
    if text(&folder.join("mode")).is_some_and(|mode| mode == "disabled") {
        return None;
    }
    let trips: Vec<Trip> = (0..TRIPS_MAX)
        .filter_map(|index| trip(folder, index))
        .collect();
    let files = ZoneFiles {
        name: name(folder)?,
        temperature: folder.join("temp"),
        trips,
    };
    (!files.trips.is_empty()).then_some(files)
}

fn trip(folder: &Path, index: usize) -> Option<Trip> {
    let kind = match &*text(&folder.join(format!("trip_point_{index}_type")))? {
        "passive" => TripKind::Passive,
        "hot" => TripKind::Hot,
        "critical" => TripKind::Critical,
        _ => return None,
    };
    let millidegrees = number(&folder.join(format!("trip_point_{index}_temp")))?;
    // Trip points that are not set are at or below zero.
    (millidegrees > 0).then_some(Trip { kind, millidegrees })
}

fn cooling_device(folder: &Path) -> Option<(String, PathBuf)> {
    let kind = text(&folder.join("type"))?;
    let slows = SLOWING.iter().any(|prefix| kind.starts_with(prefix));
    slows.then_some((name(folder)?, folder.join("cur_state")))
}

/// The type of a zone or device, which firmware may have had a hand in, as a word for receipts.
fn name(folder: &Path) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_. ".contains(c);
    let name: String = text(&folder.join("type"))?
        .chars()
        .filter(|c| plain(*c))
        .collect();
    Some(name.chars().take(ZONE_NAME_BYTES_MAX).collect())
}

fn number<T: FromStr>(file: &Path) -> Option<T> {
    text(file)?.parse().ok()
}

fn text(file: &Path) -> Option<String> {
    let mut text = String::new();
    let read = File::open(file)
        .ok()?
        .take(SYSFS_BYTES_MAX)
        .read_to_string(&mut text);
    read.ok()?;
    Some(text.trim().to_owned())
}
