//! Text in, text out.

use crate::call::{Call, Canceller, credit_of};
use crate::client::Client;
use crate::error::ClientError;
use mote_wire::types::{Done, Generate, Progress, Reply, Request, Token};

/// What happens while an answer is written.
#[derive(Clone, Debug, PartialEq)]
pub enum GenerationEvent {
    /// The request is in the queue.
    Accepted {
        /// Requests ahead of it.
        queue_position: u32,
    },
    /// How far it is.
    Progress(Progress),
    /// A token of the answer.
    Token(Token),
    /// The answer is complete; nothing comes after this.
    Done(Box<Done>),
}

/// An answer while it is written: an iterator over its events. An error is the last one.
///
/// The daemon writes ahead of the reader by the request's credit at most. Dropped before the end,
/// the work is cancelled.
#[derive(Debug)]
pub struct Generation {
    call: Call,
}

impl Client {
    /// Begins to answer a prompt.
    pub fn generate(&self, mut request: Generate) -> Result<Generation, ClientError> {
        let credit = credit_of(&request.options);
        request.options.credit = credit;
        let request = Request::Generate(Box::new(request));
        let call = Call::open(&self.link, request, credit)?;
        Ok(Generation { call })
    }
}

impl Generation {
    /// What cancels it from elsewhere.
    pub fn canceller(&self) -> Canceller {
        self.call.canceller()
    }

    /// Waits for the end: the whole text of the answer, its tail included, and what computed it.
    /// Reasoning that was asked for apart is left out.
    pub fn text(self) -> Result<(String, Box<Done>), ClientError> {
        let mut text = String::new();
        for event in self {
            match event? {
                GenerationEvent::Accepted { .. } | GenerationEvent::Progress(_) => {}
                GenerationEvent::Token(token) => text += &token.text,
                GenerationEvent::Done(done) => return Ok((text, done)),
            }
        }
        Err(ClientError::other_answer("generate"))
    }
}

impl Iterator for Generation {
    type Item = Result<GenerationEvent, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        let answer = match self.call.next()? {
            Ok(answer) => answer,
            Err(error) => return Some(Err(error)),
        };
        Some(Ok(match answer {
            Reply::Accepted { queue_position } => GenerationEvent::Accepted { queue_position },
            Reply::Progress(progress) => GenerationEvent::Progress(progress),
            Reply::Token(token) => GenerationEvent::Token(token),
            Reply::Done(done) => GenerationEvent::Done(done),
            _ => {
                self.call.abandon();
                return Some(Err(ClientError::other_answer("generate")));
            }
        }))
    }
}
