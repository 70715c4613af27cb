//! Identities. Numbers are never reused while the broker lives.

macro_rules! identity {
    ($(#[$doc:meta] $name:ident),+ $(,)?) => {$(
        #[$doc]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u64);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(&self.0, f)
            }
        }
    )+};
}

identity! {
    /// A client's connection.
    ConnectionId,
    /// A piece of work that goes through the broker.
    JobId,
    /// A worker process, from the decision to start it to its end.
    WorkerId,
    /// A stream between a client and a worker.
    StreamId,
    /// A registered buffer; the client's own number for it is another one.
    BufferId,
    /// Something that waits for a loaded model.
    WantId,
}

/// A request: the connection and the number its client gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestKey {
    /// Where it came from, and where the answer goes.
    pub connection: ConnectionId,
    /// The client's number.
    pub request: u64,
}

/// Hands out numbers, from 1.
#[derive(Debug, Default)]
pub struct Counter(u64);

impl Counter {
    /// A number that was not drawn before.
    pub fn draw(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}
