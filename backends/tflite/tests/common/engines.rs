//! Every engine at hand, and what each of them lacks, with the reason.

use super::{backend, compiled, fixture, library, plugin, request};
use mote_api::{Backend, DeviceInfo, DeviceKind, LoadError, LoadRequest, Model};
use mote_tflite::{CPU, Delegate, EXTERNAL, LITERT_CPU, LITERT_NPU, TfliteBackend, XNNPACK};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// One way to compute.
pub struct Engine {
    pub name: &'static str,
    open: fn() -> Box<dyn Backend>,
    pub provider: &'static str,
    options: fn() -> Vec<(String, String)>,
    /// Models that it refuses, and why.
    lacks: &'static [(&'static str, &'static str)],
    /// Nodes of `add_mul`.
    pub nodes: u32,
    /// Real models are its matter, too.
    pub takes_any: bool,
    /// Dimensions that the file leaves free are those of the file.
    pub is_fixed: bool,
    /// Everything is copied.
    pub copies: bool,
    /// What runs where is read back from the library.
    pub reads_back: bool,
    /// Its kernels are a vendor's.
    pub is_foreign: bool,
    /// It passes for something else than the CPU.
    pub is_off_the_cpu: bool,
    /// Errors hold the library's own words.
    pub tells_why: bool,
}

const PLAIN: Engine = Engine {
    name: "interpreter",
    open: || Box::new(backend()),
    provider: CPU,
    options: Vec::new,
    lacks: &[("selfie_segmentation", BIAS)],
    nodes: 2,
    takes_any: true,
    is_fixed: false,
    copies: false,
    reads_back: true,
    is_foreign: false,
    is_off_the_cpu: false,
    tells_why: true,
};

/// The built-in kernels have no operator of MediaPipe's.
const BIAS: &str = "without Convolution2DTransposeBias";

const LITERT: Engine = Engine {
    name: "LiteRT on the CPU",
    provider: LITERT_CPU,
    lacks: &[("echo", "filling in a tensor at two places")],
    reads_back: false,
    ..PLAIN
};

const NPU: Engine = Engine {
    name: "LiteRT on the scripted NPU",
    open: || Box::new(backend().with_delegates(vec![npu_dispatch()])),
    provider: LITERT_NPU,
    lacks: &[
        ("counter", NOT_COMPILED),
        ("lookup", NOT_COMPILED),
        ("choose", NOT_COMPILED),
        ("echo", NOT_COMPILED),
        ("long", NOT_COMPILED),
    ],
    nodes: 1,
    takes_any: false,
    is_fixed: true,
    reads_back: true,
    is_foreign: true,
    is_off_the_cpu: true,
    tells_why: false,
    ..PLAIN
};

const NOT_COMPILED: &str = "for models that were not compiled for it";

/// Compiles the scripted NPU's dispatch library, once per test process, into a folder of its own.
pub fn dispatch_library() -> PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    let target = Path::new("dispatch/libLiteRtDispatch_Mote.so");
    LIBRARY
        .get_or_init(|| compiled("npu_dispatch.c", target))
        .clone()
}

/// Another one, for another LiteRT in the same process.
fn other_dispatch_library() -> PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    let target = Path::new("other-dispatch/libLiteRtDispatch_Mote.so");
    LIBRARY
        .get_or_init(|| compiled("npu_dispatch.c", target))
        .clone()
}

/// The scripted NPU as a flavour names it. There is no compiler for it, so it is proven by a model
/// that was compiled before.
pub fn npu_dispatch() -> Delegate {
    let model = fixture("npu").to_str().expect("plain path").to_owned();
    Delegate {
        name: LITERT_NPU.into(),
        library: dispatch_library(),
        options: vec![("self_test".into(), model)],
        device: DeviceInfo {
            id: "npu0".into(),
            kind: DeviceKind::Npu,
            name: "Scripted NPU".into(),
            simulated: true,
        },
    }
}

/// Where LiteRT's own library lies, which has no interpreter's interface.
pub fn litert_library() -> Option<PathBuf> {
    std::env::var_os("MOTE_TEST_LITERT_LIBRARY").map(PathBuf::from)
}

fn litert_alone() -> Box<dyn Backend> {
    let library = litert_library().expect("asked for where it is");
    let backend = TfliteBackend::load(&library, "litert").expect("the library loads");
    let dispatch = Delegate {
        library: other_dispatch_library(),
        ..npu_dispatch()
    };
    Box::new(backend.with_delegates(vec![dispatch]))
}

fn adder() -> Vec<(String, String)> {
    let text = |path: PathBuf| path.to_str().expect("plain path").to_owned();
    vec![
        ("path".into(), text(plugin())),
        ("library".into(), text(library())),
        ("mode".into(), "ok".into()),
    ]
}

/// As above, for everything that it can.
fn adder_of_all() -> Vec<(String, String)> {
    let mut options = adder();
    options.push(("take".into(), "all".into()));
    options
}

fn named_adder() -> Delegate {
    Delegate {
        name: "adder".into(),
        library: plugin(),
        options: adder_of_all(),
        device: npu_dispatch().device,
    }
}

/// The library that a build with the feature `tflitec` is linked to.
#[cfg(feature = "tflitec")]
const LINKED: Engine = Engine {
    name: "tflitec",
    open: || {
        let library = Path::new("/firmware/lib/libtensorflowlite_c.so");
        mote_tflite::linked(library, "firmware").expect("linked")
    },
    is_fixed: true,
    copies: true,
    reads_back: false,
    tells_why: false,
    ..PLAIN
};

#[cfg(feature = "tflitec")]
fn linked() -> Vec<Engine> {
    let mut engines = vec![LINKED];
    if cfg!(feature = "tflitec-xnnpack") {
        engines.push(Engine {
            name: "tflitec with XNNPACK",
            provider: XNNPACK,
            // What it does not take, the built-in kernels do.
            lacks: &[],
            ..LINKED
        });
    }
    engines
}

#[cfg(not(feature = "tflitec"))]
fn linked() -> Vec<Engine> {
    Vec::new()
}

/// All of them; the first is what the others are compared with.
pub fn engines() -> Vec<Engine> {
    match linked() {
        // A program that is linked to a library loads no other.
        linked if !linked.is_empty() => linked,
        _ => loaded(),
    }
}

fn loaded() -> Vec<Engine> {
    let mut engines = vec![
        PLAIN,
        Engine {
            name: "XNNPACK",
            provider: XNNPACK,
            lacks: &[
                ("lookup", "made for GATHER of f32"),
                ("choose", "made for SELECT_V2"),
            ],
            is_off_the_cpu: true,
            ..PLAIN
        },
        Engine {
            name: "external delegate",
            provider: EXTERNAL,
            options: adder,
            lacks: &[
                ("lookup", "made for GATHER"),
                ("choose", "made for SELECT"),
                ("long", "made for BATCH_MATMUL"),
            ],
            is_foreign: true,
            takes_any: false,
            ..PLAIN
        },
        Engine {
            name: "external delegate that a flavour names",
            open: || Box::new(backend().with_delegates(vec![named_adder()])),
            provider: "adder",
            options: adder_of_all,
            lacks: &[
                ("lookup", "made for GATHER"),
                ("choose", "made for SELECT"),
                ("long", "made for BATCH_MATMUL"),
            ],
            is_foreign: true,
            is_off_the_cpu: true,
            takes_any: false,
            ..PLAIN
        },
        LITERT,
        NPU,
    ];
    if litert_library().is_some() {
        engines.push(Engine {
            name: "LiteRT's own library on the CPU",
            open: litert_alone,
            ..LITERT
        });
        engines.push(Engine {
            name: "LiteRT's own library on the scripted NPU",
            open: litert_alone,
            ..NPU
        });
    }
    engines
}

impl Engine {
    pub fn backend(&self) -> Box<dyn Backend> {
        (self.open)()
    }

    pub fn request(&self, file: PathBuf) -> LoadRequest {
        LoadRequest {
            provider_options: (self.options)(),
            ..request(file, self.provider)
        }
    }

    pub fn load(&self, name: &str) -> Result<Arc<dyn Model>, LoadError> {
        self.backend().load(&self.request(self.file(name)))
    }

    /// The file of a model: for the NPU, that which was compiled for it.
    pub fn file(&self, name: &str) -> PathBuf {
        match (self.provider, name) {
            (LITERT_NPU, "add_mul") => fixture("npu"),
            _ => fixture(name),
        }
    }

    /// Why it refuses a model, if so.
    pub fn lacks(&self, model: &str) -> Option<&'static str> {
        let lack = self.lacks.iter().find(|(lacked, _)| *lacked == model);
        lack.map(|(_, why)| *why)
    }

    /// As many rows as it may compute at once, of a model that leaves the number free.
    pub fn rows(&self) -> usize {
        if self.is_fixed { 1 } else { 2 }
    }
}
