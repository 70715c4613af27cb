//! Work that tells what happens: an answer, a clip.

use crate::call::{Out, call};
use crate::codes::*;
use crate::door::Filled;
use crate::error::MoteError;
use crate::failure::Failure;
use crate::json::c_text;
use crate::receipt::MoteReceipt;
use crate::seen::Seen;
use crate::structs::{Event, TopToken};
use mote_client::{
    Canceller, ClientError, ClipAudio, ClipFrame, Done, FinishReason, FrameLabels, Logprobs,
    Preview, Progress, Stage, Steered, Token,
};
use std::ffi::CString;
use std::ptr;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Work under way: the iterator over its events, and what cancels it meanwhile.
pub(crate) struct Job<I> {
    work: Mutex<Work<I>>,
    canceller: Canceller,
    receipt: OnceLock<MoteReceipt>,
}

struct Work<I> {
    events: I,
    /// Text, picture or frame of the event that C was told last.
    content: Vec<u8>,
    reasoning: Vec<u8>,
    /// The likeliest tokens of the event that C was told last, and their texts.
    top: Vec<TopToken>,
    top_texts: Vec<CString>,
    /// Sound of the event that C was told last.
    samples: Vec<f32>,
    /// What is seen in the frame that C was told of last.
    seen: Seen,
}

/// One event of either kind of work.
pub(crate) enum JobEvent {
    Accepted { queue_position: u32 },
    Progress(Progress),
    Token(Token),
    Preview(Preview),
    Frame(ClipFrame),
    Audio(ClipAudio),
    Labels(FrameLabels),
    Steered(Steered),
    Done(Box<Done>),
}

impl<I, E> Job<I>
where
    I: Iterator<Item = Result<E, ClientError>>,
    E: Into<JobEvent>,
{
    pub(crate) fn new(events: I, canceller: Canceller) -> Self {
        let work = Work {
            events,
            content: Vec::new(),
            reasoning: Vec::new(),
            top: Vec::new(),
            top_texts: Vec::new(),
            samples: Vec::new(),
            seen: Seen::default(),
        };
        Self {
            work: Mutex::new(work),
            canceller,
            receipt: OnceLock::new(),
        }
    }

    fn next(&self) -> Result<Event, Failure> {
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        let event = match work.events.next() {
            None => return Ok(EMPTY),
            Some(event) => event?.into(),
        };
        Ok(match event {
            JobEvent::Accepted { queue_position } => Event {
                kind: MOTE_EVENT_ACCEPTED,
                queue_position,
                ..EMPTY
            },
            JobEvent::Progress(progress) => Event {
                kind: MOTE_EVENT_PROGRESS,
                stage: stage_number(progress.stage),
                done: progress.done,
                total: progress.total.unwrap_or(MOTE_UNKNOWN),
                remaining_ms: progress.remaining_ms.unwrap_or(MOTE_UNKNOWN),
                ..EMPTY
            },
            JobEvent::Token(token) => work.show_token(token),
            JobEvent::Preview(preview) => work.show_preview(preview),
            JobEvent::Frame(frame) => work.show_frame(frame),
            JobEvent::Audio(sound) => work.show_audio(sound),
            JobEvent::Labels(labels) => work.show_labels(labels),
            JobEvent::Steered(steered) => work.show_steered(steered),
            JobEvent::Done(done) => {
                let finish = finish_number(done.finish);
                let receipt = self.receipt.get_or_init(|| MoteReceipt::new(done.receipt));
                Event {
                    kind: MOTE_EVENT_DONE,
                    finish,
                    receipt: ptr::from_ref(receipt),
                    ..EMPTY
                }
            }
        })
    }
}

impl<I> Work<I> {
    fn show_token(&mut self, token: Token) -> Event {
        self.content.clear();
        self.content.extend_from_slice(token.text.as_bytes());
        self.content.push(0);
        let reasoning_bytes = token.reasoning.len();
        self.reasoning = token.reasoning.into_bytes();
        self.reasoning.push(0);
        let told = Event {
            kind: MOTE_EVENT_TOKEN,
            token_index: token.index,
            token_id: token.id,
            text: self.content.as_ptr().cast(),
            text_bytes: token.text.len(),
            reasoning: self.reasoning.as_ptr().cast(),
            reasoning_bytes,
            is_reasoning: token.is_reasoning.into(),
            ..EMPTY
        };
        match token.logprobs {
            Some(logprobs) => self.show_logprobs(logprobs, told),
            None => told,
        }
    }

    fn show_logprobs(&mut self, logprobs: Logprobs, event: Event) -> Event {
        self.top.clear();
        self.top_texts.clear();
        for token in logprobs.top {
            // A text that holds a NUL is cut there, as C would.
            let mut bytes = token.text.into_bytes();
            let text_bytes = bytes.iter().position(|&byte| byte == 0);
            let text_bytes = text_bytes.unwrap_or(bytes.len());
            bytes.truncate(text_bytes);
            let text = CString::new(bytes).unwrap_or_default();
            self.top.push(TopToken {
                id: token.id,
                logprob: token.logprob,
                text: text.as_ptr(),
                text_bytes,
            });
            self.top_texts.push(text);
        }
        Event {
            has_logprob: 1,
            logprob: logprobs.chosen,
            top: self.top.as_ptr(),
            top_count: self.top.len(),
            ..event
        }
    }

    fn show_preview(&mut self, preview: Preview) -> Event {
        self.content = preview.png;
        Event {
            kind: MOTE_EVENT_PREVIEW,
            frame_index: preview.frame_index,
            width: preview.width,
            height: preview.height,
            png: self.content.as_ptr(),
            png_bytes: self.content.len(),
            ..EMPTY
        }
    }

    fn show_frame(&mut self, frame: ClipFrame) -> Event {
        self.content = frame.pixels;
        Event {
            kind: MOTE_EVENT_FRAME,
            frame_index: frame.frame_index,
            width: frame.width,
            height: frame.height,
            pixels: self.content.as_ptr(),
            pixel_bytes: self.content.len(),
            ..EMPTY
        }
    }

    fn show_audio(&mut self, sound: ClipAudio) -> Event {
        self.samples = sound.samples;
        // The client has checked that there are channels, and all of each sample.
        let sample_count = self.samples.len() / (sound.channels as usize).max(1);
        Event {
            kind: MOTE_EVENT_AUDIO,
            samples: self.samples.as_ptr(),
            sample_count,
            sample_index: sound.sample_index,
            sample_rate: sound.sample_rate,
            channels: sound.channels,
            ..EMPTY
        }
    }

    fn show_steered(&mut self, steered: Steered) -> Event {
        let (segment, why) = match steered {
            Steered::From { segment } => (Some(segment), String::new()),
            Steered::NotTaken { why } => (None, why),
        };
        self.content = c_text(&why).into_bytes_with_nul();
        Event {
            kind: MOTE_EVENT_STEERED,
            is_taken: segment.is_some().into(),
            from_segment: segment.unwrap_or_default(),
            why: self.content.as_ptr().cast(),
            ..EMPTY
        }
    }

    fn show_labels(&mut self, told: FrameLabels) -> Event {
        let (frame_index, frame_count) = (told.frame_index, told.frame_count);
        let time_us = told.time_us;
        self.seen = Seen::new(told);
        let (labels, boxes) = (self.seen.labels(), self.seen.boxes());
        Event {
            kind: MOTE_EVENT_LABELS,
            frame_index,
            frame_count,
            time_us,
            labels: labels.as_ptr(),
            label_count: labels.len(),
            boxes: boxes.as_ptr(),
            box_count: boxes.len(),
            ..EMPTY
        }
    }
}

/// Tells the next event; `name` is the handle's.
pub(crate) fn next<I, E>(
    job: Option<&Job<I>>,
    name: &str,
    event: Filled<'_, Event>,
    error: Out<'_, MoteError>,
) -> i32
where
    I: Iterator<Item = Result<E, ClientError>>,
    E: Into<JobEvent>,
{
    call(error, || {
        let job = job.ok_or_else(|| Failure::null(name))?;
        // Before the event is taken, or it would be lost.
        event.check("event")?;
        event.fill("event", EMPTY)?;
        event.fill("event", job.next()?)
    })
}

/// Cancels work; `name` is the handle's.
pub(crate) fn cancel<I>(job: Option<&Job<I>>, name: &str, error: Out<'_, MoteError>) -> i32 {
    call(error, || {
        let job = job.ok_or_else(|| Failure::null(name))?;
        Ok(job.canceller.cancel()?)
    })
}

const EMPTY: Event = Event {
    size: size_of::<Event>(),
    kind: MOTE_EVENT_NONE,
    queue_position: 0,
    stage: 0,
    finish: 0,
    done: 0,
    total: 0,
    remaining_ms: 0,
    token_index: 0,
    token_id: 0,
    text: ptr::null(),
    text_bytes: 0,
    frame_index: 0,
    width: 0,
    height: 0,
    png: ptr::null(),
    png_bytes: 0,
    receipt: ptr::null(),
    has_logprob: 0,
    logprob: 0.0,
    top: ptr::null(),
    top_count: 0,
    reasoning: ptr::null(),
    reasoning_bytes: 0,
    is_reasoning: 0,
    pixels: ptr::null(),
    pixel_bytes: 0,
    frame_count: 0,
    time_us: 0,
    labels: ptr::null(),
    label_count: 0,
    boxes: ptr::null(),
    box_count: 0,
    samples: ptr::null(),
    sample_count: 0,
    sample_index: 0,
    sample_rate: 0,
    channels: 0,
    is_taken: 0,
    from_segment: 0,
    why: ptr::null(),
};

fn stage_number(stage: Stage) -> i32 {
    match stage {
        Stage::Queued => MOTE_STAGE_QUEUED,
        Stage::Loading => MOTE_STAGE_LOADING,
        Stage::Prefill => MOTE_STAGE_PREFILL,
        Stage::Decode => MOTE_STAGE_DECODE,
        Stage::Transform => MOTE_STAGE_TRANSFORM,
        Stage::Encode => MOTE_STAGE_ENCODE,
        Stage::Trying => MOTE_STAGE_TRYING,
        Stage::Compiling => MOTE_STAGE_COMPILING,
        Stage::Embed => MOTE_STAGE_EMBED,
        Stage::Denoise => MOTE_STAGE_DENOISE,
        Stage::Label => MOTE_STAGE_LABEL,
    }
}

fn finish_number(finish: FinishReason) -> i32 {
    match finish {
        FinishReason::Complete => MOTE_FINISH_COMPLETE,
        FinishReason::EndOfAnswer => MOTE_FINISH_END_OF_ANSWER,
        FinishReason::StopString => MOTE_FINISH_STOP_STRING,
        FinishReason::TokensMax => MOTE_FINISH_TOKENS_MAX,
        FinishReason::ContextFull => MOTE_FINISH_CONTEXT_FULL,
    }
}
