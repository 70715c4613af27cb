//! What a provider's driver opens beside the runtime's own files: device nodes and vendors' folders.
//!
//! Data for whoever confines a process that computes on a provider. A path may end in a star, which
//! stands for any rest of a file name. What does not exist on a machine is of no consequence there.
//! Device nodes are only reachable as far as their own permissions go.

/// One path, and all beneath it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriverPath {
    /// Absolute; a star at its end stands for any rest of a file name.
    pub path: &'static str,
    /// What is done with it.
    pub kind: DriverPathKind,
    /// What it is for, and who says so.
    pub why: &'static str,
}

/// What is done with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverPathKind {
    /// A device node or a folder of them: read, write, ioctl, map.
    Device,
    /// Libraries, firmware, settings.
    Read,
    /// A folder the driver keeps files in.
    Write,
}

const fn device(path: &'static str, why: &'static str) -> DriverPath {
    let kind = DriverPathKind::Device;
    DriverPath { path, kind, why }
}

const fn read(path: &'static str, why: &'static str) -> DriverPath {
    let kind = DriverPathKind::Read;
    DriverPath { path, kind, why }
}

/// Where any driver looks its device up; goes with each of the tables below.
pub const BUSES: &[DriverPath] = &[
    read("/sys/bus", "devices by bus (kernel: sysfs-rules)"),
    read("/sys/class", "devices by class (kernel: sysfs-rules)"),
    read("/sys/dev", "devices by number (kernel: sysfs-rules)"),
    read("/sys/devices", "where the links of the others lead"),
    read("/sys/module", "versions and parameters of drivers"),
];

/// Where ONNX Runtime looks for devices as it starts, on whatever provider: without, it warns that
/// it found none. Seen with strace.
pub const DISCOVERY: &[DriverPath] = &[
    read(
        "/sys/bus/pci",
        "devices on PCI (ONNX Runtime's device discovery)",
    ),
    read("/sys/devices/pci*", "where its links lead"),
];

/// NVIDIA GPUs: nodes as the NVIDIA Container Toolkit and Jetson's mount lists name them.
pub const NVIDIA: &[DriverPath] = &[
    device(
        "/dev/nvidia*",
        "control, GPUs, unified memory, capabilities (container toolkit)",
    ),
    device("/dev/nvmap", "memory on Jetson (L4T mount list)"),
    device("/dev/nvhost-*", "engines on Jetson (L4T mount list)"),
    device("/dev/nvgpu", "GPUs on Jetson (L4T mount list)"),
    device(
        "/dev/nvsci*",
        "buffers between engines on Jetson (L4T mount list)",
    ),
    device(
        "/dev/dri",
        "render nodes of the same GPUs (container toolkit)",
    ),
    read(
        "/proc/driver/nvidia*",
        "driver version, GPUs, capabilities (driver README)",
    ),
    read(
        "/proc/devices",
        "major numbers of the nodes (driver README)",
    ),
    read(
        "/proc/modules",
        "whether the driver is loaded (driver README)",
    ),
    read(
        "/usr/local/cuda*",
        "toolkit libraries (CUDA installation guide)",
    ),
    read("/usr/share/nvidia", "application profiles (driver README)"),
    read("/etc/nvidia*", "application profiles (driver README)"),
    read("/etc/nv_tegra_release", "which Jetson this is (L4T)"),
    read("/opt/nvidia", "libraries on Jetson (L4T mount list)"),
];

/// Huawei Ascend NPUs: nodes and folders as Ascend Docker Runtime mounts them. Operators have to come
/// from CANN's package of compiled kernels: its compiler is a program, and a confined process starts
/// none.
pub const ASCEND: &[DriverPath] = &[
    device(
        "/dev/davinci*",
        "NPUs and their manager (Ascend Docker Runtime)",
    ),
    device("/dev/devmm_svm", "shared memory (Ascend Docker Runtime)"),
    device(
        "/dev/hisi_hdc",
        "host to device channel (Ascend Docker Runtime)",
    ),
    device("/dev/svm0", "shared memory on 310B (Ascend Docker Runtime)"),
    device(
        "/dev/ts_aisle",
        "task scheduler on 310B (Ascend Docker Runtime)",
    ),
    device(
        "/dev/upgrade",
        "board information on 310B (Ascend Docker Runtime)",
    ),
    device(
        "/dev/sys",
        "board information on 310B (Ascend Docker Runtime)",
    ),
    device("/dev/event_sched", "events on 310B (Ascend Docker Runtime)"),
    device("/dev/log_drv", "driver log on 310B (Ascend Docker Runtime)"),
    read(
        "/usr/local/Ascend",
        "CANN and driver libraries, operators (CANN installation guide)",
    ),
    read(
        "/etc/ascend_install.info",
        "where the driver is (CANN installation guide)",
    ),
    read(
        "/etc/hdcBasic.cfg",
        "host to device channel (Ascend Docker Runtime)",
    ),
    read(
        "/etc/sys_version.conf",
        "which board this is (Ascend Docker Runtime)",
    ),
];

/// Intel NPUs and GPUs under OpenVINO.
pub const INTEL: &[DriverPath] = &[
    device("/dev/accel", "NPUs (kernel: compute accelerators)"),
    device("/dev/dri", "GPUs (OpenVINO in containers)"),
    read(
        "/opt/intel",
        "OpenVINO libraries (OpenVINO installation guide)",
    ),
    read(
        "/etc/OpenCL",
        "which OpenCL drivers there are (Khronos ICD loader)",
    ),
];

/// Qualcomm Hexagon and Adreno under QNN, and under TFLite's delegate for it.
pub const QUALCOMM: &[DriverPath] = &[
    device("/dev/fastrpc-*", "DSPs (kernel: fastrpc)"),
    device("/dev/adsprpc-*", "DSPs on vendor kernels (QNN SDK)"),
    device(
        "/dev/dma_heap",
        "buffers shared with DSPs (kernel: dma-buf heaps)",
    ),
    device("/dev/ion", "the same on older kernels"),
    device("/dev/kgsl-3d0", "GPU on vendor kernels (QNN SDK)"),
    device("/dev/dri", "GPU (kernel: msm)"),
    read(
        "/usr/lib/rfsa",
        "code for DSPs (QNN SDK: ADSP_LIBRARY_PATH)",
    ),
    read("/usr/lib/dsp", "code for DSPs (hexagon-dsp-binaries)"),
    read("/usr/share/qcom", "code for DSPs (hexagon-dsp-binaries)"),
    read("/dsp", "code for DSPs on Android partitions (QNN SDK)"),
    read("/vendor", "libraries on Android partitions (QNN SDK)"),
    read("/opt/qcom", "QNN libraries (QNN SDK)"),
];

/// GPUs under Vulkan, whoever made them.
pub const GRAPHICS: &[DriverPath] = &[
    device("/dev/dri", "render nodes (kernel: DRM)"),
    device("/dev/nvidia*", "NVIDIA GPUs (driver README)"),
    device("/dev/mali*", "Arm GPUs on vendor kernels (kbase driver)"),
    device("/dev/kgsl-3d0", "Adreno on vendor kernels"),
    read(
        "/usr/share/vulkan",
        "which drivers there are (Vulkan loader)",
    ),
    read("/etc/vulkan", "which drivers there are (Vulkan loader)"),
    read("/usr/share/glvnd", "which drivers there are (libglvnd)"),
    read("/usr/share/drirc.d", "settings of drivers (Mesa)"),
    read("/etc/drirc", "settings of drivers (Mesa)"),
    read("/proc/driver/nvidia*", "driver version (driver README)"),
];

/// Rockchip NPUs.
pub const ROCKCHIP: &[DriverPath] = &[
    device(
        "/dev/dri",
        "the NPU's node on 5.10 and 6.1 vendor kernels (rknpu driver)",
    ),
    device(
        "/dev/rknpu",
        "its node where it is a misc device (rknpu driver)",
    ),
    device("/dev/accel", "its node on mainline (kernel: rocket)"),
    device("/dev/dma_heap", "buffers (rknpu driver)"),
    device(
        "/dev/mpp_service",
        "picture engines next to it (rockchip mpp)",
    ),
    device("/dev/rga", "picture scaler next to it (librga)"),
    read("/proc/device-tree", "which SoC this is (rknn runtime)"),
    read("/sys/firmware/devicetree", "where its link leads"),
];

/// AMD NPUs: XDNA on desktops, DPUs on adaptive SoCs.
pub const AMD: &[DriverPath] = &[
    device("/dev/accel", "XDNA NPUs (kernel: amdxdna)"),
    device("/dev/dri", "DPUs on adaptive SoCs (XRT: zocl)"),
    read("/opt/xilinx", "XRT (XRT installation guide)"),
    read(
        "/opt/amd",
        "Ryzen AI libraries (Ryzen AI installation guide)",
    ),
    read("/etc/vart.conf", "which overlay is loaded (Vitis AI)"),
    read(
        "/usr/share/vitis_ai_library",
        "Vitis AI (installation guide)",
    ),
];

/// Any plug-in delegate of TFLite: it does not say whose device it is.
pub const DELEGATES: &[DriverPath] = &[
    device(
        "/dev/galcore",
        "VeriSilicon NPUs and GPUs (i.MX 8M Plus: galcore driver)",
    ),
    device("/dev/apex_*", "Coral on PCIe (gasket driver)"),
    device("/dev/bus/usb", "Coral on USB (libedgetpu)"),
    device("/dev/ethosu*", "Arm Ethos-U (ethos-u Linux driver stack)"),
    device("/dev/neutron*", "NXP Neutron (neutron driver)"),
    device("/dev/mali*", "Arm GPUs on vendor kernels (kbase driver)"),
    device("/dev/apusys", "MediaTek APUs (NeuroPilot)"),
    device("/dev/dri", "GPUs"),
    device("/dev/accel", "NPUs (kernel: compute accelerators)"),
    device("/dev/dma_heap", "buffers"),
    device("/dev/fastrpc-*", "Qualcomm DSPs (kernel: fastrpc)"),
    device("/dev/adsprpc-*", "the same on vendor kernels"),
    read("/usr/lib/rfsa", "code for Qualcomm DSPs"),
    read(
        "/etc/OpenCL",
        "which OpenCL drivers there are (Khronos ICD loader)",
    ),
    read("/proc/device-tree", "which SoC this is"),
    read("/sys/firmware/devicetree", "where its link leads"),
];

/// Kernel modules of the devices in [`DELEGATES`].
pub const DELEGATE_MODULES: &[&str] = &[
    "adsprpc",
    "apex",
    "apusys",
    "ethosu",
    "fastrpc",
    "galcore",
    "gasket",
    "mali_kbase",
    "neutron",
];
