//! Policies under random histories.

use mote_api::{
    Absence, BackendKind, Candidate, Capability, DeviceInfo, DeviceKind, Load, Manifest, Precision,
    Rejection, Task, Variant,
};
use mote_wire::types::Priority;
use moted::ids::{ConnectionId, JobId, WorkerId};
use moted::limits::{
    BUSY_SAMPLES, CRASHES_MAX, IDLE_SAMPLES, QUARANTINE_MS, REFUSAL_MS, RUNNING_PER_DEVICE,
    STARTED_PER_DEVICE_MAX,
};
use moted::policy::history::{History, Key};
use moted::policy::ledger::{Idle, Ledger, victims};
use moted::policy::load::{LoadMonitor, Sample};
use moted::policy::planner::{Question, Requirements, plan};
use moted::policy::queue::{DeviceQueue, Step, Ticket};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

// ---- Planner ----

const BACKENDS: [BackendKind; 3] = [
    BackendKind::OnnxRuntime,
    BackendKind::Tflite,
    BackendKind::Tract,
];

fn manifest(variants: Vec<Variant>) -> Manifest {
    Manifest {
        format: 1,
        name: "m".into(),
        task: Task::Tensor,
        licence: String::new(),
        source: String::new(),
        description: String::new(),
        variants,
        text: None,
        stream: None,
        clip: None,
        inputs: Vec::new(),
        labels: None,
        files: BTreeMap::new(),
    }
}

fn variant(name: &str, backend: BackendKind, file: &str) -> Variant {
    Variant {
        name: name.into(),
        backend,
        file: file.into(),
        precision: Precision::F32,
        weights_bytes: None,
        memory_bytes: Some(100),
        providers: Vec::new(),
    }
}

fn capability(flavour: &str, backend: BackendKind, provider: &str, kind: DeviceKind) -> Capability {
    Capability {
        flavour: flavour.into(),
        backend,
        library_version: "1".into(),
        provider: provider.into(),
        device: Some(DeviceInfo {
            id: kind.to_string(),
            kind,
            name: String::new(),
        }),
        absence: None,
    }
}

fn some_variants() -> impl Strategy<Value = Vec<Variant>> {
    let one = (
        0..3usize,
        0..3u8,
        0..300u64,
        proptest::option::of(0..3usize),
    );
    proptest::collection::vec(one, 1..5).prop_map(|ones| {
        let make =
            |(index, (backend, file, need, provider)): (usize, (usize, u8, u64, Option<usize>))| {
                let mut variant =
                    variant(&format!("v{index}"), BACKENDS[backend], &format!("f{file}"));
                variant.memory_bytes = Some(need);
                variant.providers = provider.map(|p| format!("p{p}")).into_iter().collect();
                variant
            };
        ones.into_iter().enumerate().map(make).collect()
    })
}

fn some_capabilities() -> impl Strategy<Value = Vec<Capability>> {
    let one = (0..3usize, 0..3u8, 0..4u8);
    proptest::collection::vec(one, 0..6).prop_map(|ones| {
        let make = |(index, (backend, provider, state)): (usize, (usize, u8, u8))| {
            let kind = if provider == 0 {
                DeviceKind::Cpu
            } else {
                DeviceKind::Npu
            };
            let flavour = format!("flavour{index}");
            let mut one = capability(&flavour, BACKENDS[backend], &format!("p{provider}"), kind);
            match state {
                0 => one.absence = Some(Absence::NoDevice),
                1 => one.device = None,
                _ => {}
            }
            one
        };
        ones.into_iter().enumerate().map(make).collect()
    })
}

fn some_requirements() -> impl Strategy<Value = Requirements> {
    let name = |prefix: &'static str, max: u8| {
        proptest::option::weighted(0.3, (0..max).prop_map(move |n| format!("{prefix}{n}")))
    };
    let backend =
        proptest::option::weighted(0.3, (0..3usize).prop_map(|b| BACKENDS[b].to_string()));
    let rest = (
        name("flavour", 6),
        name("p", 3),
        name("v", 5),
        any::<bool>(),
    );
    (backend, rest).prop_map(
        |(backend, (flavour, provider, variant, forbid_cpu))| Requirements {
            backend,
            flavour,
            provider,
            variant,
            forbid_cpu,
        },
    )
}

proptest! {
    #[test]
    fn each_pair_is_a_candidate_or_rejected_exactly_once(
        variants in some_variants(),
        capabilities in some_capabilities(),
        require in some_requirements(),
        room_bytes in 0..300u64,
        bad in proptest::option::of((0..6u8, 0..3u8)),
    ) {
        let manifest = manifest(variants);
        let bad = bad.map(|(flavour, provider)| (format!("flavour{flavour}"), format!("p{provider}")));
        let verdict = |candidate: &Candidate| {
            let at = (candidate.flavour.clone(), candidate.provider.clone());
            (Some(at) == bad).then_some(Rejection::Quarantined { crashes: 9 })
        };
        let need_bytes = |variant: &Variant, _: &Candidate| variant.memory_bytes.unwrap_or(0);
        let question = Question {
            manifest: &manifest,
            need_bytes: &need_bytes,
            capabilities: &capabilities,
            require: &require,
            room_bytes,
            verdict: &verdict,
        };
        let made = plan(&question);
        prop_assert_eq!(&made, &plan(&question));

        let mut outcomes: BTreeMap<(String, String, String), usize> = BTreeMap::new();
        let candidates = made.candidates.iter().map(|c| (&c.flavour, &c.provider, &c.variant));
        let rejected = made.rejected.iter().map(|r| (&r.flavour, &r.provider, &r.variant));
        for (flavour, provider, variant) in candidates.chain(rejected) {
            let key = (flavour.clone(), provider.clone(), variant.clone());
            *outcomes.entry(key).or_default() += 1;
        }
        let mut expected = BTreeSet::new();
        for variant in &manifest.variants {
            let mut same = capabilities.iter().filter(|c| c.backend == variant.backend).peekable();
            if same.peek().is_none() {
                expected.insert((variant.backend.to_string(), String::new(), variant.name.clone()));
            }
            let keys = same.map(|c| (c.flavour.clone(), c.provider.clone(), variant.name.clone()));
            expected.extend(keys);
        }
        for capability in &capabilities {
            if !manifest.variants.iter().any(|v| v.backend == capability.backend) {
                let (flavour, provider) = (capability.flavour.clone(), capability.provider.clone());
                expected.insert((flavour, provider, String::new()));
            }
        }
        prop_assert!(outcomes.values().all(|times| *times == 1), "{:?}", outcomes);
        prop_assert_eq!(outcomes.into_keys().collect::<BTreeSet<_>>(), expected);

        for candidate in &made.candidates {
            let variant = manifest.variants.iter().find(|v| v.name == candidate.variant);
            let variant = variant.expect("a candidate's variant is the manifest's");
            let is = |want: &Option<String>, have: &str| want.as_ref().is_none_or(|w| w == have);
            prop_assert!(is(&require.backend, &candidate.backend.to_string()));
            prop_assert!(is(&require.flavour, &candidate.flavour));
            prop_assert!(is(&require.provider, &candidate.provider));
            prop_assert!(is(&require.variant, &candidate.variant));
            prop_assert!(!require.forbid_cpu || candidate.device.kind != DeviceKind::Cpu);
            prop_assert!(variant.memory_bytes.unwrap_or(0) <= room_bytes);
            prop_assert!(variant.providers.is_empty() || variant.providers.contains(&candidate.provider));
            prop_assert!(verdict(candidate).is_none());
            let capability = capabilities.iter().find(|c| c.flavour == candidate.flavour);
            prop_assert!(capability.is_some_and(|c| c.works() && c.device.is_some()));
        }
        let kinds: Vec<_> = made.candidates.iter().map(|c| c.device.kind == DeviceKind::Cpu).collect();
        prop_assert!(kinds.is_sorted(), "accelerators come first");
    }
}

#[test]
fn accelerators_then_the_manifests_order_then_onnxruntime_on_the_same_file() {
    let manifest = manifest(vec![
        variant("tract", BackendKind::Tract, "m.onnx"),
        variant("ort", BackendKind::OnnxRuntime, "m.onnx"),
        variant("small", BackendKind::OnnxRuntime, "small.onnx"),
    ]);
    let capabilities = [
        capability("tract", BackendKind::Tract, "", DeviceKind::Cpu),
        capability("gpu", BackendKind::OnnxRuntime, "CPU", DeviceKind::Cpu),
        capability("gpu", BackendKind::OnnxRuntime, "CUDA", DeviceKind::Gpu),
    ];
    let made = plan(&Question {
        manifest: &manifest,
        need_bytes: &|_, _| 1,
        capabilities: &capabilities,
        require: &Requirements::default(),
        room_bytes: 1,
        verdict: &|_| None,
    });
    let order: Vec<_> = made
        .candidates
        .iter()
        .map(|c| (c.variant.as_str(), c.provider.as_str()))
        .collect();
    let expected = [
        ("ort", "CUDA"),
        ("small", "CUDA"),
        ("ort", "CPU"),
        ("tract", ""),
        ("small", "CPU"),
    ];
    assert_eq!(order, expected);
    let outranked = made.not_taken();
    assert_eq!(outranked.len(), 4);
    assert!(
        outranked
            .iter()
            .all(|one| one.rejection == Rejection::Outranked)
    );
}

#[test]
fn what_needs_too_much_memory_says_how_much() {
    let manifest = manifest(vec![variant("v", BackendKind::Tract, "m.onnx")]);
    let capabilities = [capability("tract", BackendKind::Tract, "", DeviceKind::Cpu)];
    let made = plan(&Question {
        manifest: &manifest,
        need_bytes: &|_, _| 50,
        capabilities: &capabilities,
        require: &Requirements::default(),
        room_bytes: 20,
        verdict: &|_| None,
    });
    assert_eq!(made.over_budget(), Some((50, 20)));
}

// ---- Ledger ----

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

// ---- Queue ----

#[derive(Clone, Debug)]
enum Act {
    Push(u8, u8),
    Finish(usize),
    Remove(usize),
    Stall(usize, bool),
    LoseWorker(usize),
}

fn some_acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        5 => (0..4u8, 0..3u8).prop_map(|(connection, priority)| Act::Push(connection, priority)),
        4 => (0..64usize).prop_map(Act::Finish),
        1 => (0..64usize).prop_map(Act::Remove),
        2 => (0..64usize, any::<bool>()).prop_map(|(job, stalled)| Act::Stall(job, stalled)),
        1 => (0..64usize).prop_map(Act::LoseWorker),
    ];
    proptest::collection::vec(act, 0..120)
}

fn priority(number: u8) -> Priority {
    [
        Priority::Interactive,
        Priority::Normal,
        Priority::Background,
    ][usize::from(number)]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Waiting,
    Started { paused: bool, stalled: bool },
    Gone,
}

struct Model {
    queue: DeviceQueue,
    tickets: Vec<Ticket>,
    at: Vec<At>,
}

impl Model {
    fn index(&self, pick: usize, which: impl Fn(At) -> bool) -> Option<usize> {
        let fit: Vec<usize> = (0..self.at.len()).filter(|i| which(self.at[*i])).collect();
        (!fit.is_empty()).then(|| fit[pick % fit.len()])
    }

    fn act(&mut self, act: &Act) {
        let started = |at| matches!(at, At::Started { .. });
        match *act {
            Act::Push(connection, number) => {
                let job = JobId(self.tickets.len() as u64);
                let connection = ConnectionId(u64::from(connection));
                let ticket = Ticket {
                    job,
                    connection,
                    priority: priority(number),
                };
                self.queue.push(ticket);
                self.tickets.push(ticket);
                self.at.push(At::Waiting);
            }
            Act::Finish(pick) => {
                if let Some(index) = self.index(pick, started) {
                    assert!(self.queue.remove(self.tickets[index].job));
                    self.at[index] = At::Gone;
                }
            }
            Act::Remove(pick) => {
                if let Some(index) = self.index(pick, |at| at == At::Waiting) {
                    assert!(self.queue.remove(self.tickets[index].job));
                    self.at[index] = At::Gone;
                }
                assert!(!self.queue.remove(JobId(9_999)));
            }
            Act::Stall(pick, stalled) => {
                if let Some(index) = self.index(pick, started)
                    && let At::Started { stalled: now, .. } = &mut self.at[index]
                {
                    *now = stalled;
                    self.queue.set_stalled(self.tickets[index].job, stalled);
                }
            }
            Act::LoseWorker(pick) => {
                if let Some(index) = self.index(pick, started) {
                    assert!(self.queue.remove(self.tickets[index].job));
                    self.queue.push_first(self.tickets[index]);
                    self.at[index] = At::Waiting;
                }
            }
        }
    }

    fn obey(&mut self) {
        for step in self.queue.schedule() {
            let (Step::Start(job) | Step::Pause(job) | Step::Resume(job)) = step;
            let at = &mut self.at[job.0 as usize];
            *at = match (step, *at) {
                (Step::Start(_), At::Waiting) => At::Started {
                    paused: false,
                    stalled: false,
                },
                (
                    Step::Pause(_),
                    At::Started {
                        paused: false,
                        stalled,
                    },
                ) => At::Started {
                    paused: true,
                    stalled,
                },
                (
                    Step::Resume(_),
                    At::Started {
                        paused: true,
                        stalled,
                    },
                ) => At::Started {
                    paused: false,
                    stalled,
                },
                (step, at) => panic!("{step:?} of a job that is {at:?}"),
            };
        }
        assert_eq!(self.queue.schedule(), [], "asking again changes nothing");
    }

    fn count(&self, urgency: Priority, which: impl Fn(At) -> bool) -> usize {
        let all = self.tickets.iter().zip(&self.at);
        all.filter(|(ticket, at)| ticket.priority == urgency && which(**at))
            .count()
    }

    fn check(&self) {
        let waiting = |at| at == At::Waiting;
        let computing = |at| {
            matches!(
                at,
                At::Started {
                    paused: false,
                    stalled: false
                }
            )
        };
        let all = [
            Priority::Interactive,
            Priority::Normal,
            Priority::Background,
        ];
        let wanted = |p: &&Priority| {
            let awake = |at| matches!(at, At::Started { stalled: false, .. });
            self.count(**p, waiting) + self.count(**p, awake) > 0
        };
        let total_waiting: usize = all.iter().map(|p| self.count(*p, waiting)).sum();
        assert_eq!(self.queue.waiting_len(), total_waiting);
        let Some(top) = all.iter().find(wanted) else {
            return;
        };
        for urgency in &all {
            if urgency != top {
                assert_eq!(
                    self.count(*urgency, computing),
                    0,
                    "{urgency:?} beside {top:?}"
                );
            }
        }
        let awake_paused = |at| {
            matches!(
                at,
                At::Started {
                    paused: true,
                    stalled: false
                }
            )
        };
        assert_eq!(
            self.count(*top, awake_paused),
            0,
            "the most urgent is never paused"
        );
        let started = self.count(*top, |at| matches!(at, At::Started { .. }));
        let full =
            self.count(*top, computing) >= RUNNING_PER_DEVICE || started >= STARTED_PER_DEVICE_MAX;
        assert!(
            full || self.count(*top, waiting) == 0,
            "the most urgent waits for no reason"
        );
    }
}

proptest! {
    #[test]
    fn random_histories_of_the_queue(acts in some_acts()) {
        let mut model = Model { queue: DeviceQueue::default(), tickets: vec![], at: vec![] };
        for act in &acts {
            model.act(act);
            model.obey();
            model.check();
        }
        // Without new work everything that waits is started, and so nothing is lost.
        while let Some(index) = model.index(0, |at| matches!(at, At::Started { .. })) {
            model.queue.remove(model.tickets[index].job);
            model.at[index] = At::Gone;
            model.obey();
        }
        prop_assert!(model.at.iter().all(|at| *at == At::Gone), "{:?}", model.at);
        prop_assert_eq!(model.queue.waiting_len() + model.queue.started_len(), 0);
    }

    #[test]
    fn connections_take_turns_however_many_jobs_one_has(
        jobs in proptest::collection::vec(1..12usize, 2..5),
    ) {
        let mut queue = DeviceQueue::default();
        let mut number = 0;
        let mut owner = BTreeMap::new();
        for (connection, count) in jobs.iter().enumerate() {
            for _ in 0..*count {
                let (job, connection) = (JobId(number), ConnectionId(connection as u64));
                queue.push(Ticket { job, connection, priority: Priority::Normal });
                owner.insert(job, connection);
                number += 1;
            }
        }
        let mut order = Vec::new();
        let mut running = Vec::new();
        loop {
            running.extend(queue.schedule().into_iter().map(|step| match step {
                Step::Start(job) => job,
                other => panic!("{other:?} among equals"),
            }));
            if running.is_empty() {
                break;
            }
            let done = running.remove(0);
            order.push(done);
            queue.remove(done);
        }
        prop_assert_eq!(order.len(), jobs.iter().sum::<usize>());
        let mut left = jobs.clone();
        for round in order.chunk_by(|a, b| owner[a] < owner[b]) {
            let served: Vec<usize> = round.iter().map(|job| owner[job].0 as usize).collect();
            let due: Vec<usize> = (0..left.len()).filter(|c| left[*c] > 0).collect();
            prop_assert_eq!(&served, &due, "each that waits is served once per round");
            served.into_iter().for_each(|connection| left[connection] -= 1);
        }
        for pair in order.windows(2) {
            let same = owner[&pair[0]] == owner[&pair[1]];
            prop_assert!(!same || pair[0] < pair[1], "jobs of one connection keep their order");
        }
    }
}

// ---- Load ----

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

// ---- History ----

fn key(provider: &str) -> Key {
    let device = DeviceInfo {
        id: "cpu".into(),
        kind: DeviceKind::Cpu,
        name: String::new(),
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
    history.worked(&bad);
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
    history.forgive();
    assert_eq!(history.verdict(&key("a"), false, later), None);
}
