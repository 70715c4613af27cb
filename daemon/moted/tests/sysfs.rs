//! Sensors, as they are found and read below a scripted root.

use moted::policy::power::{TripKind, Zone};
use moted::power::Sensors;
use std::path::Path;

struct Sysfs(tempfile::TempDir);

impl Sysfs {
    fn new(files: &[(&str, &str)]) -> Self {
        let sysfs = Self(tempfile::tempdir().expect("folder"));
        for (path, text) in files {
            sysfs.write(path, text);
        }
        sysfs
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
        std::fs::write(path, format!("{text}\n")).expect("file");
    }

    fn root(&self) -> &Path {
        self.0.path()
    }
}

fn kinds(zone: &Zone) -> Vec<(TripKind, i32)> {
    let trips = zone.trips.iter();
    trips.map(|trip| (trip.kind, trip.millidegrees)).collect()
}

#[test]
fn zones_are_read_with_the_trip_points_that_matter() {
    let zone = "class/thermal/thermal_zone";
    let sysfs = Sysfs::new(&[
        (&format!("{zone}2/type"), "x86_pkg_temp\u{7}\n<b>"),
        (&format!("{zone}2/temp"), "71000"),
        (&format!("{zone}2/mode"), "enabled"),
        (&format!("{zone}2/trip_point_0_type"), "active"),
        (&format!("{zone}2/trip_point_0_temp"), "40000"),
        (&format!("{zone}2/trip_point_1_type"), "passive"),
        (&format!("{zone}2/trip_point_1_temp"), "0"),
        (&format!("{zone}2/trip_point_2_type"), "critical"),
        (&format!("{zone}2/trip_point_2_temp"), "110000"),
        (&format!("{zone}10/type"), "soc"),
        (&format!("{zone}10/temp"), "-5000"),
        (&format!("{zone}10/trip_point_0_type"), "passive"),
        (&format!("{zone}10/trip_point_0_temp"), "85000"),
        // Switched off, without trip points, and without an answer.
        (&format!("{zone}3/type"), "off"),
        (&format!("{zone}3/temp"), "99000"),
        (&format!("{zone}3/mode"), "disabled"),
        (&format!("{zone}3/trip_point_0_type"), "passive"),
        (&format!("{zone}3/trip_point_0_temp"), "50000"),
        (&format!("{zone}4/type"), "no-trips"),
        (&format!("{zone}4/temp"), "99000"),
        (&format!("{zone}5/type"), "wifi"),
        (&format!("{zone}5/trip_point_0_type"), "hot"),
        (&format!("{zone}5/trip_point_0_temp"), "60000"),
    ]);
    let sensors = Sensors::find(sysfs.root());
    assert!(!sensors.is_empty());
    let reading = sensors.read();
    let [package, soc] = &reading.zones[..] else {
        panic!("{reading:?}")
    };
    assert_eq!(
        package.name, "x86_pkg_tempb",
        "nothing odd gets into receipts"
    );
    assert_eq!(package.millidegrees, 71_000);
    assert_eq!(kinds(package), [(TripKind::Critical, 110_000)]);
    assert_eq!((soc.name.as_str(), soc.millidegrees), ("soc", -5_000));
    assert_eq!(kinds(soc), [(TripKind::Passive, 85_000)]);
    assert_eq!((reading.slowed, reading.throttled), (None, None));
    sysfs.write("class/thermal/thermal_zone10/temp", "91000");
    assert_eq!(sensors.read().zones[1].millidegrees, 91_000);
}

#[test]
fn processors_that_are_slowed_down_are_told_from_fans() {
    let device = "class/thermal/cooling_device";
    let sysfs = Sysfs::new(&[
        (&format!("{device}0/type"), "Processor"),
        (&format!("{device}0/cur_state"), "0"),
        (&format!("{device}1/type"), "pwm-fan"),
        (&format!("{device}1/cur_state"), "3"),
        (&format!("{device}2/type"), "thermal-cpufreq-0"),
        (&format!("{device}2/cur_state"), "0"),
        (&format!("{device}3/type"), "intel_powerclamp"),
        (&format!("{device}3/cur_state"), "-1"),
    ]);
    let sensors = Sensors::find(sysfs.root());
    assert_eq!(sensors.read().slowed.as_deref(), Some(&[][..]));
    sysfs.write("class/thermal/cooling_device2/cur_state", "2");
    let slowed = sensors.read().slowed.expect("there are some");
    assert_eq!(slowed, ["thermal-cpufreq-0"]);
}

#[test]
fn counters_of_all_cores_are_added_up() {
    let cpu = "devices/system/cpu/cpu";
    let sysfs = Sysfs::new(&[
        (&format!("{cpu}0/thermal_throttle/core_throttle_count"), "3"),
        (
            &format!("{cpu}0/thermal_throttle/package_throttle_count"),
            "4",
        ),
        (&format!("{cpu}1/thermal_throttle/core_throttle_count"), "5"),
        (
            &format!("{cpu}idle/thermal_throttle/core_throttle_count"),
            "9",
        ),
    ]);
    let sensors = Sensors::find(sysfs.root());
    assert_eq!(sensors.read().throttled, Some(12));
    // A core that is taken out is no error.
    std::fs::remove_dir_all(sysfs.root().join("devices/system/cpu/cpu1")).expect("it is there");
    assert_eq!(sensors.read().throttled, Some(7));
}

#[test]
fn a_machine_without_sensors_has_none() {
    let sysfs = Sysfs::new(&[("class/thermal/thermal_zone0/type", "acpitz")]);
    assert!(Sensors::find(sysfs.root()).is_empty());
    assert!(Sensors::find(&sysfs.root().join("nowhere")).is_empty());
}
