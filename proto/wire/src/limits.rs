//! Every limit of the wire.

use serde::Serialize;

/// Wire version this crate speaks.
pub const WIRE_VERSION: u32 = 1;
/// Bytes of one frame's message.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// Bytes of a tensor that travels in its frame.
pub const INLINE_BYTES_MAX: usize = 64 << 10;
/// Descriptors of one frame.
pub const FDS_PER_FRAME_MAX: usize = 8;
/// Requests of one connection that have not been closed yet.
pub const OPEN_REQUESTS_MAX: usize = 64;
/// Content frames a client may let the server send ahead of it.
pub const CREDIT_MAX: u32 = 256;
/// Buffers registered on one connection.
pub const BUFFERS_MAX: usize = 64;
/// Bytes of one registered buffer.
pub const BUFFER_BYTES_MAX: u64 = 4 << 30;
/// Offsets into buffers are multiples of this: a cache line, and what TFLite asks for.
pub const RANGE_ALIGNMENT_BYTES: u64 = 64;
/// Bytes of all messages or of the plain prompt of one request.
pub const PROMPT_BYTES_MAX: usize = 1 << 20;
/// Messages of one request.
pub const MESSAGES_MAX: usize = 1024;
/// Stop strings of one request.
pub const STOPS_MAX: usize = 16;
/// Bytes of one stop string.
pub const STOP_BYTES_MAX: usize = 256;
/// Likeliest tokens told with each token of an answer.
pub const LOGPROBS_MAX: u32 = 20;
/// Tokens of one request with a bias.
pub const LOGIT_BIAS_MAX: usize = 1024;
/// A bias, up or down.
pub const BIAS_MAX: f32 = 100.0;
/// Bytes of what an answer's form is described by.
pub const CONSTRAINT_BYTES_MAX: usize = 64 << 10;
/// Tokens that are drafted and verified in one run.
pub const DRAFT_TOKENS_MAX: u32 = 16;
/// Bytes of the description of tools.
pub const TOOLS_BYTES_MAX: usize = 256 << 10;
/// Texts of one request to be embedded; all together are at most [`PROMPT_BYTES_MAX`].
pub const EMBED_TEXTS_MAX: usize = 1024;
/// Bytes of one text to be embedded.
pub const EMBED_TEXT_BYTES_MAX: usize = 256 << 10;
/// Inputs or outputs named in one request.
pub const TENSORS_MAX: usize = 256;
/// Dimensions of a tensor.
pub const RANK_MAX: usize = 8;
/// Bytes of a name: model, tensor, backend, client.
pub const NAME_BYTES_MAX: usize = 256;
/// Width and height that clips may be scaled down to.
pub const CLIP_SIDE_PIXELS_MAX: u32 = 16_384;
/// Width and height of a frame in a buffer.
pub const FRAME_SIDE_PIXELS_MAX: u32 = 16_384;
/// Planes of a frame in a buffer.
pub const FRAME_PLANES_MAX: usize = 3;
/// Frames per second of a clip.
pub const FRAME_RATE_MAX: u32 = 1_000;
/// Shots of one generated clip.
pub const CLIP_SEGMENTS_MAX: usize = 16;
/// Prompts that the client of a clip has set and has not been told the fate of: one for each shot, and as many again.
pub const CLIP_STEERS_MAX: usize = 2 * CLIP_SEGMENTS_MAX;
/// Bytes of the reason why such a prompt is not taken.
pub const STEERED_WHY_BYTES_MAX: usize = 512;
/// Denoising steps of one shot.
pub const CLIP_STEPS_MAX: u32 = 1_000;
/// Frames of one shot.
pub const FRAMES_GENERATED_MAX: u32 = 4_096;
/// Guidance of a generated clip.
pub const GUIDANCE_MAX: f32 = 100.0;
/// Samples per second of sound.
pub const AUDIO_SAMPLE_RATE_MAX: u32 = 192_000;
/// Channels of sound.
pub const AUDIO_CHANNELS_MAX: u32 = 8;
/// Bytes of the sound in one answer: almost three minutes of stereo at 48 kHz.
pub const AUDIO_BYTES_MAX: u64 = 64 << 20;
/// Labels of one frame, and boxes.
pub const LABELS_MAX: usize = 1024;
/// Fastest setting of the AV1 encoder.
pub const ENCODER_SPEED_MAX: u32 = 10;

/// The limits as they are told to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "as the constants above")]
pub struct Limits {
    pub frame_bytes_max: u64,
    pub inline_bytes_max: u64,
    pub fds_per_frame_max: u32,
    pub open_requests_max: u32,
    pub credit_max: u32,
    pub buffers_max: u32,
    pub buffer_bytes_max: u64,
    pub prompt_bytes_max: u64,
}

impl Limits {
    /// The limits of this version.
    pub const CURRENT: Self = Self {
        frame_bytes_max: FRAME_BYTES_MAX as u64,
        inline_bytes_max: INLINE_BYTES_MAX as u64,
        fds_per_frame_max: FDS_PER_FRAME_MAX as u32,
        open_requests_max: OPEN_REQUESTS_MAX as u32,
        credit_max: CREDIT_MAX,
        buffers_max: BUFFERS_MAX as u32,
        buffer_bytes_max: BUFFER_BYTES_MAX,
        prompt_bytes_max: PROMPT_BYTES_MAX as u64,
    };
}
