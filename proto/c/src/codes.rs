//! The numbers of the ABI. They are never reused; new ones are added.

/// Constants with the names they have in `mote.h`.
macro_rules! constants {
    ($($name:ident = $value:expr,)*) => {
        $(
            #[allow(missing_docs, reason = "the header says what it is")]
            pub const $name: i32 = $value;
        )*

        /// Every constant of the header: name and value.
        pub const CONSTANTS: &[(&str, i32)] = &[$((stringify!($name), $value),)*];
    };
}

constants! {
    // As `Status.kind` of the schema.
    MOTE_OK = 0,
    MOTE_ERROR_MODEL_NOT_FOUND = 10,
    MOTE_ERROR_NO_BACKEND = 11,
    MOTE_ERROR_BUSY = 12,
    MOTE_ERROR_OVER_BUDGET = 13,
    MOTE_ERROR_DEADLINE_EXCEEDED = 14,
    MOTE_ERROR_WORKER_DIED = 15,
    MOTE_ERROR_INVALID = 16,
    MOTE_ERROR_CANCELLED = 17,
    MOTE_ERROR_LIMIT_EXCEEDED = 18,
    MOTE_ERROR_UNSUPPORTED = 19,
    MOTE_ERROR_MODEL_CORRUPT = 20,
    MOTE_ERROR_CONTEXT_OVERFLOW = 21,
    MOTE_ERROR_REVOKED = 22,
    MOTE_ERROR_COMPUTE_FAILED = 23,
    MOTE_ERROR_INTERNAL = 24,
    MOTE_ERROR_SHUTTING_DOWN = 25,
    MOTE_ERROR_VERSION_UNSUPPORTED = 26,
    MOTE_ERROR_STREAM_LOST = 27,
    // The client's own.
    MOTE_ERROR_CANNOT_CONNECT = 100,
    MOTE_ERROR_CONNECTION_CLOSED = 101,
    MOTE_ERROR_CONNECTION_FAILED = 102,
    MOTE_ERROR_PROTOCOL = 103,
    MOTE_ERROR_CANNOT_SEND = 104,
    MOTE_ERROR_NO_MEMORY = 105,
    MOTE_ERROR_OUT_OF_RANGE = 106,

    // As `DType` of the schema.
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
    MOTE_DTYPE_BOOL = 13,

    // As `FrameFormat`, `ColorMatrix` and `ColorRange` of the schema.
    MOTE_FRAME_RGB8 = 1,
    MOTE_FRAME_BGR8 = 2,
    MOTE_FRAME_RGBA8 = 3,
    MOTE_FRAME_NV12 = 4,
    MOTE_FRAME_I420 = 5,
    MOTE_FRAME_GRAY8 = 6,
    MOTE_FRAME_F32_NCHW = 7,
    MOTE_FRAME_F32_NHWC = 8,
    MOTE_FRAME_F16_NCHW = 9,
    MOTE_FRAME_F16_NHWC = 10,
    MOTE_COLOR_MATRIX_DEFAULT = 0,
    MOTE_COLOR_MATRIX_BT601 = 1,
    MOTE_COLOR_MATRIX_BT709 = 2,
    MOTE_COLOR_MATRIX_BT2020 = 3,
    MOTE_COLOR_RANGE_DEFAULT = 0,
    MOTE_COLOR_RANGE_LIMITED = 1,
    MOTE_COLOR_RANGE_FULL = 2,

    // As `Priority` of the schema.
    MOTE_PRIORITY_DEFAULT = 0,
    MOTE_PRIORITY_INTERACTIVE = 1,
    MOTE_PRIORITY_NORMAL = 2,
    MOTE_PRIORITY_BACKGROUND = 3,

    MOTE_EVENT_NONE = 0,
    MOTE_EVENT_ACCEPTED = 1,
    MOTE_EVENT_PROGRESS = 2,
    MOTE_EVENT_TOKEN = 3,
    MOTE_EVENT_PREVIEW = 4,
    MOTE_EVENT_DONE = 5,
    MOTE_EVENT_FRAME = 6,
    MOTE_EVENT_LABELS = 7,
    MOTE_EVENT_AUDIO = 8,
    MOTE_EVENT_STEERED = 9,

    MOTE_STAGE_QUEUED = 1,
    MOTE_STAGE_LOADING = 2,
    MOTE_STAGE_PREFILL = 3,
    MOTE_STAGE_DECODE = 4,
    MOTE_STAGE_TRANSFORM = 5,
    MOTE_STAGE_ENCODE = 6,
    MOTE_STAGE_TRYING = 7,
    MOTE_STAGE_COMPILING = 8,
    MOTE_STAGE_EMBED = 9,
    MOTE_STAGE_DENOISE = 10,
    MOTE_STAGE_LABEL = 11,

    MOTE_EMBED_PLAIN = 0,
    MOTE_EMBED_QUERY = 1,
    MOTE_EMBED_DOCUMENT = 2,

    // As `FinishReason` of the schema.
    MOTE_FINISH_COMPLETE = 1,
    MOTE_FINISH_END_OF_ANSWER = 2,
    MOTE_FINISH_STOP_STRING = 3,
    MOTE_FINISH_TOKENS_MAX = 4,
    MOTE_FINISH_CONTEXT_FULL = 5,

    MOTE_REASONING_IN_TEXT = 0,
    MOTE_REASONING_APART = 1,
    MOTE_REASONING_LIMITED = 2,

    // As `ClipFormat` of the schema.
    MOTE_CLIP_MP4_AV1 = 1,
    MOTE_CLIP_GIF = 2,
    MOTE_CLIP_PNG_STREAM = 3,
    MOTE_CLIP_WEBM_AV1 = 4,
    MOTE_CLIP_WEBP = 5,
    MOTE_CLIP_RAW_RGB8 = 6,
    MOTE_CLIP_Y4M = 7,

    MOTE_BUFFER_ALIGNMENT_BYTES = 64,
    MOTE_ABI_VERSION = 1,
}

/// A number that is not known: there is no such deadline, total or time.
pub const MOTE_UNKNOWN: u64 = u64::MAX;
