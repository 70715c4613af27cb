//! Clip in, clip out.

use crate::call::{Call, Canceller, credit_of};
use crate::client::Client;
use crate::error::ClientError;
use mote_wire::types::{Done, Preview, Progress, Reply, Request, TransformClip};

/// What happens while a clip is transformed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClipEvent {
    /// The request is in the queue.
    Accepted {
        /// Requests ahead of it.
        queue_position: u32,
    },
    /// How far it is.
    Progress(Progress),
    /// A frame of the result, as PNG.
    Preview(Preview),
    /// The result is written; nothing comes after this.
    Done(Box<Done>),
}

/// A clip while it is transformed: an iterator over its events. An error is the last one.
/// Dropped before the end, the work is cancelled.
#[derive(Debug)]
pub struct ClipTransform {
    call: Call,
}

impl Client {
    /// Begins to transform a clip.
    pub fn transform_clip(&self, mut request: TransformClip) -> Result<ClipTransform, ClientError> {
        let credit = credit_of(&request.options);
        request.options.credit = credit;
        let call = Call::open(&self.link, Request::TransformClip(request), credit)?;
        Ok(ClipTransform { call })
    }
}

impl ClipTransform {
    /// What cancels it from elsewhere.
    pub fn canceller(&self) -> Canceller {
        self.call.canceller()
    }
}

impl Iterator for ClipTransform {
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
            Reply::Done(done) => ClipEvent::Done(done),
            _ => {
                self.call.abandon();
                return Some(Err(ClientError::other_answer("transform_clip")));
            }
        }))
    }
}
