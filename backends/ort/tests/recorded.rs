//! What providers for hardware that is not here are told, as a library that only writes it down sees
//! it: exactly the keys and values asked for. One test, in a process of its own: the first library that
//! loads stays for good.

use mote_api::{Backend, LoadError, LoadRequest, Threads};
use mote_ort::OrtBackend;
use std::ffi::{CStr, c_char};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The library that writes down calls, in a folder of its own.
fn compiled(folder: &Path) -> PathBuf {
    let source = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/recording_runtime.c"
    );
    let library = folder.join("libonnxruntime.so");
    let flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror"];
    let mut compiler = Command::new("cc");
    compiler
        .args(flags)
        .args(["-shared", "-fPIC", source, "-o"]);
    let status = compiler.arg(&library).status();
    assert!(status.expect("a C compiler").success());
    library
}

/// Calls since the last time.
fn recorded(library: &libloading::Library) -> Vec<String> {
    // SAFETY: the signature in recording_runtime.c; the text is good until the next call, and
    // nobody else calls.
    let text = unsafe {
        let give = library.get::<unsafe extern "C" fn() -> *const c_char>("mote_recorded");
        CStr::from_ptr(give.expect("is there")())
    };
    let text = text.to_str().expect("UTF-8");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn providers_get_the_options_asked_for_and_no_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = compiled(folder.path());
    let backend = OrtBackend::load(&path, "recorded").expect("looks like an ONNX Runtime");
    // SAFETY: the library was loaded above, and does nothing when it is loaded.
    let library = unsafe { libloading::Library::new(&path) }.expect("is loaded");
    let model = folder.path().join("model.onnx");
    std::fs::write(&model, "never read").expect("written");
    let told = |provider: &str, options: &[(&str, &str)]| {
        recorded(&library);
        let pairs = options.iter();
        let loaded = backend.load(&LoadRequest {
            file: model.clone(),
            provider: provider.into(),
            provider_options: pairs.map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            threads: Threads::SINGLE,
            forbid_cpu: false,
            ..LoadRequest::default()
        });
        (loaded.err().expect("loads no models"), recorded(&library))
    };
    for (provider, name, options) in [
        ("CUDAExecutionProvider", "cuda", CUDA),
        ("CANNExecutionProvider", "cann", CANN),
        ("TensorrtExecutionProvider", "tensorrt", TENSORRT),
    ] {
        for options in [options, &[]] {
            let (error, mut lines) = told(provider, options);
            assert!(matches!(error, LoadError::Malformed { .. }), "{error:?}");
            assert_eq!(lines.pop(), Some(format!("{name} appended")));
            assert_eq!(lines.remove(0), format!("{name} options"));
            lines.sort();
            let asked = options.iter().map(|(key, value)| format!("{key}={value}"));
            assert_eq!(lines, asked.collect::<Vec<_>>(), "{provider}");
        }
    }
    let (_, lines) = told("MIGraphXExecutionProvider", MIGRAPHX);
    assert_eq!(lines, MIGRAPHX_STRUCT);
    for (key, value) in [
        ("migraphx_fp16_enable", "yes"),
        ("migraphx_mem_limit", "2 GiB"),
        ("migraphx_bf16_enable", "1"),
    ] {
        let (error, lines) = told("MIGraphXExecutionProvider", &[(key, value)]);
        let LoadError::ProviderAbsent { absence, .. } = error else {
            panic!("{error:?}")
        };
        assert!(absence.to_string().contains(key), "{absence}");
        assert_eq!(lines, [""; 0], "is not registered");
    }
}

/// In the order of their keys.
const CUDA: &[(&str, &str)] = &[
    ("arena_extend_strategy", "kSameAsRequested"),
    ("cudnn_conv_algo_search", "HEURISTIC"),
    ("device_id", "1"),
    ("do_copy_in_default_stream", "1"),
    ("enable_cuda_graph", "0"),
    ("gpu_mem_limit", "2147483648"),
    ("use_tf32", "0"),
];
const CANN: &[(&str, &str)] = &[
    ("arena_extend_strategy", "kSameAsRequested"),
    ("device_id", "0"),
    ("enable_cann_graph", "1"),
    ("npu_mem_limit", "2147483648"),
    ("op_select_impl_mode", "high_precision"),
    ("optypelist_for_implmode", "Softmax"),
    ("precision_mode", "allow_fp32_to_fp16"),
];
const TENSORRT: &[(&str, &str)] = &[
    ("device_id", "0"),
    ("trt_engine_cache_enable", "1"),
    ("trt_engine_cache_path", "/var/cache/mote/compiled"),
    ("trt_fp16_enable", "1"),
    ("trt_max_workspace_size", "1073741824"),
];
const MIGRAPHX: &[(&str, &str)] = &[
    ("device_id", "2"),
    ("migraphx_arena_extend_strategy", "kSameAsRequested"),
    ("migraphx_exhaustive_tune", "1"),
    ("migraphx_fp16_enable", "1"),
    ("migraphx_int8_calibration_table_name", "table"),
    ("migraphx_int8_enable", "1"),
    ("migraphx_int8_use_native_calibration_table", "1"),
    ("migraphx_mem_limit", "4096"),
];
const MIGRAPHX_STRUCT: &[&str] = &[
    "migraphx appended",
    "device_id=2",
    "fp16=1",
    "fp8=0",
    "int8=1",
    "native=1",
    "table=table",
    "exhaustive=1",
    "mem_limit=4096",
    "arena=1",
];
