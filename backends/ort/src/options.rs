//! Options of the execution providers, as their documentation and their own sources have them: key,
//! what its value is, and what holds without it. Keys that take addresses of this process are left
//! out: they cannot come from a file.

/// One option.
pub(crate) struct OptionKey {
    pub(crate) name: &'static str,
    /// A unit, or the values there are.
    pub(crate) value: &'static str,
    /// Empty where the provider decides.
    pub(crate) default: &'static str,
}

impl OptionKey {
    /// For whoever has to choose one.
    pub(crate) fn text(&self) -> String {
        let Self {
            name,
            value,
            default,
        } = self;
        match default.is_empty() {
            true => format!("{name} ({value})"),
            false => format!("{name} ({value}; {default})"),
        }
    }
}

const fn key(name: &'static str, value: &'static str, default: &'static str) -> OptionKey {
    OptionKey {
        name,
        value,
        default,
    }
}

const SWITCH: &str = "0 or 1";
const WORD: &str = "true or false";
const ARENA: &str = "kNextPowerOfTwo or kSameAsRequested";
const BUFFERS: &str = "disabled, lazyRelease, simple or bucket";

/// From the provider's documentation and `cuda_execution_provider_info.cc`.
pub(crate) const CUDA: &[OptionKey] = &[
    key("device_id", "number of the GPU", "0"),
    key("gpu_mem_limit", "bytes", "no limit"),
    key("arena_extend_strategy", ARENA, "kNextPowerOfTwo"),
    key(
        "cudnn_conv_algo_search",
        "EXHAUSTIVE, HEURISTIC or DEFAULT",
        "EXHAUSTIVE",
    ),
    key("cudnn_conv_use_max_workspace", SWITCH, "1"),
    key("cudnn_conv1d_pad_to_nc1d", SWITCH, "0"),
    key("do_copy_in_default_stream", SWITCH, "1"),
    key("enable_cuda_graph", SWITCH, "0"),
    key("enable_skip_layer_norm_strict_mode", SWITCH, "0"),
    key("fuse_conv_bias", SWITCH, "0"),
    key("prefer_nhwc", SWITCH, "0"),
    key("sdpa_kernel", "bits of the kernels allowed", "0"),
    key("tunable_op_enable", SWITCH, "0"),
    key("tunable_op_max_tuning_duration_ms", "milliseconds", "0"),
    key("tunable_op_tuning_enable", SWITCH, "0"),
    key("use_ep_level_unified_stream", SWITCH, "0"),
    key("use_tf32", SWITCH, "1"),
];

/// From the provider's documentation and `OrtTensorRTProviderOptionsV2`.
pub(crate) const TENSORRT: &[OptionKey] = &[
    key("device_id", "number of the GPU", "0"),
    key("trt_auxiliary_streams", "streams", "-1"),
    key("trt_bf16_enable", SWITCH, "0"),
    key("trt_build_heuristics_enable", SWITCH, "0"),
    key("trt_builder_optimization_level", "0 to 5", "3"),
    key("trt_context_memory_sharing_enable", SWITCH, "0"),
    key("trt_cuda_graph_enable", SWITCH, "0"),
    key("trt_detailed_build_log", SWITCH, "0"),
    key("trt_dla_core", "number of the core", "0"),
    key("trt_dla_enable", SWITCH, "0"),
    key("trt_dump_ep_context_model", SWITCH, "0"),
    key("trt_dump_subgraphs", SWITCH, "0"),
    key("trt_engine_cache_enable", SWITCH, "0"),
    key("trt_engine_cache_path", "folder", ""),
    key("trt_engine_cache_prefix", "text", ""),
    key("trt_engine_decryption_enable", SWITCH, "0"),
    key("trt_engine_decryption_lib_path", "path", ""),
    key("trt_engine_hw_compatible", SWITCH, "0"),
    key("trt_ep_context_embed_mode", SWITCH, "0"),
    key("trt_ep_context_file_path", "path", ""),
    key("trt_extra_plugin_lib_paths", "paths between semicolons", ""),
    key("trt_force_sequential_engine_build", SWITCH, "0"),
    key("trt_force_timing_cache", SWITCH, "0"),
    key("trt_fp16_enable", SWITCH, "0"),
    key("trt_int8_calibration_table_name", "file name", ""),
    key("trt_int8_enable", SWITCH, "0"),
    key("trt_int8_use_native_calibration_table", SWITCH, "0"),
    key("trt_layer_norm_fp32_fallback", SWITCH, "0"),
    key("trt_max_partition_iterations", "rounds", "1000"),
    key("trt_max_workspace_size", "bytes", "the GPU's memory"),
    key("trt_min_subgraph_size", "nodes", "1"),
    key("trt_onnx_model_folder_path", "folder", ""),
    key("trt_op_types_to_exclude", "operators between commas", ""),
    key("trt_preview_features", "names between commas", ""),
    key("trt_profile_max_shapes", "NAME:1x2,...", ""),
    key("trt_profile_min_shapes", "NAME:1x2,...", ""),
    key("trt_profile_opt_shapes", "NAME:1x2,...", ""),
    key("trt_sparsity_enable", SWITCH, "0"),
    key("trt_tactic_sources", "-NAME,+NAME,...", "all"),
    key("trt_timing_cache_enable", SWITCH, "0"),
    key("trt_timing_cache_path", "folder", ""),
    key("trt_weight_stripped_engine_enable", SWITCH, "0"),
];

pub(crate) const TENSORRT_RTX: &[OptionKey] = &[
    key("device_id", "number of the GPU", "0"),
    key("enable_cuda_graph", WORD, "false"),
    key("nv_detailed_build_log", WORD, "false"),
    key("nv_max_shared_mem_size", "bytes", "0"),
    key("nv_max_workspace_size", "bytes", "0"),
    key("nv_multi_profile_enable", WORD, "false"),
    key("nv_profile_max_shapes", "NAME:1x2,...", ""),
    key("nv_profile_min_shapes", "NAME:1x2,...", ""),
    key("nv_profile_opt_shapes", "NAME:1x2,...", ""),
    key("nv_runtime_cache_path", "folder", ""),
];

/// From `cann_execution_provider_info.cc`; the wheel 1.24.4 was looked into: it has `precision_mode`,
/// for which newer sources have `precision_mode_v2`.
pub(crate) const CANN: &[OptionKey] = &[
    key("arena_extend_strategy", ARENA, "kNextPowerOfTwo"),
    key("device_id", "number of the NPU", "0"),
    key("dump_graphs", SWITCH, "0"),
    key("dump_om_model", SWITCH, "1"),
    key(
        "dynamic_batch_size",
        "sizes between commas; newer libraries",
        "",
    ),
    key(
        "dynamic_dims",
        "sizes, one set between semicolons; newer libraries",
        "",
    ),
    key(
        "dynamic_image_size",
        "HEIGHT,WIDTH;...; newer libraries",
        "",
    ),
    key("enable_cann_graph", SWITCH, "1"),
    key("enable_cann_subgraph", SWITCH, "0"),
    key("input_format", "NCHW, NHWC or ND", ""),
    key("npu_mem_limit", "bytes", "no limit"),
    key(
        "op_select_impl_mode",
        "high_precision or high_performance",
        "high_precision",
    ),
    key("optypelist_for_implmode", "operators between commas", ""),
    key(
        "precision_mode",
        "force_fp32, force_fp16, allow_fp32_to_fp16, must_keep_origin_dtype, …",
        "force_fp16",
    ),
    key(
        "precision_mode_v2",
        "fp16, origin, mixed_float16, …; newer libraries, in place of precision_mode",
        "",
    ),
];

/// From `migraphx_execution_provider_info.h`, as far as the struct of the C API has them.
pub(crate) const MIGRAPHX: &[OptionKey] = &[
    key("device_id", "number of the GPU", "0"),
    key("migraphx_arena_extend_strategy", ARENA, "kNextPowerOfTwo"),
    key("migraphx_exhaustive_tune", SWITCH, "0"),
    key("migraphx_fp16_enable", SWITCH, "0"),
    key("migraphx_fp8_enable", SWITCH, "0"),
    key("migraphx_int8_calibration_table_name", "file name", ""),
    key("migraphx_int8_enable", SWITCH, "0"),
    key("migraphx_int8_use_native_calibration_table", SWITCH, "0"),
    key("migraphx_mem_limit", "bytes", "no limit"),
];

pub(crate) const OPENVINO: &[OptionKey] = &[
    key("cache_dir", "folder", ""),
    key(
        "device_type",
        "CPU, GPU, NPU, GPU.1, AUTO:GPU,CPU, HETERO:GPU,CPU, …",
        "",
    ),
    key("disable_dynamic_shapes", WORD, "false"),
    key("enable_causallm", WORD, "false"),
    key("enable_opencl_throttling", WORD, "false"),
    key("enable_qdq_optimizer", WORD, "false"),
    key("layout", "NAME[LAYOUT],...", ""),
    key(
        "load_config",
        "JSON of OpenVINO's own properties per device",
        "",
    ),
    key("model_priority", "LOW, MEDIUM, HIGH or DEFAULT", "DEFAULT"),
    key("num_of_threads", "threads", "8"),
    key("num_streams", "streams", "1"),
    key("precision", "FP32, FP16 or ACCURACY", "the device's own"),
    key("reshape_input", "NAME[1..8,2],...", ""),
];

pub(crate) const QNN: &[OptionKey] = &[
    key("backend_path", "path of a QNN backend's library", ""),
    key("backend_type", "htp, gpu, cpu, ir or saver", "htp"),
    key("device_id", "number of the NPU", "0"),
    key("dump_json_qnn_graph", SWITCH, "0"),
    key("enable_htp_fp16_clamp_overflow", SWITCH, "0"),
    key("enable_htp_fp16_precision", SWITCH, "1"),
    key("enable_htp_graph_splitting", SWITCH, "0"),
    key("enable_htp_monolithic_lstm", SWITCH, "0"),
    key("enable_htp_shared_memory_allocator", SWITCH, "0"),
    key("enable_htp_spill_fill_buffer", SWITCH, "0"),
    key("enable_vtcm_backup_buffer_sharing", SWITCH, "0"),
    key("extended_udma", SWITCH, "0"),
    key(
        "htp_arch",
        "version of the NPU: 68, 69, 73, 75, 79 or 81",
        "the device's own",
    ),
    key("htp_bf16_enable", SWITCH, "0"),
    key("htp_graph_finalization_optimization_mode", "0 to 3", "0"),
    key(
        "htp_performance_mode",
        "burst, balanced, default, high_performance, power_saver, …",
        "default",
    ),
    key("htp_share_resource_optimization", SWITCH, "0"),
    key("json_qnn_graph_dir", "folder", ""),
    key("num_graph_prepare_threads", "threads", ""),
    key("offload_graph_io_quantization", SWITCH, "1"),
    key("op_packages", "TYPE:LIBRARY:SYMBOL:TARGET,...", ""),
    key("profiling_file_path", "path", ""),
    key("profiling_level", "off, basic, detailed or optrace", "off"),
    key(
        "qnn_context_priority",
        "low, normal, normal_high or high",
        "normal",
    ),
    key("qnn_ir_backend_path", "path", ""),
    key("qnn_saver_path", "path", ""),
    key("rpc_control_latency", "microseconds", "0"),
    key("skip_qnn_version_check", SWITCH, "0"),
    key("soc_model", "number of the SoC", "0"),
    key("vtcm_mb", "MiB", "0"),
];

pub(crate) const WEBGPU: &[OptionKey] = &[
    key("dawnBackendType", "Vulkan or D3D12", "Vulkan"),
    key("defaultBufferCacheMode", BUFFERS, "disabled"),
    key("enableGraphCapture", SWITCH, "0"),
    key("enableInt64", SWITCH, "0"),
    key("enableRobustness", SWITCH, ""),
    key("forceCpuNodeNames", "names of nodes, one a line", ""),
    key("kvCacheQuantizationBits", "bits", "0"),
    key("maxNumPendingDispatches", "dispatches", "16"),
    key("maxStorageBufferBindingSize", "bytes", "the device's own"),
    key("multiRotaryCacheConcatOffset", "position", "0"),
    key(
        "powerPreference",
        "high-performance or low-power",
        "high-performance",
    ),
    key("preferredLayout", "NCHW or NHWC", "NHWC"),
    key("preserveDevice", SWITCH, "0"),
    key("queryResolveBufferCacheMode", BUFFERS, "disabled"),
    key("sessionBufferPoolGenerations", "generations", ""),
    key("storageBufferCacheMode", BUFFERS, "bucket"),
    key("uniformBufferCacheMode", BUFFERS, "simple"),
    key(
        "validationMode",
        "disabled, wgpuOnly, basic or full",
        "basic",
    ),
];

pub(crate) const VITIS_AI: &[OptionKey] = &[
    key("cache_dir", "folder", ""),
    key("cache_key", "name in that folder", "digest of the model"),
    key("config_file", "path", ""),
    key("enable_cache_file_io_in_mem", SWITCH, "1"),
    key("log_level", "fatal, error, warning or info", "error"),
    key("opt_level", "0 to 3", "0"),
    key("target", "X1, X2, VAIML, …", ""),
    key("xclbin", "path", ""),
];

pub(crate) const XNNPACK: &[OptionKey] = &[key("intra_op_num_threads", "threads", "the session's")];
