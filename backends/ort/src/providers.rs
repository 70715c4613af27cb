//! The execution providers Mote knows: name, kind of device, options, how each is registered. A new
//! one is a new row; one that computes on several kinds of devices has a row for each. What they need
//! of their vendors is in [`mote_api::vendor`].
//! A library that is plugged in may bring one that is not in the table (`plugins`).

use crate::compiled::Keeps;
use crate::failure::{backend_error, register_error};
use crate::migraphx;
use crate::options::{self, OptionKey};
use crate::plugins::plugged;
use crate::sys;
use mote_api::{Absence, DeviceInfo, DeviceKind, DriverPath, LoadError, LoadRequest, driver};
use ort::device::Device;
use ort::environment::Environment;
use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider, ExecutionProviderDispatch};
use ort::memory::DeviceType;
use ort::session::builder::SessionBuilder;
use std::io::Read;
use std::path::Path;

/// The provider that is always there.
pub const CPU_PROVIDER: &str = "CPUExecutionProvider";
const CPUINFO_BYTES_MAX: u64 = 64 << 10;

/// Key and value pairs for a provider.
pub(crate) type Options = Vec<(String, String)>;

/// One row of the table.
pub(crate) struct Provider {
    /// The library's own name.
    pub(crate) name: &'static str,
    pub(crate) kind: DeviceKind,
    /// What to call the device when the library does not name it.
    pub(crate) device_name: &'static str,
    /// Options used unless the request sets the same key. Rows of one name differ in them.
    defaults: &'static [(&'static str, &'static str)],
    /// Options it has, as far as they are known.
    options: &'static [OptionKey],
    /// It says nothing of options that it does not have.
    ignores_unknown: bool,
    /// Its device is only simulated, on the CPU.
    simulated: bool,
    /// How it keeps what it compiles.
    pub(crate) keeps: Keeps,
    /// What its driver opens.
    driver: &'static [DriverPath],
    register: Register,
}

enum Register {
    /// Nothing to register; options are session configuration entries.
    Cpu,
    /// Takes any options.
    Configured(fn(&Options) -> ExecutionProviderDispatch),
    /// Takes those of its row, and says what is wrong with a value.
    Checked(fn(&Options) -> Result<ExecutionProviderDispatch, String>),
    /// Takes none.
    Plain(fn() -> ExecutionProviderDispatch),
    /// Comes with a library of its own only, and takes any options.
    Plugged,
}

/// The simulator takes itself for an NPU that has no memory of its own, and refuses any model of more
/// than a few nodes, until it is told which to be: that of an SM8650.
const HEXAGON: &[(&str, &str)] = match cfg!(target_arch = "x86_64") {
    true => &[
        ("backend_type", "htp"),
        ("soc_model", "57"),
        ("vtcm_mb", "8"),
    ],
    false => &[("backend_type", "htp")],
};

/// OpenVINO writes context models, too, but its plug-in for the CPU of 2025.4 does not read them.
const IN_CACHE_DIR: Keeps = Keeps::Folder {
    option: "cache_dir",
    others: &[],
};
const TENSORRT_CACHE: Keeps = Keeps::Folder {
    option: "trt_engine_cache_path",
    others: &[("trt_engine_cache_enable", "1")],
};
const TENSORRT_RTX_CACHE: Keeps = Keeps::Folder {
    option: "nv_runtime_cache_path",
    others: &[],
};

/// All providers Mote knows, the order being that of the report.
#[allow(
    deprecated,
    reason = "builds of vendors are older, and have what was removed since"
)]
pub(crate) const PROVIDERS: &[Provider] = &[
    Provider {
        name: CPU_PROVIDER,
        kind: DeviceKind::Cpu,
        device_name: "CPU",
        defaults: &[],
        options: &[],
        ignores_unknown: false,
        simulated: false,
        keeps: Keeps::Nothing,
        driver: driver::DISCOVERY,
        register: Register::Cpu,
    },
    Provider {
        name: "CUDAExecutionProvider",
        kind: DeviceKind::Gpu,
        device_name: "NVIDIA GPU",
        defaults: &[],
        options: options::CUDA,
        ignores_unknown: false,
        simulated: false,
        keeps: Keeps::Nothing,
        driver: driver::NVIDIA,
        register: Register::Configured(configured::<ep::CUDA>),
    },
    Provider {
        name: "TensorrtExecutionProvider",
        kind: DeviceKind::Gpu,
        device_name: "NVIDIA GPU",
        defaults: &[],
        options: options::TENSORRT,
        ignores_unknown: false,
        simulated: false,
        keeps: TENSORRT_CACHE,
        driver: driver::NVIDIA,
        register: Register::Configured(configured::<ep::TensorRT>),
    },
    Provider {
        name: "NvTensorRTRTXExecutionProvider",
        kind: DeviceKind::Gpu,
        device_name: "NVIDIA RTX GPU",
        defaults: &[],
        options: options::TENSORRT_RTX,
        ignores_unknown: false,
        simulated: false,
        keeps: TENSORRT_RTX_CACHE,
        driver: driver::NVIDIA,
        register: Register::Configured(configured::<ep::NVRTX>),
    },
    Provider {
        name: "CANNExecutionProvider",
        kind: DeviceKind::Npu,
        device_name: "Ascend NPU",
        defaults: &[],
        options: options::CANN,
        ignores_unknown: false,
        simulated: false,
        keeps: Keeps::Nothing,
        driver: driver::ASCEND,
        register: Register::Configured(configured::<ep::CANN>),
    },
    Provider {
        name: "OpenVINOExecutionProvider",
        kind: DeviceKind::Npu,
        device_name: "Intel NPU",
        defaults: &[("device_type", "NPU")],
        options: options::OPENVINO,
        ignores_unknown: false,
        simulated: false,
        keeps: IN_CACHE_DIR,
        driver: driver::INTEL,
        register: Register::Configured(configured::<ep::OpenVINO>),
    },
    Provider {
        name: "OpenVINOExecutionProvider",
        kind: DeviceKind::Gpu,
        device_name: "Intel GPU",
        defaults: &[("device_type", "GPU")],
        options: options::OPENVINO,
        ignores_unknown: false,
        simulated: false,
        keeps: IN_CACHE_DIR,
        driver: driver::INTEL,
        register: Register::Configured(configured::<ep::OpenVINO>),
    },
    Provider {
        name: "OpenVINOExecutionProvider",
        kind: DeviceKind::Cpu,
        device_name: "CPU",
        defaults: &[("device_type", "CPU")],
        options: options::OPENVINO,
        ignores_unknown: false,
        simulated: false,
        keeps: IN_CACHE_DIR,
        driver: driver::INTEL,
        register: Register::Configured(configured::<ep::OpenVINO>),
    },
    Provider {
        name: "QNNExecutionProvider",
        kind: DeviceKind::Npu,
        device_name: "Hexagon NPU",
        defaults: HEXAGON,
        options: options::QNN,
        ignores_unknown: true,
        simulated: cfg!(target_arch = "x86_64"),
        keeps: Keeps::Context,
        driver: driver::QUALCOMM,
        register: Register::Configured(configured::<ep::QNN>),
    },
    Provider {
        name: "WebGpuExecutionProvider",
        kind: DeviceKind::Gpu,
        device_name: "GPU",
        defaults: &[],
        options: options::WEBGPU,
        ignores_unknown: true,
        simulated: false,
        keeps: Keeps::Nothing,
        driver: driver::GRAPHICS,
        register: Register::Plugged,
    },
    Provider {
        name: "RknpuExecutionProvider",
        kind: DeviceKind::Npu,
        device_name: "Rockchip NPU",
        defaults: &[],
        options: &[],
        ignores_unknown: false,
        simulated: false,
        keeps: Keeps::Nothing,
        driver: driver::ROCKCHIP,
        register: Register::Plain(|| ep::RKNPU::default().build()),
    },
    Provider {
        name: "VitisAIExecutionProvider",
        kind: DeviceKind::Npu,
        device_name: "AMD NPU",
        defaults: &[],
        options: options::VITIS_AI,
        ignores_unknown: true,
        simulated: false,
        keeps: IN_CACHE_DIR,
        driver: driver::AMD,
        register: Register::Configured(configured::<ep::Vitis>),
    },
    Provider {
        name: "MIGraphXExecutionProvider",
        kind: DeviceKind::Gpu,
        device_name: "AMD GPU",
        defaults: &[],
        options: options::MIGRAPHX,
        ignores_unknown: false,
        simulated: false,
        keeps: Keeps::Nothing,
        driver: driver::AMD,
        register: Register::Checked(migraphx::configured),
    },
    Provider {
        name: "VSINPUExecutionProvider",
        kind: DeviceKind::Npu,
        device_name: "VeriSilicon NPU",
        defaults: &[],
        options: &[],
        ignores_unknown: false,
        simulated: false,
        keeps: Keeps::Nothing,
        driver: driver::DELEGATES,
        register: Register::Plain(|| ep::VSINPU.build()),
    },
    Provider {
        name: "NnapiExecutionProvider",
        kind: DeviceKind::Npu,
        device_name: "NNAPI accelerator",
        defaults: &[],
        options: &[],
        ignores_unknown: false,
        simulated: false,
        keeps: Keeps::Nothing,
        driver: driver::DELEGATES,
        register: Register::Plain(|| ep::NNAPI::default().build()),
    },
    Provider {
        name: "XnnpackExecutionProvider",
        kind: DeviceKind::Cpu,
        device_name: "CPU",
        defaults: &[],
        options: options::XNNPACK,
        ignores_unknown: true,
        simulated: false,
        keeps: Keeps::Nothing,
        driver: driver::DISCOVERY,
        register: Register::Configured(configured::<ep::XNNPACK>),
    },
    Provider {
        name: "ACLExecutionProvider",
        kind: DeviceKind::Cpu,
        device_name: "CPU",
        defaults: &[],
        options: &[],
        ignores_unknown: false,
        simulated: false,
        keeps: Keeps::Nothing,
        driver: driver::DISCOVERY,
        register: Register::Plain(|| ep::ACL::default().build()),
    },
    Provider {
        name: "ArmNNExecutionProvider",
        kind: DeviceKind::Cpu,
        device_name: "CPU",
        defaults: &[],
        options: &[],
        ignores_unknown: false,
        simulated: false,
        keeps: Keeps::Nothing,
        driver: driver::DISCOVERY,
        register: Register::Plain(|| ep::ArmNN::default().build()),
    },
];

/// What the driver of a provider opens; without a name, those of all providers.
pub fn driver_paths(provider: Option<&str>) -> impl Iterator<Item = &'static DriverPath> {
    let rows = PROVIDERS.iter();
    let rows = rows.filter(move |row| provider.is_none_or(|name| row.name == name));
    rows.flat_map(|row| row.driver)
}

/// Options that have a provider compute on this kind of device, where it has several.
pub fn device_options(provider: &str, kind: DeviceKind) -> Vec<(String, String)> {
    let mut rows = PROVIDERS.iter();
    let row = rows.find(|row| row.name == provider && row.kind == kind);
    let defaults = row.into_iter().flat_map(|row| row.defaults);
    defaults
        .map(|&(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Whether a provider keeps what it compiles, given a folder.
pub fn keeps_compiled(provider: &str) -> bool {
    Provider::in_table(provider).is_some_and(|row| row.keeps != Keeps::Nothing)
}

fn configured<P>(options: &Options) -> ExecutionProviderDispatch
where
    P: Default + ArbitrarilyConfigurableExecutionProvider + Into<ExecutionProviderDispatch>,
{
    let apply =
        |provider: P, (key, value): &(String, String)| provider.with_arbitrary_config(key, value);
    options.iter().fold(P::default(), apply).into()
}

impl Provider {
    /// The rows of the table, then those of plugged-in providers beyond it.
    pub(crate) fn all() -> Vec<&'static Self> {
        let plugged = plugged();
        let beyond = plugged.rows.iter().copied();
        let beyond = beyond.filter(|row| Self::in_table(row.name).is_none());
        PROVIDERS.iter().chain(beyond).collect()
    }

    /// The rows of a name.
    pub(crate) fn named(name: &str) -> Vec<&'static Self> {
        let mut rows = Self::all();
        rows.retain(|row| row.name == name);
        rows
    }

    /// The rows of a name that compute where `options` say; when none does, as they say something
    /// special, the first.
    pub(crate) fn chosen(name: &str, options: &Options) -> Vec<&'static Self> {
        let mut rows = Self::named(name);
        let first = rows.first().copied();
        rows.retain(|row| row.agrees(options));
        match rows.is_empty() {
            true => first.into_iter().collect(),
            false => rows,
        }
    }

    fn agrees(&self, options: &Options) -> bool {
        let contradicts = |(key, value): &(&str, &str)| {
            let mut given = options.iter();
            given.any(|(other, text)| other == key && !text.eq_ignore_ascii_case(value))
        };
        !self.defaults.iter().any(contradicts)
    }

    pub(crate) fn in_table(name: &str) -> Option<&'static Self> {
        PROVIDERS.iter().find(|row| row.name == name)
    }

    /// A row, for good, for a provider of which nothing is known but what its library presents.
    /// What its driver opens is not known either.
    pub(crate) fn beyond_table(name: &str, kind: DeviceKind) -> &'static Self {
        Box::leak(Box::new(Self {
            name: name.to_owned().leak(),
            kind,
            device_name: match kind {
                DeviceKind::Cpu => "CPU",
                DeviceKind::Gpu => "GPU",
                DeviceKind::Npu => "NPU",
            },
            defaults: &[],
            options: &[],
            ignores_unknown: false,
            simulated: false,
            keeps: Keeps::Nothing,
            driver: &[],
            register: Register::Plugged,
        }))
    }

    /// Registers the provider on `builder`, or says why it cannot be had.
    pub(crate) fn register(
        &self,
        builder: SessionBuilder,
        environment: &Environment,
        request: &LoadRequest,
    ) -> Result<SessionBuilder, LoadError> {
        let mut options = self.with_defaults(&request.provider_options)?;
        self.keep_in(request.compiled.as_deref(), &mut options);
        match self.register {
            Register::Cpu => self.register_cpu(builder, environment, &options),
            Register::Configured(make) if self.is_compiled_in()? => {
                self.register_built_in(builder, make(&options))
            }
            Register::Checked(make) if self.is_compiled_in()? => match make(&options) {
                Ok(provider) => self.register_built_in(builder, provider),
                Err(why) => Err(register_error(self.name, &why)),
            },
            Register::Plain(make) if self.is_compiled_in()? => match options.is_empty() {
                true => self.register_built_in(builder, make()),
                false => Err(register_error(self.name, "this provider takes no options")),
            },
            Register::Configured(_)
            | Register::Checked(_)
            | Register::Plain(_)
            | Register::Plugged => self.register_plugin(builder, environment, &options),
        }
    }

    /// The CPU is always there, but must be asked for: a session without any provider lets the
    /// library choose one, and it then prefers the devices of a plug-in.
    fn register_cpu(
        &self,
        builder: SessionBuilder,
        environment: &Environment,
        options: &Options,
    ) -> Result<SessionBuilder, LoadError> {
        let failed = |error: ort::Error<_>| register_error(self.name, error.message());
        let _unchanged = plugged();
        let cpu = environment.devices().find(|device| self.has(device));
        let builder = builder.with_devices(cpu, None).map_err(failed)?;
        options.iter().try_fold(builder, |builder, (key, value)| {
            builder.with_config_entry(key, value).map_err(failed)
        })
    }

    /// The kind under which its library lists its device.
    fn listed_kind(&self) -> DeviceKind {
        match self.simulated {
            true => DeviceKind::Cpu,
            false => self.kind,
        }
    }

    /// Whether a device belongs to this provider.
    fn has(&self, device: &Device<'_>) -> bool {
        device.ep().is_ok_and(|name| name == self.name)
    }

    fn with_defaults(&self, given: &Options) -> Result<Options, LoadError> {
        self.check_keys(given)?;
        // The binding panics on these.
        if given
            .iter()
            .any(|(k, v)| k.contains('\0') || v.contains('\0'))
        {
            return Err(register_error(self.name, "an option contains a NUL byte"));
        }
        let mut options: Options = self
            .defaults
            .iter()
            .filter(|(key, _)| !given.iter().any(|(other, _)| other == key))
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        options.extend_from_slice(given);
        Ok(options)
    }

    /// Has a provider with a cache of its own keep it in this folder, unless somebody chose another.
    fn keep_in(&self, folder: Option<&Path>, options: &mut Options) {
        let (Keeps::Folder { option, others }, Some(folder)) = (self.keeps, folder) else {
            return;
        };
        let Some(folder) = folder.to_str() else {
            return;
        };
        let is_set = |key: &str| options.iter().any(|(other, _)| other == key);
        if is_set(option) {
            return;
        }
        let others = others.iter().filter(|(key, _)| !is_set(key));
        let mut added: Options = others
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        added.push((option.to_owned(), folder.to_owned()));
        options.append(&mut added);
    }

    /// Refuses what the provider would ignore in silence; the others refuse it themselves.
    fn check_keys(&self, given: &Options) -> Result<(), LoadError> {
        let is_known = |key: &str| self.options.iter().any(|known| known.name == key);
        let mut keys = given.iter().map(|(key, _)| key);
        match keys.find(|key| self.ignores_unknown && !is_known(key)) {
            None => Ok(()),
            Some(key) => Err(LoadError::ProviderAbsent {
                provider: self.name.to_owned(),
                absence: Absence::OptionUnknown {
                    key: key.clone(),
                    known: self.options.iter().map(OptionKey::text).collect(),
                },
            }),
        }
    }

    fn is_compiled_in(&self) -> Result<bool, LoadError> {
        let names = sys::compiled_in()
            .map_err(|error| LoadError::Session(backend_error("list providers", &error)))?;
        Ok(names.iter().any(|name| name == self.name))
    }

    fn register_built_in(
        &self,
        builder: SessionBuilder,
        provider: ExecutionProviderDispatch,
    ) -> Result<SessionBuilder, LoadError> {
        builder
            .with_execution_providers([provider.error_on_failure()])
            .map_err(|error| register_error(self.name, error.message()))
    }

    /// Providers in libraries of their own show up as devices once their library is registered.
    fn register_plugin(
        &self,
        builder: SessionBuilder,
        environment: &Environment,
        options: &Options,
    ) -> Result<SessionBuilder, LoadError> {
        let absent = |absence| LoadError::ProviderAbsent {
            provider: self.name.to_owned(),
            absence,
        };
        let plugged = plugged();
        if !plugged.rows.iter().any(|row| row.name == self.name) {
            return Err(absent(Absence::NotCompiledIn));
        }
        let chosen: Vec<_> = environment
            .devices()
            .filter(|device| self.has(device) && is_of(device, self.listed_kind()))
            .collect();
        // An empty list of devices would be accepted in silence and leave everything to the CPU.
        if chosen.is_empty() {
            return Err(absent(Absence::NoDevice));
        }
        let prefixed: Options = options
            .iter()
            .map(|(key, value)| (format!("{}.{key}", self.name), value.clone()))
            .collect();
        builder
            .with_devices(chosen, Some(&prefixed))
            .map_err(|error| register_error(self.name, error.message()))
    }

    /// The device, as far as it can be told.
    pub(crate) fn device(&self, environment: &Environment) -> DeviceInfo {
        let kind = self.kind;
        if self.simulated {
            let cpu = cpu();
            return DeviceInfo {
                name: format!("simulated {} on {}", self.device_name, cpu.name),
                simulated: true,
                ..cpu
            };
        }
        if kind == DeviceKind::Cpu {
            return cpu();
        }
        let _unchanged = plugged();
        let vendor = environment
            .devices()
            .find(|device| self.has(device) && is_of(device, kind))
            .and_then(|device| device.hardware_device().vendor().ok().map(str::to_owned))
            .filter(|vendor| !vendor.is_empty());
        DeviceInfo {
            id: format!("{kind}0"),
            kind,
            name: match vendor {
                Some(vendor) => format!("{vendor} {}", kind.to_string().to_uppercase()),
                None => self.device_name.to_owned(),
            },
            simulated: false,
        }
    }
}

pub(crate) fn is_of(device: &Device<'_>, kind: DeviceKind) -> bool {
    device.hardware_device().ty()
        == match kind {
            DeviceKind::Cpu => DeviceType::CPU,
            DeviceKind::Gpu => DeviceType::GPU,
            DeviceKind::Npu => DeviceType::NPU,
        }
}

/// The processor, by the name the kernel gives it.
fn cpu() -> DeviceInfo {
    let mut text = Vec::new();
    let read = std::fs::File::open("/proc/cpuinfo")
        .and_then(|file| file.take(CPUINFO_BYTES_MAX).read_to_end(&mut text));
    let text = match read {
        Ok(_) => String::from_utf8_lossy(&text),
        Err(_) => "".into(),
    };
    let field = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        lines.find_map(|(name, value)| (name.trim() == key).then(|| value.trim().to_owned()))
    };
    DeviceInfo {
        id: "cpu".into(),
        kind: DeviceKind::Cpu,
        name: field("model name")
            .or_else(|| field("Model"))
            .unwrap_or_else(|| std::env::consts::ARCH.into()),
        simulated: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_api::vendor::VENDORS;
    use std::collections::BTreeSet;

    fn options(pairs: &[(&str, &str)]) -> Options {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn rows_hold_together() {
        for row in PROVIDERS {
            let name = row.name;
            for (key, _) in row.defaults {
                let is_known = row.options.iter().any(|option| option.name == *key);
                assert!(
                    is_known,
                    "{name} has a default for {key}, which it does not have"
                );
            }
            assert!(!row.ignores_unknown || !row.options.is_empty(), "{name}");
            if let Keeps::Folder { option, others } = row.keeps {
                let used = others.iter().map(|(key, _)| key).chain([&option]);
                for key in used {
                    assert!(
                        row.options.iter().any(|known| known.name == *key),
                        "{name} {key}"
                    );
                }
            }
            let keys: BTreeSet<_> = row.options.iter().map(|option| option.name).collect();
            assert_eq!(keys.len(), row.options.len(), "{name} has an option twice");
            let has_vendor = |vendor: &mote_api::vendor::Vendor| {
                (vendor.provider, vendor.kind) == (name, row.kind)
            };
            let vendors = VENDORS.iter().any(has_vendor);
            assert!(vendors || name == CPU_PROVIDER, "{name} has no vendor");
            let like = PROVIDERS.iter().filter(|other| other.name == name);
            let same = like.filter(|other| other.defaults == row.defaults);
            assert_eq!(same.count(), 1, "rows of {name} are not told apart");
        }
        // LiteRT's are the other ones in that table.
        let others = |vendor: &&mote_api::vendor::Vendor| !vendor.provider.starts_with("LITERT");
        for vendor in VENDORS.iter().filter(others) {
            let is_here = PROVIDERS.iter().any(|row| row.name == vendor.provider);
            assert!(is_here, "{} cannot be registered", vendor.provider);
        }
    }

    #[test]
    fn options_choose_the_device_of_a_provider_with_several() {
        let kinds = |pairs: &[(&str, &str)]| -> Vec<DeviceKind> {
            let rows = Provider::chosen("OpenVINOExecutionProvider", &options(pairs));
            rows.into_iter().map(|row| row.kind).collect()
        };
        let (cpu, gpu, npu) = (DeviceKind::Cpu, DeviceKind::Gpu, DeviceKind::Npu);
        assert_eq!(kinds(&[]), [npu, gpu, cpu]);
        assert_eq!(kinds(&[("num_streams", "1")]), [npu, gpu, cpu]);
        assert_eq!(kinds(&[("device_type", "cpu")]), [cpu]);
        assert_eq!(kinds(&[("device_type", "AUTO:GPU,CPU")]), [npu]);
        assert!(Provider::chosen("Nobody", &Vec::new()).is_empty());
        for kind in [cpu, gpu, npu] {
            let chosen = device_options("OpenVINOExecutionProvider", kind);
            let rows = Provider::chosen("OpenVINOExecutionProvider", &chosen);
            assert_eq!(rows.iter().map(|row| row.kind).collect::<Vec<_>>(), [kind]);
        }
    }

    #[test]
    fn an_option_that_would_be_ignored_is_refused_with_those_there_are() {
        let [qnn] = Provider::named("QNNExecutionProvider")[..] else {
            panic!("one row")
        };
        let refused = qnn.check_keys(&options(&[("vtcm_mb", "8"), ("vtcm", "8")]));
        let Err(LoadError::ProviderAbsent { absence, .. }) = refused else {
            panic!("{refused:?}")
        };
        let Absence::OptionUnknown { key, known } = &absence else {
            panic!("{absence:?}")
        };
        assert_eq!(key, "vtcm");
        assert!(
            known.iter().any(|option| option == "vtcm_mb (MiB; 0)"),
            "{known:?}"
        );
        assert!(absence.to_string().ends_with(", vtcm_mb"), "{absence}");
        assert!(
            qnn.check_keys(&options(&[("htp_performance_mode", "burst")]))
                .is_ok()
        );
    }
}
