/*
 * The client of Mote for C and C++.
 *
 * Mote is a system service that runs models: tensors in and out, text, clips. This library talks to
 * the daemon over its Unix socket and shared memory. C99; also C++.
 *
 * Rules that hold for every function, unless it says otherwise:
 *
 *  - STATUS. A function that can fail returns a mote_status_t, MOTE_OK (0) when all went well. Its
 *    last parameter, `error`, may be NULL. Otherwise *error is set: to NULL on success, to a new
 *    mote_error_t on failure, which the caller frees with mote_error_free(). What *error held
 *    before is neither read nor freed.
 *  - OWNERSHIP. What a function gives through a pointer to a pointer belongs to the caller, who
 *    frees it with the mote_*_free() of its type; on failure NULL is given. A `const` pointer that
 *    is returned, or found in a struct that was filled in, is borrowed: it says how long it holds.
 *    What the caller passes in is only read during the call; nothing of it is kept.
 *  - FREEING. mote_*_free(NULL) does nothing. Handles may be freed in any order: what is left of a
 *    client's work after mote_client_free() fails with MOTE_ERROR_CONNECTION_CLOSED. A handle must
 *    not be freed while another thread is inside a call with it.
 *  - NULL. A NULL or other wrong argument is refused with MOTE_ERROR_INVALID, whose field "field"
 *    names the argument ("client", "inputs[0].name", ...). Functions without a status return NULL
 *    or 0 for a NULL handle.
 *  - THREADS. Handles may be used from any thread, and a client from several at once. Calls with
 *    the same stream, generation or clip take turns, except that cancelling, pausing, resuming and
 *    steering never wait.
 *    Nothing here may be called from a signal handler, nor in a child after fork().
 *  - BLOCKING. Calls wait for the daemon as long as it takes. `deadline_ms` in the options bounds
 *    work; generations and work on clips can be cancelled from another thread.
 *  - TEXT is UTF-8 and ends with NUL.
 *  - STRUCTS that begin with `size` may grow: set it to sizeof, best with the MOTE_*_INIT macro,
 *    and unused fields to 0. Programs built against an older header go on working. Structs without
 *    `size` never change.
 *
 * The library never writes to stdout, installs no signal handler and raises no SIGPIPE.
 */
#ifndef MOTE_H
#define MOTE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The ABI this header describes. It changes only with the number in libmote.so.N. */
#define MOTE_ABI_VERSION 1

/* A number that is not known. */
#define MOTE_UNKNOWN UINT64_MAX

/* ---- Status ---- */

/* Why a call failed: one of the constants below. More may be added; numbers are never reused. */
typedef int32_t mote_status_t;

enum {
  MOTE_OK = 0,

  /* Said by the daemon. In brackets, the fields of the error. */
  MOTE_ERROR_MODEL_NOT_FOUND = 10,     /* [model, similar] */
  MOTE_ERROR_NO_BACKEND = 11,          /* [rejected] nothing here can run the model */
  MOTE_ERROR_BUSY = 12,                /* [retry_after_ms] */
  MOTE_ERROR_OVER_BUDGET = 13,         /* [what, need_bytes, have_bytes] */
  MOTE_ERROR_DEADLINE_EXCEEDED = 14,   /* [deadline_ms] */
  MOTE_ERROR_WORKER_DIED = 15,         /* [signal, exit_code] signal is 0 when it exited */
  MOTE_ERROR_INVALID = 16,             /* [field, why] also said by this library */
  MOTE_ERROR_CANCELLED = 17,
  MOTE_ERROR_LIMIT_EXCEEDED = 18,      /* [what, have, limit] */
  MOTE_ERROR_UNSUPPORTED = 19,         /* [what] */
  MOTE_ERROR_MODEL_CORRUPT = 20,       /* [file, why] */
  MOTE_ERROR_CONTEXT_OVERFLOW = 21,    /* [prompt_tokens, context_tokens; of texts to be embedded: text] */
  MOTE_ERROR_REVOKED = 22,             /* [why] the stream was ended by the daemon */
  MOTE_ERROR_COMPUTE_FAILED = 23,      /* [operation, cause] */
  MOTE_ERROR_INTERNAL = 24,            /* [operation, cause] also said by this library */
  MOTE_ERROR_SHUTTING_DOWN = 25,
  MOTE_ERROR_VERSION_UNSUPPORTED = 26, /* [version_min, version_max] */
  MOTE_ERROR_STREAM_LOST = 27,         /* [provider, code, cause, next] what the stream ran on has
                                          failed; opened anew, it runs on next, if there is any */

  /* Said by this library. */
  MOTE_ERROR_CANNOT_CONNECT = 100,    /* [path, errno] nobody listens there, or no permission */
  MOTE_ERROR_CONNECTION_CLOSED = 101, /* the daemon has gone, or the client or stream is closed */
  MOTE_ERROR_CONNECTION_FAILED = 102,
  MOTE_ERROR_PROTOCOL = 103,      /* the daemon breaks the rules of the wire */
  MOTE_ERROR_CANNOT_SEND = 104,   /* the request is too large for a frame */
  MOTE_ERROR_NO_MEMORY = 105,     /* [need_bytes, errno] no shared memory */
  MOTE_ERROR_OUT_OF_RANGE = 106   /* [offset, need_bytes, have_bytes] */
};

/* Name of a status, such as "model_not_found"; "unknown" for other numbers. Static. */
const char *mote_status_name(mote_status_t status);

/* Why a call failed, with the fields that belong to its status. Never changes; any thread. */
typedef struct mote_error mote_error_t;

/* The status that the call returned; MOTE_OK for NULL. */
mote_status_t mote_error_status(const mote_error_t *error);

/* What happened and every cause of it, for people. Borrowed from the error. */
const char *mote_error_message(const mote_error_t *error);

/*
 * A field that is a text ("field", "why", "model", "what", ...) as it is, or one that is a list
 * ("rejected", "similar") as JSON. NULL when the error has none of this name. Borrowed from the
 * error.
 */
const char *mote_error_text(const mote_error_t *error, const char *field);

/* A field that is a number ("retry_after_ms", "need_bytes", "signal", ...). Returns 1 and sets
 * *value, or returns 0 and leaves it alone when the error has none of this name. */
int32_t mote_error_number(const mote_error_t *error, const char *field, int64_t *value);

/*
 * All of it: {"status": "busy", "message": "...", "retry_after_ms": 40}. "rejected" is a list of
 * {"flavour", "provider", "variant", "reason": {"code", "fields": {...}, "message"}}. Borrowed
 * from the error.
 */
const char *mote_error_json(const mote_error_t *error);

void mote_error_free(mote_error_t *error);

/* ---- Library ---- */

/* MOTE_ABI_VERSION of the library that was loaded. */
int32_t mote_abi_version(void);

/* Version of the library that was loaded, such as "0.1.0". Static. */
const char *mote_version(void);

/* Frees a text that a function gave through a char **. */
void mote_string_free(char *text);

/* ---- Connection ---- */

/* A connection to the daemon. Freeing it closes it, and with it everything that is open on it:
 * work, streams, registered buffers, pins. */
typedef struct mote_client mote_client_t;

/*
 * Connects to the daemon that listens at `path`. NULL or "" takes $MOTE_SOCKET, or else this user's
 * daemon at $XDG_RUNTIME_DIR/mote/mote.sock, or else the system's at /run/mote/mote.sock. `name` is
 * the program's, for the daemon's status and logs.
 */
mote_status_t mote_connect(const char *path, const char *name, mote_client_t **client,
                           mote_error_t **error);

void mote_client_free(mote_client_t *client);

/* Version of the daemon. Borrowed from the client. */
const char *mote_server_version(const mote_client_t *client);

/* What the daemon accepts. */
typedef struct mote_limits {
  size_t size;
  uint64_t frame_bytes_max;
  uint64_t inline_bytes_max; /* tensors up to here travel in the request itself */
  uint64_t buffer_bytes_max;
  uint64_t prompt_bytes_max;
  uint32_t fds_per_frame_max;
  uint32_t open_requests_max; /* on one connection */
  uint32_t credit_max;
  uint32_t buffers_max; /* on one connection, and on one stream */
} mote_limits_t;

#define MOTE_LIMITS_INIT {sizeof(mote_limits_t), 0, 0, 0, 0, 0, 0, 0, 0}

/* Fills in *limits, whose size is set. */
mote_status_t mote_limits(const mote_client_t *client, mote_limits_t *limits,
                          mote_error_t **error);

/* ---- Options ---- */

enum {
  MOTE_PRIORITY_DEFAULT = 0, /* normal */
  MOTE_PRIORITY_INTERACTIVE = 1,
  MOTE_PRIORITY_NORMAL = 2,
  MOTE_PRIORITY_BACKGROUND = 3
};

/* What every piece of work may ask for. Zeros leave the choice to the daemon; so does passing NULL
 * for the whole struct. */
typedef struct mote_options {
  size_t size;
  /* Take this backend ("onnxruntime", "tract", "tflite"), runtime flavour, provider
   * ("CPUExecutionProvider", "XNNPACK", ...) or variant and nothing else. */
  const char *require_backend;
  const char *require_flavour;
  const char *require_provider;
  const char *require_variant;
  uint64_t deadline_ms;  /* from the request to its last step; 0 is none */
  int32_t priority;      /* MOTE_PRIORITY_* */
  int32_t forbid_cpu;    /* not 0: refuse to run any node on the CPU */
  uint32_t threads_max;  /* threads to compute with */
  uint32_t credit;       /* tokens or previews the daemon may be ahead of the reader */
} mote_options_t;

#define MOTE_OPTIONS_INIT {sizeof(mote_options_t), 0, 0, 0, 0, 0, 0, 0, 0, 0}

/* ---- Models, devices, the daemon itself ----
 *
 * Reports are JSON, one object or list. *json belongs to the caller, who frees it with
 * mote_string_free(). Fields may be added; absent values are null. Shapes are lists of dimensions,
 * of which those decided at run time are null. Element types are "f32", "i64", ...
 */

/*
 * The catalogue: a list of
 *   {"name", "task", "description", "licence", "source", "digest", "bytes", "loaded", "pinned",
 *    "variants": [{"name", "backend", "precision", "weights_bytes"}],
 *    "problem": why it cannot be served (as mote_error_json() without "message"), or null}
 */
mote_status_t mote_models_json(const mote_client_t *client, char **json, mote_error_t **error);

/*
 * One model:
 *   {"model": as in the catalogue, "folder", "manifest_toml", "inferred",
 *    "inputs": [{"name", "dtype", "shape"}], "outputs": likewise}
 * Inputs and outputs are there only when it is loaded.
 */
mote_status_t mote_model_json(const mote_client_t *client, const char *model, char **json,
                              mote_error_t **error);

/* As mote_model_json(), loading the model first. */
mote_status_t mote_loaded_model_json(const mote_client_t *client, const char *model, char **json,
                                     mote_error_t **error);

/*
 * Devices and providers as they were probed last: a list of
 *   {"flavour", "backend", "library_version", "provider",
 *    "device": {"id", "kind": "cpu"|"gpu"|"npu", "name", "simulated"} or null,
 *    "absence": {"code", "fields", "message"}, or null when it was proven to work}
 */
mote_status_t mote_devices_json(const mote_client_t *client, char **json, mote_error_t **error);

/* As mote_devices_json(), probing anew. */
mote_status_t mote_probe_devices_json(const mote_client_t *client, char **json,
                                      mote_error_t **error);

/*
 * Where a model would run with these options, and why not elsewhere:
 *   {"model", "model_digest",
 *    "chosen": {"variant", "backend", "flavour", "library_version", "provider", "device",
 *               "precision"}, or null when nothing can run it,
 *    "rejected": as in mote_error_json(), "placement": [{"provider", "nodes", "time_us"}],
 *    "placement_read_back", "need_bytes", "budget_bytes", "notes": [text],
 *    "trials": [{"candidate": as "chosen", "verification": "reference"|"matched"|"unchecked"|
 *                "rejected", "detail": text, "run_us", "runs", "load_us", "host_cpu_us",
 *                "grown_bytes", "placement", "tried_at_s"}]: what was found when ways to run it were
 *    tried, the best first; times are microseconds, of one run of the check input}
 */
mote_status_t mote_explain_json(const mote_client_t *client, const char *model,
                                const mote_options_t *options, char **json, mote_error_t **error);

/*
 * As mote_explain_json(), after all ways to run the model have been tried anew: each is loaded, its
 * numbers are compared with the plain CPU's, and it is measured. That takes a load and about a second
 * for each, and waits for trials of other models. Without trials (moted --choose ranked) it is
 * mote_explain_json().
 */
mote_status_t mote_measure_json(const mote_client_t *client, const char *model,
                                const mote_options_t *options, char **json, mote_error_t **error);

/*
 * The daemon at a glance:
 *   {"server_version", "uptime_ms", "rss_bytes", "connections", "jobs_running", "jobs_queued",
 *    "streams", "buffers", "budget_bytes", "reserved_bytes", "machine_load": "idle"|"busy",
 *    "workers": [{"pid", "model", "flavour", "state": "starting"|"loading"|"ready"|"stopping",
 *                 "reserved_bytes", "rss_bytes", "jobs", "streams",
 *                 "sandbox": {"enabled", "parts": [{"name", "state", "detail"}]}, or null}],
 *    "pid", or null,
 *    "power": {"policy": "performance"|"balanced"|"efficient", "why", "throttle",
 *              "background_paused", "sleep_delayed"}, or null}
 */
mote_status_t mote_daemon_json(const mote_client_t *client, char **json, mote_error_t **error);

/* Loads a model, so that the first work on it need not wait. */
mote_status_t mote_load(const mote_client_t *client, const char *model,
                        const mote_options_t *options, mote_error_t **error);

/* Unloads a model. */
mote_status_t mote_unload(const mote_client_t *client, const char *model, mote_error_t **error);

/* Keeps a model from being evicted for as long as this connection lives. */
mote_status_t mote_pin(const mote_client_t *client, const char *model, mote_error_t **error);

/* Takes a pin back. */
mote_status_t mote_unpin(const mote_client_t *client, const char *model, mote_error_t **error);

/* Has the daemon read its model stores and runtime folders again. */
mote_status_t mote_rescan(const mote_client_t *client, mote_error_t **error);

/* ---- Receipts ---- */

/* What a result was computed by, on, and how. Borrowed from the result, stream, generation or
 * clip that it is of. Never changes; any thread. */
typedef struct mote_receipt mote_receipt_t;

/* The fields of a receipt. Texts are borrowed from it. Times are wall time. */
typedef struct mote_receipt_info {
  size_t size;
  const char *model;
  const char *model_digest;
  const char *variant;
  const char *backend;
  const char *flavour;
  const char *library_version;
  const char *precision;
  const char *device_id;
  const char *device_kind; /* "cpu", "gpu", "npu" */
  const char *device_name;
  const char *throttle; /* "none", "unknown", or what slowed the device down */
  uint64_t queue_us;
  uint64_t load_us;    /* 0 when it was loaded already */
  uint64_t prefill_us; /* text: reading the prompt */
  uint64_t decode_us;  /* text: writing the answer */
  uint64_t compute_us; /* inside the inference library */
  uint64_t total_us;
  uint64_t media_decode_us;
  uint64_t media_encode_us;
  uint64_t steps; /* runs of the model */
  uint64_t prompt_tokens;
  uint64_t cached_tokens;
  uint64_t generated_tokens;
  uint64_t frames_in;
  uint64_t frames_out;
  uint64_t bytes_copied; /* between the client's memory and the library's */
  uint64_t seed;         /* what the sampler drew with, when has_seed */
  int32_t has_seed;
  int32_t local;               /* 0: another machine computed it */
  int32_t placement_read_back; /* the library told itself where nodes ran */
  int32_t spin;
  uint32_t threads;
  uint32_t thread_changes;
  uint32_t preemptions;
  uint32_t retries;           /* times it began anew because its worker died */
  uint32_t experts;           /* mixture of experts: per layer; otherwise 0 */
  uint32_t experts_per_token; /* mixture of experts; otherwise 0 */
  const char *verification;   /* its numbers: "reference", "matched", "unchecked" */
  uint64_t measured_at_s;     /* when it was tried, seconds since 1970; 0: it was not */
  uint64_t host_cpu_us;       /* processor time of the worker */
  uint64_t measured;          /* 1: it was chosen because it was measured to be the best */
  uint64_t reasoning_tokens;  /* of the generated ones, those of reasoning told apart */
  uint64_t shared_steps;      /* of the steps, those that served other answers, too */
  uint64_t drafted_tokens;    /* drafted to be verified */
  uint64_t accepted_tokens;   /* those of them that the model chose, too */
  uint64_t dropped_tokens;    /* left out because the context was full */
  uint64_t texts;             /* that were embedded; prompt_tokens counts their tokens */
  uint64_t bytes_converted;   /* as mote_result_bytes_converted() */
  const char *scheduler;      /* generated clips: by its diffusers class; otherwise "" */
  const uint64_t *step_times_us; /* generated clips: of each denoising step, in order; or NULL */
  size_t step_time_count;
  uint64_t resumed_steps; /* of them, those that were taken over from a checkpoint */
  const char *audio_codec; /* of the sound in the clip's file: "flac", "opus", "pcm", or what was copied
                              from the input, such as "aac"; "" where there is no sound, or the format
                              does not take it: then there are samples, which are not in the file */
  uint64_t audio_samples_out; /* of each channel that were made, or that the input has beside the frames
                                 that were read; 0 where there is no sound */
  uint32_t audio_sample_rate; /* samples per second of each channel */
  uint32_t audio_channels;
} mote_receipt_info_t;

#define MOTE_RECEIPT_INFO_INIT                                                                 \
  {sizeof(mote_receipt_info_t),                                                                \
   0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, \
   0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

/* Fills in *info, whose size is set. */
mote_status_t mote_receipt_info(const mote_receipt_t *receipt, mote_receipt_info_t *info,
                                mote_error_t **error);

/*
 * All of a receipt as JSON: the fields above by the same names ("device": {"id", "kind", "name"};
 * "seed", "experts" and "experts_per_token" null when there are none) and
 *   "placement": [{"provider", "nodes", "time_us"}], "rejected": as in mote_error_json().
 * Borrowed from the receipt.
 */
const char *mote_receipt_json(const mote_receipt_t *receipt);

/* ---- Shared memory ---- */

/* Memory that the daemon maps too: tensors in it are named, not sent or copied. */
typedef struct mote_buffer mote_buffer_t;

/* Tensors in buffers begin at multiples of this. */
#define MOTE_BUFFER_ALIGNMENT_BYTES 64

/* A buffer of `bytes` zeroes for use with mote_infer(), until it is freed. */
mote_status_t mote_buffer_create(const mote_client_t *client, uint64_t bytes,
                                 mote_buffer_t **buffer, mote_error_t **error);

/*
 * Its memory, page-aligned, readable and writable until the buffer is freed. The daemon writes to
 * it only during calls that name it in a target, and reads it only during calls that name it in an
 * input; meanwhile it must not be written by others, or the result is unspecified.
 */
void *mote_buffer_data(const mote_buffer_t *buffer);

/* Its size. */
uint64_t mote_buffer_bytes(const mote_buffer_t *buffer);

void mote_buffer_free(mote_buffer_t *buffer);

/* ---- Tensors ---- */

/* Element types; all tensors are dense, row-major and in native byte order. */
enum {
  MOTE_DTYPE_F32 = 1,
  MOTE_DTYPE_F16 = 2,
  MOTE_DTYPE_BF16 = 3,
  MOTE_DTYPE_F64 = 4,
  MOTE_DTYPE_I8 = 5,
  MOTE_DTYPE_U8 = 6,
  MOTE_DTYPE_I16 = 7,
  MOTE_DTYPE_U16 = 8,
  MOTE_DTYPE_I32 = 9,
  MOTE_DTYPE_U32 = 10,
  MOTE_DTYPE_I64 = 11,
  MOTE_DTYPE_U64 = 12,
  MOTE_DTYPE_BOOL = 13 /* one byte, 0 or 1 */
};

/* An input: `bytes` bytes at `data`, which are copied, or the tensor at `offset` of `buffer`, which
 * is not copied; `data` is NULL then. Set the rest to 0. */
typedef struct mote_tensor {
  const char *name;
  const uint64_t *shape; /* `rank` dimensions, outermost first */
  uint32_t rank;
  int32_t dtype; /* MOTE_DTYPE_* */
  const void *data;
  size_t bytes;
  const mote_buffer_t *buffer;
  uint64_t offset; /* a multiple of 64 */
  uint64_t reserved[2];
} mote_tensor_t;

/* Where an output goes: `bytes` bytes at `offset` of `buffer`. Set the rest to 0. */
typedef struct mote_target {
  const char *name;
  const uint64_t *shape; /* what is expected, when the model's own is not fixed; or NULL */
  uint32_t rank;
  uint32_t flags; /* 0 */
  const mote_buffer_t *buffer;
  uint64_t offset; /* a multiple of 64 */
  uint64_t bytes;
  uint64_t reserved[2];
} mote_target_t;

/* One run of a model. */
typedef struct mote_infer_args {
  size_t size;
  const char *model;
  const mote_tensor_t *inputs;
  size_t input_count;
  const mote_target_t *targets; /* outputs without one come back in the result */
  size_t target_count;
  const mote_options_t *options; /* or NULL */
} mote_infer_args_t;

#define MOTE_INFER_ARGS_INIT {sizeof(mote_infer_args_t), 0, 0, 0, 0, 0, 0}

/* What a run or a push gave. Never changes; any thread. */
typedef struct mote_result mote_result_t;

/*
 * Runs a model once and waits for its outputs. `result` may be NULL when all outputs that matter
 * have targets. Ends early only by `deadline_ms`.
 */
mote_status_t mote_infer(const mote_client_t *client, const mote_infer_args_t *args,
                         mote_result_t **result, mote_error_t **error);

/* What texts are embedded as. */
enum {
  MOTE_EMBED_PLAIN = 0,   /* as they are */
  MOTE_EMBED_QUERY = 1,   /* behind the query prefix of the model's manifest */
  MOTE_EMBED_DOCUMENT = 2 /* behind its document prefix */
};

/* Texts of which vectors are made. */
typedef struct mote_embed_args {
  size_t size;
  const char *model;
  const char *const *texts; /* 1 to 1,024, none empty, each at most 256 KiB, together at most
                               mote_limits_t.prompt_bytes_max */
  size_t text_count;
  const mote_options_t *options; /* or NULL */
  int32_t kind;                  /* MOTE_EMBED_* */
  uint32_t dimensions;           /* keep so many of the first ones, normed again; 0: all */
  int32_t truncate; /* not 0: cut texts that do not fit the model's context; otherwise they are
                       refused with MOTE_ERROR_CONTEXT_OVERFLOW, whose field "text" tells which */
  uint32_t flags;   /* 0 */
} mote_embed_args_t;

#define MOTE_EMBED_ARGS_INIT {sizeof(mote_embed_args_t), 0, 0, 0, 0, 0, 0, 0, 0}

/*
 * Embeds texts and waits for their vectors. The result has three outputs, in this order:
 * "embeddings", F32 [texts, dimensions]; "tokens", U32 [texts], how many of each were computed;
 * "truncated", BOOL [texts], whether it was cut. Ends early only by `deadline_ms`.
 */
mote_status_t mote_embed(const mote_client_t *client, const mote_embed_args_t *args,
                         mote_result_t **result, mote_error_t **error);

/* An output. What it points to is borrowed from the result. */
typedef struct mote_output {
  size_t size;
  const char *name;
  const uint64_t *shape;
  uint32_t rank;
  int32_t dtype;    /* MOTE_DTYPE_* */
  const void *data; /* aligned for its element type; NULL when there are no bytes */
  size_t bytes;
  int32_t in_buffer; /* not 0: data is in the caller's buffer, and holds as long as that does */
  uint32_t flags;    /* 0 */
} mote_output_t;

#define MOTE_OUTPUT_INIT {sizeof(mote_output_t), 0, 0, 0, 0, 0, 0, 0, 0}

/* How many outputs a result has. Those with a target may be left out. */
size_t mote_result_output_count(const mote_result_t *result);

/* Fills in *output, whose size is set, with the output at `index`. */
mote_status_t mote_result_output(const mote_result_t *result, size_t index, mote_output_t *output,
                                 mote_error_t **error);

/* As mote_result_output(), by name. */
mote_status_t mote_result_find(const mote_result_t *result, const char *name,
                               mote_output_t *output, mote_error_t **error);

/* The receipt of a run; NULL for a push, whose stream has one when it is closed. Borrowed from the
 * result. */
const mote_receipt_t *mote_result_receipt(const mote_result_t *result);

/* Time inside the inference library. */
uint64_t mote_result_compute_us(const mote_result_t *result);

/* Bytes copied between the client's memory and the library's. */
uint64_t mote_result_bytes_copied(const mote_result_t *result);

/* Bytes written by the passes that make tensors of frames, and frames of tensors. */
uint64_t mote_result_bytes_converted(const mote_result_t *result);

void mote_result_free(mote_result_t *result);

/* ---- Streams ---- */

/* A model that keeps its state from push to push, on a socket straight to the process that runs it.
 * Freeing it ends it. */
typedef struct mote_stream mote_stream_t;

/* Opens a stream, loading the model first if need be. */
mote_status_t mote_stream_open(const mote_client_t *client, const char *model,
                               const mote_options_t *options, mote_stream_t **stream,
                               mote_error_t **error);

/* What a push takes and gives: {"inputs": [{"name", "dtype", "shape"}], "outputs": likewise}.
 * Borrowed from the stream. */
const char *mote_stream_json(const mote_stream_t *stream);

/* A buffer of `bytes` zeroes for use with this stream. */
mote_status_t mote_stream_buffer_create(const mote_stream_t *stream, uint64_t bytes,
                                        mote_buffer_t **buffer, mote_error_t **error);

/* Makes a buffer of the client or of another stream usable with this one too. */
mote_status_t mote_stream_register(const mote_stream_t *stream, const mote_buffer_t *buffer,
                                   mote_error_t **error);

/* Makes room for another buffer; freeing a buffer does not by itself. */
mote_status_t mote_stream_unregister(const mote_stream_t *stream, const mote_buffer_t *buffer,
                                     mote_error_t **error);

/* What a frame's bytes mean. Formats of bytes hold colours; those of floats hold a tensor's own numbers,
 * of 1 or 3 channels. Where chroma is there for each second pixel, width and height are even. */
enum {
  MOTE_FRAME_RGB8 = 1,  /* red, green, blue; one plane */
  MOTE_FRAME_BGR8 = 2,  /* blue, green, red; one plane */
  MOTE_FRAME_RGBA8 = 3, /* and an opacity: skipped in inputs, 255 in outputs; one plane */
  MOTE_FRAME_NV12 = 4,  /* luma; a plane of half the width and height, Cb and Cr side by side */
  MOTE_FRAME_I420 = 5,  /* luma; a plane each of Cb and Cr, of half the width and height */
  MOTE_FRAME_GRAY8 = 6, /* luma alone */
  MOTE_FRAME_F32_NCHW = 7, /* a plane per channel */
  MOTE_FRAME_F32_NHWC = 8, /* channels of a pixel side by side; one plane */
  MOTE_FRAME_F16_NCHW = 9,
  MOTE_FRAME_F16_NHWC = 10
};

/* The matrix between red, green, blue and luma, chroma, after the ITU-R recommendation. */
enum {
  MOTE_COLOR_MATRIX_DEFAULT = 0, /* BT.601 */
  MOTE_COLOR_MATRIX_BT601 = 1,
  MOTE_COLOR_MATRIX_BT709 = 2,
  MOTE_COLOR_MATRIX_BT2020 = 3 /* with non-constant luminance */
};

/* Which bytes mean black and white. */
enum {
  MOTE_COLOR_RANGE_DEFAULT = 0, /* limited where there is chroma, else full */
  MOTE_COLOR_RANGE_LIMITED = 1, /* 16 and 235; chroma from 16 to 240 */
  MOTE_COLOR_RANGE_FULL = 2     /* 0 and 255 */
};

/*
 * A frame in a buffer that is registered with the stream. [[input]] or [[output]] of the model's manifest
 * says how it becomes a tensor, or is made of one. It is converted on the way, and nothing is copied first;
 * where its bytes are those of the tensor, without gaps and at a multiple of MOTE_BUFFER_ALIGNMENT_BYTES,
 * the buffer itself is used.
 */
typedef struct mote_frame {
  const char *name; /* of the input or output */
  const mote_buffer_t *buffer;
  int32_t format;       /* MOTE_FRAME_* */
  int32_t matrix;       /* MOTE_COLOR_MATRIX_* */
  int32_t range;        /* MOTE_COLOR_RANGE_* */
  uint32_t plane_count; /* 0: planes follow each other without gaps from the buffer's start */
  uint32_t width;       /* 1 to 16,384; that of an output's frame is the output's */
  uint32_t height;
  uint32_t tensor_width; /* of an input that the model leaves open; 0 takes the frame's */
  uint32_t tensor_height;
  uint64_t offsets[3]; /* of each plane's first byte, in the buffer */
  uint64_t strides[3]; /* of each plane: bytes from one row to the next */
  uint64_t reserved[2]; /* 0 */
} mote_frame_t;

/* One step of a stream. */
typedef struct mote_push_args {
  size_t size;
  const mote_tensor_t *inputs;
  size_t input_count;
  const mote_target_t *targets;
  size_t target_count;
  const mote_frame_t *frames; /* inputs that are frames */
  size_t frame_count;
  const mote_frame_t *frame_outputs; /* outputs written as frames; they are not in the result */
  size_t frame_output_count;
} mote_push_args_t;

#define MOTE_PUSH_ARGS_INIT {sizeof(mote_push_args_t), 0, 0, 0, 0, 0, 0, 0, 0}

/* Takes one step and waits for its outputs. `result` may be NULL. After a refusal
 * (MOTE_ERROR_INVALID, ...) the stream goes on; after MOTE_ERROR_REVOKED and
 * MOTE_ERROR_CONNECTION_* it is over. */
mote_status_t mote_stream_push(const mote_stream_t *stream, const mote_push_args_t *args,
                               mote_result_t **result, mote_error_t **error);

/* Ends a stream in good order. *receipt, if asked for, is what computed it, over all its steps; it
 * is borrowed from the stream, which is still to be freed. */
mote_status_t mote_stream_close(const mote_stream_t *stream, const mote_receipt_t **receipt,
                                mote_error_t **error);

void mote_stream_free(mote_stream_t *stream);

/* ---- Events of generations and of work on clips ---- */

enum {
  MOTE_EVENT_NONE = 0,     /* it is over: MOTE_EVENT_DONE was told before */
  MOTE_EVENT_ACCEPTED = 1, /* queue_position */
  MOTE_EVENT_PROGRESS = 2, /* stage, done, total, remaining_ms */
  MOTE_EVENT_TOKEN = 3,    /* token_index, token_id, text, text_bytes */
  MOTE_EVENT_PREVIEW = 4,  /* frame_index, width, height, png, png_bytes */
  MOTE_EVENT_DONE = 5,     /* finish, receipt */
  MOTE_EVENT_FRAME = 6,    /* frame_index, width, height, pixels, pixel_bytes */
  MOTE_EVENT_LABELS = 7,   /* frame_index, frame_count, time_us, labels, boxes */
  MOTE_EVENT_AUDIO = 8,    /* sample_index, sample_rate, channels, samples, sample_count */
  MOTE_EVENT_STEERED = 9   /* is_taken, from_segment, why */
};

enum {
  MOTE_STAGE_QUEUED = 1,
  MOTE_STAGE_LOADING = 2,
  MOTE_STAGE_PREFILL = 3,
  MOTE_STAGE_DECODE = 4,
  MOTE_STAGE_TRANSFORM = 5,
  MOTE_STAGE_ENCODE = 6,
  MOTE_STAGE_TRYING = 7,   /* ways to run the model are tried before its first use */
  MOTE_STAGE_COMPILING = 8, /* done, total: milliseconds; total is of the last time, or 0 */
  MOTE_STAGE_EMBED = 9,     /* done, total: texts */
  MOTE_STAGE_DENOISE = 10,  /* done, total: steps */
  MOTE_STAGE_LABEL = 11     /* done, total: frames */
};

/* Why an answer ended. */
enum {
  MOTE_FINISH_COMPLETE = 1,
  MOTE_FINISH_END_OF_ANSWER = 2,
  MOTE_FINISH_STOP_STRING = 3,
  MOTE_FINISH_TOKENS_MAX = 4,
  MOTE_FINISH_CONTEXT_FULL = 5
};

/* A token that could have been taken. */
typedef struct mote_top_token {
  uint32_t id;
  float logprob;    /* natural logarithm of its probability by the model itself */
  const char *text; /* what it decodes to alone, up to a NUL in it */
  size_t text_bytes;
} mote_top_token_t;

/* A class that is seen in a frame. */
typedef struct mote_label {
  uint32_t class_id; /* its number in the model */
  float score;       /* as the model gives it */
  const char *label; /* its name; "" where the model brings none */
} mote_label_t;

/* A class and where it is seen, in pixels of the frame from its upper left corner. */
typedef struct mote_label_box {
  uint32_t class_id;
  float score;
  const char *label;
  float x0; /* left edge */
  float y0; /* upper edge */
  float x1; /* right edge */
  float y1; /* lower edge */
} mote_label_box_t;

/* Something that happened. Fields that do not belong to its kind are 0. Kinds may be added: ignore
 * those you do not know. */
typedef struct mote_event {
  size_t size;
  int32_t kind;            /* MOTE_EVENT_* */
  uint32_t queue_position; /* requests ahead of this one */
  int32_t stage;           /* MOTE_STAGE_* */
  int32_t finish;          /* MOTE_FINISH_* */
  uint64_t done;           /* tokens, frames or bytes */
  uint64_t total;          /* likewise, or MOTE_UNKNOWN */
  uint64_t remaining_ms;   /* expected, or MOTE_UNKNOWN */
  uint32_t token_index;    /* from 0 */
  uint32_t token_id;
  const char *text; /* whole characters; "" while one is incomplete. Holds until the next call */
  size_t text_bytes;
  uint64_t frame_index; /* the output frame that a preview shows, while a clip is generated the steps
                           done; the frame that is told of, or the first of them */
  uint32_t width;
  uint32_t height;
  const uint8_t *png; /* a PNG file. Holds until the next call */
  size_t png_bytes;
  const mote_receipt_t *receipt; /* holds until the generation or clip is freed */
  int32_t has_logprob; /* not 0: logprob, top and top_count are told, as was asked for */
  float logprob;       /* natural logarithm of the token's probability by the model itself */
  const mote_top_token_t *top; /* the likeliest tokens, the likeliest first. Holds until the next call */
  size_t top_count;
  const char *reasoning; /* as text, of the reasoning where that is told apart */
  size_t reasoning_bytes;
  uint64_t is_reasoning; /* not 0: the token is of the reasoning, or one of its tags */
  const uint8_t *pixels; /* red, green, blue of each pixel, rows without gaps. Holds until the next
                            call, as do labels, boxes and their names */
  size_t pixel_bytes;
  uint64_t frame_count; /* how many frames the labels are about */
  uint64_t time_us;     /* when the first of them is shown, from the beginning of the clip */
  const mote_label_t *labels; /* what the whole frame is, the likeliest first */
  size_t label_count;
  const mote_label_box_t *boxes; /* what is where, the likeliest first */
  size_t box_count;
  const float *samples; /* from -1 to 1: a sample of each channel, then the next of each. Hold until
                           the next call */
  size_t sample_count;   /* of each channel: samples has sample_count * channels of them */
  uint64_t sample_index; /* the first of them, counted in each channel from the clip's beginning */
  uint32_t sample_rate;  /* samples per second of each channel */
  uint32_t channels;     /* 1 to 8 */
  int32_t is_taken;      /* not 0: the prompt is for from_segment and all shots that follow */
  uint32_t from_segment; /* counted from 0 */
  const char *why;       /* why it is not taken; "" where it is. Holds until the next call */
} mote_event_t;

#define MOTE_EVENT_INIT                                                                        \
  {sizeof(mote_event_t),                                                                       \
   0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, \
   0, 0, 0, 0, 0, 0, 0, 0, 0}

/* ---- Text ---- */

/* One message of a conversation. */
typedef struct mote_message {
  const char *role; /* "system", "user", "assistant", ...: what the model's template knows */
  const char *content;
} mote_message_t;

/* How tokens are drawn. All 0 takes the likeliest token each time; so does passing NULL for the
 * whole struct. */
typedef struct mote_sampling {
  size_t size;
  uint64_t seed;    /* the same seed gives the same tokens; used when has_seed is not 0 */
  int32_t has_seed; /* 0: the daemon draws one, and the receipt tells it */
  float temperature; /* 0 takes the likeliest token, whatever else is set; 1 draws by the model's own
                        chances */
  uint32_t top_k;    /* only the k likeliest; 0 is all */
  float top_p;       /* only the likeliest that together reach p; 0 is all */
  float min_p;       /* only those at least this share as likely as the likeliest; 0 is all */
  float repetition_penalty; /* 0 is none */
} mote_sampling_t;

#define MOTE_SAMPLING_INIT {sizeof(mote_sampling_t), 0, 0, 0, 0, 0, 0, 0}

/* What is to be done with reasoning, which a model writes between its tags ahead of its answer. Stop
 * strings, json_schema and regex are those of the answer alone where it is told apart. */
enum {
  MOTE_REASONING_IN_TEXT = 0, /* it is text like any other, and so are its tags */
  MOTE_REASONING_APART = 1,   /* events tell its text as `reasoning` */
  MOTE_REASONING_LIMITED = 2  /* likewise, and it is ended after reasoning_tokens_max tokens */
};

/* Added to a token's logit before anything else shapes the draw. */
typedef struct mote_logit_bias {
  uint32_t token_id;
  float bias; /* -100 (ruled out) to 100 (forced) */
} mote_logit_bias_t;

/* Text to be answered: either messages, put through the model's chat template, or a prompt. */
typedef struct mote_generate_args {
  size_t size;
  const char *model;
  const mote_message_t *messages;
  size_t message_count;
  const char *prompt;
  const char *const *stop; /* the answer ends before the first of these */
  size_t stop_count;
  const mote_sampling_t *sampling; /* or NULL */
  const mote_options_t *options;   /* or NULL */
  uint32_t tokens_max; /* of the answer; 0 takes what the context leaves, at most 1,024 */
  uint32_t flags;      /* 0 */
  int32_t has_logprobs;  /* not 0: events tell how likely each token was, */
  uint32_t top_logprobs; /* and so many of the likeliest: 0 to 20 */
  const mote_logit_bias_t *logit_bias; /* each token once, at most 1,024 */
  size_t logit_bias_count;
  const char *json_schema; /* the answer is JSON that this JSON schema describes; or NULL */
  const char *regex; /* or it is a text that this, in Rust's syntax, matches as a whole; or NULL */
  int32_t reasoning; /* MOTE_REASONING_* */
  uint32_t reasoning_tokens_max; /* with MOTE_REASONING_LIMITED: between the tags at most */
  const char *tools_json; /* a JSON list of tools for the model's chat template; or NULL */
  const char *const *message_fields; /* or NULL; of each message, a JSON object whose fields the chat
                                        template sees too: tool_calls, tool_call_id, ...; or NULL */
  int32_t deterministic; /* not 0: the same tokens whatever other answers there are; with a fixed
                            options->threads_max, whatever the machine does */
  int32_t slide_context; /* not 0: go on without the oldest part when the context is full */
  uint64_t draft_tokens_max; /* tokens drafted from the text so far and verified in one run: 0 to 16 */
} mote_generate_args_t;

#define MOTE_GENERATE_ARGS_INIT {sizeof(mote_generate_args_t), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

/* An answer while it is written. Freed before its end, it is cancelled. */
typedef struct mote_generation mote_generation_t;

/* Begins to answer a prompt. */
mote_status_t mote_generate(const mote_client_t *client, const mote_generate_args_t *args,
                            mote_generation_t **generation, mote_error_t **error);

/*
 * Waits for the next event and fills in *event, whose size is set. MOTE_EVENT_DONE or an error is
 * the last; from then on there is MOTE_EVENT_NONE. A refusal of the request itself, such as
 * MOTE_ERROR_MODEL_NOT_FOUND, comes from here too.
 */
mote_status_t mote_generation_next(const mote_generation_t *generation, mote_event_t *event,
                                   mote_error_t **error);

/* Asks the daemon to end it; mote_generation_next() then fails with MOTE_ERROR_CANCELLED within one
 * step of the model, also where it is waiting in another thread. Does nothing to one that is over.
 */
mote_status_t mote_generation_cancel(const mote_generation_t *generation, mote_error_t **error);

void mote_generation_free(mote_generation_t *generation);

/* ---- Clips ---- */

/* How a clip is written. */
enum {
  MOTE_CLIP_MP4_AV1 = 1,
  MOTE_CLIP_GIF = 2,
  MOTE_CLIP_PNG_STREAM = 3, /* PNG files one after another */
  MOTE_CLIP_WEBM_AV1 = 4,
  MOTE_CLIP_WEBP = 5,     /* animated, lossless */
  MOTE_CLIP_RAW_RGB8 = 6, /* frames one after another: RGB, 8 bits each, rows without gaps */
  MOTE_CLIP_Y4M = 7       /* YUV4MPEG2, 4:2:0 */
};

/* Work on a clip: one that is transformed, generated or labelled. Freed before its end, it is
 * cancelled. The daemon is passed duplicates of descriptors: the caller's stay open and his. */
typedef struct mote_transform mote_clip_t;

/*
 * As mote_generation_next(). MOTE_EVENT_PREVIEW, MOTE_EVENT_FRAME and MOTE_EVENT_AUDIO come where they
 * are asked for, MOTE_EVENT_LABELS of clips that are labelled, MOTE_EVENT_STEERED for each
 * mote_clip_steer(). After MOTE_EVENT_DONE the output is written.
 */
mote_status_t mote_clip_next(const mote_clip_t *clip, mote_event_t *event, mote_error_t **error);

/* As mote_generation_cancel(). What was written to the output by then is no clip. */
mote_status_t mote_clip_cancel(const mote_clip_t *clip, mote_error_t **error);

/* Halts the work at its next step. It keeps its memory; others may use the device meanwhile. Like
 * mote_clip_cancel(), this does not wait, and does nothing to work that is over. */
mote_status_t mote_clip_pause(const mote_clip_t *clip, mote_error_t **error);

/* Lets it go on. */
mote_status_t mote_clip_resume(const mote_clip_t *clip, mote_error_t **error);

/*
 * Another prompt for the shots of a generated clip that have not begun. The first begins with the work.
 * Like mote_clip_cancel(), this does not wait: MOTE_EVENT_STEERED tells from which shot on the prompt
 * counts, or why it does not. It comes once for each prompt that was set, in their order and before the
 * end of the work. Work that is over or makes no clip of words refuses a prompt with
 * MOTE_ERROR_INVALID, and any work one that is too long, or one beyond 32 whose events were not read,
 * with MOTE_ERROR_LIMIT_EXCEEDED.
 */
mote_status_t mote_clip_steer(const mote_clip_t *clip, const char *prompt, mote_error_t **error);

void mote_clip_free(mote_clip_t *clip);

/* A clip to be transformed, from file to file, with its sound where the output's format takes it,
 * which the receipt tells. Start from MOTE_TRANSFORM_ARGS_INIT: 0 is a descriptor. */
typedef struct mote_transform_args {
  size_t size;
  const char *model;
  const mote_options_t *options; /* or NULL */
  int32_t input_fd;              /* opened for reading */
  int32_t output_fd;             /* opened for reading and writing */
  int32_t contact_sheet_fd;      /* likewise, for a PNG with some of the frames; -1 is none */
  int32_t output_format;         /* MOTE_CLIP_* */
  int32_t encoder_speed;         /* AV1: 0 (slow, small) to 10; -1 leaves it to the daemon */
  uint32_t factor;               /* frames out per frame in: 2 or 4; 0 with models that restore
                                    frames (task "frame-restoration"), which give one for each */
  uint64_t frames_max;           /* frames to read; 0 is all */
  uint32_t width_max;            /* frames are scaled down to fit; 0 leaves them */
  uint32_t height_max;
  uint32_t frame_rate;    /* of an input that does not say; 0 takes 24 */
  uint32_t preview_every; /* a preview of about every n-th output frame; 0 is none */
  uint64_t tile_side_max; /* larger frames are restored in tiles of so many pixels a side; 0 leaves
                             it to the memory there is */
} mote_transform_args_t;

#define MOTE_TRANSFORM_ARGS_INIT \
  {sizeof(mote_transform_args_t), 0, 0, -1, -1, -1, MOTE_CLIP_MP4_AV1, -1, 2, 0, 0, 0, 0, 0, 0}

/* The name that mote_clip_t has in older programs, and that of its functions. */
typedef mote_clip_t mote_transform_t;

/* Begins to transform a clip. */
mote_status_t mote_transform_clip(const mote_client_t *client, const mote_transform_args_t *args,
                                  mote_clip_t **transform, mote_error_t **error);

mote_status_t mote_transform_next(const mote_transform_t *transform, mote_event_t *event,
                                  mote_error_t **error);

mote_status_t mote_transform_cancel(const mote_transform_t *transform, mote_error_t **error);

void mote_transform_free(mote_transform_t *transform);

/* One shot of a generated clip. */
typedef struct mote_clip_segment {
  const char *prompt;
  uint32_t frames; /* 0: as many as the model makes by itself */
  uint32_t flags;  /* 0 */
} mote_clip_segment_t;

/* A clip to be made of words, pictures (PNG) or another clip. 0 leaves a number to the model. Start
 * from MOTE_GENERATE_CLIP_ARGS_INIT: 0 is a descriptor; -1 is none. */
typedef struct mote_generate_clip_args {
  size_t size;
  const char *model;
  const mote_clip_segment_t *segments; /* 1 to 16, each going on from where the one before ended */
  size_t segment_count;
  const char *negative_prompt;   /* what it shall not show, where there is guidance; or NULL */
  const char *scheduler;         /* by its diffusers class, or "flow-match-euler", "euler", "ddim", "lcm",
                                    "dpmpp-2m"; NULL takes the model's own */
  const mote_options_t *options; /* or NULL */
  uint64_t seed;        /* the same seed gives the same frames; used when has_seed is not 0 */
  int32_t has_seed;     /* 0: the daemon draws one, and the receipt tells it */
  int32_t has_guidance; /* 0: the model's own */
  float guidance;       /* how much the prompt counts, 0 to 100; 1 is no guidance, and half the work */
  float strength;       /* how much of source_fd is made anew: above 0, at most 1; 0: the usual */
  uint32_t steps;       /* denoising steps of each shot */
  uint32_t width;       /* in pixels */
  uint32_t height;
  uint32_t frame_rate;    /* frames per second */
  uint32_t preview_every; /* a preview after about every n-th step; 0 is none */
  int32_t send_frames;    /* not 0: MOTE_EVENT_FRAME for each frame, as soon as it is decoded */
  int32_t output_format;  /* MOTE_CLIP_* */
  int32_t encoder_speed;  /* AV1: 0 (slow, small) to 10; -1 leaves it to the daemon */
  int32_t output_fd;      /* opened for reading and writing */
  int32_t contact_sheet_fd;   /* likewise, for a PNG with some of the frames */
  int32_t first_image_fd;     /* a picture for the first frame, */
  int32_t last_image_fd;      /* for the last, */
  int32_t reference_image_fd; /* and of what is to be seen */
  int32_t source_fd;          /* a clip to begin from */
  int32_t checkpoint_fd; /* opened for reading and writing, keeps the work so far: the same request with
                            what an earlier one left there goes on from that, to the same frames. It is
                            emptied when the clip is done */
  uint32_t flags;        /* 0 */
  uint64_t send_audio;   /* not 0: MOTE_EVENT_AUDIO for sound as soon as it is made, where the model
                            makes any */
} mote_generate_clip_args_t;

#define MOTE_GENERATE_CLIP_ARGS_INIT                                                           \
  {sizeof(mote_generate_clip_args_t),                                                          \
   0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,                                          \
   MOTE_CLIP_MP4_AV1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 0}

/* Begins to make a clip. */
mote_status_t mote_generate_clip(const mote_client_t *client,
                                 const mote_generate_clip_args_t *args, mote_clip_t **clip,
                                 mote_error_t **error);

/* A clip whose frames are to be labelled. Start from MOTE_LABEL_CLIP_ARGS_INIT. */
typedef struct mote_label_clip_args {
  size_t size;
  const char *model;
  const mote_options_t *options; /* or NULL */
  uint64_t frames_max;           /* frames to read; 0 is all */
  int32_t input_fd;              /* opened for reading */
  uint32_t every;                /* look at every n-th frame only; 0 looks at all */
  uint32_t frame_rate;           /* of an input that does not say; 0 takes 24 */
  uint32_t labels_max;           /* labels of each frame at most; 0: the model's own */
  int32_t has_score_min;         /* 0: the model's own */
  float score_min;               /* nothing below this is told */
} mote_label_clip_args_t;

#define MOTE_LABEL_CLIP_ARGS_INIT {sizeof(mote_label_clip_args_t), 0, 0, 0, -1, 0, 0, 0, 0, 0}

/* Begins to tell what is seen in a clip, in MOTE_EVENT_LABELS. */
mote_status_t mote_label_clip(const mote_client_t *client, const mote_label_clip_args_t *args,
                              mote_clip_t **clip, mote_error_t **error);

#ifdef __cplusplus
}
#endif

#endif
