//! Other prompts for the shots of a clip: what its client is told of each, once, whatever happens to workers.

use crate::harness::*;
use mote_api::Task;
use mote_wire::Memfd;
use mote_wire::limits::{CLIP_STEERS_MAX, OPEN_REQUESTS_MAX};
use mote_wire::types::{
    ClipSegment, Command, GenerateClip, JobReply, Reply, Request, Status, SteerClip, SteerJob,
    Steered, TransformClip, WorkOptions,
};
use proptest::prelude::*;
use std::collections::VecDeque;

const CLIP: u64 = 1;
/// Longer than a model rests after its worker died.
const A_WHILE_MS: u64 = 60_000;

fn scene() -> Play {
    let mut play = Play::new(&[Model {
        task: Task::ClipGeneration,
        ..model("m")
    }]);
    play.connect(1);
    play
}

fn file() -> std::os::fd::OwnedFd {
    Memfd::create("clip", 64).expect("a memfd").into_fd()
}

fn clip(options: WorkOptions) -> Request {
    Request::GenerateClip(Box::new(GenerateClip {
        segments: vec![ClipSegment::default(); 3],
        options,
        ..GenerateClip::new("m", "", file())
    }))
}

/// Begins a clip: its worker and its job.
fn begin(play: &mut Play) -> (u64, u64) {
    play.ask(1, CLIP, clip(options()));
    let worker = play.load();
    (worker, play.started(worker).remove(0).job)
}

/// Sets another prompt for the clip; the daemon's answer to that.
fn steer(play: &mut Play, request: u64, prompt: &str) -> Reply {
    let steer = SteerClip {
        target: CLIP,
        prompt: prompt.into(),
    };
    play.ask(1, request, Request::SteerClip(steer));
    play.answer(1, request)
}

fn set(play: &mut Play, request: u64, prompt: &str) {
    let answer = steer(play, request, prompt);
    assert!(matches!(answer, Reply::Ok), "{answer:?}");
}

/// What a worker was told of prompts.
fn passed_on(play: &mut Play, worker: u64) -> Vec<(String, Option<u32>)> {
    let commands = play.commands(worker).into_iter();
    let steers = commands.filter_map(|command| match command {
        Command::SteerJob(SteerJob {
            prompt,
            from_segment,
            ..
        }) => Some((prompt, from_segment)),
        _ => None,
    });
    steers.collect()
}

fn looks(play: &mut Play, (worker, job): (u64, u64), steered: Steered) {
    play.say(worker, job, JobReply::Steered(steered));
}

fn from(segment: u32) -> Steered {
    Steered::From { segment }
}

/// What the client was told of prompts since it was asked last, and how the clip ended, if it did.
fn told(play: &mut Play) -> (Vec<Steered>, Option<Reply>) {
    let mut steered = Vec::new();
    let mut end = None;
    for reply in play.take(1, CLIP) {
        assert!(end.is_none(), "nothing comes after the last answer");
        match reply {
            Reply::Steered(one) => steered.push(one),
            last if last.closes() => end = Some(last),
            _ => {}
        }
    }
    (steered, end)
}

#[test]
fn each_prompt_is_told_of_once_although_a_worker_dies() {
    let mut play = scene();
    let first = begin(&mut play);
    set(&mut play, 2, "a");
    set(&mut play, 3, "b");
    let passed = passed_on(&mut play, first.0);
    assert_eq!(passed, [("a".into(), None), ("b".into(), None)]);
    assert_eq!(told(&mut play).0, [], "no worker has looked yet");
    looks(&mut play, first, from(1));
    assert_eq!(told(&mut play).0, [from(1)]);
    // It dies before it looks at the other, and while there is none a third prompt comes.
    play.die(first.0);
    set(&mut play, 4, "c");
    let fresh = play.load();
    let expected = [("a", Some(1)), ("b", None), ("c", None)];
    let expected = expected.map(|(prompt, from)| (prompt.to_owned(), from));
    assert_eq!(passed_on(&mut play, fresh), expected);
    let late = Steered::not_taken("prompt: no segment follows");
    for one in [from(1), from(2), late.clone()] {
        looks(&mut play, (fresh, first.1), one);
    }
    play.finish(fresh, first.1);
    let (steered, end) = told(&mut play);
    assert_eq!(steered, [from(2), late]);
    assert!(matches!(end, Some(Reply::Done(_))));
}

#[test]
fn it_waits_for_no_credit_and_takes_none() {
    let mut play = scene();
    let few = WorkOptions {
        credit: 1,
        ..options()
    };
    play.ask(1, CLIP, clip(few));
    let worker = play.load();
    let job = play.started(worker).remove(0).job;
    for request in 2..6 {
        set(&mut play, request, "a");
        looks(&mut play, (worker, job), from(1));
    }
    assert_eq!(told(&mut play).0, [from(1), from(1), from(1), from(1)]);
    let credits = play.commands(worker).into_iter();
    let credits = credits.filter(|command| matches!(command, Command::CreditJob { .. }));
    assert_eq!(credits.count(), 0);
}

#[test]
fn a_prompt_that_nobody_looked_at_is_told_of_before_the_end() {
    // A good end, a cancel, and the end of a clip that never began.
    for case in 0..3 {
        let mut play = scene();
        let (worker, job) = match case {
            2 => {
                play.ask(1, CLIP, clip(options()));
                (0, 0)
            }
            _ => begin(&mut play),
        };
        set(&mut play, 2, "a");
        set(&mut play, 3, "b");
        match case {
            0 => play.finish(worker, job),
            1 => {
                looks(&mut play, (worker, job), from(1));
                play.ask(1, 4, Request::Cancel { target: CLIP });
                play.say(worker, job, JobReply::Failed(Status::Cancelled));
            }
            _ => play.ask(1, 4, Request::Cancel { target: CLIP }),
        }
        let (steered, end) = told(&mut play);
        let late = Steered::not_taken("the clip ended before any worker looked at it");
        match case {
            1 => assert_eq!(steered, [from(1), late]),
            _ => assert_eq!(steered, [late.clone(), late]),
        }
        match (case, end) {
            (0, Some(Reply::Done(_))) | (1 | 2, Some(Reply::Failed(Status::Cancelled))) => {}
            (_, other) => panic!("{other:?}"),
        }
        // After that there is nothing to be steered.
        let refused = steer(&mut play, 5, "c");
        assert!(
            matches!(&refused, Reply::Failed(Status::Invalid { field, .. }) if field == "target_request_id"),
            "{refused:?}"
        );
    }
}

#[test]
fn what_a_worker_says_unasked_reaches_nobody() {
    let mut play = scene();
    let running = begin(&mut play);
    looks(&mut play, running, from(1));
    looks(&mut play, running, Steered::not_taken("late"));
    play.finish(running.0, running.1);
    assert_eq!(told(&mut play).0, []);
}

#[test]
fn work_that_is_no_clip_of_words_refuses_another_prompt_and_is_halted_all_the_same() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    let transform = Request::TransformClip(TransformClip {
        model: "m".into(),
        factor: 2,
        output_format: mote_wire::types::ClipFormat::Gif,
        frames_max: None,
        width_max: None,
        height_max: None,
        frame_rate: None,
        encoder_speed: None,
        preview_every: None,
        tile_side_max: None,
        options: options(),
        input: file(),
        output: file(),
        contact_sheet: None,
    });
    let mut worker = None;
    for request in [generate("m"), infer("m"), transform] {
        play.ask(1, CLIP, request);
        let worker = *worker.get_or_insert_with(|| play.load());
        let job = play.started(worker).remove(0).job;
        let refused = steer(&mut play, 2, "a");
        let Reply::Failed(Status::Invalid { field, why }) = refused else {
            panic!("{refused:?}");
        };
        let expected = ("target_request_id", "it generates no clip");
        assert_eq!((&*field, &*why), expected);
        for paused in [true, false] {
            let target = CLIP;
            play.ask(1, 3, Request::Pause { target, paused });
            assert!(matches!(play.answer(1, 3), Reply::Ok));
        }
        let commands = play.commands(worker);
        assert!(
            matches!(
                &commands[..],
                [Command::PauseJob { .. }, Command::ResumeJob { .. }]
            ),
            "{commands:?}"
        );
        play.finish(worker, job);
        let replies = play.take(1, CLIP);
        assert!(!replies.iter().any(|it| matches!(it, Reply::Steered(_))));
        // It has ended: neither has a place.
        let target = CLIP;
        play.ask(
            1,
            4,
            Request::Pause {
                target,
                paused: true,
            },
        );
        for refused in [play.answer(1, 4), steer(&mut play, 5, "a")] {
            assert!(
                matches!(&refused, Reply::Failed(Status::Invalid { field, .. }) if field == "target_request_id"),
                "{refused:?}"
            );
        }
    }
}

#[test]
fn too_many_prompts_are_refused_and_those_that_were_taken_in_are_told_of() {
    let mut play = scene();
    let running = begin(&mut play);
    for request in 0..CLIP_STEERS_MAX as u64 {
        set(&mut play, 2 + request, "a");
    }
    let refused = steer(&mut play, 100, "b");
    assert!(
        matches!(
            refused,
            Reply::Failed(Status::LimitExceeded {
                have: 33,
                limit: 32,
                ..
            })
        ),
        "{refused:?}"
    );
    looks(&mut play, running, from(1));
    set(&mut play, 101, "c");
    play.finish(running.0, running.1);
    let (steered, _) = told(&mut play);
    assert_eq!(steered.len(), CLIP_STEERS_MAX + 1);
    assert_eq!(steered[0], from(1));
}

#[test]
fn a_client_with_many_open_requests_still_steers() {
    let mut play = scene();
    let running = begin(&mut play);
    for request in 2..=OPEN_REQUESTS_MAX as u64 {
        play.ask(1, request, clip(options()));
    }
    set(&mut play, 1_000, "a");
    looks(&mut play, running, from(2));
    assert_eq!(told(&mut play).0, [from(2)]);
}

/// What happens to a clip of three shots and the prompts for it.
#[derive(Clone, Debug)]
enum Act {
    Steer,
    /// The worker looks at the next prompt: it is for a shot from this on, or too late.
    Look(Option<u32>),
    Halt(bool),
    Die,
}

fn some_acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => Just(Act::Steer),
        4 => proptest::option::weighted(0.7, 1..3u32).prop_map(Act::Look),
        1 => any::<bool>().prop_map(Act::Halt),
        1 => Just(Act::Die),
    ];
    proptest::collection::vec(act, 0..80)
}

/// A clip, its worker, and what its client must hear.
struct Scene {
    play: Play,
    running: (u64, u64),
    next_request: u64,
    /// Prompts that the present worker was given and has not looked at: which, and for which shot.
    given: VecDeque<(usize, Option<u32>)>,
    /// What became of each prompt that was taken in.
    fates: Vec<Option<Steered>>,
}

impl Scene {
    /// The worker reads its orders.
    fn take_in(&mut self) {
        for (prompt, from) in passed_on(&mut self.play, self.running.0) {
            self.given
                .push_back((prompt.parse().expect("a number"), from));
        }
    }

    fn steer(&mut self) {
        self.next_request += 1;
        let prompt = self.fates.len().to_string();
        let answer = steer(&mut self.play, self.next_request, &prompt);
        let untold = self.fates.iter().filter(|fate| fate.is_none()).count();
        match answer {
            Reply::Ok => self.fates.push(None),
            Reply::Failed(Status::LimitExceeded { .. }) => assert_eq!(untold, CLIP_STEERS_MAX),
            other => panic!("{other:?}"),
        }
        self.take_in();
    }

    fn look(&mut self, found: Option<u32>) {
        let Some((prompt, from)) = self.given.pop_front() else {
            return;
        };
        assert_eq!(
            from.is_some(),
            self.fates[prompt].is_some(),
            "a worker hears of the shots that the client was told"
        );
        // Shots begin one after the other, so no later prompt is for earlier shots.
        let least = self.fates.iter().flatten().filter_map(|fate| match fate {
            Steered::From { segment } => Some(*segment),
            Steered::NotTaken { .. } => None,
        });
        let least = least.max().unwrap_or(1);
        let said = match (from, found) {
            (Some(segment), _) => Steered::From { segment },
            (None, Some(segment)) => Steered::From {
                segment: segment.max(least),
            },
            (None, None) => Steered::not_taken("prompt: no segment follows"),
        };
        self.fates[prompt].get_or_insert_with(|| said.clone());
        looks(&mut self.play, self.running, said);
    }

    fn halt(&mut self, paused: bool) {
        self.next_request += 1;
        let target = CLIP;
        let request = self.next_request;
        self.play.ask(1, request, Request::Pause { target, paused });
        assert!(matches!(self.play.answer(1, request), Reply::Ok));
    }

    fn die(&mut self) {
        self.play.die(self.running.0);
        self.given.clear();
        // A model whose worker keeps dying is loaded again after a while only.
        self.play.pass(A_WHILE_MS);
        if self.play.is_open(1, CLIP) {
            self.running.0 = self.play.load();
            self.take_in();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_prompt_is_told_of_once_in_order_whatever_happens(acts in some_acts(), is_cancelled: bool) {
        let mut play = scene();
        let running = begin(&mut play);
        let (given, fates) = (VecDeque::new(), Vec::new());
        let mut scene = Scene { play, running, next_request: CLIP, given, fates };
        for act in acts {
            if !scene.play.is_open(1, CLIP) {
                break;
            }
            match act {
                Act::Steer => scene.steer(),
                Act::Look(found) => scene.look(found),
                Act::Halt(paused) => scene.halt(paused),
                Act::Die => scene.die(),
            }
        }
        if scene.play.is_open(1, CLIP) {
            let (worker, job) = scene.running;
            if is_cancelled {
                scene.play.ask(1, 10_000, Request::Cancel { target: CLIP });
                scene.play.say(worker, job, JobReply::Failed(Status::Cancelled));
            } else {
                scene.play.finish(worker, job);
            }
        }
        let (told, end) = told(&mut scene.play);
        prop_assert!(end.is_some());
        let late = Steered::not_taken("the clip ended before any worker looked at it");
        let fates = scene.fates.into_iter();
        let expected: Vec<_> = fates.map(|fate| fate.unwrap_or_else(|| late.clone())).collect();
        prop_assert_eq!(told, expected);
    }
}
