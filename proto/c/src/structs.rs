//! The structs of `mote.h`, field by field, without padding on 64-bit machines.

use crate::buffer::MoteBuffer;
use crate::door::{Bytes, Given, Lent, List, Text, sized, structs};
use crate::receipt::MoteReceipt;
use std::ffi::{c_char, c_void};

/// How a struct lies in memory: what the header must agree with.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Name in the header.
    pub name: &'static str,
    /// Size of it all.
    pub bytes: usize,
    /// Name, offset and size of each field.
    pub fields: Vec<(&'static str, usize, usize)>,
}

structs! {
    /// What the daemon accepts.
    mote_limits_t = Limits {
        size: usize,
        frame_bytes_max: u64,
        inline_bytes_max: u64,
        buffer_bytes_max: u64,
        prompt_bytes_max: u64,
        fds_per_frame_max: u32,
        open_requests_max: u32,
        credit_max: u32,
        buffers_max: u32,
    }

    /// What every piece of work may ask for.
    mote_options_t = Options<'a> {
        size: usize,
        require_backend: Text<'a>,
        require_flavour: Text<'a>,
        require_provider: Text<'a>,
        require_variant: Text<'a>,
        deadline_ms: u64,
        priority: i32,
        forbid_cpu: i32,
        threads_max: u32,
        credit: u32,
    }

    /// An input. Arrays of it are passed, so it keeps its size.
    mote_tensor_t = Tensor<'a> {
        name: Text<'a>,
        shape: List<'a, u64>,
        rank: u32,
        dtype: i32,
        data: Bytes<'a>,
        bytes: usize,
        buffer: Lent<'a, MoteBuffer>,
        offset: u64,
        reserved: [u64; 2],
    }

    /// Where an output goes. Arrays of it are passed, so it keeps its size.
    mote_target_t = Target<'a> {
        name: Text<'a>,
        shape: List<'a, u64>,
        rank: u32,
        flags: u32,
        buffer: Lent<'a, MoteBuffer>,
        offset: u64,
        bytes: u64,
        reserved: [u64; 2],
    }

    /// One run of a model.
    mote_infer_args_t = InferArgs<'a> {
        size: usize,
        model: Text<'a>,
        inputs: List<'a, Tensor<'a>>,
        input_count: usize,
        targets: List<'a, Target<'a>>,
        target_count: usize,
        options: Given<'a, Options<'a>>,
    }

    /// A frame. Arrays of it are passed, so it keeps its size.
    mote_frame_t = Frame<'a> {
        name: Text<'a>,
        buffer: Lent<'a, MoteBuffer>,
        format: i32,
        matrix: i32,
        range: i32,
        plane_count: u32,
        width: u32,
        height: u32,
        tensor_width: u32,
        tensor_height: u32,
        offsets: [u64; 3],
        strides: [u64; 3],
        reserved: [u64; 2],
    }

    /// One step of a stream.
    mote_push_args_t = PushArgs<'a> {
        size: usize,
        inputs: List<'a, Tensor<'a>>,
        input_count: usize,
        targets: List<'a, Target<'a>>,
        target_count: usize,
        frames: List<'a, Frame<'a>>,
        frame_count: usize,
        frame_outputs: List<'a, Frame<'a>>,
        frame_output_count: usize,
    }

    /// An output.
    mote_output_t = Output {
        size: usize,
        name: *const c_char,
        shape: *const u64,
        rank: u32,
        dtype: i32,
        data: *const c_void,
        bytes: usize,
        in_buffer: i32,
        flags: u32,
    }

    /// One message of a conversation. Arrays of it are passed, so it keeps its size.
    mote_message_t = Message<'a> {
        role: Text<'a>,
        content: Text<'a>,
    }

    /// How tokens are drawn.
    mote_sampling_t = Sampling {
        size: usize,
        seed: u64,
        has_seed: i32,
        temperature: f32,
        top_k: u32,
        top_p: f32,
        min_p: f32,
        repetition_penalty: f32,
    }

    /// A token's bias. Arrays of it are passed, so it keeps its size.
    mote_logit_bias_t = LogitBias {
        token_id: u32,
        bias: f32,
    }

    /// Text to be answered.
    mote_generate_args_t = GenerateArgs<'a> {
        size: usize,
        model: Text<'a>,
        messages: List<'a, Message<'a>>,
        message_count: usize,
        prompt: Text<'a>,
        stop: List<'a, Text<'a>>,
        stop_count: usize,
        sampling: Given<'a, Sampling>,
        options: Given<'a, Options<'a>>,
        tokens_max: u32,
        flags: u32,
        has_logprobs: i32,
        top_logprobs: u32,
        logit_bias: List<'a, LogitBias>,
        logit_bias_count: usize,
        json_schema: Text<'a>,
        regex: Text<'a>,
        reasoning: i32,
        reasoning_tokens_max: u32,
        tools_json: Text<'a>,
        message_fields: List<'a, Text<'a>>,
        deterministic: i32,
        slide_context: i32,
        draft_tokens_max: u64,
    }

    /// A token that could have been taken. Arrays of it are given, so it keeps its size.
    mote_top_token_t = TopToken {
        id: u32,
        logprob: f32,
        text: *const c_char,
        text_bytes: usize,
    }

    /// Texts to be embedded.
    mote_embed_args_t = EmbedArgs<'a> {
        size: usize,
        model: Text<'a>,
        texts: List<'a, Text<'a>>,
        text_count: usize,
        options: Given<'a, Options<'a>>,
        kind: i32,
        dimensions: u32,
        truncate: i32,
        flags: u32,
    }

    /// A clip to be transformed.
    mote_transform_args_t = TransformArgs<'a> {
        size: usize,
        model: Text<'a>,
        options: Given<'a, Options<'a>>,
        input_fd: i32,
        output_fd: i32,
        contact_sheet_fd: i32,
        output_format: i32,
        encoder_speed: i32,
        factor: u32,
        frames_max: u64,
        width_max: u32,
        height_max: u32,
        frame_rate: u32,
        preview_every: u32,
        tile_side_max: u64,
    }

    /// One shot of a generated clip. Arrays of it are passed, so it keeps its size.
    mote_clip_segment_t = ClipSegment<'a> {
        prompt: Text<'a>,
        frames: u32,
        flags: u32,
    }

    /// A clip to be made of words, pictures or another clip.
    mote_generate_clip_args_t = GenerateClipArgs<'a> {
        size: usize,
        model: Text<'a>,
        segments: List<'a, ClipSegment<'a>>,
        segment_count: usize,
        negative_prompt: Text<'a>,
        scheduler: Text<'a>,
        options: Given<'a, Options<'a>>,
        seed: u64,
        has_seed: i32,
        has_guidance: i32,
        guidance: f32,
        strength: f32,
        steps: u32,
        width: u32,
        height: u32,
        frame_rate: u32,
        preview_every: u32,
        send_frames: i32,
        output_format: i32,
        encoder_speed: i32,
        output_fd: i32,
        contact_sheet_fd: i32,
        first_image_fd: i32,
        last_image_fd: i32,
        reference_image_fd: i32,
        source_fd: i32,
        checkpoint_fd: i32,
        flags: u32,
        send_audio: u64,
    }

    /// A clip whose frames are to be labelled.
    mote_label_clip_args_t = LabelClipArgs<'a> {
        size: usize,
        model: Text<'a>,
        options: Given<'a, Options<'a>>,
        frames_max: u64,
        input_fd: i32,
        every: u32,
        frame_rate: u32,
        labels_max: u32,
        has_score_min: i32,
        score_min: f32,
    }

    /// A class that is seen. Arrays of it are given, so it keeps its size.
    mote_label_t = Label {
        class_id: u32,
        score: f32,
        label: *const c_char,
    }

    /// A class and where it is seen. Arrays of it are given, so it keeps its size.
    mote_label_box_t = LabelBox {
        class_id: u32,
        score: f32,
        label: *const c_char,
        x0: f32,
        y0: f32,
        x1: f32,
        y1: f32,
    }

    /// Something that happens while work goes on.
    mote_event_t = Event {
        size: usize,
        kind: i32,
        queue_position: u32,
        stage: i32,
        finish: i32,
        done: u64,
        total: u64,
        remaining_ms: u64,
        token_index: u32,
        token_id: u32,
        text: *const c_char,
        text_bytes: usize,
        frame_index: u64,
        width: u32,
        height: u32,
        png: *const u8,
        png_bytes: usize,
        receipt: *const MoteReceipt,
        has_logprob: i32,
        logprob: f32,
        top: *const TopToken,
        top_count: usize,
        reasoning: *const c_char,
        reasoning_bytes: usize,
        is_reasoning: u64,
        pixels: *const u8,
        pixel_bytes: usize,
        frame_count: u64,
        time_us: u64,
        labels: *const Label,
        label_count: usize,
        boxes: *const LabelBox,
        box_count: usize,
        samples: *const f32,
        sample_count: usize,
        sample_index: u64,
        sample_rate: u32,
        channels: u32,
        is_taken: i32,
        from_segment: u32,
        why: *const c_char,
    }

    /// What a result was computed by, on, and how.
    mote_receipt_info_t = ReceiptInfo {
        size: usize,
        model: *const c_char,
        model_digest: *const c_char,
        variant: *const c_char,
        backend: *const c_char,
        flavour: *const c_char,
        library_version: *const c_char,
        precision: *const c_char,
        device_id: *const c_char,
        device_kind: *const c_char,
        device_name: *const c_char,
        throttle: *const c_char,
        queue_us: u64,
        load_us: u64,
        prefill_us: u64,
        decode_us: u64,
        compute_us: u64,
        total_us: u64,
        media_decode_us: u64,
        media_encode_us: u64,
        steps: u64,
        prompt_tokens: u64,
        cached_tokens: u64,
        generated_tokens: u64,
        frames_in: u64,
        frames_out: u64,
        bytes_copied: u64,
        seed: u64,
        has_seed: i32,
        local: i32,
        placement_read_back: i32,
        spin: i32,
        threads: u32,
        thread_changes: u32,
        preemptions: u32,
        retries: u32,
        experts: u32,
        experts_per_token: u32,
        verification: *const c_char,
        measured_at_s: u64,
        host_cpu_us: u64,
        measured: u64,
        reasoning_tokens: u64,
        shared_steps: u64,
        drafted_tokens: u64,
        accepted_tokens: u64,
        dropped_tokens: u64,
        texts: u64,
        bytes_converted: u64,
        scheduler: *const c_char,
        step_times_us: *const u64,
        step_time_count: usize,
        resumed_steps: u64,
        audio_codec: *const c_char,
        audio_samples_out: u64,
        audio_sample_rate: u32,
        audio_channels: u32,
    }
}

// The last field of the first version stays when fields are added.
sized! {
    Limits ends with buffers_max: u32,
    Options<'_> ends with credit: u32,
    InferArgs<'_> ends with options: *const c_void,
    PushArgs<'_> ends with target_count: usize,
    Output ends with flags: u32,
    Sampling ends with repetition_penalty: f32,
    GenerateArgs<'_> ends with flags: u32,
    EmbedArgs<'_> ends with flags: u32,
    TransformArgs<'_> ends with preview_every: u32,
    GenerateClipArgs<'_> ends with flags: u32,
    LabelClipArgs<'_> ends with score_min: f32,
    Event ends with receipt: *const c_void,
    ReceiptInfo ends with experts_per_token: u32,
}
