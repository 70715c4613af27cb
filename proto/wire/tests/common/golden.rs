//! The messages behind the golden frames. Entries are added, never changed.

use super::failures::failures;
use super::golden_clips::{clip_replies, clip_requests};
use super::sealed;
use mote_wire::limits::Limits;
use mote_wire::types::*;

pub enum Message {
    Request(Request),
    Reply(Reply),
}

pub fn messages() -> Vec<(&'static str, Message)> {
    let requests = control_requests().into_iter().chain(work_requests());
    let requests = requests.chain(clip_requests(&options));
    let replies = work_replies().into_iter().chain(report_replies());
    let replies = replies.chain(clip_replies());
    requests
        .map(|(name, request)| (name, Message::Request(request)))
        .chain(replies.map(|(name, reply)| (name, Message::Reply(reply))))
        .collect()
}

fn options() -> WorkOptions {
    WorkOptions {
        priority: Priority::Interactive,
        deadline_ms: Some(2_500),
        require_backend: Some("ort".into()),
        require_flavour: Some("cpu".into()),
        require_provider: Some("CPUExecutionProvider".into()),
        require_variant: Some("int8".into()),
        forbid_cpu: true,
        threads_max: Some(3),
        credit: 16,
    }
}

fn plain_options() -> WorkOptions {
    WorkOptions {
        credit: 256,
        ..WorkOptions::default()
    }
}

fn control_requests() -> Vec<(&'static str, Request)> {
    let model = || String::from("smollm2-135m");
    vec![
        (
            "request_hello",
            Request::Hello(Hello {
                version_min: 1,
                version_max: 3,
                client_name: "golden".into(),
            }),
        ),
        ("request_list_models", Request::ListModels),
        (
            "request_inspect_model",
            Request::InspectModel {
                model: model(),
                load: true,
            },
        ),
        (
            "request_list_devices",
            Request::ListDevices { refresh: true },
        ),
        (
            "request_explain",
            Request::Explain {
                model: model(),
                options: options(),
                measure: false,
            },
        ),
        (
            "request_explain_measured",
            Request::Explain {
                model: model(),
                options: options(),
                measure: true,
            },
        ),
        (
            "request_load",
            Request::Load {
                model: model(),
                options: plain_options(),
            },
        ),
        ("request_unload", Request::Unload { model: model() }),
        (
            "request_pin",
            Request::Pin {
                model: model(),
                pinned: true,
            },
        ),
        ("request_cancel", Request::Cancel { target: 299 }),
        (
            "request_credit",
            Request::Credit {
                target: 299,
                frames: 64,
            },
        ),
        (
            "request_register_buffer",
            Request::RegisterBuffer(RegisterBuffer {
                buffer: 9,
                bytes: 602_112,
                writable: true,
                fd: sealed(602_112),
            }),
        ),
        (
            "request_unregister_buffer",
            Request::UnregisterBuffer { buffer: 9 },
        ),
        ("request_watch", Request::Watch),
        ("request_get_status", Request::GetStatus),
        ("request_rescan", Request::Rescan),
    ]
}

fn range(buffer: u64, offset: u64, bytes: u64) -> BufferRange {
    BufferRange {
        buffer,
        offset,
        bytes,
    }
}

fn inputs() -> Vec<Tensor> {
    vec![
        Tensor {
            name: "sr".into(),
            dtype: DType::I64,
            shape: vec![],
            data: TensorData::Inline(16_000i64.to_le_bytes().into()),
        },
        Tensor {
            name: "image".into(),
            dtype: DType::F32,
            shape: vec![1, 3, 224, 224],
            data: TensorData::Range(range(9, 128, 602_112)),
        },
    ]
}

fn targets() -> Vec<OutputTarget> {
    vec![OutputTarget {
        name: "logits".into(),
        range: range(10, 64, 4_000),
        shape: vec![1, 1_000],
    }]
}

fn frames_push() -> Request {
    let camera = VideoFrame {
        name: "image".into(),
        format: FrameFormat::Nv12,
        width: 1280,
        height: 720,
        buffer: 11,
        planes: vec![
            FramePlane {
                offset: 0,
                stride: 1280,
            },
            FramePlane {
                offset: 921_600,
                stride: 1280,
            },
        ],
        matrix: ColorMatrix::Bt709,
        range: Some(ColorRange::Full),
        tensor_size: Some((256, 192)),
    };
    let mask = VideoFrame {
        name: "mask".into(),
        format: FrameFormat::Gray8,
        width: 256,
        height: 192,
        buffer: 12,
        planes: Vec::new(),
        matrix: ColorMatrix::Bt601,
        range: None,
        tensor_size: None,
    };
    Request::StreamPush(StreamPush {
        inputs: Vec::new(),
        outputs: Vec::new(),
        frames: vec![camera],
        frame_outputs: vec![mask],
    })
}

fn asked(generate: Generate) -> Request {
    Request::Generate(Box::new(generate))
}

fn work_requests() -> Vec<(&'static str, Request)> {
    let generate = |prompt, sampling, stop: &[&str]| {
        asked(Generate {
            tokens_max: Some(128),
            sampling,
            stop: stop.iter().map(|stop| (*stop).into()).collect(),
            options: plain_options(),
            ..Generate::new("chat", prompt)
        })
    };
    let message = |role: &str, content: &str| ChatMessage::new(role, content);
    let sampling = Sampling {
        temperature: Some(0.75),
        top_k: Some(40),
        top_p: Some(0.5),
        min_p: Some(0.0625),
        repetition_penalty: Some(1.25),
        seed: Some(u64::MAX),
    };
    vec![
        (
            "request_generate_logprobs",
            asked(Generate {
                logprobs: Some(20),
                options: plain_options(),
                ..Generate::new("chat", Prompt::Plain("Once".into()))
            }),
        ),
        (
            "request_generate_bias",
            asked(Generate {
                logit_bias: vec![LogitBias {
                    token_id: 13,
                    bias: -100.0,
                }],
                options: plain_options(),
                ..Generate::new("chat", Prompt::Plain("Once".into()))
            }),
        ),
        (
            "request_generate_json_schema",
            asked(Generate {
                constraint: Some(Constraint::JsonSchema("{\"type\":\"object\"}".into())),
                options: plain_options(),
                ..Generate::new("chat", Prompt::Plain("Once".into()))
            }),
        ),
        (
            "request_generate_regex",
            asked(Generate {
                constraint: Some(Constraint::Regex("[0-9]+".into())),
                options: plain_options(),
                ..Generate::new("chat", Prompt::Plain("Once".into()))
            }),
        ),
        (
            "request_generate_reasoning",
            asked(Generate {
                reasoning: Some(Reasoning {
                    tokens_max: Some(256),
                }),
                options: plain_options(),
                ..Generate::new("chat", Prompt::Plain("Once".into()))
            }),
        ),
        (
            "request_generate_runs",
            asked(Generate {
                deterministic: true,
                slide_context: true,
                draft_tokens_max: Some(8),
                options: plain_options(),
                ..Generate::new("chat", Prompt::Plain("Once".into()))
            }),
        ),
        (
            "request_generate_tools",
            asked(Generate {
                tools_json: Some("[{\"name\":\"sky\"}]".into()),
                options: plain_options(),
                ..Generate::new(
                    "chat",
                    Prompt::Messages(vec![
                        message("user", "Rain?"),
                        ChatMessage {
                            fields_json: Some("{\"tool_call_id\":\"1\"}".into()),
                            ..message("tool", "wet")
                        },
                    ]),
                )
            }),
        ),
        (
            "request_infer",
            Request::Infer(Infer {
                model: "resnet".into(),
                inputs: inputs(),
                outputs: targets(),
                options: options(),
            }),
        ),
        (
            "request_open_stream",
            Request::OpenStream(OpenStream {
                model: "silero-vad".into(),
                options: plain_options(),
            }),
        ),
        (
            "request_stream_push",
            Request::StreamPush(StreamPush {
                inputs: inputs(),
                outputs: targets(),
                frames: Vec::new(),
                frame_outputs: Vec::new(),
            }),
        ),
        ("request_stream_push_frames", frames_push()),
        ("request_stream_close", Request::StreamClose),
        (
            "request_generate_messages",
            generate(
                Prompt::Messages(vec![
                    message("system", "Be brief."),
                    message("user", "Grüße, 世界"),
                ]),
                sampling,
                &["\n\n", "</s>"],
            ),
        ),
        (
            "request_generate_plain",
            generate(
                Prompt::Plain("Once upon a time".into()),
                Sampling::default(),
                &[],
            ),
        ),
        (
            "request_embed",
            Request::Embed(Box::new(Embed {
                kind: EmbedKind::Query,
                dimensions: Some(256),
                truncate: true,
                options: options(),
                ..Embed::new("vectors", vec!["one ocean".into(), "世界".into()])
            })),
        ),
    ]
}

fn device() -> Device {
    Device {
        id: "cpu0".into(),
        kind: "cpu".into(),
        name: "A processor".into(),
        simulated: false,
    }
}

fn reason(code: &str) -> Reason {
    let field = |(name, value): (&str, &str)| (name.into(), value.into());
    Reason {
        code: code.into(),
        fields: [("library", "libcudart.so.13"), ("needed_by", "gpu")]
            .map(field)
            .into(),
        message: "libcudart.so.13 is missing".into(),
        next_step: String::new(),
    }
}

pub fn rejected() -> Vec<Rejected> {
    vec![Rejected {
        flavour: "gpu".into(),
        provider: "CUDAExecutionProvider".into(),
        variant: "int8".into(),
        reason: reason("library_missing"),
    }]
}

fn placement() -> Vec<ProviderShare> {
    vec![
        ProviderShare {
            provider: "CPUExecutionProvider".into(),
            nodes: 312,
            time_us: Some(81_000),
        },
        ProviderShare {
            provider: "XNNPACK".into(),
            nodes: 4,
            time_us: None,
        },
    ]
}

fn receipt() -> Receipt {
    Receipt {
        model: "chat".into(),
        model_digest: "sha256:00ff".into(),
        variant: "int8".into(),
        backend: "ort".into(),
        flavour: "cpu".into(),
        library_version: "1.30.0".into(),
        precision: "int8".into(),
        device: device(),
        placement: placement(),
        placement_read_back: true,
        rejected: rejected(),
        local: true,
        queue_us: 1,
        load_us: 2,
        prefill_us: 3,
        decode_us: 4,
        compute_us: 5,
        total_us: 6,
        media_decode_us: 7,
        media_encode_us: 8,
        steps: 9,
        prompt_tokens: 10,
        cached_tokens: 11,
        generated_tokens: 12,
        frames_in: 13,
        frames_out: 14,
        bytes_copied: 15,
        seed: Some(0),
        experts_per_token: Some(16),
        experts: Some(17),
        threads: 18,
        spin: true,
        thread_changes: 19,
        preemptions: 20,
        retries: 21,
        throttle: "none".into(),
        ..Receipt::default()
    }
}

fn passed() -> Tensor {
    Tensor {
        name: "boxes".into(),
        dtype: DType::F16,
        shape: vec![100, 4],
        data: TensorData::Passed {
            fd: sealed(800),
            bytes: 800,
        },
    }
}

fn specs(name: &str) -> Vec<TensorSpec> {
    vec![TensorSpec {
        name: name.into(),
        dtype: DType::U8,
        shape: vec![None, Some(3), Some(0), Some(640)],
    }]
}

fn work_replies() -> Vec<(&'static str, Reply)> {
    let done = |finish| {
        Reply::Done(Box::new(Done {
            receipt: receipt(),
            finish,
        }))
    };
    vec![
        ("reply_accepted", Reply::Accepted { queue_position: 2 }),
        ("reply_token", Reply::Token(Token::new(5, 49_151, " 世界"))),
        (
            "reply_token_reasoning",
            Reply::Token(Token {
                reasoning: "Then ".into(),
                is_reasoning: true,
                ..Token::new(5, 49_151, "")
            }),
        ),
        (
            "reply_token_logprobs",
            Reply::Token(Token {
                logprobs: Some(Logprobs {
                    chosen: -0.75,
                    top: vec![TopToken {
                        id: 7,
                        logprob: -0.5,
                        text: " 世".into(),
                    }],
                }),
                ..Token::new(5, 49_151, " 世界")
            }),
        ),
        (
            "reply_progress",
            Reply::Progress(Progress {
                stage: Stage::Transform,
                done: 12,
                total: Some(48),
                remaining_ms: Some(6_200),
            }),
        ),
        (
            "reply_preview",
            Reply::Preview(Preview {
                frame_index: 16,
                width: 2,
                height: 1,
                png: vec![0x89, 0x50, 0x4e, 0x47],
            }),
        ),
        (
            "reply_frame",
            Reply::Frame(FrameOut {
                frame_index: 17,
                frame: passed(),
            }),
        ),
        (
            "reply_audio",
            Reply::Audio(AudioOut {
                sample_index: 48_000,
                sample_rate: 24_000,
                audio: Tensor {
                    name: "audio".into(),
                    dtype: DType::F32,
                    shape: vec![100, 2],
                    data: TensorData::Passed {
                        fd: sealed(800),
                        bytes: 800,
                    },
                },
            }),
        ),
        ("reply_tensor", Reply::Tensor(passed())),
        (
            "reply_embeddings",
            Reply::Embeddings(Embeddings {
                vectors: Tensor {
                    name: "embeddings".into(),
                    dtype: DType::F32,
                    shape: vec![2, 1],
                    data: TensorData::Inline(vec![0, 0, 128, 63, 0, 0, 0, 191]),
                },
                tokens: vec![512, 3],
                truncated: vec![0],
            }),
        ),
        (
            "reply_labels",
            Reply::Labels(FrameLabels {
                frame_index: 12,
                frame_count: 1,
                time_us: 480_000,
                labels: vec![label(3, 0.75)],
                boxes: vec![LabelBox {
                    label: label(1, 0.5),
                    x0: 1.5,
                    y0: 2.0,
                    x1: 63.0,
                    y1: 47.25,
                }],
            }),
        ),
        ("reply_done", done(FinishReason::StopString)),
        (
            "reply_stream_opened",
            Reply::StreamOpened(StreamOpened {
                socket: sealed(1),
                inputs: specs("input"),
                outputs: specs("output"),
            }),
        ),
        (
            "reply_stream_result",
            Reply::StreamResult(StreamResult {
                outputs: inputs(),
                compute_us: 33,
                bytes_copied: 8,
                bytes_converted: 0,
            }),
        ),
        (
            "reply_stream_result_converted",
            Reply::StreamResult(StreamResult {
                outputs: Vec::new(),
                compute_us: 34,
                bytes_copied: 0,
                bytes_converted: 786_432,
            }),
        ),
        ("reply_ok", Reply::Ok),
    ]
}

fn label(class: u32, score: f32) -> Label {
    Label {
        class,
        label: "cat".into(),
        score,
    }
}

fn model_info() -> ModelInfo {
    ModelInfo {
        name: "chat".into(),
        task: "text".into(),
        description: "A small model".into(),
        licence: "Apache-2.0".into(),
        source: "somewhere".into(),
        digest: "sha256:00ff".into(),
        bytes: 140_000_000,
        variants: vec![VariantInfo {
            name: "int8".into(),
            backend: "ort".into(),
            precision: "int8".into(),
            weights_bytes: 139_000_000,
        }],
        loaded: true,
        pinned: false,
        problem: Some(Status::ModelCorrupt {
            file: "tokenizer.json".into(),
            why: "it is missing".into(),
        }),
    }
}

fn events() -> Vec<(&'static str, EventKind)> {
    let model = || String::from("chat");
    vec![
        (
            "reply_event_worker_started",
            EventKind::WorkerStarted {
                pid: 4_000,
                model: model(),
                flavour: "cpu".into(),
            },
        ),
        (
            "reply_event_worker_ended",
            EventKind::WorkerEnded {
                pid: 4_000,
                model: model(),
                signal: 11,
                exit_code: -1,
                expected: true,
            },
        ),
        (
            "reply_event_model_loaded",
            EventKind::ModelLoaded {
                model: model(),
                load_us: 900_000,
            },
        ),
        (
            "reply_event_model_unloaded",
            EventKind::ModelUnloaded { model: model() },
        ),
        (
            "reply_event_job_started",
            EventKind::JobStarted {
                job: 12,
                model: model(),
            },
        ),
        (
            "reply_event_job_ended",
            EventKind::JobEnded {
                job: 12,
                model: model(),
                outcome: "ok".into(),
            },
        ),
        (
            "reply_event_events_dropped",
            EventKind::EventsDropped { count: 3 },
        ),
    ]
}

fn report_replies() -> Vec<(&'static str, Reply)> {
    let capability = |absence| Capability {
        flavour: "gpu".into(),
        backend: "ort".into(),
        library_version: "1.30.0".into(),
        provider: "CUDAExecutionProvider".into(),
        device: Some(device()),
        absence,
        expected: false,
    };
    let mut replies = vec![
        (
            "reply_welcome",
            Reply::Welcome(Welcome {
                version: 1,
                server_version: "0.1.0".into(),
                limits: Limits::CURRENT,
            }),
        ),
        ("reply_model_list", Reply::ModelList(vec![model_info()])),
        (
            "reply_model_details",
            Reply::ModelDetails(Box::new(ModelDetails {
                model: model_info(),
                folder: "/var/lib/mote/models/chat".into(),
                manifest_toml: "task = \"text\"\n".into(),
                inferred: true,
                inputs: specs("input"),
                outputs: specs("output"),
            })),
        ),
        (
            "reply_device_list",
            Reply::DeviceList(vec![
                capability(None),
                capability(Some(reason("library_missing"))),
            ]),
        ),
        (
            "reply_explanation",
            Reply::Explanation(Box::new(Explanation {
                model: "chat".into(),
                model_digest: "sha256:00ff".into(),
                chosen: Some(CandidateInfo {
                    variant: "int8".into(),
                    backend: "ort".into(),
                    flavour: "cpu".into(),
                    library_version: "1.30.0".into(),
                    provider: "CPUExecutionProvider".into(),
                    device: device(),
                    precision: "int8".into(),
                }),
                rejected: rejected(),
                placement: placement(),
                placement_read_back: true,
                need_bytes: 150_000_000,
                budget_bytes: 8 << 30,
                notes: vec!["one crash".into()],
                trials: Vec::new(),
            })),
        ),
        (
            "reply_explanation_tried",
            Reply::Explanation(Box::new(Explanation {
                model: "chat".into(),
                trials: vec![TrialInfo {
                    candidate: CandidateInfo {
                        variant: "int8".into(),
                        device: device(),
                        ..CandidateInfo::default()
                    },
                    verification: "matched".into(),
                    detail: "off by 1e-6".into(),
                    run_us: 1,
                    runs: 2,
                    load_us: 3,
                    host_cpu_us: 4,
                    grown_bytes: 5,
                    placement: placement(),
                    tried_at_s: 6,
                }],
                ..Explanation::default()
            })),
        ),
        (
            "reply_done_tried",
            Reply::Done(Box::new(Done {
                receipt: Receipt {
                    verification: "matched".into(),
                    measured: true,
                    measured_at_s: 1,
                    host_cpu_us: 2,
                    ..Receipt::default()
                },
                ..Done::default()
            })),
        ),
        (
            "reply_done_audio",
            Reply::Done(Box::new(Done {
                receipt: Receipt {
                    audio_samples_out: 48_000,
                    audio_sample_rate: 24_000,
                    audio_channels: 2,
                    audio_codec: "opus".into(),
                    ..Receipt::default()
                },
                ..Done::default()
            })),
        ),
        (
            "reply_status_report",
            Reply::StatusReport(Box::new(StatusReport {
                server_version: "0.1.0".into(),
                uptime_ms: 1,
                rss_bytes: 2,
                connections: 3,
                jobs_running: 4,
                jobs_queued: 5,
                streams: 6,
                buffers: 7,
                budget_bytes: 8,
                reserved_bytes: 9,
                machine_load: "busy".into(),
                workers: vec![WorkerInfo {
                    pid: 4_000,
                    model: "chat".into(),
                    flavour: "cpu".into(),
                    state: WorkerState::Ready,
                    reserved_bytes: 10,
                    rss_bytes: 11,
                    jobs: 12,
                    streams: 13,
                    sandbox: None,
                }],
                pid: None,
                power: None,
            })),
        ),
        (
            "reply_status_report_sandboxed",
            Reply::StatusReport(Box::new(StatusReport {
                pid: Some(3_999),
                workers: vec![WorkerInfo {
                    pid: 4_000,
                    state: WorkerState::Ready,
                    sandbox: Some(Sandbox {
                        enabled: true,
                        parts: vec![
                            SandboxPart {
                                name: "network".into(),
                                state: SandboxState::Active,
                                detail: String::new(),
                            },
                            SandboxPart {
                                name: "files".into(),
                                state: SandboxState::Partial,
                                detail: "the kernel has Landlock 3".into(),
                            },
                            SandboxPart {
                                name: "system_calls".into(),
                                state: SandboxState::Inactive,
                                detail: "no table for this architecture".into(),
                            },
                        ],
                    }),
                    ..WorkerInfo::default()
                }],
                ..StatusReport::default()
            })),
        ),
        (
            "reply_status_report_power",
            Reply::StatusReport(Box::new(StatusReport {
                power: Some(PowerReport {
                    policy: "efficient".into(),
                    why: "on battery, 12 % left; hot (x86_pkg_temp)".into(),
                    throttle: "thermal (x86_pkg_temp)".into(),
                    background_paused: true,
                    sleep_delayed: true,
                }),
                ..StatusReport::default()
            })),
        ),
    ];
    let failed = |(name, status)| (name, Reply::Failed(status));
    replies.extend(failures().into_iter().map(failed));
    let event = |(name, kind)| (name, Reply::Event(Event { at_ms: 77, kind }));
    replies.extend(events().into_iter().map(event));
    replies
}
