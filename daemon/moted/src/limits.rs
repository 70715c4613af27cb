//! Every limit of the broker that is not one of the wire's own ([`mote_wire::limits`]).

use mote_wire::limits::{CREDIT_MAX, OPEN_REQUESTS_MAX};

// ---- Connections ----

/// Queued frames that are sent together.
pub const FRAMES_AT_ONCE_MAX: usize = 32;
/// Connections that the D-Bus gateway made and that wait to be served.
pub const BUS_VISITORS_MAX: usize = 64;
/// Connections at once.
pub const CONNECTIONS_MAX: usize = 256;
/// Connections of one user at once.
pub const CONNECTIONS_PER_UID_MAX: usize = 128;
/// From `accept` to a complete `Hello`.
pub const HELLO_TIMEOUT_MS: u64 = 5_000;
/// Frames that wait for a client to read them: all credit of all its requests, and control replies.
pub const SESSION_QUEUE_FRAMES_MAX: usize = OPEN_REQUESTS_MAX * CREDIT_MAX as usize + 1_024;
/// Bytes that wait for a client to read them.
pub const SESSION_QUEUE_BYTES_MAX: usize = 64 << 20;
/// Progress is dropped rather than queued behind so many frames.
pub const PROGRESS_QUEUE_FRAMES_MAX: usize = 64;
/// How long the last frames of a connection that is being closed may take.
pub const FLUSH_LIMIT_MS: u64 = 1_000;
/// Pause of `accept` after it failed for want of descriptors or memory.
pub const ACCEPT_PAUSE_MS: u64 = 200;
/// Models one connection may pin.
pub const PINS_MAX: usize = 64;
/// Bytes of all registered buffers of one connection.
pub const BUFFER_BYTES_PER_CONNECTION_MAX: u64 = 16 << 30;
/// Registered buffers of all connections: each holds a descriptor.
pub const BUFFERS_TOTAL_MAX: usize = 4_096;
/// Streams of one connection.
pub const STREAMS_PER_CONNECTION_MAX: usize = 32;
/// Models of which one connection is known to have lost streams.
pub const STREAM_FAULTS_MAX: usize = 32;
/// Streams of all connections: each holds a descriptor.
pub const STREAMS_TOTAL_MAX: usize = 512;
/// Jobs of one user, waiting or running.
pub const JOBS_PER_UID_MAX: usize = JOBS_QUEUED_MAX / 2;
/// Bytes of one user's requests that are kept.
pub const JOURNAL_BYTES_PER_UID_MAX: usize = JOURNAL_BYTES_MAX / 2;
/// Streams of one user.
pub const STREAMS_PER_UID_MAX: usize = STREAMS_TOTAL_MAX / 2;
/// Registered buffers of one user.
pub const BUFFERS_PER_UID_MAX: usize = BUFFERS_TOTAL_MAX / 2;
/// Bytes in them. Their memory is charged to the user's own control group by the kernel.
pub const BUFFER_BYTES_PER_UID_MAX: u64 = 64 << 30;
/// Models that one user's connections may pin.
pub const PINS_PER_UID_MAX: usize = 2 * PINS_MAX;
/// Events that wait for the core; senders wait when it is full.
pub const EVENTS_MAX: usize = 1_024;
/// Events that are handled before their effects are sent.
pub const EVENTS_AT_ONCE_MAX: usize = 32;
/// Batches of events before connections, orders and timers are looked at.
pub const BATCHES_IN_A_ROW_MAX: usize = 16;
/// Descriptors the broker asks the system for.
pub const DESCRIPTORS_MAX: u64 = 16_384;

// ---- Jobs ----

/// Jobs that wait, over all devices.
pub const JOBS_QUEUED_MAX: usize = 1_024;
/// Jobs that compute on one device at the same time.
pub const RUNNING_PER_DEVICE: usize = 2;
/// Jobs begun on one device, those included that wait for their client's credit.
pub const STARTED_PER_DEVICE_MAX: usize = 16;
/// Bytes of requests kept until they are done, over all connections.
pub const JOURNAL_BYTES_MAX: usize = 256 << 20;
/// Bytes of requests kept until they are done, of one connection.
pub const JOURNAL_BYTES_PER_CONNECTION_MAX: usize = 64 << 20;
/// How often a job begins anew because its worker died.
pub const RETRIES_MAX: u32 = 2;
/// From a cancel to the death of a worker that does not heed it.
pub const CANCEL_GRACE_MS: u64 = 5_000;
/// Bounds of what a refused client is told to wait.
pub const RETRY_AFTER_MS_MIN: u64 = 50;
/// See [`RETRY_AFTER_MS_MIN`].
pub const RETRY_AFTER_MS_MAX: u64 = 30_000;

/// How long jobs that run may go on when the service manager stops the daemon; less than its own
/// patience (`TimeoutStopSec` in mote.service).
pub const DRAIN_JOBS_MS: u64 = 30_000;

// ---- Workers ----

/// From the start of a worker to its `Hello`.
pub const HANDSHAKE_MS: u64 = 10_000;
/// Silence of a worker that loads a model, after which it is killed.
pub const LOAD_SILENCE_MS_MAX: u64 = 300_000;
/// After so much silence of a loading worker those that wait for it hear that it compiles, and again
/// each time.
pub const COMPILING_TOLD_MS: u64 = 1_000;
/// From `Shutdown` to SIGKILL.
pub const DRAIN_MS: u64 = 1_000;
/// Crashes in a row of one candidate before it is put aside. More than one job can cause alone.
pub const CRASHES_MAX: u32 = 2 + RETRIES_MAX;
/// How long a candidate that kept crashing is put aside.
pub const QUARANTINE_MS: u64 = 600_000;
/// How long a failure to load is held against a candidate; it may have been the moment's.
pub const REFUSAL_MS: u64 = 600_000;
/// Answers of the planner that are kept for the same question.
pub const CHOICES_MAX: usize = 32;
/// Workers at once, whatever memory there is.
pub const WORKERS_MAX: usize = 32;
/// Pause before the second start in a row after a crash; doubles with each further one.
pub const BACKOFF_MS_MIN: u64 = 100;
/// Longest pause between a crash and the next start.
pub const BACKOFF_MS_MAX: u64 = 10_000;
/// An unused model is unloaded after this.
pub const IDLE_UNLOAD_MS: u64 = 600_000;
/// Commands that wait for a worker to read them; a worker that lets them pile up is killed.
pub const WORKER_QUEUE_MAX: usize = 4_096;
/// Bytes in them: every request that may be under way.
pub const WORKER_QUEUE_BYTES_MAX: usize = JOURNAL_BYTES_MAX;
/// Last bytes of a worker's stderr that are kept.
pub const STDERR_TAIL_BYTES: usize = 8 << 10;
/// What is left of a dead worker's socket and stderr is read for so long.
pub const LAST_WORDS_MS: u64 = 200;
/// Providers of one flavour that get a process of their own when probing all in one did not end well.
pub const PROVIDERS_MAX: usize = 64;
/// Answer of one probe, of all providers of a flavour or of one.
pub const PROBE_LIMIT_MS: u64 = 20_000;

// ---- What providers compile ----

/// On disk, unless the user says otherwise; some models take a gigabyte.
pub const COMPILED_BYTES_MAX: u64 = 4 << 30;
/// Folders looked at when there is too much of it.
pub const COMPILED_FOLDERS_MAX: usize = 4_096;
/// Folders within folders that are measured.
pub const COMPILED_DEPTH_MAX: u32 = 4;

// ---- Trials ----

/// To load and compile a model for a trial; compilers of accelerators take their time.
pub const TRIAL_LOAD_LIMIT_MS: u64 = 300_000;
/// All runs of one trial, beyond what those of the reference took.
pub const TRIAL_RUN_LIMIT_MS: u64 = 20_000;
/// So many times longer the reference itself may take.
pub const REFERENCE_PATIENCE_FACTOR: u64 = 6;
/// So many runs of the reference's length others may take longer.
pub const PATIENCE_FACTOR: u64 = 100;
/// Runs of one trial that are measured.
pub const TRIAL_RUNS_MAX: u32 = 32;
/// What is spent on measuring one candidate, beyond the least number of runs.
pub const TRIAL_MEASURE_MS: u64 = 1_000;
/// A candidate that takes so many times longer than the fastest is not measured to the end.
pub const HOPELESS_FACTOR: u64 = 4;
/// A device that takes a smaller share of the nodes, in percent, must make the model faster.
pub const SPLIT_SHARE_PERCENT_MIN: u32 = 50;
/// What a variant of lower precision than the manifest's first costs when it is compared, in percent
/// of what was measured: it takes the place of what the model's author put first only if it is clearly
/// faster. Measured times of one candidate differ by some ten percent from trial to trial, and half as
/// much again is what a user may notice; coarser weights of half the size are about twice as fast where
/// they are of any use.
pub const LOWER_PRECISION_PERCENT: u64 = 150;
/// A device that keeps the processor so busy, in percent of the time, is none.
pub const HOST_PERCENT_MIN: u32 = 80;
/// Records of trials.
pub const TRIAL_RECORDS_MAX: usize = 1_024;
/// Bytes of the file of trials.
pub const TRIALS_BYTES_MAX: u64 = 8 << 20;
/// The file of what was verified.
pub const VERIFIED_BYTES_MAX: u64 = 4 << 20;
/// How long what may have been an accident (a crash, a hang) is held against a candidate, in seconds.
pub const ACCIDENT_S: u64 = 86_400;
/// A step on a device may take so many times longer than a run of the check input …
pub const STEP_PATIENCE_FACTOR: u64 = 200;
/// … or so long, whichever is more.
pub const STEP_LIMIT_MS: u64 = 60_000;

// ---- Machine ----

/// Share of the machine's memory that models may take together, in percent.
pub const BUDGET_PERCENT: u64 = 75;
/// Memory of a loaded model beyond twice its weights, where the manifest does not say.
pub const MODEL_OVERHEAD_BYTES: u64 = 48 << 20;
/// Key and value caches of a text model take as much as so many conversations that fill the context, but
/// no more than [`CACHE_BUDGET_PERCENT`] allows.
pub const CACHE_CONVERSATIONS: u64 = 8;
/// Frames being restored, with states and what runs take: more makes larger tiles, and no better frames.
pub const RESTORATION_BYTES_MAX: u64 = 2 << 30;
/// Frames and latents of clips on their way, of one model: as much as the frames of so many clips of the
/// sizes that its manifest says, and from [`CLIPS_BYTES_MIN`] to [`CLIPS_BYTES_MAX`].
pub const CLIPS_AT_ONCE: u64 = 16;
/// Enough for some clips of a small model.
pub const CLIPS_BYTES_MIN: u64 = 256 << 20;
/// Where the sizes are not said, and at most.
pub const CLIPS_BYTES_MAX: u64 = 8 << 30;
/// They take so much of the budget at most: a clip of a large model has half a gigabyte of frames.
pub const CLIPS_BUDGET_PERCENT: u64 = 25;
/// A text model's caches, or frames being restored, take so much of the budget at most.
pub const CACHE_BUDGET_PERCENT: u64 = 12;
/// Distance of two looks at the machine's load, while anything runs.
pub const LOAD_SAMPLE_MS: u64 = 500;
/// Cores others must use for the machine to count as busy …
pub const BUSY_CORES_MIN: f64 = 0.5;
/// … in so many samples in a row.
pub const BUSY_SAMPLES: u32 = 2;
/// Cores others may use for the machine to count as idle …
pub const IDLE_CORES_MAX: f64 = 0.25;
/// … in so many samples in a row.
pub const IDLE_SAMPLES: u32 = 6;

// ---- Power and heat ----

/// A battery that is no fuller than this is low.
pub const BATTERY_LOW_PERCENT: u8 = 20;
/// So close below the temperature at which the kernel turns the machine off, it is hot.
pub const CRITICAL_MARGIN_MILLIDEGREES: i32 = 5_000;
/// Temperatures that are older say nothing.
pub const HEAT_FRESH_MS: u64 = 3_000;
/// It is cool again after so many readings in a row that say so.
pub const HEAT_READINGS: u32 = 4;
/// Thermal zones that are looked at.
pub const ZONES_MAX: usize = 64;
/// Trip points of one zone.
pub const TRIPS_MAX: usize = 16;
/// Cooling devices that are looked at.
pub const COOLING_DEVICES_MAX: usize = 64;
/// Cores whose counters of thermal throttling are looked at.
pub const THROTTLE_CORES_MAX: usize = 64;
/// Bytes of one file in sysfs that are read.
pub const SYSFS_BYTES_MAX: u64 = 256;
/// Bytes of the name of a zone.
pub const ZONE_NAME_BYTES_MAX: usize = 32;
/// News of the machine's power that wait for the core.
pub const POWER_NEWS_MAX: usize = 16;
/// What computes may take so long to come to the end of its step before the machine sleeps; logind
/// waits for 5 s unless it is told otherwise.
pub const SLEEP_SETTLE_MS: u64 = 1_000;
/// A machine that was to sleep and still computes after so long does not sleep.
pub const SLEEP_LIMIT_MS: u64 = 60_000;

// ---- Catalogue ----

/// Models over all stores.
pub const MODELS_MAX: usize = 4_096;
/// Entries read of one store.
pub const STORE_ENTRIES_MAX: usize = 16_384;
/// Entries read of one model's folder.
pub const FOLDER_ENTRIES_MAX: usize = 4_096;
/// Names offered for one that is unknown.
pub const SIMILAR_MAX: usize = 3;
/// Runtime flavours over all folders.
pub const FLAVOURS_MAX: usize = 32;
/// Bytes of the file of probe results.
pub const PROBE_CACHE_BYTES_MAX: u64 = 4 << 20;
/// Folders in which libraries of vendors are looked for.
pub const LIBRARY_FOLDERS_MAX: usize = 64;
/// Entries of one of them.
pub const LIBRARY_FOLDER_ENTRIES_MAX: usize = 32_768;
/// Files of the loader's configuration.
pub const LOADER_CONFIG_FILES_MAX: usize = 64;
/// Bytes of one of them.
pub const LOADER_CONFIG_BYTES_MAX: u64 = 64 << 10;
