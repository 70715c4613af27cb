//! What the probe reports, and the model it runs.

use crate::backend;
use crate::onnx::{Dim::Is, FLOAT, Graph};
use mote_api::{Absence, Backend, BackendKind, DeviceKind};

/// The committed self-test; rewrite it with `MOTE_WRITE_SELF_TEST=1 cargo test -p mote-ort`.
#[test]
fn the_committed_self_test_is_what_the_writer_makes() {
    let weights: Vec<f32> = (0..16)
        .map(|at| (at / 4) as f32 - (at % 4) as f32)
        .collect();
    let model = Graph::new()
        .node("MatMul", &["x", "w"], &["a"])
        .node("Mul", &["a", "m"], &["b"])
        .node("Relu", &["b"], &["c"])
        .node("Sub", &["c", "s"], &["y"])
        .constant("w", &[4, 4], &weights)
        .constant("m", &[4], &[1., 2., 3., -1.])
        .constant("s", &[4], &[1., 2., 3., 4.])
        .input("x", FLOAT, &[Is(1), Is(4)])
        .output("y", FLOAT, &[Is(1), Is(4)])
        .encode();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/selftest.onnx");
    if std::env::var_os("MOTE_WRITE_SELF_TEST").is_some() {
        std::fs::write(path, &model).expect("written");
    }
    assert_eq!(std::fs::read(path).expect("committed"), model);
}

#[test]
fn the_cpu_is_proven_and_the_rest_is_absent_for_a_reason() {
    let backend = backend();
    assert_eq!(backend.kind(), BackendKind::OnnxRuntime);
    assert!(backend.version().starts_with("1."), "{}", backend.version());
    let capabilities = backend.probe();
    let cpu = &capabilities[0];
    assert_eq!(cpu.provider, "CPUExecutionProvider");
    assert_eq!(cpu.absence, None);
    assert_eq!(cpu.flavour, "onnxruntime-test");
    assert_eq!(cpu.library_version, backend.version());
    let device = cpu.device.as_ref().expect("it computes somewhere");
    assert_eq!((device.id.as_str(), device.kind), ("cpu", DeviceKind::Cpu));
    assert!(!device.name.is_empty());
    for other in &capabilities[1..] {
        assert!(other.works() == other.device.is_some(), "{other:?}");
    }
    let rknpu = capabilities
        .iter()
        .find(|capability| capability.provider == "RknpuExecutionProvider")
        .expect("it is in the table");
    assert_eq!(rknpu.absence, Some(Absence::NotCompiledIn));
}
