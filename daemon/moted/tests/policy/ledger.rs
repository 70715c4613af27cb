//! The ledger: the budget holds, and evictions are as few as they can be.

use moted::ids::WorkerId;
use moted::policy::ledger::{Idle, Ledger, victims};
use proptest::prelude::*;
use std::collections::BTreeMap;

proptest! {
    #[test]
    fn reservations_never_exceed_the_budget_and_are_released_once(
        budget in 0..1_000u64,
        steps in proptest::collection::vec((0..8u64, 0..400u64, any::<bool>()), 0..60),
    ) {
        let mut ledger = Ledger::new(budget);
        let mut model: BTreeMap<WorkerId, u64> = BTreeMap::new();
        for (worker, bytes, reserve) in steps {
            let worker = WorkerId(worker);
            if reserve && !model.contains_key(&worker) {
                let free = budget - model.values().sum::<u64>();
                match ledger.reserve(worker, bytes) {
                    Ok(()) => {
                        prop_assert!(bytes <= free);
                        model.insert(worker, bytes);
                    }
                    Err(shortage) => {
                        prop_assert!(bytes > free);
                        prop_assert_eq!((shortage.need_bytes, shortage.have_bytes), (bytes, free));
                    }
                }
            } else {
                prop_assert_eq!(ledger.release(worker), model.remove(&worker).unwrap_or(0));
                prop_assert_eq!(ledger.release(worker), 0);
            }
            prop_assert_eq!(ledger.reserved_bytes(), model.values().sum::<u64>());
            prop_assert_eq!(ledger.free_bytes() + ledger.reserved_bytes(), budget);
        }
    }

    #[test]
    fn victims_suffice_and_none_is_needless(
        missing in 0..500u64,
        idle in proptest::collection::vec((0..200u64, 0..10_000u64, 0..1_000u64), 0..8),
    ) {
        let idle: Vec<Idle> = idle
            .into_iter()
            .enumerate()
            .map(|(n, (bytes, idle_ms, reload_ms))| {
                Idle { worker: WorkerId(n as u64), bytes, idle_ms, reload_ms }
            })
            .collect();
        let bytes = |worker: &WorkerId| idle.iter().find(|i| i.worker == *worker).map_or(0, |i| i.bytes);
        let all: u64 = idle.iter().map(|i| i.bytes).sum();
        match victims(missing, &idle) {
            None => prop_assert!(all < missing),
            Some(chosen) => {
                let freed: u64 = chosen.iter().map(bytes).sum();
                prop_assert!(freed >= missing);
                for spared in &chosen {
                    prop_assert!(freed - bytes(spared) < missing, "{spared} is needless");
                }
            }
        }
    }
}

#[test]
fn the_longest_unused_goes_first_and_what_is_dear_to_load_stays_longer() {
    let idle = |worker, idle_ms, reload_ms| Idle {
        worker: WorkerId(worker),
        bytes: 10,
        idle_ms,
        reload_ms,
    };
    assert_eq!(
        victims(5, &[idle(1, 100, 50), idle(2, 900, 50)]),
        Some(vec![WorkerId(2)])
    );
    assert_eq!(
        victims(5, &[idle(1, 500, 10), idle(2, 900, 9_000)]),
        Some(vec![WorkerId(1)])
    );
    assert_eq!(victims(15, &[idle(1, 1, 1)]), None);
    assert_eq!(victims(0, &[idle(1, 1, 1)]), Some(vec![]));
}
