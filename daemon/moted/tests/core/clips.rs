//! Clips that are generated: what their clients have when a worker dies.

use crate::harness::*;
use mote_api::Task;
use mote_wire::Memfd;
use mote_wire::types::{
    AudioOut, Command, DType, FrameOut, GenerateClip, JobReply, Reply, Request, Tensor, TensorData,
    Work, WorkOptions,
};

fn clip(options: WorkOptions) -> Request {
    let output = Memfd::create("clip", 64).expect("a memfd").into_fd();
    Request::GenerateClip(Box::new(GenerateClip {
        send_frames: true,
        send_audio: true,
        options,
        ..GenerateClip::new("m", "rain on a roof", output)
    }))
}

fn tensor(dtype: DType, shape: &[u64]) -> Tensor {
    let bytes = dtype.tensor_bytes(shape).expect("a small tensor");
    Tensor {
        name: String::new(),
        dtype,
        shape: shape.to_vec(),
        data: TensorData::Inline(vec![0; bytes as usize]),
    }
}

fn frame(frame_index: u64) -> JobReply {
    JobReply::Frame(FrameOut {
        frame_index,
        frame: tensor(DType::U8, &[1, 1, 3]),
    })
}

fn sound(sample_index: u64, samples: u64) -> JobReply {
    JobReply::Audio(AudioOut {
        sample_index,
        sample_rate: 24_000,
        audio: tensor(DType::F32, &[samples, 2]),
    })
}

/// Places of frames and sounds that a client was told, and samples of the latter.
fn told(play: &mut Play) -> Vec<(char, u64, u64)> {
    let replies = play.take(1, 1);
    let content = replies.iter().filter_map(|reply| match reply {
        Reply::Frame(frame) => Some(('f', frame.frame_index, 1)),
        Reply::Audio(sound) => Some(('s', sound.sample_index, sound.samples())),
        _ => None,
    });
    content.collect()
}

fn credits(play: &mut Play, worker: u64) -> u32 {
    let commands = play.commands(worker);
    let credits = commands.iter().map(|command| match command {
        Command::CreditJob { frames, .. } => *frames,
        _ => 0,
    });
    credits.sum()
}

#[test]
fn frames_and_sound_are_told_once_although_a_new_worker_says_them_again() {
    let mut play = Play::new(&[Model {
        task: Task::ClipGeneration,
        ..model("m")
    }]);
    play.connect(1);
    play.ask(1, 1, clip(options()));
    let worker = play.load();
    let commands = play.commands(worker);
    let job = commands.iter().find_map(|command| match command {
        Command::StartJob(start) => match &start.work {
            Work::GenerateClip(clip) if clip.send_audio => Some(start.job),
            other => panic!("{other:?}"),
        },
        _ => None,
    });
    let job = job.expect("it was begun");
    for said in [frame(0), frame(1), sound(0, 100), frame(2)] {
        play.say(worker, job, said);
    }
    let first = [('f', 0, 1), ('f', 1, 1), ('s', 0, 100), ('f', 2, 1)];
    assert_eq!(told(&mut play), first);
    play.die(worker);
    let fresh = play.load();
    let credit = play.started(fresh).remove(0).credit;
    assert_eq!(credit, 256 - 4, "frames and sounds cost the same");
    for said in [frame(0), frame(1), sound(0, 60), sound(60, 40), frame(2)] {
        play.say(fresh, job, said);
    }
    assert!(told(&mut play).is_empty());
    assert_eq!(
        credits(&mut play, fresh),
        5,
        "what is not passed on costs nothing"
    );
    for said in [sound(90, 60), frame(3), sound(150, 50)] {
        play.say(fresh, job, said);
    }
    play.finish(fresh, job);
    // Of what was cut elsewhere nothing is missing.
    let rest = [('s', 90, 60), ('f', 3, 1), ('s', 150, 50)];
    assert_eq!(told(&mut play), rest);
}

#[test]
fn sound_waits_for_credit_as_frames_do() {
    let mut play = Play::new(&[Model {
        task: Task::ClipGeneration,
        ..model("m")
    }]);
    play.connect(1);
    let options = WorkOptions {
        credit: 2,
        ..options()
    };
    play.ask(1, 1, clip(options));
    let worker = play.load();
    let started = play.started(worker).remove(0);
    assert_eq!(started.credit, 2);
    play.say(worker, started.job, frame(0));
    play.say(worker, started.job, sound(0, 10));
    let credit = Request::Credit {
        target: 1,
        frames: 3,
    };
    play.ask(1, 2, credit);
    assert_eq!(credits(&mut play, worker), 3);
    play.finish(worker, started.job);
    assert_eq!(told(&mut play).len(), 2);
}
