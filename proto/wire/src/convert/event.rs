//! Events of a watched daemon.

use super::Parsed;
use crate::pb;
use crate::pb::event::Kind;
use crate::types::{Event, EventKind, Status};

pub(super) fn parse(event: pb::Event) -> Parsed<Event> {
    let Some(kind) = event.kind else {
        return Err(Status::Unsupported {
            what: "event of a later version".into(),
        });
    };
    let kind = match kind {
        Kind::WorkerStarted(pb::WorkerStarted {
            pid,
            model,
            flavour,
        }) => EventKind::WorkerStarted {
            pid,
            model,
            flavour,
        },
        Kind::WorkerEnded(pb::WorkerEnded {
            pid,
            model,
            signal,
            exit_code,
            expected,
        }) => EventKind::WorkerEnded {
            pid,
            model,
            signal,
            exit_code,
            expected,
        },
        Kind::ModelLoaded(pb::ModelLoaded { model, load_us }) => {
            EventKind::ModelLoaded { model, load_us }
        }
        Kind::ModelUnloaded(pb::ModelUnloaded { model }) => EventKind::ModelUnloaded { model },
        Kind::JobStarted(pb::JobStarted { job, model }) => EventKind::JobStarted { job, model },
        Kind::JobEnded(pb::JobEnded {
            job,
            model,
            outcome,
        }) => EventKind::JobEnded {
            job,
            model,
            outcome,
        },
        Kind::EventsDropped(pb::EventsDropped { count }) => EventKind::EventsDropped { count },
    };
    Ok(Event {
        at_ms: event.at_ms,
        kind,
    })
}

pub(super) fn write(event: Event) -> pb::Event {
    let kind = match event.kind {
        EventKind::WorkerStarted {
            pid,
            model,
            flavour,
        } => Kind::WorkerStarted(pb::WorkerStarted {
            pid,
            model,
            flavour,
        }),
        EventKind::WorkerEnded {
            pid,
            model,
            signal,
            exit_code,
            expected,
        } => Kind::WorkerEnded(pb::WorkerEnded {
            pid,
            model,
            signal,
            exit_code,
            expected,
        }),
        EventKind::ModelLoaded { model, load_us } => {
            Kind::ModelLoaded(pb::ModelLoaded { model, load_us })
        }
        EventKind::ModelUnloaded { model } => Kind::ModelUnloaded(pb::ModelUnloaded { model }),
        EventKind::JobStarted { job, model } => Kind::JobStarted(pb::JobStarted { job, model }),
        EventKind::JobEnded {
            job,
            model,
            outcome,
        } => Kind::JobEnded(pb::JobEnded {
            job,
            model,
            outcome,
        }),
        EventKind::EventsDropped { count } => Kind::EventsDropped(pb::EventsDropped { count }),
    };
    pb::Event {
        at_ms: event.at_ms,
        kind: Some(kind),
    }
}
