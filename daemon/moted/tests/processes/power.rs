//! Power, heat and sleep, with a scripted sysfs and scripted services on a real bus.

use crate::cases::wake_ups;
use crate::client::{Client, Daemon, eventually};
use crate::peers::{Bus, Peers};
use mote_wire::types::{PowerReport, Receipt, Reply, Request, WorkerState};
use std::path::Path;

fn receipt(client: &mut Client, model: &str) -> Receipt {
    let id = client.generate(model);
    let mut replies = client.all(id);
    match replies.pop() {
        Some(Reply::Done(done)) => done.receipt,
        other => panic!("{other:?}"),
    }
}

fn power(client: &mut Client) -> PowerReport {
    client.status().power.expect("it says")
}

fn set_degrees(sysfs: &Path, degrees: i32) {
    let zone = sysfs.join("class/thermal/thermal_zone0");
    std::fs::create_dir_all(&zone).expect("folder");
    let millidegrees = (degrees * 1000).to_string();
    for (name, text) in [
        ("type", "soc-thermal"),
        ("trip_point_0_type", "passive"),
        ("trip_point_0_temp", "80000"),
    ] {
        std::fs::write(zone.join(name), text).expect("file");
    }
    // In one go: it may be read at any time.
    std::fs::write(zone.join("new"), millidegrees).expect("file");
    std::fs::rename(zone.join("new"), zone.join("temp")).expect("file");
}

pub fn heat_in_receipts() {
    let sysfs = tempfile::tempdir().expect("folder");
    set_degrees(sysfs.path(), 50);
    let daemon = Daemon::start_with(|command| {
        command.arg("--sysfs").arg(sysfs.path());
        command.args(["--power", "balanced"]);
    });
    let mut client = daemon.client();
    assert_eq!(
        power(&mut client).throttle,
        "unknown",
        "nothing has computed"
    );
    assert_eq!(receipt(&mut client, "slow").throttle, "none");
    set_degrees(sysfs.path(), 85);
    assert_eq!(
        receipt(&mut client, "slow").throttle,
        "thermal (soc-thermal)"
    );
    let report = power(&mut client);
    assert_eq!(
        (report.policy.as_str(), report.throttle.as_str()),
        ("balanced", "thermal (soc-thermal)")
    );
    assert_eq!(report.why, "the daemon was started so; hot (soc-thermal)");
    set_degrees(sysfs.path(), 50);
    eventually("it is cool again", || {
        receipt(&mut client, "slow").throttle == "none"
    });
}

/// A daemon that finds `bus` as the system's.
fn daemon_on(bus: &Bus) -> Daemon {
    Daemon::start_with(|command| {
        command.env("DBUS_SYSTEM_BUS_ADDRESS", bus.address());
        // This machine's own sensors have no part in this.
        command.args(["--sysfs", "/nowhere"]);
    })
}

fn is_because(client: &mut Client, why: &str) {
    eventually(why, || power(client).why == why);
}

pub fn profile_and_supply() {
    let Some(bus) = Bus::start() else { return };
    // Services may come later than the daemon.
    let daemon = daemon_on(&bus);
    let mut client = daemon.client();
    assert_eq!(power(&mut client).why, "nothing asks for another");
    let peers = Peers::start(&bus);
    is_because(&mut client, "the power profile is balanced");
    assert_eq!(receipt(&mut client, "plain").throttle, "unknown");
    peers.set_profile("power-saver");
    is_because(&mut client, "the power profile is power-saver");
    assert_eq!(power(&mut client).policy, "efficient");
    assert_eq!(receipt(&mut client, "plain").throttle, "power-saver");
    peers.set_profile("balanced");
    is_because(&mut client, "the power profile is balanced");

    // How full the battery is, is asked only while work lasts.
    peers.set_on_battery(true);
    is_because(&mut client, "on battery");
    assert_eq!(power(&mut client).policy, "balanced");
    let id = client.generate("hangs");
    client.tokens(id, 3);
    let mut watcher = daemon.client();
    is_because(&mut watcher, "on battery, 90 % left");
    peers.set_percent(11.8);
    is_because(&mut watcher, "on battery, 11 % left");
    assert_eq!(power(&mut watcher).policy, "efficient");
    assert!(power(&mut watcher).background_paused);
    peers.set_on_battery(false);
    is_because(&mut watcher, "the power profile is balanced");
    client.ask(Request::Cancel { target: id });

    peers.leave();
    is_because(&mut watcher, "nothing asks for another");
    drop(bus);
    assert_eq!(receipt(&mut watcher, "plain").throttle, "unknown");
}

pub fn sleep() {
    let Some(bus) = Bus::start() else { return };
    let peers = Peers::start(&bus);
    let daemon = daemon_on(&bus);
    let mut client = daemon.client();
    is_because(&mut client, "the power profile is balanced");
    assert_eq!(receipt(&mut client, "plain").throttle, "unknown");
    assert_eq!(peers.locks_asked_for(), [], "a small job delays no sleep");

    let mut owner = daemon.client();
    let long = owner.generate("hangs");
    owner.tokens(long, 3);
    eventually("sleep is delayed", || peers.locks_held() == 1);
    eventually("it says so", || power(&mut client).sleep_delayed);
    let lock = ["sleep", "Mote", "A model is at work", "delay"].map(str::to_owned);
    assert_eq!(peers.locks_asked_for(), [lock.into()]);

    // Nobody but logind is believed.
    peers.forge_sleep();
    assert_eq!(receipt(&mut client, "plain").throttle, "unknown");

    let probes = daemon.state().join("probes.json");
    let probed_at = || {
        std::fs::metadata(&probes)
            .and_then(|file| file.modified())
            .expect("a file")
    };
    let before = probed_at();
    peers.prepare_for_sleep(true);
    eventually("the machine may sleep", || peers.locks_held() == 0);
    let id = client.generate("plain");
    let mut watcher = daemon.client();
    let is_ready = |client: &mut Client| {
        let mut workers = client.status().workers.into_iter();
        workers.any(|one| one.model == "plain" && one.state == WorkerState::Ready)
    };
    eventually("the model is there", || is_ready(&mut watcher));
    let report = watcher.status();
    assert_eq!(
        (report.jobs_running, report.jobs_queued),
        (1, 1),
        "it waits"
    );
    eventually("it says so", || !power(&mut watcher).sleep_delayed);
    peers.prepare_for_sleep(false);
    assert!(matches!(client.all(id).last(), Some(Reply::Done(_))));
    eventually("sleep is delayed again", || peers.locks_held() == 1);
    // What was found out about devices before does not count any more.
    let id = client.ask(Request::ListDevices { refresh: false });
    assert!(matches!(client.next(id), Reply::DeviceList(_)));
    assert!(probed_at() > before, "they are probed anew");

    owner.ask(Request::Cancel { target: long });
    eventually("sleep is not delayed", || peers.locks_held() == 0);
    assert_eq!(peers.locks_asked_for().len(), 2);
    peers.leave();
}

pub fn idle_on_the_bus() {
    let Some(bus) = Bus::start() else { return };
    let peers = Peers::start(&bus);
    let daemon = daemon_on(&bus);
    let mut client = daemon.client();
    is_because(&mut client, "the power profile is balanced");
    let rss = client.status().rss_bytes;
    assert!(rss <= 15 << 20, "{rss} bytes");
    let pid = daemon.pid();
    let quiet = || {
        let before = wake_ups(pid);
        // How full a battery is changes all the time, and nobody asks.
        peers.set_percent(50.0);
        std::thread::sleep(std::time::Duration::from_millis(700));
        wake_ups(pid) == before
    };
    eventually("nothing wakes it", quiet);
    peers.leave();
}
