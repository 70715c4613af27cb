//! Power and heat: what they make of profile, supply, temperatures and the user's word.

use mote_wire::types::Priority;
use moted::ids::{ConnectionId, JobId};
use moted::limits::{BATTERY_LOW_PERCENT, HEAT_FRESH_MS, HEAT_READINGS};
use moted::policy::power::{
    Monitor, Observation, Policy, Profile, Reading, Setting, Supply, Throttle, Trip, TripKind, Zone,
};
use moted::policy::queue::{DeviceQueue, Hold, Step, Ticket};
use proptest::prelude::*;
use std::time::{Duration, Instant};

fn supply(on_battery: bool, percent: Option<u8>) -> Observation {
    Observation::Supply(Some(Supply {
        on_battery,
        percent,
    }))
}

fn profile(profile: Profile) -> Observation {
    Observation::Profile(Some(profile), None)
}

fn reading(at: Instant) -> Reading {
    Reading {
        at,
        zones: Vec::new(),
        slowed: None,
        throttled: None,
    }
}

fn zone(name: &str, millidegrees: i32, trips: &[(TripKind, i32)]) -> Zone {
    let trips = trips.iter().map(|(kind, millidegrees)| Trip {
        kind: *kind,
        millidegrees: *millidegrees,
    });
    Zone {
        name: name.into(),
        millidegrees,
        trips: trips.collect(),
    }
}

/// A look at one zone that the kernel slows down at 80 °C.
fn at_degrees(at: Instant, degrees: i32) -> Observation {
    let zones = vec![zone("soc", degrees * 1000, &[(TripKind::Passive, 80_000)])];
    Observation::Heat(Reading {
        zones,
        ..reading(at)
    })
}

fn monitor(observations: impl IntoIterator<Item = Observation>) -> Monitor {
    let mut monitor = Monitor::new(Setting::Auto);
    for observation in observations {
        monitor.observe(observation);
    }
    monitor
}

fn policy(observations: impl IntoIterator<Item = Observation>) -> Policy {
    monitor(observations).stance().policy
}

#[test]
fn where_nothing_is_known_nothing_is_spared() {
    let monitor = Monitor::new(Setting::Auto);
    let stance = monitor.stance();
    assert_eq!(stance.policy, Policy::Balanced);
    assert!(stance.spin && stance.background);
    assert_eq!(stance.threads_max(8), None);
    assert_eq!(monitor.throttle(Instant::now()), Throttle::Unknown);
}

#[test]
fn the_profile_comes_before_the_battery_and_the_user_before_both() {
    let low = || supply(true, Some(BATTERY_LOW_PERCENT));
    assert_eq!(policy([low()]), Policy::Efficient);
    assert_eq!(
        policy([supply(true, Some(BATTERY_LOW_PERCENT + 1))]),
        Policy::Balanced
    );
    assert_eq!(policy([supply(true, None)]), Policy::Balanced);
    assert_eq!(
        policy([supply(false, Some(1))]),
        Policy::Balanced,
        "it is being charged"
    );
    assert_eq!(
        policy([low(), profile(Profile::Balanced)]),
        Policy::Efficient
    );
    assert_eq!(
        policy([low(), profile(Profile::Performance)]),
        Policy::Performance
    );
    assert_eq!(policy([profile(Profile::PowerSaver)]), Policy::Efficient);
    let mut always = Monitor::new("performance".parse().expect("a setting"));
    assert!(!always.observe(profile(Profile::PowerSaver)));
    assert_eq!(always.stance().policy, Policy::Performance);
    assert!("fast".parse::<Setting>().is_err());
    // What has gone no longer counts.
    let gone = [
        profile(Profile::PowerSaver),
        Observation::Profile(None, None),
    ];
    assert_eq!(policy(gone), Policy::Balanced);
}

#[test]
fn a_battery_buys_no_spinning_unless_asked_for_speed() {
    assert!(!monitor([supply(true, Some(90))]).stance().spin);
    assert!(monitor([supply(false, Some(90))]).stance().spin);
    let fast = [supply(true, Some(90)), profile(Profile::Performance)];
    assert!(monitor(fast).stance().spin);
    let saver = monitor([profile(Profile::PowerSaver)]).stance();
    assert!(!saver.spin && saver.background);
    let threads = [1, 2, 3, 8].map(|cores| saver.threads_max(cores));
    assert_eq!(threads, [None, Some(1), Some(2), Some(4)]);
}

#[test]
fn the_zone_that_is_hottest_by_its_own_measure_is_named() {
    let now = Instant::now();
    let zones = vec![
        zone("chassis", 50_000, &[(TripKind::Passive, 45_000)]),
        zone("cpu", 82_000, &[(TripKind::Passive, 80_000)]),
        zone("gpu", 90_000, &[(TripKind::Critical, 105_000)]),
    ];
    let heat = Observation::Heat(Reading {
        zones,
        ..reading(now)
    });
    let hot = monitor([heat]);
    assert_eq!(hot.throttle(now).to_string(), "thermal (chassis)");
    assert!(!hot.stance().spin);
    assert!(hot.stance().why.to_string().ends_with("hot (chassis)"));
    // Close below the temperature that turns the machine off it is hot, too.
    let heat = |millidegrees| {
        let zones = vec![zone("gpu", millidegrees, &[(TripKind::Critical, 105_000)])];
        Observation::Heat(Reading {
            zones,
            ..reading(now)
        })
    };
    assert_eq!(monitor([heat(99_999)]).throttle(now), Throttle::None);
    assert_ne!(monitor([heat(100_000)]).throttle(now), Throttle::None);
}

#[test]
fn processors_that_slow_down_are_seen_without_any_zone() {
    let now = Instant::now();
    let slowed = |names: &[&str]| {
        let slowed = Some(names.iter().map(ToString::to_string).collect());
        Observation::Heat(Reading {
            slowed,
            ..reading(now)
        })
    };
    let throttle = |observation| monitor([observation]).throttle(now).to_string();
    assert_eq!(throttle(slowed(&[])), "none");
    assert_eq!(
        throttle(slowed(&["thermal-cpufreq-0"])),
        "thermal (thermal-cpufreq-0)"
    );
    let counted = |count| {
        Observation::Heat(Reading {
            throttled: Some(count),
            ..reading(now)
        })
    };
    // A count says something when there is one to compare it with.
    assert_eq!(monitor([counted(7)]).throttle(now), Throttle::Unknown);
    assert_eq!(
        monitor([counted(7), counted(7)]).throttle(now),
        Throttle::None
    );
    let more = monitor([counted(7), counted(9)]).throttle(now);
    assert_eq!(more.to_string(), "thermal (cpu)");
    assert_eq!(throttle(Observation::Heat(reading(now))), "unknown");
}

#[test]
fn a_temperature_of_long_ago_says_nothing() {
    let now = Instant::now();
    let later = now + Duration::from_millis(HEAT_FRESH_MS + 1);
    for (degrees, word) in [(20, "none"), (90, "thermal (soc)")] {
        let monitor = monitor([at_degrees(now, degrees)]);
        assert_eq!(monitor.throttle(now).to_string(), word);
        assert_eq!(monitor.throttle(later).to_string(), "unknown");
    }
    let saver = monitor([at_degrees(now, 20), profile(Profile::PowerSaver)]);
    assert_eq!(saver.throttle(now), Throttle::PowerSaver);
    assert_eq!(saver.throttle(later), Throttle::PowerSaver);
    let hot_saver = monitor([at_degrees(now, 90), profile(Profile::PowerSaver)]);
    assert_eq!(hot_saver.throttle(now).to_string(), "thermal (soc)");
    let degraded = Observation::Profile(Some(Profile::Balanced), Some("lap-detected".into()));
    assert_eq!(
        monitor([degraded]).throttle(later).to_string(),
        "thermal (lap-detected)"
    );
}

#[test]
fn background_work_waits_when_power_is_scarce_and_it_is_hot_or_the_battery_low() {
    let now = Instant::now();
    let background = |observations: Vec<Observation>| monitor(observations).stance().background;
    assert!(background(vec![at_degrees(now, 90)]));
    assert!(background(vec![profile(Profile::PowerSaver)]));
    assert!(!background(vec![
        profile(Profile::PowerSaver),
        at_degrees(now, 90)
    ]));
    assert!(!background(vec![supply(true, Some(5))]));
    assert!(background(vec![
        supply(true, Some(5)),
        profile(Profile::Performance)
    ]));
}

fn observations() -> impl Strategy<Value = Vec<(u64, Observation)>> {
    let profiles = vec![Profile::Performance, Profile::Balanced, Profile::PowerSaver];
    let profile = proptest::option::of(proptest::sample::select(profiles));
    let one = prop_oneof![
        profile.prop_map(|profile| Observation::Profile(profile, None)),
        any::<Option<(bool, Option<u8>)>>().prop_map(|supply| {
            Observation::Supply(supply.map(|(on_battery, percent)| Supply {
                on_battery,
                percent: percent.map(|percent| percent % 101),
            }))
        }),
        (-40..130).prop_map(|degrees| at_degrees(Instant::now(), degrees)),
    ];
    proptest::collection::vec((0..5_000u64, one), 0..40)
}

proptest! {
    /// Whatever happens: what saves power saves at all of it, heat calms down after enough cool
    /// readings and no earlier, and a change is told exactly when there is one.
    #[test]
    fn stances_are_consistent(history in observations(), cores in 1..128usize) {
        let mut now = Instant::now();
        let mut monitor = Monitor::new(Setting::Auto);
        let mut cool_in_a_row = None;
        for (pause_ms, mut observation) in history {
            now += Duration::from_millis(pause_ms);
            if let Observation::Heat(reading) = &mut observation {
                reading.at = now;
                let hot = reading.zones[0].millidegrees >= 80_000;
                cool_in_a_row = if hot { Some(0) } else { cool_in_a_row.map(|n| n + 1) };
                let throttle = if hot { "thermal (soc)" } else { "none" };
                let before = monitor.stance();
                let changed = monitor.observe(observation);
                prop_assert_eq!(changed, before != monitor.stance());
                let told = monitor.throttle(now).to_string();
                prop_assert!(told == throttle || (!hot && told == "power-saver"), "{}", told);
            } else {
                let before = monitor.stance();
                let changed = monitor.observe(observation);
                prop_assert_eq!(changed, before != monitor.stance());
            }
            let stance = monitor.stance();
            let is_hot = cool_in_a_row.is_some_and(|n| n < HEAT_READINGS);
            prop_assert_eq!(stance.why.to_string().contains("hot"), is_hot);
            let efficient = stance.policy == Policy::Efficient;
            prop_assert!(!efficient || !stance.spin);
            prop_assert!(efficient || stance.background);
            prop_assert!(stance.policy != Policy::Balanced || !is_hot || !stance.spin);
            let threads = stance.threads_max(cores).unwrap_or(cores);
            prop_assert!(threads >= 1 && threads <= cores);
            prop_assert_eq!(threads < cores, efficient && cores > 1);
        }
    }
}

fn ticket(job: u64, priority: Priority) -> Ticket {
    Ticket {
        job: JobId(job),
        connection: ConnectionId(1),
        uid: 0,
        priority,
        run: None,
    }
}

#[test]
fn what_is_held_back_halts_and_goes_on_where_it_was() {
    let mut queue = DeviceQueue::default();
    queue.push(ticket(1, Priority::Background));
    assert_eq!(queue.schedule(Hold::Nothing), [Step::Start(JobId(1))]);
    queue.push(ticket(2, Priority::Background));
    assert_eq!(queue.schedule(Hold::Background), [Step::Pause(JobId(1))]);
    assert_eq!(queue.schedule(Hold::Background), []);
    // Others are not held up by what is held back.
    queue.push(ticket(3, Priority::Normal));
    assert_eq!(queue.schedule(Hold::Background), [Step::Start(JobId(3))]);
    assert_eq!(queue.schedule(Hold::All), [Step::Pause(JobId(3))]);
    queue.push(ticket(4, Priority::Interactive));
    assert_eq!(queue.schedule(Hold::All), []);
    assert_eq!(queue.schedule(Hold::Nothing), [Step::Start(JobId(4))]);
    assert!(queue.remove(JobId(4)));
    assert_eq!(queue.schedule(Hold::Nothing), [Step::Resume(JobId(3))]);
    assert!(queue.remove(JobId(3)));
    let last = queue.schedule(Hold::Nothing);
    assert_eq!(last, [Step::Resume(JobId(1)), Step::Start(JobId(2))]);
}
