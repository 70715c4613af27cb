//! Clip in, clip out.

use crate::call::{Call, Canceller, credit_of};
use crate::client::Client;
use crate::error::ClientError;
use crate::steering::{ClipSteering, Steers};
use crate::tensor::OwnedTensor;
use mote_wire::limits::CLIP_SIDE_PIXELS_MAX;
use mote_wire::types::{
    AudioOut, DType, Done, FrameLabels, FrameOut, GenerateClip, LabelClip, Preview, Progress,
    Reply, Request, Steered, TransformClip,
};
use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes of a pixel.
const CHANNELS: u64 = 3;

/// What happens while a clip is transformed, generated or labelled.
#[derive(Clone, Debug, PartialEq)]
pub enum ClipEvent {
    /// The request is in the queue.
    Accepted {
        /// Requests ahead of it.
        queue_position: u32,
    },
    /// How far it is.
    Progress(Progress),
    /// A frame of the result, as PNG; where a clip is generated, as it is expected to become.
    Preview(Preview),
    /// A frame of a generated clip, when the request asks for frames.
    Frame(ClipFrame),
    /// Sound of a generated clip, when the request asks for it and the model makes any.
    Audio(ClipAudio),
    /// What is seen in a frame.
    Labels(FrameLabels),
    /// What became of a prompt that was [set](ClipSteering::set_prompt): one for each, in their order.
    Steered(Steered),
    /// The result is written; nothing comes after this.
    Done(Box<Done>),
}

/// A frame of a clip as it was decoded.
#[derive(Clone, PartialEq, Eq)]
pub struct ClipFrame {
    /// Its place in the clip, from 0.
    pub frame_index: u64,
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// u8 `[height, width, 3]`: red, green and blue, rows without gaps.
    pub pixels: Vec<u8>,
}

impl std::fmt::Debug for ClipFrame {
    /// Outputs never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClipFrame")
            .field("frame_index", &self.frame_index)
            .field("size", &(self.width, self.height))
            .finish_non_exhaustive()
    }
}

impl ClipFrame {
    /// Checked before its memory is taken.
    fn read(told: FrameOut) -> Result<Self, ClientError> {
        let broken = || ClientError::other_answer("work on a clip");
        let side = |side: u64| {
            let side = u32::try_from(side).ok();
            side.filter(|side| (1..=CLIP_SIDE_PIXELS_MAX).contains(side))
                .ok_or_else(broken)
        };
        let frame = told.frame;
        let &[height, width, CHANNELS] = frame.shape.as_slice() else {
            return Err(broken());
        };
        let (width, height) = (side(width)?, side(height)?);
        let bytes = CHANNELS * u64::from(width) * u64::from(height);
        if frame.dtype != DType::U8 || frame.data.bytes() != bytes {
            return Err(broken());
        }
        let pixels = OwnedTensor::read(frame)?.into_bytes().ok_or_else(broken)?;
        Ok(Self {
            frame_index: told.frame_index,
            width,
            height,
            pixels,
        })
    }
}

/// Sound of a clip as it was made.
#[derive(Clone, PartialEq)]
pub struct ClipAudio {
    /// The first of these samples, counted in each channel from the clip's beginning.
    pub sample_index: u64,
    /// Samples per second of each channel, 1 to 192,000; the same throughout a clip.
    pub sample_rate: u32,
    /// Channels, 1 to 8; the same throughout a clip.
    pub channels: u32,
    /// f32 `[samples, channels]`, from -1 to 1: a sample of each channel, then the next of each. 64 MiB at
    /// most.
    pub samples: Vec<f32>,
}

impl std::fmt::Debug for ClipAudio {
    /// Outputs never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClipAudio")
            .field("sample_index", &self.sample_index)
            .field("sample_rate", &self.sample_rate)
            .field("channels", &self.channels)
            .finish_non_exhaustive()
    }
}

impl ClipAudio {
    /// The wire has checked type, shape and size.
    fn read(told: AudioOut) -> Result<Self, ClientError> {
        let broken = || ClientError::other_answer("work on a clip");
        let &[_, channels] = told.audio.shape.as_slice() else {
            return Err(broken());
        };
        let channels = u32::try_from(channels).map_err(|_| broken())?;
        let bytes = OwnedTensor::read(told.audio)?.into_bytes();
        let bytes = bytes.ok_or_else(broken)?;
        let samples = bytes.as_chunks().0.iter();
        Ok(Self {
            sample_index: told.sample_index,
            sample_rate: told.sample_rate,
            channels,
            samples: samples.map(|sample| f32::from_ne_bytes(*sample)).collect(),
        })
    }
}

/// Work on a clip: an iterator over its events. An error is the last one. Dropped before the end, the
/// work is cancelled.
#[derive(Debug)]
pub struct ClipWork {
    call: Call,
    steers: Arc<Steers>,
    /// The end, behind what is still to be told of prompts.
    last: VecDeque<Result<ClipEvent, ClientError>>,
}

impl Client {
    /// Begins to transform a clip.
    pub fn transform_clip(&self, mut request: TransformClip) -> Result<ClipWork, ClientError> {
        let credit = credit_of(&request.options);
        request.options.credit = credit;
        self.clip_work(Request::TransformClip(request), credit)
    }

    /// Begins to make a clip of words, pictures or another clip.
    pub fn generate_clip(&self, mut request: GenerateClip) -> Result<ClipWork, ClientError> {
        let credit = credit_of(&request.options);
        request.options.credit = credit;
        self.clip_work(Request::GenerateClip(Box::new(request)), credit)
    }

    /// Begins to tell what is seen in a clip.
    pub fn label_clip(&self, mut request: LabelClip) -> Result<ClipWork, ClientError> {
        let credit = credit_of(&request.options);
        request.options.credit = credit;
        self.clip_work(Request::LabelClip(request), credit)
    }

    fn clip_work(&self, request: Request, credit: u32) -> Result<ClipWork, ClientError> {
        let steers = Steers::of(&request);
        let call = Call::open(&self.link, request, credit)?;
        Ok(ClipWork {
            call,
            steers: Arc::new(steers),
            last: VecDeque::new(),
        })
    }
}

impl ClipWork {
    /// What cancels it from elsewhere.
    pub fn canceller(&self) -> Canceller {
        self.call.canceller()
    }

    /// What halts it, lets it go on, and changes its prompt, from elsewhere.
    pub fn steering(&self) -> ClipSteering {
        ClipSteering::new(self.call.canceller(), Arc::clone(&self.steers))
    }

    /// The work is over: its last event, and ahead of it what the daemon did not tell of prompts.
    fn end(&mut self, last: Result<ClipEvent, ClientError>) -> Option<<Self as Iterator>::Item> {
        let untold = self.steers.end().map(ClipEvent::Steered);
        self.last.extend(untold.map(Ok));
        self.last.push_back(last);
        self.last.pop_front()
    }
}

impl Iterator for ClipWork {
    type Item = Result<ClipEvent, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(event) = self.last.pop_front() {
            return Some(event);
        }
        let answer = match self.call.next()? {
            Ok(answer) => answer,
            Err(error) => return self.end(Err(error)),
        };
        let event = match answer {
            Reply::Accepted { queue_position } => Ok(ClipEvent::Accepted { queue_position }),
            Reply::Progress(progress) => Ok(ClipEvent::Progress(progress)),
            Reply::Preview(preview) => Ok(ClipEvent::Preview(preview)),
            Reply::Frame(frame) => ClipFrame::read(frame).map(ClipEvent::Frame),
            Reply::Audio(sound) => ClipAudio::read(sound).map(ClipEvent::Audio),
            Reply::Labels(labels) => Ok(ClipEvent::Labels(labels)),
            Reply::Steered(steered) => {
                let was_set = self.steers.told();
                let event = was_set.then_some(ClipEvent::Steered(steered));
                event.ok_or_else(|| ClientError::other_answer("work on a clip"))
            }
            Reply::Done(done) => return self.end(Ok(ClipEvent::Done(done))),
            _ => Err(ClientError::other_answer("work on a clip")),
        };
        if event.is_err() {
            self.call.abandon();
            return self.end(event);
        }
        Some(event)
    }
}
