//! What every engine has to do alike: what models compute, where their tensors lie, what is refused.
//! The engines, and what each of them lacks, are in `common/engines.rs`.

mod common;

use common::engines::{Engine, engines};
use common::{fixture, run};
use mote_api::{
    Access, Buffer, DType, LoadError, OutputTarget, RunError, Session, Tensor, TensorSpec, Threads,
};
use nix::sys::memfd::{MFdFlags, memfd_create};

const PAGE_BYTES: usize = 4096;
/// Between kernels, relative to the largest number.
const NUMBERS_TOLERANCE: f64 = 1e-4;

fn rows(count: usize, value: f32) -> Tensor {
    Tensor::from_slice(&[count, 4], &vec![value; count * 4]).expect("small")
}

/// `(x + b) * 2` of the model `add_mul`.
fn want(count: usize, value: f32) -> Vec<f32> {
    let row = [0.5, 1., 1.5, 2.].map(|b| (value + b) * 2.);
    row.repeat(count)
}

/// Memory of whole pages that another process could write, filled from `values`.
fn shared(values: &[f32], access: Access) -> Tensor {
    let bytes = size_of_val(values);
    assert_eq!(bytes % PAGE_BYTES, 0, "ends with a page");
    let fd = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).expect("memfd");
    nix::unistd::ftruncate(&fd, bytes as i64).expect("ftruncate");
    let writer = Buffer::shared(&fd, bytes, Access::ReadWrite).expect("map");
    writer.copy_in(0, values).expect("fits");
    let buffer = Buffer::shared(&fd, bytes, access).expect("map");
    Tensor::new(DType::F32, &[values.len() / 4, 4], buffer, 0).expect("fits")
}

/// Does `with` with each engine that takes the model; checks that the others say why not.
fn each(model: &str, with: impl Fn(&Engine, &dyn mote_api::Model)) {
    for engine in engines() {
        let loaded = engine.load(model);
        match (loaded, engine.lacks(model)) {
            (Ok(loaded), None) => with(&engine, &*loaded),
            (Err(error), None) => panic!("{}, {model}: {error:?}", engine.name),
            (Err(error), Some(why)) => {
                let typed = matches!(
                    error,
                    LoadError::CpuForbidden { .. }
                        | LoadError::Compile { .. }
                        | LoadError::UnsupportedOperators { .. }
                );
                assert!(typed, "{}, {model}: {error:?} ({why})", engine.name);
            }
            (Ok(_), Some(why)) => panic!("{} now takes {model}: no longer {why}", engine.name),
        }
    }
}

#[test]
fn every_engine_is_proven_as_a_provider() {
    for engine in engines() {
        let backend = engine.backend();
        for capability in backend.probe_provider(engine.provider) {
            // The delegate leaves an operator to the CPU here; its own tests are elsewhere.
            if engine.provider != mote_tflite::EXTERNAL {
                assert_eq!(capability.absence, None, "{}", engine.name);
            }
            assert!(!capability.library_version.is_empty());
        }
    }
}

#[test]
fn signatures_are_those_of_the_file() {
    let spec = |name: &str, dtype, shape: &[Option<usize>]| TensorSpec {
        name: name.into(),
        dtype,
        shape: shape.to_vec(),
    };
    each("add_mul", |engine, model| {
        let rows = engine.is_fixed.then_some(1);
        let shape = [rows, Some(4)];
        let signature = model.signature();
        assert_eq!(signature.inputs, [spec("x", DType::F32, &shape)]);
        assert_eq!(signature.outputs, [spec("y", DType::F32, &shape)]);
        let placement = model.placement();
        assert_eq!(placement.read_back, engine.reads_back, "{}", engine.name);
        if engine.reads_back {
            assert_eq!(placement.nodes(), engine.nodes, "{}", engine.name);
        }
        assert_eq!(placement.shares[0].provider, engine.provider);
    });
    each("lookup", |_, model| {
        let signature = model.signature();
        assert_eq!(signature.inputs, [spec("i", DType::I32, &[Some(3)])]);
        assert_eq!(signature.outputs, [spec("y", DType::F32, &[Some(3)])]);
    });
    each("choose", |_, model| {
        let inputs = &model.signature().inputs;
        assert_eq!(*inputs, [spec("c", DType::Bool, &[Some(4)])]);
    });
}

#[test]
fn free_dimensions_follow_the_input() {
    each("add_mul", |engine, model| {
        let mut session = model.session().expect("session");
        let counts: &[usize] = if engine.is_fixed {
            &[1, 1]
        } else {
            &[1, 3, 2, 3]
        };
        for &count in counts {
            let got = run(&mut *session, &[rows(count, 1.)]);
            assert_eq!(got, want(count, 1.), "{}, {count} rows", engine.name);
            assert_eq!(session.output(0).expect("ran").shape(), [count, 4]);
        }
    });
}

#[test]
fn aligned_memory_is_bound_in_place_and_other_memory_is_copied() {
    each("add_mul", |engine, model| {
        let count = engine.rows();
        let bytes = count * 16;
        let mut session = model.session().expect("session");
        let memory = |offset| {
            let buffer = Buffer::private(PAGE_BYTES).expect("a page");
            Tensor::new(DType::F32, &[count, 4], buffer, offset).expect("fits")
        };
        // Offsets of input and output, and the bytes that must be copied; each turn rebinds.
        for (turn, (x, y, copied)) in [
            (0, 0, 0),
            (64, 128, 0),
            (4, 0, bytes),
            (0, 4, bytes),
            (4, 4, 2 * bytes),
            (0, 64, 0),
        ]
        .into_iter()
        .enumerate()
        {
            let (x, y) = (memory(x), memory(y));
            let value = turn as f32;
            x.write(&vec![value; count * 4]).expect("writable");
            session.bind_input(0, &x).expect("fits");
            let target = OutputTarget::Into(y.clone());
            session.bind_output(0, target).expect("fits");
            let report = session.run().expect("runs");
            let copied = if engine.copies { 2 * bytes } else { copied };
            let name = engine.name;
            assert_eq!(report.bytes_copied, copied as u64, "{name}, turn {turn}");
            assert_eq!(y.read::<f32>().expect("f32"), want(count, value), "{name}");
            x.write(&vec![value + 10.; count * 4]).expect("writable");
            session.run().expect("reads the memory anew");
            assert_eq!(y.read::<f32>().expect("f32"), want(count, value + 10.));
        }
        let target = OutputTarget::Allocate;
        session.bind_output(0, target).expect("always");
        let report = session.run().expect("runs");
        let copied = if engine.copies { 2 * bytes } else { bytes };
        assert_eq!(report.bytes_copied, copied as u64, "{}", engine.name);
        let kept = session.output(0).expect("ran");
        assert_eq!(kept.read::<f32>().expect("f32"), want(count, 15.));
        run(&mut *session, &[rows(count, 1.)]);
        let unchanged = kept.read::<f32>().expect("f32");
        assert_eq!(unchanged, want(count, 15.), "results outlive the next run");
    });
}

#[test]
fn memory_of_another_process_is_read_in_place_up_to_its_last_byte() {
    let values: Vec<f32> = (0..PAGE_BYTES / 4).map(|i| i as f32).collect();
    let b = [0.5, 1., 1.5, 2.];
    let rows = values.chunks(4);
    let want: Vec<f32> = rows
        .flat_map(|row| row.iter().zip(b).map(|(x, b)| (x + b) * 2.))
        .collect();
    each("add_mul", |engine, model| {
        if engine.is_fixed {
            return;
        }
        let mut session = model.session().expect("session");
        for access in [Access::ReadOnly, Access::ReadWrite] {
            let x = shared(&values, access);
            let y = shared(&vec![0.; values.len()], Access::ReadWrite);
            session.bind_input(0, &x).expect("fits");
            let target = OutputTarget::Into(y.clone());
            session.bind_output(0, target).expect("fits");
            let report = session.run().expect("runs");
            // A vendor's kernels are not let at memory that may not be written.
            let copied = match engine.is_foreign && access == Access::ReadOnly {
                true => PAGE_BYTES as u64,
                false => 0,
            };
            assert_eq!(report.bytes_copied, copied, "{}", engine.name);
            assert_eq!(y.read::<f32>().expect("f32"), want, "{}", engine.name);
        }
        let y = shared(&values, Access::ReadOnly);
        let refused = session.bind_output(0, OutputTarget::Into(y));
        assert!(matches!(refused, Err(RunError::Output { .. })));
    });
}

#[test]
fn one_memory_for_input_and_output_still_computes() {
    each("add_mul", |engine, model| {
        let count = engine.rows();
        let mut session = model.session().expect("session");
        let both = rows(count, 3.);
        session.bind_input(0, &both).expect("fits");
        let target = OutputTarget::Into(both.clone());
        session.bind_output(0, target).expect("fits");
        session.run().expect("runs");
        let got = both.read::<f32>().expect("f32");
        assert_eq!(got, want(count, 3.), "{}", engine.name);
    });
}

#[test]
fn a_tensor_that_stands_in_several_places_reaches_all_of_them() {
    each("echo", |engine, model| {
        let mut session = model.session().expect("session");
        let x = Tensor::from_slice(&[16], &[3f32; 16]).expect("small");
        session.bind_input(0, &x).expect("fits");
        let outputs = [(); 3].map(|()| Tensor::zeroed(DType::F32, &[16]).expect("small"));
        for (index, output) in outputs.iter().enumerate() {
            let target = OutputTarget::Into(output.clone());
            session.bind_output(index, target).expect("fits");
        }
        for value in [3f32, 4.] {
            x.write(&[value; 16]).expect("writable");
            session.run().expect("runs");
            for (output, factor) in outputs.iter().zip([1., 2., 2.]) {
                let got = output.read::<f32>().expect("f32");
                assert_eq!(got, [value * factor; 16], "{}", engine.name);
            }
        }
    });
}

#[test]
fn state_in_variables_belongs_to_the_session() {
    each("counter", |engine, model| {
        let step = |session: &mut dyn Session| {
            let x = Tensor::from_slice(&[1, 2], &[1f32, 10.]).expect("small");
            run(session, &[x])
        };
        let mut first = model.session().expect("session");
        assert_eq!(step(&mut *first), [1., 10.], "{}", engine.name);
        assert_eq!(step(&mut *first), [2., 20.], "{}", engine.name);
        let mut second = model.session().expect("session");
        assert_eq!(step(&mut *second), [1., 10.], "{}", engine.name);
        assert_eq!(step(&mut *first), [3., 30.], "{}", engine.name);
        drop(first);
        let mut third = model.session().expect("session");
        assert_eq!(step(&mut *third), [1., 10.], "{}", engine.name);
    });
}

#[test]
fn indices_are_copied_from_memory_that_others_can_write() {
    each("lookup", |engine, model| {
        let mut session = model.session().expect("session");
        let private = Tensor::from_slice(&[3], &[3i32, 0, 1]).expect("small");
        let found = run(&mut *session, std::slice::from_ref(&private));
        assert_eq!(found, [40., 10., 20.], "{}", engine.name);
        let y = Tensor::zeroed(DType::F32, &[3]).expect("small");
        session
            .bind_output(0, OutputTarget::Into(y.clone()))
            .expect("fits");
        let (all, inputs) = if engine.copies { (24, 24) } else { (0, 12) };
        assert_eq!(session.run().expect("runs").bytes_copied, all);
        let fd = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).expect("memfd");
        nix::unistd::ftruncate(&fd, 64).expect("ftruncate");
        let buffer = Buffer::shared(&fd, 64, Access::ReadWrite).expect("map");
        let shared = Tensor::new(DType::I32, &[3], buffer, 0).expect("fits");
        shared.write(&[0i32, 1, 2]).expect("writable");
        session.bind_input(0, &shared).expect("fits");
        assert_eq!(session.run().expect("runs").bytes_copied, inputs);
        assert_eq!(y.read::<f32>().expect("f32"), [10., 20., 30.]);

        shared.write(&[0i32, 1 << 30, 2]).expect("writable");
        match session.run() {
            Err(RunError::Compute(cause)) => {
                let told = cause.message.contains("gather") || !engine.tells_why;
                assert!(told, "{}: {cause}", engine.name);
            }
            other => panic!("an index outside the table gave {other:?}"),
        }
        session.bind_input(0, &private).expect("fits");
        session.run().expect("usable");
        assert_eq!(y.read::<f32>().expect("f32"), [40., 10., 20.]);
    });
}

#[test]
fn a_truth_value_is_any_byte_but_zero() {
    each("choose", |engine, model| {
        let mut session = model.session().expect("session");
        let truths = Tensor::from_bytes(DType::Bool, &[4], &[0, 1, 2, 255]).expect("small");
        let chosen = run(&mut *session, &[truths]);
        assert_eq!(chosen, [-1., 1., 1., 1.], "{}", engine.name);
    });
}

#[test]
fn one_cancel_stops_one_run() {
    each("long", |engine, model| {
        let mut session = model.session().expect("session");
        let ones: Vec<f32> = (0..192 * 192)
            .map(|i| if i % 193 == 0 { 1. } else { 0. })
            .collect();
        let x = Tensor::from_slice(&[192, 192], &ones).expect("small");
        assert_eq!(run(&mut *session, &[x]), ones, "{}", engine.name);

        session.canceller().cancel();
        assert!(matches!(session.run(), Err(RunError::Cancelled)));
        session.run().expect("the cancel is used up");

        let canceller = session.canceller();
        let thread = std::thread::spawn(move || canceller.cancel());
        // Whether it comes before, in or after the first run, it stops exactly one.
        let first = session.run();
        thread.join().expect("cancels");
        let second = session.run();
        let cancelled = |run: &Result<_, RunError>| matches!(run, Err(RunError::Cancelled));
        assert!(
            cancelled(&first) != cancelled(&second),
            "{}: {first:?} {second:?}",
            engine.name
        );
        session.run().expect("usable");
        let y = session.output(0).expect("ran").read::<f32>();
        assert_eq!(y.expect("f32"), ones);
        let canceller = session.canceller();
        drop(session);
        canceller.cancel();
    });
}

#[test]
fn threads_stay_as_they_were_loaded() {
    for engine in engines() {
        if engine.lacks("long").is_some() {
            continue;
        }
        let mut request = engine.request(fixture("long"));
        request.threads = Threads {
            count: 2,
            spin: false,
        };
        let model = engine.backend().load(&request).expect("loads");
        assert!(!model.set_threads(Threads::SINGLE).expect("no failure"));
        let mut session = model.session().expect("session");
        let x = Tensor::zeroed(DType::F32, &[192, 192]).expect("small");
        let zeros = vec![0.; 192 * 192];
        assert_eq!(run(&mut *session, &[x]), zeros, "{}", engine.name);
    }
}

#[test]
fn bindings_are_checked() {
    each("add_mul", |engine, model| {
        let mut session = model.session().expect("session");
        assert!(matches!(
            session.run(),
            Err(RunError::InputMissing { name }) if name == "x"
        ));
        assert!(matches!(session.output(0), Err(RunError::Output { .. })));
        let flat = Tensor::zeroed(DType::F32, &[4]).expect("small");
        let narrow = Tensor::zeroed(DType::F32, &[1, 3]).expect("small");
        let whole = Tensor::zeroed(DType::I32, &[1, 4]).expect("small");
        for wrong in [&flat, &narrow, &whole] {
            let error = session.bind_input(0, wrong);
            assert!(matches!(error, Err(RunError::Input { .. })), "{error:?}");
            let error = session.bind_output(0, OutputTarget::Into(wrong.clone()));
            assert!(matches!(error, Err(RunError::Output { .. })), "{error:?}");
        }
        assert!(matches!(
            session.bind_output(1, OutputTarget::Allocate),
            Err(RunError::NoSuchTensor { index: 1 })
        ));
        if engine.is_fixed {
            return;
        }
        let x = Tensor::zeroed(DType::F32, &[2, 4]).expect("small");
        session.bind_input(0, &x).expect("fits");
        let one = Tensor::zeroed(DType::F32, &[1, 4]).expect("small");
        let target = OutputTarget::Into(one);
        session.bind_output(0, target).expect("may fit");
        assert!(matches!(session.run(), Err(RunError::Output { .. })));
    });
}

#[test]
fn files_that_are_no_models_are_refused() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("m.tflite");
    let whole = std::fs::read(fixture("add_mul")).expect("fixture");
    let noise = [
        &b""[..],
        b"hello",
        &[0; 64],
        b"\xff\xff\xff\x7fTFL3\0\0\0\0",
    ];
    let torn = (0..whole.len()).step_by(3).map(|end| &whole[..end]);
    let files: Vec<&[u8]> = noise.into_iter().chain(torn).collect();
    for engine in engines() {
        let backend = engine.backend();
        let missing = backend.load(&engine.request("/does/not/exist.tflite".into()));
        assert!(matches!(missing.err(), Some(LoadError::Read { .. })));
        for bytes in &files {
            std::fs::write(&file, bytes).expect("write file");
            let error = backend.load(&engine.request(file.clone())).err();
            let refused = matches!(error, Some(LoadError::Malformed { .. }));
            assert!(refused, "{}, {} bytes: {error:?}", engine.name, bytes.len());
        }
    }
}

#[test]
fn unknown_operators_are_named() {
    for engine in engines() {
        match (engine.load("unknown").err(), engine.tells_why) {
            (Some(LoadError::UnsupportedOperators { operators, .. }), true) => {
                assert_eq!(operators, ["Telepathy"], "{}", engine.name);
            }
            (Some(LoadError::Compile { .. } | LoadError::CpuForbidden { .. }), _) => {}
            (other, _) => panic!("{}: {other:?}", engine.name),
        }
    }
}

#[test]
fn the_cpu_is_left_out_where_it_is_forbidden() {
    for engine in engines() {
        let mut request = engine.request(engine.file("add_mul"));
        request.forbid_cpu = true;
        let loaded = engine.backend().load(&request);
        match loaded.err() {
            None => assert!(engine.is_off_the_cpu, "{}", engine.name),
            Some(LoadError::CpuForbidden { nodes, .. }) => {
                assert!(nodes == engine.nodes || engine.copies, "{}", engine.name);
                assert!(!engine.is_off_the_cpu, "{}", engine.name);
            }
            Some(error) => panic!("{}: {error:?}", engine.name),
        }
    }
}

#[test]
fn real_models_compute_what_the_plain_interpreter_computes() {
    let Some(store) = std::env::var_os("MOTE_TEST_MODELS") else {
        panic!("MOTE_TEST_MODELS is not set: start tests with tests/run");
    };
    for (folder, model) in [
        ("selfie-segmentation", "selfie_segmentation"),
        ("face-detection", "face_detection_short_range"),
        ("okay-nabu", "okay_nabu"),
    ] {
        let file = std::path::Path::new(&store).join(folder).join(model);
        let file = file.with_extension("tflite");
        let mut reference: Option<Vec<Vec<f64>>> = None;
        for engine in engines().iter().filter(|one| one.takes_any) {
            let loaded = engine.backend().load(&engine.request(file.clone()));
            let (name, lacks) = (engine.name, engine.lacks(model));
            let model = match (loaded, lacks) {
                (Ok(model), None) => model,
                (Err(_), Some(_)) => continue,
                (loaded, _) => panic!("{name}, {model}: {lacks:?}, {:?}", loaded.err()),
            };
            let got = outputs(&*model, 2);
            let wanted = reference.get_or_insert_with(|| got.clone());
            assert_eq!(got.len(), wanted.len(), "{name}");
            for (got, wanted) in got.iter().zip(wanted) {
                assert_eq!(got.len(), wanted.len(), "{name}");
                let off = got.iter().zip(&*wanted).map(|(a, b)| (a - b).abs());
                let off = off.fold(0., f64::max);
                let size = wanted.iter().fold(1., |size: f64, x| size.max(x.abs()));
                assert!(off <= NUMBERS_TOLERANCE * size, "{name}: off by {off}");
            }
        }
    }
}

/// All outputs after so many runs over numbers that look like noise.
fn outputs(model: &dyn mote_api::Model, runs: usize) -> Vec<Vec<f64>> {
    let mut session = model.session().expect("session");
    for (index, spec) in model.signature().inputs.iter().enumerate() {
        let shape: Vec<usize> = spec.shape.iter().map(|dim| dim.unwrap_or(1)).collect();
        let count = shape.iter().product();
        let noise = (0..count).map(|i| (i * 2_654_435_761) % 251);
        let tensor = match spec.dtype {
            DType::F32 => {
                let noise: Vec<f32> = noise.map(|n| n as f32 / 251.).collect();
                Tensor::from_slice(&shape, &noise)
            }
            DType::I8 => {
                let noise: Vec<u8> = noise.map(|n| n as u8).collect();
                Tensor::from_bytes(DType::I8, &shape, &noise)
            }
            other => panic!("{other} is not among these models' inputs"),
        };
        session
            .bind_input(index, &tensor.expect("fits"))
            .expect("fits");
    }
    for _ in 0..runs {
        session.run().expect("runs");
    }
    let outputs = 0..model.signature().outputs.len();
    outputs
        .map(|index| {
            let output = session.output(index).expect("ran");
            match output.dtype() {
                DType::F32 => output
                    .read::<f32>()
                    .expect("f32")
                    .into_iter()
                    .map(f64::from)
                    .collect(),
                _ => output
                    .read_bytes()
                    .expect("bytes")
                    .into_iter()
                    .map(f64::from)
                    .collect(),
            }
        })
        .collect()
}

#[cfg(feature = "tflitec")]
#[test]
fn a_program_that_is_linked_to_a_library_loads_no_other() {
    let loaded = mote_tflite::TfliteBackend::load(&common::library(), "tflite");
    let refused = loaded.expect_err("its functions would be mixed up").absence;
    assert!(
        matches!(refused, mote_api::Absence::LibraryRejected { .. }),
        "{refused:?}"
    );
    let elsewhere = std::path::Path::new("/usr/lib/libtensorflow-lite.so");
    assert!(mote_tflite::linked(elsewhere, "x").is_none());
}
