//! The record of candidates: backing off, quarantine, forgiving.

use mote_api::{BackendKind, Candidate, DeviceInfo, DeviceKind, Precision, Rejection};
use moted::limits::{CRASHES_MAX, QUARANTINE_MS, REFUSAL_MS};
use moted::policy::history::{History, Key};
use std::time::{Duration, Instant};

fn key(provider: &str) -> Key {
    let device = DeviceInfo {
        id: "cpu".into(),
        kind: DeviceKind::Cpu,
        name: String::new(),
        simulated: false,
    };
    let candidate = Candidate {
        variant: "v".into(),
        backend: BackendKind::Fake,
        flavour: "fake".into(),
        provider: provider.into(),
        device,
        precision: Precision::F32,
    };
    Key {
        digest: "d".into(),
        candidate,
    }
}

#[test]
fn crashes_in_a_row_back_off_further_each_time_and_then_quarantine_that_candidate_alone() {
    let (start, mut history) = (Instant::now(), History::default());
    let (bad, good) = (key("bad"), key("good"));
    let mut pauses = Vec::new();
    for crash in 1..=CRASHES_MAX {
        assert_eq!(
            history.verdict(&bad, false, start),
            None,
            "after {} crashes",
            crash - 1
        );
        history.crashed(&bad, start);
        pauses.push(
            history
                .not_before(&bad)
                .map(|at| at - start)
                .unwrap_or_default(),
        );
    }
    assert_eq!(pauses[0], Duration::ZERO);
    assert!(
        pauses.windows(2).all(|pair| pair[0] < pair[1]),
        "{pauses:?}"
    );
    let crashes = CRASHES_MAX;
    assert_eq!(
        history.verdict(&bad, false, start),
        Some(Rejection::Quarantined { crashes })
    );
    assert_eq!(history.verdict(&good, false, start), None);

    let later = start + Duration::from_millis(QUARANTINE_MS);
    assert_eq!(
        history.verdict(&bad, false, later),
        None,
        "it gets another chance"
    );
    history.crashed(&bad, later);
    assert!(
        history.verdict(&bad, false, later).is_some(),
        "one, not {CRASHES_MAX}"
    );
    history.worked(|| bad.clone());
    assert_eq!(
        (history.verdict(&bad, false, later), history.crashes(&bad)),
        (None, 0)
    );
}

#[test]
fn refusals_stay_on_record_for_their_time_and_where_they_matter() {
    let (start, mut history) = (Instant::now(), History::default());
    let refusal = Rejection::LoadFailed { why: "no".into() };
    history.rejected(&key("a"), refusal.clone(), start);
    assert_eq!(
        history.verdict(&key("a"), false, start),
        Some(refusal.clone())
    );
    let later = start + Duration::from_millis(REFUSAL_MS);
    assert_eq!(
        history.verdict(&key("a"), false, later),
        None,
        "it may have been the moment's"
    );
    let operators = Rejection::UnsupportedOperators {
        operators: vec!["QMoE".into()],
    };
    history.rejected(&key("a"), operators, start);
    assert!(history.verdict(&key("a"), false, later).is_some());
    let fell_back = Rejection::FellBackToCpu {
        nodes: 3,
        cpu_nodes: 1,
    };
    history.rejected(&key("b"), fell_back, start);
    assert_eq!(history.verdict(&key("b"), false, start), None);
    assert!(history.verdict(&key("b"), true, later).is_some());
    let took_nothing = Rejection::FellBackToCpu {
        nodes: 3,
        cpu_nodes: 3,
    };
    history.rejected(&key("c"), took_nothing, start);
    let verdict = history.verdict(&key("c"), false, later);
    assert!(verdict.is_some(), "it would be refused again, and again");
    history.forgive();
    assert_eq!(history.verdict(&key("a"), false, later), None);
}
