//! What each provider needs of its vendor: data to tell why one does not work here, and what to do
//! about it. What its driver opens is in [`crate::driver`].

use crate::capability::{Absence, DeviceKind};
use nix::unistd::{AccessFlags, access};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Devices of one kind that are looked for.
const NODES_MAX: u32 = 16;
/// Groups are looked up in so much of the system's list.
const GROUPS_BYTES_MAX: u64 = 1 << 20;
const GROUPS: &str = "/etc/group";
const VENDOR_ID_BYTES_MAX: u64 = 16;

/// One provider on one kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vendor {
    /// The runtime's own name of the provider.
    pub provider: &'static str,
    /// Where it computes.
    pub kind: DeviceKind,
    /// The hardware, with its article.
    pub hardware: &'static str,
    /// Its device nodes: one of them is enough. Without any, it needs no driver.
    pub nodes: &'static [Node],
    /// What makes the nodes appear.
    pub driver: &'static str,
    /// Kernel modules it may be made of: with another version of one, what was found may change.
    pub modules: &'static [&'static str],
    /// A command that lists the devices.
    pub lists: &'static str,
    /// Beginnings of names of libraries, and the packages that bring them.
    pub libraries: &'static [(&'static str, &'static str)],
    /// Where a runtime with the provider comes from.
    pub source: Source,
}

/// Where a runtime with a provider comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `mote fetch` gets this flavour.
    Fetch(&'static str),
    /// A build of ONNX Runtime with this option, or the vendor's own.
    Build(&'static str),
}

/// A device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    path: &'static str,
    /// The first of the numbers that follow the path.
    from: Option<u32>,
    /// The node belongs to the hardware when this file has this text; the name of the node stands
    /// for the star.
    vendor: Option<(&'static str, &'static str)>,
}

const fn node(path: &'static str) -> Node {
    let (from, vendor) = (None, None);
    Node { path, from, vendor }
}

const fn numbered(path: &'static str, from: u32) -> Node {
    let (from, vendor) = (Some(from), None);
    Node { path, from, vendor }
}

const fn render(vendor: &'static str) -> Node {
    Node {
        path: "/dev/dri/renderD",
        from: Some(128),
        vendor: Some(("/sys/class/drm/*/device/vendor", vendor)),
    }
}

const fn accel(vendor: &'static str) -> Node {
    Node {
        path: "/dev/accel/accel",
        from: Some(0),
        vendor: Some(("/sys/class/accel/*/device/vendor", vendor)),
    }
}

const INTEL: &str = "0x8086";
const AMD: &str = "0x1022";
const AMD_GPU: &str = "0x1002";

const NVIDIA_NODES: &[Node] = &[numbered("/dev/nvidia", 0), node("/dev/nvmap")];
/// The wheel for x86-64 brings a simulator instead of a driver's counterpart.
const HEXAGON_NODES: &[Node] = match cfg!(target_arch = "x86_64") {
    true => &[],
    false => &[
        node("/dev/fastrpc-cdsp"),
        node("/dev/fastrpc-cdsp-secure"),
        node("/dev/adsprpc-smd"),
        node("/dev/adsprpc-smd-secure"),
    ],
};
const CUDA_LIBRARIES: &[(&str, &str)] = &[
    ("libcuda.so", "NVIDIA's driver"),
    ("libnvidia-", "NVIDIA's driver"),
    ("libcudart.", "CUDA 13 (cuda-cudart-13-0)"),
    ("libcublas", "CUDA 13 (libcublas-13-0)"),
    ("libcurand.", "CUDA 13 (libcurand-13-0)"),
    ("libcufft.", "CUDA 13 (libcufft-13-0)"),
    ("libcudnn", "cuDNN 9 for CUDA 13 (cudnn9-cuda-13)"),
    ("libnvinfer", "TensorRT 10 (libnvinfer10)"),
    ("libnvonnxparser", "TensorRT 10 (libnvonnxparsers10)"),
];
const NVIDIA_MODULES: &[&str] = &["nvgpu", "nvidia", "nvidia_uvm"];
const NVIDIA_DRIVER: &str = "NVIDIA's driver";

/// All providers that need something of a vendor. Packages and libraries are those of the vendors'
/// installation guides and of the runtimes' own lists of needed libraries.
pub const VENDORS: &[Vendor] = &[
    Vendor {
        provider: "CUDAExecutionProvider",
        kind: DeviceKind::Gpu,
        hardware: "an NVIDIA GPU",
        nodes: NVIDIA_NODES,
        driver: NVIDIA_DRIVER,
        modules: NVIDIA_MODULES,
        lists: "nvidia-smi",
        libraries: CUDA_LIBRARIES,
        source: Source::Fetch("onnxruntime-gpu"),
    },
    Vendor {
        provider: "TensorrtExecutionProvider",
        kind: DeviceKind::Gpu,
        hardware: "an NVIDIA GPU",
        nodes: NVIDIA_NODES,
        driver: NVIDIA_DRIVER,
        modules: NVIDIA_MODULES,
        lists: "nvidia-smi",
        libraries: CUDA_LIBRARIES,
        source: Source::Fetch("onnxruntime-gpu"),
    },
    Vendor {
        provider: "NvTensorRTRTXExecutionProvider",
        kind: DeviceKind::Gpu,
        hardware: "an NVIDIA RTX GPU",
        nodes: NVIDIA_NODES,
        driver: NVIDIA_DRIVER,
        modules: NVIDIA_MODULES,
        lists: "nvidia-smi",
        libraries: &[
            ("libcuda.so", "NVIDIA's driver"),
            ("libnvidia-", "NVIDIA's driver"),
            ("libcudart.", "CUDA 13 (cuda-cudart-13-0)"),
            ("libtensorrt_", "TensorRT for RTX"),
        ],
        source: Source::Build("--use_nv_tensorrt_rtx"),
    },
    Vendor {
        provider: "CANNExecutionProvider",
        kind: DeviceKind::Npu,
        hardware: "an Ascend NPU",
        nodes: &[numbered("/dev/davinci", 0)],
        driver: "Huawei's Ascend driver and firmware",
        modules: &[
            "drv_davinci_intf",
            "drv_devmm_host",
            "drv_devmng_host",
            "drv_pcie_host",
        ],
        lists: "npu-smi info",
        libraries: &[
            (
                "libascendcl.so",
                "the CANN toolkit 8.5 (and source its set_env.sh)",
            ),
            (
                "libacl_",
                "the CANN toolkit 8.5 (and source its set_env.sh)",
            ),
            (
                "libfmk_",
                "the CANN toolkit 8.5 (and source its set_env.sh)",
            ),
            ("libge_", "the CANN toolkit 8.5 (and source its set_env.sh)"),
        ],
        source: Source::Fetch("onnxruntime-cann"),
    },
    Vendor {
        provider: "OpenVINOExecutionProvider",
        kind: DeviceKind::Npu,
        hardware: "an Intel NPU",
        nodes: &[accel(INTEL)],
        driver: "the kernel's intel_vpu driver and its firmware",
        modules: &["intel_vpu"],
        lists: "ls /sys/class/accel",
        libraries: &[
            ("libze_loader.so", "the Level Zero loader (libze1)"),
            (
                "libze_intel_npu.so",
                "Intel's NPU driver (intel-level-zero-npu)",
            ),
            (
                "libze_intel_vpu.so",
                "Intel's NPU driver (intel-level-zero-npu)",
            ),
        ],
        source: Source::Fetch("onnxruntime-openvino"),
    },
    Vendor {
        provider: "OpenVINOExecutionProvider",
        kind: DeviceKind::Gpu,
        hardware: "an Intel GPU",
        nodes: &[render(INTEL)],
        driver: "the kernel's i915 or xe driver",
        modules: &["i915", "xe"],
        lists: "clinfo -l",
        libraries: &[
            ("libOpenCL.so", "an OpenCL loader (ocl-icd-libopencl1)"),
            ("libigdrcl.so", "Intel's OpenCL driver (intel-opencl-icd)"),
        ],
        source: Source::Fetch("onnxruntime-openvino"),
    },
    Vendor {
        provider: "OpenVINOExecutionProvider",
        kind: DeviceKind::Cpu,
        hardware: "a processor",
        nodes: &[],
        driver: "",
        modules: &[],
        lists: "",
        libraries: &[],
        source: Source::Fetch("onnxruntime-openvino"),
    },
    Vendor {
        provider: "QNNExecutionProvider",
        kind: DeviceKind::Npu,
        hardware: "a Hexagon NPU",
        nodes: HEXAGON_NODES,
        driver: "the kernel's fastrpc driver, with firmware for the compute DSP",
        modules: &["adsprpc", "fastrpc", "frpc_adsprpc", "msm_kgsl"],
        lists: "ls /dev/fastrpc-* /dev/adsprpc-*",
        libraries: &[
            ("libcdsprpc.so", "Qualcomm's FastRPC library (libfastrpc1)"),
            ("libQnn", "the QNN libraries that belong to the plug-in"),
        ],
        source: Source::Fetch("onnxruntime-qnn"),
    },
    Vendor {
        provider: "WebGpuExecutionProvider",
        kind: DeviceKind::Gpu,
        hardware: "a GPU",
        nodes: &[
            numbered("/dev/dri/renderD", 128),
            numbered("/dev/nvidia", 0),
        ],
        driver: "the GPU's kernel driver and a Vulkan driver (mesa-vulkan-drivers, or the vendor's)",
        modules: &[
            "amdgpu",
            "i915",
            "mali_kbase",
            "msm",
            "msm_kgsl",
            "nouveau",
            "nvidia",
            "panfrost",
            "panthor",
            "xe",
        ],
        lists: "vulkaninfo --summary",
        libraries: &[("libvulkan.so", "the Vulkan loader (libvulkan1)")],
        source: Source::Fetch("onnxruntime-webgpu"),
    },
    Vendor {
        provider: "RknpuExecutionProvider",
        kind: DeviceKind::Npu,
        hardware: "a Rockchip NPU",
        nodes: &[node("/dev/rknpu"), numbered("/dev/dri/renderD", 128)],
        driver: "Rockchip's rknpu kernel driver",
        modules: &["rknpu", "rocket"],
        lists: "cat /sys/kernel/debug/rknpu/version",
        libraries: &[
            ("librknpu_ddk.so", "Rockchip's rknpu_ddk"),
            ("librknnrt.so", "Rockchip's rknpu2 runtime"),
        ],
        source: Source::Build("--use_rknpu"),
    },
    Vendor {
        provider: "VitisAIExecutionProvider",
        kind: DeviceKind::Npu,
        hardware: "an AMD NPU",
        nodes: &[accel(AMD)],
        driver: "the kernel's amdxdna driver and XRT",
        modules: &["amdxdna", "zocl"],
        lists: "xrt-smi examine",
        libraries: &[
            ("libxrt_", "XRT"),
            ("libvart-", "Vitis AI's runtime"),
            ("libonnxruntime_vitisai_ep.so", "AMD's Ryzen AI software"),
        ],
        source: Source::Build("--use_vitisai"),
    },
    Vendor {
        provider: "MIGraphXExecutionProvider",
        kind: DeviceKind::Gpu,
        hardware: "an AMD GPU",
        nodes: &[render(AMD_GPU)],
        driver: "the kernel's amdgpu driver and ROCm",
        modules: &["amdgpu"],
        lists: "rocminfo",
        libraries: &[
            ("libmigraphx", "MIGraphX of ROCm (migraphx)"),
            ("libamdhip64.so", "HIP of ROCm (hip-runtime-amd)"),
        ],
        source: Source::Build("--use_migraphx"),
    },
    Vendor {
        provider: "VSINPUExecutionProvider",
        kind: DeviceKind::Npu,
        hardware: "a VeriSilicon NPU",
        nodes: &[node("/dev/galcore")],
        driver: "VeriSilicon's galcore kernel driver",
        modules: &["galcore"],
        lists: "ls /dev/galcore",
        libraries: &[
            ("libtim-vx.so", "TIM-VX"),
            ("libovxlib.so", "VeriSilicon's OpenVX library"),
        ],
        source: Source::Build("--use_vsinpu"),
    },
    Vendor {
        provider: "NnapiExecutionProvider",
        kind: DeviceKind::Npu,
        hardware: "an accelerator under Android's NNAPI",
        nodes: &[],
        driver: "",
        modules: &[],
        lists: "",
        libraries: &[("libneuralnetworks.so", "Android itself")],
        source: Source::Build("--use_nnapi"),
    },
    Vendor {
        provider: "ArmNNExecutionProvider",
        kind: DeviceKind::Cpu,
        hardware: "an Arm processor",
        nodes: &[],
        driver: "",
        modules: &[],
        lists: "",
        libraries: &[("libarmnn", "Arm NN")],
        source: Source::Build("--use_armnn"),
    },
    Vendor {
        provider: "ACLExecutionProvider",
        kind: DeviceKind::Cpu,
        hardware: "an Arm processor",
        nodes: &[],
        driver: "",
        modules: &[],
        lists: "",
        libraries: &[("libarm_compute", "the Arm Compute Library")],
        source: Source::Build("--use_acl"),
    },
    Vendor {
        provider: "XnnpackExecutionProvider",
        kind: DeviceKind::Cpu,
        hardware: "a processor",
        nodes: &[],
        driver: "",
        modules: &[],
        lists: "",
        libraries: &[],
        source: Source::Build("--use_xnnpack"),
    },
    // One provider for whichever NPU the dispatch library is made for.
    Vendor {
        provider: "LITERT-NPU",
        kind: DeviceKind::Npu,
        hardware: "an NPU that LiteRT has a dispatch library for",
        nodes: &[
            accel(INTEL),
            node("/dev/fastrpc-cdsp"),
            node("/dev/fastrpc-cdsp-secure"),
            node("/dev/adsprpc-smd"),
            node("/dev/adsprpc-smd-secure"),
            node("/dev/apusys"),
            node("/dev/galcore"),
        ],
        driver: "its vendor's driver",
        modules: &[
            "intel_vpu",
            "adsprpc",
            "fastrpc",
            "frpc_adsprpc",
            "apusys",
            "galcore",
        ],
        lists: "ls /dev/accel /dev/fastrpc-* /dev/adsprpc-* /dev/apusys /dev/galcore",
        libraries: &[
            (
                "libLiteRtDispatch",
                "the NPU vendor's dispatch library for LiteRT, name it as the [[plugin]] LITERT-NPU of a runtime.toml",
            ),
            (
                "libLiteRtCompilerPlugin",
                "the NPU vendor's compiler plug-in for LiteRT, name its folder as compiler_dir under [options.LITERT-NPU]",
            ),
            ("libopenvino", "OpenVINO of the version that it names"),
            ("libQnn", "Qualcomm's QNN SDK"),
            ("libneuron", "MediaTek's NeuroPilot"),
        ],
        source: Source::Fetch("litert"),
    },
];

/// What is to be seen of some hardware.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// Usable, or it has no node to tell by.
    Yes,
    /// This node is there and may not be opened.
    Closed(PathBuf),
    No,
}

impl Vendor {
    /// The rows of a provider.
    fn rows(provider: &str) -> impl Iterator<Item = &'static Self> {
        VENDORS.iter().filter(move |row| row.provider == provider)
    }

    fn of(provider: &str, kind: DeviceKind) -> Option<&'static Self> {
        Self::rows(provider).find(|row| row.kind == kind)
    }

    fn look(&self) -> Seen {
        if self.nodes.is_empty() {
            return Seen::Yes;
        }
        let found: Vec<_> = self.nodes.iter().flat_map(Node::found).collect();
        let may = |path: &&PathBuf| access(*path, AccessFlags::R_OK | AccessFlags::W_OK).is_ok();
        match (found.iter().find(may), found.first()) {
            (Some(_), _) => Seen::Yes,
            (None, Some(closed)) => Seen::Closed(closed.clone()),
            (None, None) => Seen::No,
        }
    }
}

impl Node {
    /// Those of the paths that are there.
    fn found(&self) -> Vec<PathBuf> {
        let paths: Vec<PathBuf> = match self.from {
            None => vec![self.path.into()],
            Some(from) => (from..from + NODES_MAX)
                .map(|number| format!("{}{number}", self.path).into())
                .collect(),
        };
        let is_there = |path: &PathBuf| path.exists() && self.is_of_vendor(path);
        paths.into_iter().filter(is_there).collect()
    }

    fn is_of_vendor(&self, path: &Path) -> bool {
        let Some((file, wanted)) = self.vendor else {
            return true;
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut text = String::new();
        let read = File::open(file.replace('*', &name))
            .and_then(|file| file.take(VENDOR_ID_BYTES_MAX).read_to_string(&mut text));
        read.is_ok() && text.trim() == wanted
    }

    fn pattern(&self) -> String {
        let star = if self.from.is_some() { "*" } else { "" };
        format!("{}{star}", self.path)
    }
}

/// `absence` as found by a process that could look for the hardware: where there is none, or it may
/// not be opened, that is the reason, whatever the libraries complained about first.
pub fn explain(provider: &str, kind: DeviceKind, absence: Absence) -> Absence {
    let of_the_machine = matches!(
        absence,
        Absence::DriverMissing { .. }
            | Absence::NoDevice
            | Absence::ProbeFailed { .. }
            | Absence::SymbolMissing { .. }
            | Absence::FellBackToCpu { .. }
    );
    let vendor = Vendor::of(provider, kind).filter(|_| of_the_machine);
    let Some(vendor) = vendor else {
        return absence;
    };
    match vendor.look() {
        Seen::Yes => absence,
        Seen::Closed(path) => Absence::NoPermission {
            path: path.display().to_string(),
        },
        Seen::No => Absence::HardwareMissing {
            hardware: vendor.hardware.into(),
            nodes: patterns(vendor.nodes),
            also: absence.to_string(),
        },
    }
}

fn patterns(nodes: &[Node]) -> String {
    nodes
        .iter()
        .map(Node::pattern)
        .collect::<Vec<_>>()
        .join(", ")
}

impl Absence {
    /// What a user can do about it, in a sentence; `provider` is whose absence it is, or empty.
    pub fn next_step(&self, provider: &str) -> String {
        match self {
            Self::NotFetched { flavour } => format!("Get it with `mote fetch {flavour}`."),
            Self::LibraryMissing { name } => {
                format!("Fetch the runtime again, or correct the path of {name} in its runtime.toml.")
            }
            Self::LibraryRejected { name, .. } => {
                format!("See that {name} is made for this machine and this runtime.")
            }
            Self::LibraryAltered { .. } => {
                "Remove the runtime's folder and fetch it again.".to_owned()
            }
            Self::SymbolMissing { .. } => {
                "Install the version of the library that the runtime was built against.".to_owned()
            }
            Self::VersionSkew { need, .. } => format!("Install version {need} or a later one."),
            Self::DriverMissing { name } => bring(provider, name),
            Self::NotCompiledIn => other_runtime(provider),
            Self::NoDevice => match Vendor::rows(provider).find(|row| !row.lists.is_empty()) {
                Some(row) => format!(
                    "See whether `{}` lists {}; if not, install {}.",
                    row.lists, row.hardware, row.driver
                ),
                None => "See whether the vendor's own tool lists the device.".to_owned(),
            },
            Self::HardwareMissing { hardware, .. } => {
                let mut rows = Vendor::rows(provider);
                match rows.find(|row| row.hardware == hardware) {
                    Some(row) => format!("On a machine with {hardware}, install {}.", row.driver),
                    None => format!("On a machine with {hardware}, install its driver."),
                }
            }
            Self::NoPermission { path } => permit(Path::new(path)),
            Self::ProcessorFeature { feature } | Self::IllegalInstruction { feature } => {
                format!("Use a runtime that was built for processors without {feature}.")
            }
            Self::ProbeCrashed { .. } => {
                "Read the probe's last words in the daemon's log, and update driver and runtime."
                    .to_owned()
            }
            Self::ProbeTimedOut { .. } => {
                "See in the kernel's log whether the device is stuck; `mote devices --refresh` tries again."
                    .to_owned()
            }
            Self::ProbeFailed { .. } => {
                "Read the daemon's log; `mote devices --refresh` tries again.".to_owned()
            }
            Self::FellBackToCpu { .. } => {
                "See that its options name a device that is there, and that its libraries may be read (`reads`).".to_owned()
            }
            Self::WrongNumbers { .. } => {
                "Leave it unused, and update driver and runtime.".to_owned()
            }
            Self::OptionUnknown { key, .. } => {
                format!("Correct or remove the option {key} in the runtime's runtime.toml.")
            }
        }
    }
}

fn bring(provider: &str, library: &str) -> String {
    let name = library.rsplit('/').next().unwrap_or_default();
    let mut libraries = Vendor::rows(provider).flat_map(|row| row.libraries);
    match libraries.find(|(start, _)| name.starts_with(start)) {
        Some((_, package)) => {
            format!("Install {package}, and see that the daemon's loader finds {name} (ldconfig).")
        }
        None => format!("Install the package that brings {name} (ldconfig has to know it)."),
    }
}

fn other_runtime(provider: &str) -> String {
    match Vendor::rows(provider).next().map(|row| row.source) {
        Some(Source::Fetch(flavour)) => {
            format!("Get a runtime that has it with `mote fetch {flavour}`.")
        }
        Some(Source::Build(option)) => format!(
            "Name the vendor's build of ONNX Runtime, or one made with {option}, in a runtime.toml."
        ),
        None => "Use a runtime that has it.".to_owned(),
    }
}

fn permit(path: &Path) -> String {
    if !path.starts_with("/dev") {
        return format!("Let the daemon's user read {}.", path.display());
    }
    match group_of(path) {
        Some(group) => format!(
            "Add the daemon's user to the group {group}, which {} belongs to, and start it anew.",
            path.display()
        ),
        None => format!(
            "Let the daemon's user open {} with a udev rule.",
            path.display()
        ),
    }
}

/// The group that may open a file, unless it is root's.
fn group_of(path: &Path) -> Option<String> {
    let gid = path.metadata().ok()?.gid();
    if gid == 0 {
        return None;
    }
    let mut text = Vec::new();
    let file = File::open(GROUPS).ok()?;
    file.take(GROUPS_BYTES_MAX).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    let named = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(gid)).then(|| name.to_owned())
    });
    Some(named.unwrap_or_else(|| gid.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn rows_hold_together() {
        let mut seen = BTreeSet::new();
        for row in VENDORS {
            let name = row.provider;
            assert!(
                seen.insert((name, row.kind.to_string())),
                "{name} is there twice"
            );
            let needs_driver = !row.nodes.is_empty();
            assert!(
                !needs_driver || !row.driver.is_empty(),
                "{name}: who makes its nodes?"
            );
            assert!(
                !needs_driver || !row.lists.is_empty(),
                "{name}: what lists its devices?"
            );
            assert!(
                !needs_driver || !row.modules.is_empty(),
                "{name}: what is its driver made of?"
            );
            for node in row.nodes {
                assert!(node.path.starts_with("/dev/"), "{name}: {}", node.path);
            }
        }
    }

    #[test]
    fn absent_hardware_is_the_reason_and_what_else_is_amiss_is_kept() {
        let missing = Absence::DriverMissing {
            name: "libascendcl.so".into(),
        };
        let npu = DeviceKind::Npu;
        if Path::new("/dev/davinci0").exists() {
            return;
        }
        let told = explain("CANNExecutionProvider", npu, missing.clone());
        let Absence::HardwareMissing {
            hardware,
            nodes,
            also,
        } = &told
        else {
            panic!("{told:?}")
        };
        assert_eq!(
            (hardware.as_str(), nodes.as_str()),
            ("an Ascend NPU", "/dev/davinci*")
        );
        assert!(also.contains("libascendcl.so"));
        assert!(
            told.next_step("CANNExecutionProvider")
                .contains("Ascend driver")
        );
        // What a provider without hardware of its own lacks, it lacks.
        let told = explain("ACLExecutionProvider", DeviceKind::Cpu, missing.clone());
        assert_eq!(told, missing);
        let told = explain("CANNExecutionProvider", npu, Absence::NotCompiledIn);
        assert_eq!(told, Absence::NotCompiledIn);
    }

    #[test]
    fn every_reason_has_a_next_step() {
        let text = || "x".to_owned();
        let cuda = "CUDAExecutionProvider";
        for (absence, provider, says) in [
            (Absence::NotCompiledIn, cuda, "mote fetch onnxruntime-gpu"),
            (
                Absence::NotCompiledIn,
                "RknpuExecutionProvider",
                "--use_rknpu",
            ),
            (Absence::NotCompiledIn, "", "runtime"),
            (
                Absence::DriverMissing {
                    name: "/x/libcublasLt.so.13".into(),
                },
                cuda,
                "libcublas-13-0",
            ),
            (
                Absence::DriverMissing {
                    name: "libfoo.so".into(),
                },
                cuda,
                "libfoo.so",
            ),
            (Absence::NoDevice, cuda, "nvidia-smi"),
            (Absence::NoDevice, "", "vendor's own tool"),
            (
                Absence::NoPermission {
                    path: "/dev/null".into(),
                },
                cuda,
                "udev",
            ),
            (
                Absence::NoPermission {
                    path: "/opt/x.so".into(),
                },
                cuda,
                "read /opt/x.so",
            ),
            (
                Absence::IllegalInstruction {
                    feature: "AVX2".into(),
                },
                "",
                "without AVX2",
            ),
            (Absence::NotFetched { flavour: text() }, "", "mote fetch x"),
            (
                Absence::VersionSkew {
                    have: text(),
                    need: "1.24".into(),
                },
                "",
                "1.24",
            ),
            (Absence::ProbeTimedOut { limit_ms: 1 }, "", "--refresh"),
        ] {
            let told = absence.next_step(provider);
            assert!(told.contains(says), "{absence:?}: {told}");
            assert!(told.ends_with('.'), "{told}");
        }
    }
}
