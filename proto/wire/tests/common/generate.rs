//! Arbitrary messages that hold.

use super::clips::{
    audio_out, frame_labels, frame_out, generate_clip, label_clip, preview, steered, transform_clip,
};
use super::sealed;
use super::text::{generate, token};
use mote_wire::limits::Limits;
use mote_wire::types::*;
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;

pub fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_./:-]{1,24}"
}

pub fn text() -> impl Strategy<Value = String> {
    any::<String>()
}

pub fn some<T>(range: std::ops::RangeInclusive<T>) -> impl Strategy<Value = Option<T>>
where
    T: Copy + std::fmt::Debug,
    std::ops::RangeInclusive<T>: Strategy<Value = T>,
{
    of(range)
}

pub fn dtype() -> impl Strategy<Value = DType> {
    prop::sample::select(vec![
        DType::F32,
        DType::F16,
        DType::Bf16,
        DType::F64,
        DType::I8,
        DType::U8,
        DType::I16,
        DType::U16,
        DType::I32,
        DType::U32,
        DType::I64,
        DType::U64,
        DType::Bool,
    ])
}

fn range(bytes: u64) -> impl Strategy<Value = BufferRange> {
    (1..=u64::MAX, 0..1000u64).prop_map(move |(buffer, place)| BufferRange {
        buffer,
        offset: place * 64,
        bytes,
    })
}

/// A tensor; `passed` ones come from servers only.
pub fn tensor(passed: bool) -> impl Strategy<Value = Tensor> {
    let shape = vec(1..6u64, 0..=4);
    (name(), dtype(), shape).prop_flat_map(move |(name, dtype, shape)| {
        let bytes = dtype.tensor_bytes(&shape).expect("a small tensor");
        let inline = vec(any::<u8>(), bytes as usize).prop_map(TensorData::Inline);
        let in_buffer = range(bytes).prop_map(TensorData::Range);
        let last = match passed {
            true => Just(())
                .prop_map(move |()| TensorData::Passed {
                    fd: sealed(bytes),
                    bytes,
                })
                .boxed(),
            false => range(bytes).prop_map(TensorData::Range).boxed(),
        };
        prop_oneof![inline, in_buffer, last].prop_map(move |data| Tensor {
            name: name.clone(),
            dtype,
            shape: shape.clone(),
            data,
        })
    })
}

/// Inputs and targets, names unique, ranges apart.
/// Frames of a push, as inputs or as outputs.
fn video_frames(are_inputs: bool) -> impl Strategy<Value = Vec<VideoFrame>> {
    let plane = any::<[u64; 2]>().prop_map(|[offset, stride]| FramePlane { offset, stride });
    let side = || 1..=16_384u32;
    let matrix = prop::sample::select(vec![
        ColorMatrix::Bt601,
        ColorMatrix::Bt709,
        ColorMatrix::Bt2020,
    ]);
    let range = prop::sample::select(vec![ColorRange::Limited, ColorRange::Full]);
    let colour = (matrix, of(range));
    let format = prop::sample::select(FrameFormat::ALL.to_vec());
    let size = of((side(), side())).prop_map(move |size| size.filter(|_| are_inputs));
    let what = (name(), format, side(), side());
    let frame = (what, 1..u64::MAX, vec(plane, 0..=3), colour, size);
    vec(frame, 0..4).prop_map(|frames| {
        let frames = frames.into_iter().enumerate();
        let frame = |(index, (what, buffer, planes, (matrix, range), tensor_size))| {
            let (name, format, width, height): (String, _, _, _) = what;
            VideoFrame {
                name: format!("{name}{index}"),
                format,
                width,
                height,
                buffer,
                planes,
                matrix,
                range,
                tensor_size,
            }
        };
        frames.map(frame).collect()
    })
}

fn tensors() -> impl Strategy<Value = (Vec<Tensor>, Vec<OutputTarget>)> {
    let target = (name(), range(4096), vec(0..9u64, 0..=8));
    (vec(tensor(false), 0..4), vec(target, 0..4)).prop_map(|(mut inputs, targets)| {
        for (index, input) in inputs.iter_mut().enumerate() {
            input.name += &index.to_string();
            if let TensorData::Range(range) = &mut input.data {
                range.buffer = 1;
            }
        }
        let targets = targets.into_iter().enumerate();
        let target = |(index, (name, mut range, shape)): (usize, (String, BufferRange, _))| {
            range.buffer = 2 + index as u64;
            OutputTarget {
                name: format!("{name}{index}"),
                range,
                shape,
            }
        };
        (inputs, targets.map(target).collect())
    })
}

fn specs() -> impl Strategy<Value = Vec<TensorSpec>> {
    let shape = vec(of(0..=i64::MAX as u64), 0..5);
    let spec = (name(), dtype(), shape);
    vec(
        spec.prop_map(|(name, dtype, shape)| TensorSpec { name, dtype, shape }),
        0..4,
    )
}

pub fn options() -> impl Strategy<Value = WorkOptions> {
    let priority = prop::sample::select(vec![
        Priority::Interactive,
        Priority::Normal,
        Priority::Background,
    ]);
    let required = (of(name()), of(name()), of(name()), of(name()));
    (
        priority,
        some(1..=u64::MAX),
        required,
        any::<bool>(),
        some(1..=u32::MAX),
        1..=256u32,
    )
        .prop_map(
            |(priority, deadline_ms, required, forbid_cpu, threads_max, credit)| WorkOptions {
                priority,
                deadline_ms,
                require_backend: required.0,
                require_flavour: required.1,
                require_provider: required.2,
                require_variant: required.3,
                forbid_cpu,
                threads_max,
                credit,
            },
        )
}

fn infer() -> impl Strategy<Value = Infer> {
    (name(), tensors(), options()).prop_map(|(model, (inputs, outputs), options)| Infer {
        model,
        inputs,
        outputs,
        options,
    })
}

fn embed() -> impl Strategy<Value = Embed> {
    let kind = prop::sample::select(vec![
        EmbedKind::Plain,
        EmbedKind::Query,
        EmbedKind::Document,
    ]);
    let texts = vec("[^\u{0}]{1,9}", 1..5);
    let rest = (some(1..=u32::MAX), any::<bool>());
    (name(), texts, kind, rest, options()).prop_map(
        |(model, texts, kind, (dimensions, truncate), options)| Embed {
            model,
            texts,
            kind,
            dimensions,
            truncate,
            options,
        },
    )
}

fn embeddings() -> impl Strategy<Value = Embeddings> {
    (vec(any::<u32>(), 1..5), 1..9u64, any::<bool>()).prop_map(|(tokens, width, cut)| {
        let shape = vec![tokens.len() as u64, width];
        let bytes = vec![7; tokens.len() * width as usize * 4];
        Embeddings {
            vectors: Tensor {
                name: "embeddings".into(),
                dtype: DType::F32,
                shape,
                data: TensorData::Inline(bytes),
            },
            truncated: cut.then_some(tokens.len() as u32 - 1).into_iter().collect(),
            tokens,
        }
    })
}

pub fn request() -> impl Strategy<Value = Request> {
    let id = 1..=u64::MAX;
    let worded = || (name(), options());
    prop_oneof![
        (1..9u32, 9..99u32, "[a-z]{0,9}").prop_map(|(version_min, version_max, client_name)| {
            Request::Hello(Hello {
                version_min,
                version_max,
                client_name,
            })
        }),
        prop_oneof![
            Just(()).prop_map(|()| Request::ListModels),
            Just(()).prop_map(|()| Request::StreamClose),
            Just(()).prop_map(|()| Request::Watch),
            Just(()).prop_map(|()| Request::GetStatus),
            Just(()).prop_map(|()| Request::Rescan),
        ],
        (name(), any::<bool>()).prop_map(|(model, load)| Request::InspectModel { model, load }),
        any::<bool>().prop_map(|refresh| Request::ListDevices { refresh }),
        (worded(), any::<bool>()).prop_map(|((model, options), measure)| Request::Explain {
            model,
            options,
            measure,
        }),
        worded().prop_map(|(model, options)| Request::Load { model, options }),
        name().prop_map(|model| Request::Unload { model }),
        (name(), any::<bool>()).prop_map(|(model, pinned)| Request::Pin { model, pinned }),
        infer().prop_map(Request::Infer),
        worded().prop_map(|(model, options)| Request::OpenStream(OpenStream { model, options })),
        (tensors(), video_frames(true), video_frames(false)).prop_map(
            |((inputs, outputs), frames, frame_outputs)| {
                Request::StreamPush(StreamPush {
                    inputs,
                    outputs,
                    frames,
                    frame_outputs,
                })
            },
        ),
        generate().prop_map(|generate| Request::Generate(Box::new(generate))),
        transform_clip().prop_map(Request::TransformClip),
        embed().prop_map(|embed| Request::Embed(Box::new(embed))),
        generate_clip().prop_map(|clip| Request::GenerateClip(Box::new(clip))),
        label_clip().prop_map(Request::LabelClip),
        (id.clone(), any::<bool>()).prop_map(|(target, paused)| Request::Pause { target, paused }),
        (id.clone(), "[^\u{0}]{0,9}")
            .prop_map(|(target, prompt)| Request::SteerClip(SteerClip { target, prompt })),
        id.clone().prop_map(|target| Request::Cancel { target }),
        (id.clone(), 1..=256u32).prop_map(|(target, frames)| Request::Credit { target, frames }),
        (id.clone(), 1..9000u64, any::<bool>()).prop_map(|(buffer, bytes, writable)| {
            Request::RegisterBuffer(RegisterBuffer {
                buffer,
                bytes,
                writable,
                fd: sealed(bytes),
            })
        }),
        id.prop_map(|buffer| Request::UnregisterBuffer { buffer }),
    ]
}

fn device() -> impl Strategy<Value = Device> {
    (text(), text(), text(), any::<bool>()).prop_map(|(id, kind, name, simulated)| Device {
        id,
        kind,
        name,
        simulated,
    })
}

fn reason() -> impl Strategy<Value = Reason> {
    let fields = btree_map(name(), text(), 0..4);
    let texts = (name(), fields, text(), text());
    texts.prop_map(|(code, fields, message, next_step)| Reason {
        code,
        fields,
        message,
        next_step,
    })
}

fn rejected() -> impl Strategy<Value = Vec<Rejected>> {
    let one = (text(), text(), text(), reason());
    let one = one.prop_map(|(flavour, provider, variant, reason)| Rejected {
        flavour,
        provider,
        variant,
        reason,
    });
    vec(one, 0..3)
}

fn placement() -> impl Strategy<Value = Vec<ProviderShare>> {
    let one = (text(), any::<u32>(), of(any::<u64>()));
    let one = one.prop_map(|(provider, nodes, time_us)| ProviderShare {
        provider,
        nodes,
        time_us,
    });
    vec(one, 0..3)
}

fn receipt() -> impl Strategy<Value = Receipt> {
    (
        (vec(text(), 9), device(), placement(), rejected()),
        (vec(any::<u64>(), 17), vec(any::<u32>(), 4)),
        any::<(bool, bool, bool, bool)>(),
        (of(any::<u64>()), of(any::<u32>()), of(any::<u32>())),
    )
        .prop_map(
            |((texts, device, placement, rejected), (longs, ints), flags, options)| Receipt {
                model: texts[0].clone(),
                model_digest: texts[1].clone(),
                variant: texts[2].clone(),
                backend: texts[3].clone(),
                flavour: texts[4].clone(),
                library_version: texts[5].clone(),
                precision: texts[6].clone(),
                throttle: texts[7].clone(),
                verification: texts[8].clone(),
                measured: flags.3,
                measured_at_s: longs[15],
                host_cpu_us: longs[16],
                device,
                placement,
                placement_read_back: flags.0,
                rejected,
                local: flags.1,
                queue_us: longs[0],
                load_us: longs[1],
                prefill_us: longs[2],
                decode_us: longs[3],
                compute_us: longs[4],
                total_us: longs[5],
                media_decode_us: longs[6],
                media_encode_us: longs[7],
                steps: longs[8],
                prompt_tokens: longs[9],
                cached_tokens: longs[10],
                generated_tokens: longs[11],
                reasoning_tokens: longs[10],
                shared_steps: longs[9],
                drafted_tokens: longs[8],
                accepted_tokens: longs[7],
                dropped_tokens: longs[6],
                texts: longs[9],
                step_times_us: longs.iter().take(3).copied().collect(),
                scheduler: texts[0].clone(),
                resumed_steps: longs[2],
                audio_samples_out: longs[3],
                audio_sample_rate: ints[1],
                audio_channels: ints[2],
                audio_codec: texts[1].clone(),
                frames_in: longs[12],
                frames_out: longs[13],
                bytes_copied: longs[14],
                bytes_converted: longs[13],
                seed: options.0,
                experts_per_token: options.1,
                experts: options.2,
                threads: ints[0],
                spin: flags.2,
                thread_changes: ints[1],
                preemptions: ints[2],
                retries: ints[3],
            },
        )
}

fn done() -> impl Strategy<Value = Box<Done>> {
    let finish = prop::sample::select(vec![
        FinishReason::Complete,
        FinishReason::EndOfAnswer,
        FinishReason::StopString,
        FinishReason::TokensMax,
        FinishReason::ContextFull,
    ]);
    (receipt(), finish).prop_map(|(receipt, finish)| Box::new(Done { receipt, finish }))
}

pub fn status() -> impl Strategy<Value = Status> {
    let two = || (text(), text());
    prop_oneof![
        (text(), vec(text(), 0..3))
            .prop_map(|(model, similar)| Status::ModelNotFound { model, similar }),
        rejected().prop_map(|rejected| Status::NoBackend { rejected }),
        any::<u64>().prop_map(|retry_after_ms| Status::Busy { retry_after_ms }),
        (text(), any::<u64>(), any::<u64>()).prop_map(|(what, need_bytes, have_bytes)| {
            Status::OverBudget {
                what,
                need_bytes,
                have_bytes,
            }
        }),
        any::<u64>().prop_map(|deadline_ms| Status::DeadlineExceeded { deadline_ms }),
        any::<(i32, i32)>()
            .prop_map(|(signal, exit_code)| Status::WorkerDied { signal, exit_code }),
        two().prop_map(|(field, why)| Status::Invalid { field, why }),
        Just(Status::Cancelled),
        (text(), any::<u64>(), any::<u64>())
            .prop_map(|(what, have, limit)| Status::LimitExceeded { what, have, limit }),
        text().prop_map(|what| Status::Unsupported { what }),
        two().prop_map(|(file, why)| Status::ModelCorrupt { file, why }),
        any::<(u64, u64, Option<u32>)>().prop_map(|(prompt_tokens, context_tokens, text)| {
            Status::ContextOverflow {
                prompt_tokens,
                context_tokens,
                text,
            }
        }),
        text().prop_map(|why| Status::Revoked { why }),
        two().prop_map(|(operation, cause)| Status::ComputeFailed { operation, cause }),
        two().prop_map(|(operation, cause)| Status::Internal { operation, cause }),
        Just(Status::ShuttingDown),
        any::<(u32, u32)>().prop_map(|(version_min, version_max)| Status::VersionUnsupported {
            version_min,
            version_max,
        }),
        (two(), two()).prop_map(|((provider, code), (cause, next))| Status::StreamLost {
            provider,
            code,
            cause,
            next,
        }),
    ]
}

fn stage() -> impl Strategy<Value = Stage> {
    prop::sample::select(vec![
        Stage::Queued,
        Stage::Trying,
        Stage::Compiling,
        Stage::Loading,
        Stage::Prefill,
        Stage::Decode,
        Stage::Transform,
        Stage::Encode,
    ])
}

fn progress() -> impl Strategy<Value = Progress> {
    (
        stage(),
        any::<u64>(),
        some(1..=u64::MAX),
        some(1..=u64::MAX),
    )
        .prop_map(|(stage, done, total, remaining_ms)| Progress {
            stage,
            done,
            total,
            remaining_ms,
        })
}

fn model_info() -> impl Strategy<Value = ModelInfo> {
    let variant = (text(), text(), text(), any::<u64>());
    let variant = variant.prop_map(|(name, backend, precision, weights_bytes)| VariantInfo {
        name,
        backend,
        precision,
        weights_bytes,
    });
    let flags = (any::<bool>(), any::<bool>());
    let texts = vec(text(), 6);
    (texts, any::<u64>(), vec(variant, 0..3), flags, of(status())).prop_map(
        |(texts, bytes, variants, (loaded, pinned), problem)| ModelInfo {
            name: texts[0].clone(),
            task: texts[1].clone(),
            description: texts[2].clone(),
            licence: texts[3].clone(),
            source: texts[4].clone(),
            digest: texts[5].clone(),
            bytes,
            variants,
            loaded,
            pinned,
            problem,
        },
    )
}

fn capability() -> impl Strategy<Value = Capability> {
    let texts = (text(), text(), text(), text());
    let rest = (of(device()), of(reason()), any::<bool>());
    (texts, rest).prop_map(|(texts, (device, absence, expected))| Capability {
        flavour: texts.0,
        backend: texts.1,
        library_version: texts.2,
        provider: texts.3,
        device,
        absence,
        expected,
    })
}

fn trial() -> impl Strategy<Value = TrialInfo> {
    let numbers = any::<(u64, u32, u64, u64, u64, u64)>();
    (candidate(), text(), text(), placement(), numbers).prop_map(
        |(candidate, verification, detail, placement, numbers)| TrialInfo {
            candidate,
            verification,
            detail,
            placement,
            run_us: numbers.0,
            runs: numbers.1,
            load_us: numbers.2,
            host_cpu_us: numbers.3,
            grown_bytes: numbers.4,
            tried_at_s: numbers.5,
        },
    )
}

fn candidate() -> impl Strategy<Value = CandidateInfo> {
    (vec(text(), 6), device()).prop_map(|(texts, device)| CandidateInfo {
        variant: texts[0].clone(),
        backend: texts[1].clone(),
        flavour: texts[2].clone(),
        library_version: texts[3].clone(),
        provider: texts[4].clone(),
        precision: texts[5].clone(),
        device,
    })
}

fn explanation() -> impl Strategy<Value = Explanation> {
    let parts = (
        of(candidate()),
        rejected(),
        placement(),
        vec(text(), 0..3),
        vec(trial(), 0..3),
    );
    let numbers = any::<(bool, u64, u64)>();
    (text(), text(), parts, numbers).prop_map(|(model, model_digest, parts, numbers)| Explanation {
        model,
        model_digest,
        chosen: parts.0,
        rejected: parts.1,
        placement: parts.2,
        notes: parts.3,
        trials: parts.4,
        placement_read_back: numbers.0,
        need_bytes: numbers.1,
        budget_bytes: numbers.2,
    })
}

fn sandbox() -> impl Strategy<Value = Option<Sandbox>> {
    let state = prop::sample::select(vec![
        SandboxState::Active,
        SandboxState::Partial,
        SandboxState::Inactive,
    ]);
    let part = (text(), state, text()).prop_map(|(name, state, detail)| SandboxPart {
        name,
        state,
        detail,
    });
    let sandbox = (any::<bool>(), vec(part, 0..3));
    of(sandbox.prop_map(|(enabled, parts)| Sandbox { enabled, parts }))
}

fn status_report() -> impl Strategy<Value = StatusReport> {
    let state = prop::sample::select(vec![
        WorkerState::Starting,
        WorkerState::Loading,
        WorkerState::Ready,
        WorkerState::Stopping,
    ]);
    let numbers = any::<(i32, u64, u64, u32, u32)>();
    let worker = (state, text(), text(), numbers, sandbox());
    let worker = worker.prop_map(|(state, model, flavour, numbers, sandbox)| WorkerInfo {
        pid: numbers.0,
        model,
        flavour,
        state,
        reserved_bytes: numbers.1,
        rss_bytes: numbers.2,
        jobs: numbers.3,
        streams: numbers.4,
        sandbox,
    });
    let longs = any::<(u64, u64, u64, u64)>();
    let ints = any::<(u32, u32, u32, u32, u32)>();
    let pid = some(1..=i32::MAX);
    let power = (text(), text(), text(), any::<(bool, bool)>());
    let power = power.prop_map(|(policy, why, throttle, flags)| PowerReport {
        policy,
        why,
        throttle,
        background_paused: flags.0,
        sleep_delayed: flags.1,
    });
    let last = (vec(worker, 0..3), pid, of(power));
    (text(), text(), longs, ints, last).prop_map(
        |(server_version, machine_load, longs, ints, (workers, pid, power))| StatusReport {
            server_version,
            uptime_ms: longs.0,
            rss_bytes: longs.1,
            connections: ints.0,
            jobs_running: ints.1,
            jobs_queued: ints.2,
            streams: ints.3,
            buffers: ints.4,
            budget_bytes: longs.2,
            reserved_bytes: longs.3,
            machine_load,
            workers,
            pid,
            power,
        },
    )
}

fn event_kind() -> impl Strategy<Value = EventKind> {
    let worker = (any::<i32>(), text(), text());
    let job = (any::<u64>(), text());
    prop_oneof![
        worker.prop_map(|(pid, model, flavour)| EventKind::WorkerStarted {
            pid,
            model,
            flavour
        }),
        (text(), any::<(i32, i32, i32, bool)>()).prop_map(|(model, ended)| {
            EventKind::WorkerEnded {
                pid: ended.0,
                model,
                signal: ended.1,
                exit_code: ended.2,
                expected: ended.3,
            }
        }),
        (text(), any::<u64>())
            .prop_map(|(model, load_us)| EventKind::ModelLoaded { model, load_us }),
        text().prop_map(|model| EventKind::ModelUnloaded { model }),
        job.prop_map(|(job, model)| EventKind::JobStarted { job, model }),
        (any::<u64>(), text(), text()).prop_map(|(job, model, outcome)| EventKind::JobEnded {
            job,
            model,
            outcome
        }),
        any::<u64>().prop_map(|count| EventKind::EventsDropped { count }),
    ]
}

fn welcome() -> impl Strategy<Value = Welcome> {
    (any::<u32>(), text()).prop_map(|(version, server_version)| Welcome {
        version,
        server_version,
        limits: Limits::CURRENT,
    })
}

pub fn reply() -> impl Strategy<Value = Reply> {
    let details = (
        model_info(),
        text(),
        text(),
        any::<bool>(),
        specs(),
        specs(),
    );
    let details = details.prop_map(
        |(model, folder, manifest_toml, inferred, inputs, outputs)| {
            Reply::ModelDetails(Box::new(ModelDetails {
                model,
                folder,
                manifest_toml,
                inferred,
                inputs,
                outputs,
            }))
        },
    );
    let result = (vec(tensor(true), 0..4), any::<[u64; 3]>());
    let result = result.prop_map(|(outputs, [compute_us, bytes_copied, bytes_converted])| {
        Reply::StreamResult(StreamResult {
            outputs,
            compute_us,
            bytes_copied,
            bytes_converted,
        })
    });
    let opened = (specs(), specs()).prop_map(|(inputs, outputs)| {
        Reply::StreamOpened(StreamOpened {
            socket: sealed(1),
            inputs,
            outputs,
        })
    });
    let event = (any::<u64>(), event_kind());
    prop_oneof![
        welcome().prop_map(Reply::Welcome),
        any::<u32>().prop_map(|queue_position| Reply::Accepted { queue_position }),
        token().prop_map(Reply::Token),
        progress().prop_map(Reply::Progress),
        preview().prop_map(Reply::Preview),
        frame_out().prop_map(Reply::Frame),
        audio_out().prop_map(Reply::Audio),
        tensor(true).prop_map(Reply::Tensor),
        embeddings().prop_map(Reply::Embeddings),
        frame_labels().prop_map(Reply::Labels),
        steered().prop_map(Reply::Steered),
        done().prop_map(Reply::Done),
        status().prop_map(Reply::Failed),
        vec(model_info(), 0..3).prop_map(Reply::ModelList),
        details,
        vec(capability(), 0..3).prop_map(Reply::DeviceList),
        explanation().prop_map(|one| Reply::Explanation(Box::new(one))),
        opened,
        result,
        status_report().prop_map(|report| Reply::StatusReport(Box::new(report))),
        event.prop_map(|(at_ms, kind)| Reply::Event(Event { at_ms, kind })),
        Just(()).prop_map(|()| Reply::Ok),
    ]
}

pub fn command() -> impl Strategy<Value = Command> {
    let json = || vec(any::<u8>(), 0..20);
    let load = (
        (text(), text(), text(), text()),
        (json(), json(), json()),
        any::<(u32, bool, bool, bool, bool, Option<u32>, u64)>(),
    );
    let load = load.prop_map(|(folders, json, numbers)| {
        Box::new(LoadModel {
            folder: folders.0,
            flavour_folder: folders.1,
            manifest_json: json.0,
            candidate_json: json.1,
            flavour_json: json.2,
            threads: numbers.0,
            spin: numbers.1,
            threads_follow_load: numbers.2,
            threads_at_first: numbers.5,
            model_digest: folders.2,
            compiled_folder: folders.3,
            cache_bytes_max: numbers.6,
            forbid_cpu: numbers.3,
            verify_digests: numbers.4,
        })
    });
    let work = prop_oneof![
        infer().prop_map(Work::Infer),
        generate().prop_map(Work::Generate),
        transform_clip().prop_map(Work::TransformClip),
        embed().prop_map(Work::Embed),
        generate_clip().prop_map(|clip| Work::GenerateClip(Box::new(clip))),
        label_clip().prop_map(Work::LabelClip),
    ];
    let ids = vec(any::<u32>(), 0..9);
    let start = (any::<(u64, u64)>(), work, ids, 1..=256u32);
    let start = start.prop_map(|((job, seed), work, resume_token_ids, credit)| {
        Command::StartJob(Box::new(StartJob {
            job,
            work,
            resume_token_ids,
            seed,
            credit,
        }))
    });
    let map = (1..=u64::MAX, 1..9000u64, any::<bool>());
    let load = load.boxed();
    let tried = (load.clone(), json())
        .prop_map(|(load, terms_json)| Command::TryModel { load, terms_json });
    prop_oneof![
        load.prop_map(Command::LoadModel),
        tried,
        start,
        any::<u64>().prop_map(|job| Command::CancelJob { job }),
        any::<(u64, u32)>().prop_map(|(job, frames)| Command::CreditJob { job, frames }),
        any::<u64>().prop_map(|job| Command::PauseJob { job }),
        any::<u64>().prop_map(|job| Command::ResumeJob { job }),
        (any::<u64>(), text(), of(any::<u32>())).prop_map(|(job, prompt, from_segment)| {
            Command::SteerJob(SteerJob {
                job,
                prompt,
                from_segment,
            })
        }),
        map.prop_map(|(buffer, bytes, writable)| Command::MapBuffer {
            buffer,
            bytes,
            writable,
            fd: sealed(bytes),
        }),
        any::<u64>().prop_map(|buffer| Command::UnmapBuffer { buffer }),
        (any::<(u64, Option<u64>)>(), receipt()).prop_map(|((stream, step_limit_ms), receipt)| {
            Command::AttachStream {
                stream,
                socket: sealed(1),
                step_limit_ms,
                receipt: Box::new(receipt),
            }
        }),
        any::<(bool, Option<u32>)>()
            .prop_map(|(busy, threads_max)| Command::SetLoad { busy, threads_max }),
        json().prop_map(|throttle_json| Command::SetThrottle { throttle_json }),
        any::<(u64, bool)>().prop_map(|(stream, held)| Command::HoldStream { stream, held }),
        Just(()).prop_map(|()| Command::Shutdown),
    ]
}

pub fn event() -> impl Strategy<Value = WorkerEvent> {
    let json = || vec(any::<u8>(), 0..20);
    let told = (text(), sandbox());
    let loaded = (json(), specs(), specs(), any::<(u64, u64, u32)>(), told);
    let loaded = loaded.prop_map(|(placement_json, inputs, outputs, numbers, told)| {
        WorkerEvent::Loaded(Box::new(Loaded {
            placement_json,
            inputs,
            outputs,
            load_us: numbers.0,
            rss_bytes: numbers.1,
            library_version: told.0,
            sandbox: told.1,
            jobs_per_run: numbers.2,
        }))
    });
    let reply = prop_oneof![
        token().prop_map(JobReply::Token),
        progress().prop_map(JobReply::Progress),
        preview().prop_map(JobReply::Preview),
        frame_out().prop_map(JobReply::Frame),
        audio_out().prop_map(JobReply::Audio),
        tensor(true).prop_map(JobReply::Tensor),
        steered().prop_map(JobReply::Steered),
        done().prop_map(JobReply::Done),
        status().prop_map(JobReply::Failed),
    ];
    let load_progress = (stage(), any::<u64>(), some(1..=u64::MAX));
    prop_oneof![
        (text(), any::<i32>()).prop_map(|(build_id, pid)| WorkerEvent::Hello { build_id, pid }),
        load_progress.prop_map(|(stage, done, total)| WorkerEvent::LoadProgress(Progress {
            stage,
            done,
            total,
            remaining_ms: None,
        })),
        loaded,
        (status(), json()).prop_map(|(status, rejection_json)| WorkerEvent::LoadFailed {
            status,
            rejection_json,
        }),
        (any::<u64>(), reply).prop_map(|(job, reply)| WorkerEvent::Job { job, reply }),
        any::<(u64, u64, u64, u64)>().prop_map(|numbers| WorkerEvent::StreamEnded {
            stream: numbers.0,
            steps: numbers.1,
            compute_us: numbers.2,
            bytes_copied: numbers.3,
        }),
        vec(text(), 0..4).prop_map(|providers| WorkerEvent::Probing { providers }),
        json().prop_map(|capabilities_json| WorkerEvent::Probed { capabilities_json }),
        (json(), json()).prop_map(|(verdict_json, samples_json)| WorkerEvent::Tried {
            verdict_json,
            samples_json,
        }),
        (any::<u64>(), json()).prop_map(|(job, rejection_json)| WorkerEvent::Faulted {
            job,
            rejection_json,
        }),
        (any::<u64>(), json()).prop_map(|(stream, rejection_json)| WorkerEvent::StreamFaulted {
            stream,
            rejection_json,
        }),
    ]
}
