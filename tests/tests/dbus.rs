//! The service on D-Bus, on a private bus, by callers of several kinds.

#[path = "dbus/access.rs"]
mod access;
#[path = "dbus/clips.rs"]
mod clips;
#[allow(dead_code, reason = "the tests of faults use more of it")]
#[path = "faults/common.rs"]
mod common;
#[path = "dbus/examples.rs"]
mod examples;
#[path = "dbus/harness.rs"]
mod harness;
#[path = "dbus/hostile.rs"]
mod hostile;
#[path = "dbus/jobs.rs"]
mod jobs;
#[path = "dbus/objects.rs"]
mod objects;
#[path = "dbus/sessions.rs"]
mod sessions;
