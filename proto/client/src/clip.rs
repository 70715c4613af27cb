//! Clip in, clip out.

use crate::call::{Call, Canceller, credit_of};
use crate::client::Client;
use crate::error::ClientError;
use mote_wire::types::{
    Done, FrameLabels, FrameOut, GenerateClip, LabelClip, Preview, Progress, Reply, Request,
    SteerClip, TransformClip,
};

/// What happens while a clip is transformed, generated or labelled.
#[derive(Debug)]
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
    /// A frame of a generated clip, u8 `[height, width, 3]`, when the request asks for frames.
    Frame(FrameOut),
    /// What is seen in a frame.
    Labels(FrameLabels),
    /// The result is written; nothing comes after this.
    Done(Box<Done>),
}

/// Work on a clip: an iterator over its events. An error is the last one. Dropped before the end, the
/// work is cancelled.
#[derive(Debug)]
pub struct ClipWork {
    call: Call,
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
        let call = Call::open(&self.link, request, credit)?;
        Ok(ClipWork { call })
    }
}

impl ClipWork {
    /// What cancels it from elsewhere.
    pub fn canceller(&self) -> Canceller {
        self.call.canceller()
    }

    /// What halts it, lets it go on, and changes its prompt, from elsewhere.
    pub fn steering(&self) -> ClipSteering {
        ClipSteering(self.call.canceller())
    }
}

/// Steers work on a clip; clones steer the same.
#[derive(Clone, Debug)]
pub struct ClipSteering(Canceller);

impl ClipSteering {
    /// Halts the work at its next step; it keeps its memory, and the device is others' meanwhile.
    pub fn pause(&self) -> Result<(), ClientError> {
        self.set_paused(true)
    }

    /// Lets it go on.
    pub fn resume(&self) -> Result<(), ClientError> {
        self.set_paused(false)
    }

    /// Another prompt for the shots that have not begun.
    pub fn set_prompt(&self, prompt: impl Into<String>) -> Result<(), ClientError> {
        let prompt = prompt.into();
        self.0
            .tell(|target| Request::SteerClip(SteerClip { target, prompt }))
    }

    fn set_paused(&self, paused: bool) -> Result<(), ClientError> {
        self.0.tell(|target| Request::Pause { target, paused })
    }
}

impl Iterator for ClipWork {
    type Item = Result<ClipEvent, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        let answer = match self.call.next()? {
            Ok(answer) => answer,
            Err(error) => return Some(Err(error)),
        };
        Some(Ok(match answer {
            Reply::Accepted { queue_position } => ClipEvent::Accepted { queue_position },
            Reply::Progress(progress) => ClipEvent::Progress(progress),
            Reply::Preview(preview) => ClipEvent::Preview(preview),
            Reply::Frame(frame) => ClipEvent::Frame(frame),
            Reply::Labels(labels) => ClipEvent::Labels(labels),
            Reply::Done(done) => ClipEvent::Done(done),
            _ => {
                self.call.abandon();
                return Some(Err(ClientError::other_answer("work on a clip")));
            }
        }))
    }
}
