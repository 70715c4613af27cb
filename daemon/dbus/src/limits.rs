//! Every limit of the gateway that is not one of the wire's own ([`mote_wire::limits`]).
//!
//! A bus daemon counts what a receiver has not read against the sender, too, and stops reading from
//! a sender that has too much under way (about 127 MiB on the usual system bus). So what all
//! callers together may leave unread, [`CALLERS_MAX`] × [`UNREAD_BYTES_MAX`], stays below that.

// ---- Callers ----

/// Bus connections served at once.
pub const CALLERS_MAX: usize = 96;
/// Bus connections of one user that hold anything.
pub const CALLERS_PER_UID_MAX: usize = 48;
/// Calls of one caller that wait for their turn.
pub const CALLS_WAITING_MAX: usize = 32;
/// Calls of one caller that wait for the daemon or for polkit.
pub const CALLS_RUNNING_MAX: usize = 16;
/// Bytes of one call: the longest prompt there is, and its wrapping.
pub const CALL_BYTES_MAX: usize = mote_wire::limits::PROMPT_BYTES_MAX + (256 << 10);
/// Bytes of calls of one caller that wait for their turn.
pub const CALL_BYTES_WAITING_MAX: usize = 4 << 20;
/// Messages read from the bus ahead of those being handled. Each may be as long as the bus allows.
pub const BUS_QUEUE_MAX: usize = 4;
/// Bytes a caller was sent and has not been seen to read; no more is sent to it then.
pub const UNREAD_BYTES_MAX: u64 = 1 << 20;
/// A caller is asked whether it reads after so many bytes.
pub const PING_EVERY_BYTES: u64 = 64 << 10;
/// Bytes that a message takes beside its body: header, and bookkeeping of the bus.
pub const MESSAGE_OVERHEAD_BYTES: u64 = 128;
/// A job whose caller reads nothing for so long is cancelled.
pub const STALL_MS_MAX: u64 = 30_000;

// ---- What a caller holds ----

/// Jobs of one caller, finished ones that it has not released included.
pub const JOBS_PER_CALLER_MAX: usize = 32;
/// Sessions of one caller.
pub const SESSIONS_PER_CALLER_MAX: usize = 16;
/// Holds of one caller.
pub const HOLDS_PER_CALLER_MAX: usize = 64;
/// Characters of a token, the last element of an object's path.
pub const TOKEN_BYTES_MAX: usize = 64;
/// Bytes of the reason given for a hold.
pub const REASON_BYTES_MAX: usize = 256;
/// Entries of a dictionary of options.
pub const OPTIONS_MAX: usize = 64;

// ---- Jobs ----

/// Content frames the daemon may send ahead for a job of text.
pub const TEXT_CREDIT: u32 = 64;
/// The same for a clip, whose frames are pictures.
pub const CLIP_CREDIT: u32 = 2;
/// What a caller told a job and the daemon was not told yet.
pub const ORDERS_PER_JOB_MAX: usize = 8;
/// Room for frames that cost no credit, in the queue of a request.
pub const CONTROL_FRAMES_MAX: usize = 16;
/// Bytes of text in one signal; more is sent as several.
pub const TEXT_BYTES_PER_SIGNAL_MAX: usize = 32 << 10;
/// Bytes of an answer that are kept for `Finished`, when that was asked for.
pub const TEXT_BYTES_KEPT_MAX: usize = 4 << 20;
/// Longest text that `Finished` carries in the message; a longer one comes as a sealed memfd.
pub const TEXT_BYTES_INLINE_MAX: usize = 64 << 10;

// ---- The gateway itself ----

/// How long a call that lists everything waits for devices that are being probed.
pub const DEVICES_WAIT_MS: u64 = 5_000;
/// Requests to the daemon that wait to be sent, on one connection.
pub const WIRE_QUEUE_MAX: usize = 64;
/// Answers that an authorisation may take: a person types a password.
pub const POLKIT_WAIT_MS: u64 = 300_000;
