//! The load monitor: what counts, and when the judgement changes.

use mote_api::Load;
use moted::limits::{BUSY_SAMPLES, IDLE_SAMPLES};
use moted::policy::load::{LoadMonitor, Sample};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

fn sample(start: Instant, half_seconds: u32, busy_seconds: f64, ours: f64) -> Sample {
    let at = start + Duration::from_millis(500) * half_seconds;
    Sample {
        at,
        busy_seconds,
        ours_seconds: BTreeMap::from([(7, ours)]),
    }
}

#[test]
fn what_we_use_ourselves_is_not_load() {
    let (start, mut monitor) = (Instant::now(), LoadMonitor::default());
    for n in 0..50 {
        let ours = f64::from(n) * 0.9;
        assert_eq!(monitor.observe(sample(start, n, 100.0 + ours, ours)), None);
    }
    assert_eq!(monitor.load(), Load::Idle);
}

#[test]
fn others_are_noticed_after_two_samples_and_forgotten_after_six() {
    let (start, mut monitor) = (Instant::now(), LoadMonitor::default());
    let mut busy = 0.0;
    let mut changes = Vec::new();
    for n in 0..30 {
        // One core from half a second on until the tenth sample.
        busy += if (1..=10).contains(&n) { 0.5 } else { 0.0 };
        changes.extend(
            monitor
                .observe(sample(start, n, busy, 0.0))
                .map(|load| (n, load)),
        );
    }
    assert_eq!(
        changes,
        [(BUSY_SAMPLES, Load::Busy), (10 + IDLE_SAMPLES, Load::Idle)]
    );
}

proptest! {
    #[test]
    fn judgements_alternate_and_need_their_samples_in_a_row(
        cores in proptest::collection::vec(0.0..2.0f64, 1..200),
    ) {
        let (start, mut monitor) = (Instant::now(), LoadMonitor::default());
        let mut total = 0.0;
        monitor.observe(sample(start, 0, total, 0.0));
        let (mut before, mut since) = (Load::Idle, 0);
        for (n, cores) in cores.iter().enumerate() {
            total += cores * 0.5;
            since += 1;
            let changed = monitor.observe(sample(start, n as u32 + 1, total, 0.0));
            if let Some(load) = changed {
                prop_assert_ne!(load, before);
                let needed = if load == Load::Busy { BUSY_SAMPLES } else { IDLE_SAMPLES };
                prop_assert!(since >= needed);
                (before, since) = (load, 0);
            }
            prop_assert_eq!(monitor.load(), before);
        }
    }
}

#[test]
fn an_interruption_starts_the_count_anew() {
    let (start, mut monitor) = (Instant::now(), LoadMonitor::default());
    monitor.observe(sample(start, 0, 0.0, 0.0));
    monitor.observe(sample(start, 1, 0.5, 0.0));
    monitor.interrupt();
    assert!(!monitor.is_watching());
    assert_eq!(monitor.observe(sample(start, 100, 40.0, 0.0)), None);
    assert_eq!(monitor.observe(sample(start, 101, 40.5, 0.0)), None);
    assert_eq!(
        monitor.observe(sample(start, 102, 41.0, 0.0)),
        Some(Load::Busy)
    );
}
