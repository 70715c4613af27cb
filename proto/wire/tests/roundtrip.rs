//! What is written is read back the same, descriptors included.

mod common;

use common::{describe, generate};
use mote_wire::*;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn requests(id in 1..=u64::MAX, request in generate::request()) {
        let expected = describe::request(&request);
        let frame = request_to_frame(id, request).expect("it fits");
        let (read_id, read) = frame_to_request(frame).expect("it holds");
        prop_assert_eq!(read_id, id);
        prop_assert_eq!(describe::request(&read), expected);
    }

    #[test]
    fn replies(id: u64, reply in generate::reply()) {
        let expected = describe::reply(&reply);
        let frame = reply_to_frame(id, reply).expect("it fits");
        let (read_id, read) = frame_to_reply(frame).expect("it holds");
        prop_assert_eq!(read_id, id);
        prop_assert_eq!(describe::reply(&read), expected);
    }

    #[test]
    fn commands(command in generate::command()) {
        let expected = describe::command(&command);
        let frame = command_to_frame(command).expect("it fits");
        let read = frame_to_command(frame).expect("it holds");
        prop_assert_eq!(describe::command(&read), expected);
    }

    #[test]
    fn events(event in generate::event()) {
        let expected = describe::event(&event);
        let frame = event_to_frame(event).expect("it fits");
        let read = frame_to_event(frame).expect("it holds");
        prop_assert_eq!(describe::event(&read), expected);
    }
}
