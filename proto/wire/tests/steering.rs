//! What became of another prompt for a clip: what is refused, and what is cut.

mod common;

use common::raw::Raw;
use mote_wire::limits::{CLIP_SEGMENTS_MAX, PROMPT_BYTES_MAX, STEERED_WHY_BYTES_MAX};
use mote_wire::types::{JobReply, Reply, Status, SteerClip, Steered, WorkerEvent};
use mote_wire::{event_to_frame, frame_to_event, frame_to_reply, reply_to_frame};

/// Number of `Steered` among the answers.
const STEERED: u64 = 31;

fn steered(body: Raw) -> Result<Reply, Status> {
    let frame = Raw::request().message(STEERED, body).frame();
    match frame_to_reply(frame) {
        Ok((id, reply)) => {
            assert_eq!(id, 7);
            Ok(reply)
        }
        Err(refusal) => {
            assert_eq!((refusal.request_id, refusal.fatal), (7, false));
            Err(refusal.status)
        }
    }
}

#[test]
fn it_is_a_shot_or_a_reason_and_nothing_else() {
    let last = CLIP_SEGMENTS_MAX as u64 - 1;
    for segment in [0, last] {
        let told = steered(Raw::new().varint(1, segment)).expect("it holds");
        assert!(
            matches!(told, Reply::Steered(Steered::From { segment: told }) if u64::from(told) == segment)
        );
    }
    let long = "x".repeat(STEERED_WHY_BYTES_MAX);
    let told = steered(Raw::new().bytes(2, &long)).expect("it holds");
    assert!(matches!(told, Reply::Steered(Steered::NotTaken { why }) if why == long));

    for (body, field) in [
        (Raw::new(), "why"),
        (Raw::new().varint(1, 1).bytes(2, "late"), "why"),
        (Raw::new().varint(1, last + 1), "from_segment"),
        (Raw::new().varint(1, u64::from(u32::MAX)), "from_segment"),
        (Raw::new().bytes(2, format!("{long}x")), "bytes of why"),
    ] {
        let refused = match steered(body).expect_err(field) {
            Status::Invalid { field, why } => {
                assert!(!why.is_empty());
                field
            }
            Status::LimitExceeded { what, have, limit } => {
                assert!(have > limit);
                what
            }
            other => panic!("{field}: refused as {other:?}"),
        };
        assert_eq!(refused, field);
    }
}

#[test]
fn a_reason_is_cut_between_characters() {
    let Steered::NotTaken { why } = Steered::not_taken("円".repeat(STEERED_WHY_BYTES_MAX)) else {
        panic!("it is not taken");
    };
    assert!(why.len() <= STEERED_WHY_BYTES_MAX && why.len() > STEERED_WHY_BYTES_MAX - 3);
    assert!(why.chars().all(|one| one == '円'));
    let frame = reply_to_frame(7, Reply::Steered(Steered::NotTaken { why })).expect("it fits");
    frame_to_reply(frame).expect("and holds");
}

#[test]
fn it_costs_no_credit_and_ends_nothing() {
    let reply = Reply::Steered(Steered::From { segment: 1 });
    assert!(!reply.costs_credit() && !reply.closes());
    let said = JobReply::Steered(Steered::From { segment: 1 });
    assert!(!said.costs_credit());
    let event = WorkerEvent::Job {
        job: 5,
        reply: said,
    };
    let read = frame_to_event(event_to_frame(event).expect("it fits")).expect("it holds");
    assert!(
        matches!(
            read,
            WorkerEvent::Job {
                job: 5,
                reply: JobReply::Steered(Steered::From { segment: 1 })
            }
        ),
        "{read:?}"
    );
}

#[test]
fn a_prompt_is_checked_before_it_is_sent_as_daemons_do() {
    let steer = |prompt: &str| {
        let prompt = prompt.to_owned();
        SteerClip { target: 7, prompt }.check()
    };
    // As it likes.
    assert_eq!(steer(""), Ok(()));
    assert_eq!(steer(&"x".repeat(PROMPT_BYTES_MAX)), Ok(()));
    let long = steer(&"x".repeat(PROMPT_BYTES_MAX + 1));
    assert!(matches!(long, Err(Status::LimitExceeded { what, .. }) if what == "bytes of prompt"));
    assert!(matches!(steer("a\0b"), Err(Status::Invalid { field, .. }) if field == "prompt"));
}
