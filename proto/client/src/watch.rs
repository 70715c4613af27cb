//! Watching the daemon.

use crate::call::{Call, Canceller};
use crate::client::Client;
use crate::error::ClientError;
use mote_wire::limits::CREDIT_MAX;
use mote_wire::types::{Event, Reply, Request};

/// What happens in the daemon, for as long as it is read. Events that the reader is too slow for
/// are dropped by the daemon, which says how many.
#[derive(Debug)]
pub struct Watch {
    call: Call,
}

impl Client {
    /// Begins to watch the daemon. A connection watches once at a time.
    pub fn watch(&self) -> Result<Watch, ClientError> {
        let call = Call::open(&self.link, Request::Watch, CREDIT_MAX)?;
        Ok(Watch { call })
    }
}

impl Watch {
    /// What ends it from elsewhere.
    pub fn canceller(&self) -> Canceller {
        self.call.canceller()
    }
}

impl Iterator for Watch {
    type Item = Result<Event, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            return Some(match self.call.next()? {
                Ok(Reply::Event(event)) => Ok(event),
                Ok(Reply::Accepted { .. } | Reply::Progress(_)) => continue,
                Ok(Reply::Ok) => return None,
                Ok(_) => {
                    self.call.abandon();
                    Err(ClientError::other_answer("watch"))
                }
                Err(error) => Err(error),
            });
        }
    }
}
