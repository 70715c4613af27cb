//! The planner: every pair has exactly one outcome, and the order is the one that was promised.

use mote_api::{
    Absence, BackendKind, Candidate, Capability, DeviceInfo, DeviceKind, Manifest, Precision,
    Rejection, Task, Variant,
};
use moted::policy::planner::{Cost, Goal, Plan, Question, Requirements, Standing, plan};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const BACKENDS: [BackendKind; 3] = [
    BackendKind::OnnxRuntime,
    BackendKind::Tflite,
    BackendKind::Tract,
];

const PRECISIONS: [Precision; 6] = [
    Precision::F32,
    Precision::F16,
    Precision::Bf16,
    Precision::Int8,
    Precision::Int4,
    Precision::Native,
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
        embedding: None,
        stream: None,
        clip: None,
        generation: None,
        restoration: None,
        labelling: None,
        inputs: Vec::new(),
        outputs: Vec::new(),
        check: None,
        labels: None,
        dimensions: BTreeMap::new(),
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
        parts: BTreeMap::new(),
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
            simulated: false,
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
        0..PRECISIONS.len(),
    );
    type One = (usize, u8, u64, Option<usize>, usize);
    proptest::collection::vec(one, 1..5).prop_map(|ones| {
        let make = |(index, (backend, file, need, provider, precision)): (usize, One)| {
            let mut variant = variant(&format!("v{index}"), BACKENDS[backend], &format!("f{file}"));
            variant.memory_bytes = Some(need);
            variant.providers = provider.map(|p| format!("p{p}")).into_iter().collect();
            variant.precision = PRECISIONS[precision];
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
            room_bytes: &|_| room_bytes,
            verdict: &verdict,
            standing: &|_| Standing::default(),
            goal: Goal::Speed,
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
        room_bytes: &|_| 1,
        verdict: &|_| None,
        standing: &|_| Standing::default(),
        goal: Goal::Speed,
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
        room_bytes: &|_| 20,
        verdict: &|_| None,
        standing: &|_| Standing::default(),
        goal: Goal::Speed,
    });
    assert_eq!(made.over_budget(), Some((50, 20)));
}

/// What a trial may have told of the candidate of a variant and a flavour.
fn some_standings() -> impl Strategy<Value = BTreeMap<(String, String), Standing>> {
    let cost = (1..40u64, 0..40u64).prop_map(|(run_us, host_cpu_us)| Cost {
        run_us,
        host_cpu_us,
    });
    let standing = (
        proptest::option::weighted(0.8, cost),
        (0..6u32, 0..6u32),
        proptest::option::weighted(0.2, 80..200u32),
    );
    let standing = standing.prop_map(|(measured, (own_nodes, others), host_percent)| Standing {
        measured,
        nodes: own_nodes + others,
        own_nodes,
        host_percent: host_percent.filter(|_| others == 0),
        lower_than: None,
    });
    let key = (0..5u8, 0..6u8).prop_map(|(v, f)| (format!("v{v}"), format!("flavour{f}")));
    proptest::collection::btree_map(key, standing, 0..30)
}

proptest! {
    #[test]
    fn what_was_measured_comes_first_and_in_order_and_the_rest_stays_as_it_was(
        variants in some_variants(),
        capabilities in some_capabilities(),
        require in some_requirements(),
        standings in some_standings(),
        thrifty in any::<bool>(),
    ) {
        let manifest = manifest(variants);
        // Devices alone can pass for what they are not.
        let standing = |candidate: &Candidate| {
            let key = (candidate.variant.clone(), candidate.flavour.clone());
            let mut standing = standings.get(&key).copied().unwrap_or_default();
            if candidate.device.kind == DeviceKind::Cpu {
                (standing.own_nodes, standing.host_percent) = (standing.nodes, None);
            }
            standing
        };
        let nothing = |_: &Candidate| Standing::default();
        let goal = if thrifty { Goal::Thrift } else { Goal::Speed };
        let ask = |standing: &dyn Fn(&Candidate) -> Standing| plan(&Question {
            manifest: &manifest,
            need_bytes: &|_, _| 0,
            capabilities: &capabilities,
            require: &require,
            room_bytes: &|_| 0,
            verdict: &|_| None,
            standing,
            goal,
        });
        let (made, before) = (ask(&standing), ask(&nothing));

        prop_assert_eq!(made.candidates.len(), made.standings.len());
        let pairs = made.candidates.len() + made.rejected.len();
        prop_assert_eq!(pairs, before.candidates.len() + before.rejected.len());
        let costs: Vec<_> = made.standings.iter().map(|one| one.measured).collect();
        let measured: Vec<Cost> = costs.iter().map_while(|cost| *cost).collect();
        prop_assert!(costs[measured.len()..].iter().all(Option::is_none));
        let in_order = |one: &Cost| match goal {
            Goal::Speed => (one.run_us, one.host_cpu_us),
            Goal::Thrift => (one.host_cpu_us, one.run_us),
        };
        let precisions: Vec<_> = made.candidates.iter().map(|one| one.precision).collect();
        // Among those of one precision the measured cost decides alone …
        for precision in PRECISIONS {
            let of_one = std::iter::zip(&measured, &precisions).filter(|(_, one)| **one == precision);
            prop_assert!(of_one.map(|(cost, _)| cost).is_sorted_by_key(in_order));
        }
        // … and over all of them, once what is below the first is taken for half as much again.
        let first = manifest.variants.iter().find(|variant| {
            let is_open = |one: &&Candidate| one.variant == variant.name
                && !made.rejected.iter().any(|lost| {
                    let is_it = (&lost.variant, &lost.flavour) == (&one.variant, &one.flavour);
                    is_it && !matches!(lost.rejection, Rejection::SplitLoses { .. })
                });
            before.candidates.iter().any(|one| is_open(&one))
        });
        let first = first.map(|variant| variant.precision);
        let compared = |(cost, precision): (&Cost, &Precision)| {
            let (a, b) = in_order(cost);
            let is_lower = first.is_some_and(|first| precision.is_below(first));
            if is_lower { (3 * a, 3 * b) } else { (2 * a, 2 * b) }
        };
        prop_assert!(std::iter::zip(&measured, &precisions).map(compared).is_sorted());
        let untouched = |one: &&Candidate| standing(one) == Standing::default();
        let rest: Vec<_> = made.candidates.iter().filter(untouched).collect();
        let rest_before: Vec<_> = before.candidates.iter().filter(untouched).collect();
        prop_assert_eq!(rest, rest_before);

        // Of those that were open before, only devices were turned away, and for a reason.
        let best_on_cpu = |precision: Precision| {
            let on_cpu = std::iter::zip(&made.candidates, &made.standings)
                .filter(|(one, _)| one.device.kind == DeviceKind::Cpu && one.precision == precision);
            on_cpu.filter_map(|(_, standing)| Some(standing.measured?.run_us)).min()
        };
        for lost in before.candidates.iter().filter(|one| !made.candidates.contains(one)) {
            prop_assert!(lost.device.kind != DeviceKind::Cpu);
            let rejected = made.rejected.iter().find(|one| {
                one.variant == lost.variant && one.flavour == lost.flavour && one.provider == lost.provider
            });
            let told = standing(lost);
            match &rejected.expect("it is rejected").rejection {
                Rejection::SplitLoses { run_us, best_us, .. } => {
                    prop_assert_eq!(Some(*best_us), best_on_cpu(lost.precision));
                    prop_assert!(run_us > best_us && told.own_nodes * 2 < told.nodes);
                }
                Rejection::ComputesOnHost { .. } | Rejection::FellBackToCpu { .. } => {
                    prop_assert!(require.forbid_cpu);
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }
        if require.forbid_cpu {
            let owns_all = |one: &Standing| one.own_nodes == one.nodes && one.host_percent.is_none();
            prop_assert!(made.standings.iter().all(owns_all));
        }
        let (not_taken, on_host) = (made.not_taken(), made.set_backs());
        prop_assert_eq!(not_taken.len() + made.candidates.len().min(1), pairs);
        let hosts = made.standings.iter().filter(|one| one.host_percent.is_some()).count();
        let told = on_host.iter().filter(|one| matches!(one.rejection, Rejection::ComputesOnHost { .. }));
        prop_assert!(told.count() >= hosts);
    }
}

/// A model in f32, then in int4, on the processor; what one run of each takes.
fn between_precisions(f32_us: u64, int4_us: u64, require: &Requirements) -> Plan {
    let mut variants = vec![
        variant("fine", BackendKind::OnnxRuntime, "fine.onnx"),
        variant("coarse", BackendKind::OnnxRuntime, "coarse.onnx"),
    ];
    variants[1].precision = Precision::Int4;
    let capabilities = [capability(
        "ort",
        BackendKind::OnnxRuntime,
        "CPU",
        DeviceKind::Cpu,
    )];
    plan(&Question {
        manifest: &manifest(variants),
        need_bytes: &|_, _| 1,
        capabilities: &capabilities,
        require,
        room_bytes: &|_| 1,
        verdict: &|_| None,
        standing: &|candidate| Standing {
            measured: Some(Cost {
                run_us: match candidate.precision {
                    Precision::Int4 => int4_us,
                    _ => f32_us,
                },
                host_cpu_us: 0,
            }),
            ..Standing::default()
        },
        goal: Goal::Speed,
    })
}

#[test]
fn what_is_a_little_faster_does_not_take_the_place_of_what_is_finer() {
    let any = Requirements::default();
    let made = between_precisions(100, 70, &any);
    assert_eq!(made.candidates[0].variant, "fine");
    let not_taken = made.not_taken();
    assert_eq!(
        not_taken[0].rejection,
        Rejection::LowerPrecision {
            precision: Precision::Int4,
            first: Precision::F32,
            run_us: 70,
            best_us: 100,
        }
    );
    assert!(made.set_backs().is_empty(), "nobody has counted on it");

    let made = between_precisions(100, 60, &any);
    assert_eq!(made.candidates[0].variant, "coarse");
    let slower = Rejection::Slower {
        run_us: 100,
        best_us: 60,
    };
    assert_eq!(made.not_taken()[0].rejection, slower);

    let named = Requirements {
        variant: Some("coarse".into()),
        ..Requirements::default()
    };
    let made = between_precisions(100, 70, &named);
    assert_eq!(made.candidates.len(), 1);
    assert_eq!(
        made.standings[0].lower_than, None,
        "it is the first allowed"
    );
}

#[test]
fn what_nobody_declared_may_be_anything() {
    for precision in PRECISIONS {
        assert!(!precision.is_below(precision));
        if precision != Precision::Native {
            assert!(Precision::Native.is_below(precision) != (precision == Precision::Int4));
            assert!(precision.is_below(Precision::Native) != (precision == Precision::F32));
        }
    }
    let declared = &PRECISIONS[..5];
    assert!(declared.is_sorted_by(|finer, coarser| coarser.is_below(*finer)));
}
