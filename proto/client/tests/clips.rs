//! Clips that are generated and labelled: frames, labels, and what is said to work that goes on.

mod common;

use common::{Server, done, serve};
use mote_client::{
    ClientError, ClipAudio, ClipEvent, ClipFormat, ClipSegment, FrameLabels, GenerateClip, Label,
    LabelBox, LabelClip, Status, Steered, WorkOptions,
};
use mote_wire::Memfd;
use mote_wire::types::{AudioOut, DType, FrameOut, Reply, Request, SteerClip, Tensor, TensorData};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

const WIDTH: u64 = 4;
const HEIGHT: u64 = 2;

fn memory(content: &[u8]) -> Memfd {
    Memfd::holding("clip", content).expect("a memfd")
}

/// A file as a program opens it for a result.
fn file() -> OwnedFd {
    Memfd::create("result", 64).expect("a memfd").into_fd()
}

fn pixels(value: u8) -> Vec<u8> {
    vec![value; (3 * WIDTH * HEIGHT) as usize]
}

fn frame(frame_index: u64, shape: &[u64], dtype: DType, data: TensorData) -> Reply {
    Reply::Frame(FrameOut {
        frame_index,
        frame: Tensor {
            name: "frame".into(),
            dtype,
            shape: shape.to_vec(),
            data,
        },
    })
}

fn passed(content: &[u8]) -> TensorData {
    TensorData::Passed {
        fd: memory(content).into_fd(),
        bytes: content.len() as u64,
    }
}

fn generated(server: &mut Server) -> (u64, GenerateClip) {
    match server.next() {
        (id, Request::GenerateClip(clip)) => (id, *clip),
        (_, other) => panic!("{other:?}"),
    }
}

fn request() -> GenerateClip {
    GenerateClip {
        send_frames: true,
        options: WorkOptions {
            credit: 2,
            ..WorkOptions::default()
        },
        ..GenerateClip::new("shapes-clip", "a red square moves left", file())
    }
}

#[test]
fn frames_come_as_they_are_decoded_in_the_message_and_beside_it() {
    let (client, daemon) = serve(|server| {
        let (id, clip) = generated(server);
        assert!(clip.send_frames && clip.options.credit == 2);
        server.reply(id, Reply::Accepted { queue_position: 1 });
        let shape = [HEIGHT, WIDTH, 3];
        let inline = TensorData::Inline(pixels(7));
        server.reply(id, frame(0, &shape, DType::U8, inline));
        server.reply(id, frame(1, &shape, DType::U8, passed(&pixels(9))));
        for index in 2..6 {
            let (grant, request) = server.next();
            assert!(matches!(request, Request::Credit { target, frames: 1 } if target == id));
            server.reply(grant, Reply::Ok);
            server.reply(id, frame(index, &shape, DType::U8, passed(&pixels(9))));
        }
        server.reply(id, done("shapes-clip"));
    });
    let events = client.generate_clip(request()).expect("sent");
    let events: Result<Vec<_>, _> = events.collect();
    let events = events.expect("no error");
    assert_eq!(events[0], ClipEvent::Accepted { queue_position: 1 });
    for (index, event) in events[1..7].iter().enumerate() {
        let ClipEvent::Frame(frame) = event else {
            panic!("{event:?}");
        };
        assert_eq!(frame.frame_index, index as u64);
        assert_eq!((frame.width, frame.height), (WIDTH as u32, HEIGHT as u32));
        assert_eq!(frame.pixels, pixels(if index == 0 { 7 } else { 9 }));
        assert!(!format!("{frame:?}").contains("pixels"));
    }
    assert!(matches!(&events[7], ClipEvent::Done(done) if done.receipt.model == "shapes-clip"));
    daemon.join().expect("the script held");
}

#[test]
fn frames_that_are_none_end_the_work_and_no_memory_is_taken_for_them() {
    let huge = 1 << 40;
    let cases: [(Vec<u64>, DType, u64); 5] = [
        (vec![HEIGHT, WIDTH], DType::U8, WIDTH * HEIGHT),
        (vec![HEIGHT, WIDTH, 4], DType::U8, 4 * WIDTH * HEIGHT),
        (vec![HEIGHT, WIDTH, 3], DType::I8, 3 * WIDTH * HEIGHT),
        (vec![0, WIDTH, 3], DType::U8, 0),
        (vec![huge, 1, 3], DType::U8, 3 * huge),
    ];
    for (shape, dtype, bytes) in cases {
        let told = shape.clone();
        let (client, daemon) = serve(move |server| {
            let (id, _) = generated(server);
            let data = match usize::try_from(bytes) {
                Ok(bytes) if bytes < 1 << 20 => TensorData::Inline(vec![0; bytes]),
                // Nothing of it is mapped or written, so it takes no memory here either.
                _ => TensorData::Passed {
                    fd: Memfd::create("huge", bytes).expect("a memfd").into_fd(),
                    bytes,
                },
            };
            server.reply(id, frame(0, &shape, dtype, data));
            let (_, request) = server.next();
            // The frame was read, so that its credit may come first.
            let request = match request {
                Request::Credit { .. } => server.next().1,
                request => request,
            };
            assert!(matches!(request, Request::Cancel { target } if target == id));
        });
        let mut work = client.generate_clip(request()).expect("sent");
        let refused = work.next().expect("not over");
        assert!(
            matches!(refused, Err(ClientError::Protocol(_))),
            "{told:?}: {refused:?}"
        );
        assert!(work.next().is_none());
        drop((work, client));
        daemon.join().expect("the script held");
    }
}

fn sound(sample_index: u64, shape: &[u64], data: TensorData) -> Reply {
    Reply::Audio(AudioOut {
        sample_index,
        sample_rate: 24_000,
        audio: Tensor {
            name: "audio".into(),
            dtype: DType::F32,
            shape: shape.to_vec(),
            data,
        },
    })
}

#[test]
fn sound_comes_as_it_is_made_in_the_message_and_beside_it() {
    let stereo = |from: i8| -> Vec<f32> { (from..from + 6).map(|n| f32::from(n) / 8.0).collect() };
    let bytes = |samples: Vec<f32>| -> Vec<u8> {
        let samples = samples.into_iter();
        samples.flat_map(f32::to_ne_bytes).collect()
    };
    let (client, daemon) = serve(move |server| {
        let (id, clip) = generated(server);
        assert!(clip.send_audio && !clip.send_frames);
        let inline = TensorData::Inline(bytes(stereo(-8)));
        server.reply(id, sound(0, &[3, 2], inline));
        server.reply(id, sound(3, &[3, 2], passed(&bytes(stereo(2)))));
        // It costs credit: what was read is granted anew.
        for index in [6, 7] {
            let (grant, request) = server.next();
            assert!(matches!(request, Request::Credit { target, frames: 1 } if target == id));
            server.reply(grant, Reply::Ok);
            server.reply(id, sound(index, &[1, 2], passed(&[0; 8])));
        }
        server.reply(id, done("waves"));
    });
    let request = GenerateClip {
        send_frames: false,
        send_audio: true,
        ..request()
    };
    let events: Result<Vec<_>, _> = client.generate_clip(request).expect("sent").collect();
    let events = events.expect("no error");
    let expected = [(0, stereo(-8)), (3, stereo(2)), (6, vec![0.0; 2])];
    for (event, (sample_index, samples)) in events.iter().zip(expected) {
        let expected = ClipAudio {
            sample_index,
            sample_rate: 24_000,
            channels: 2,
            samples,
        };
        assert_eq!(*event, ClipEvent::Audio(expected));
        let shown = format!("{event:?}");
        assert!(!shown.contains("samples"), "{shown}");
    }
    assert!(matches!(&events[4], ClipEvent::Done(_)));
    daemon.join().expect("the script held");
}

#[test]
fn sound_that_is_none_ends_the_work() {
    for shape in [vec![2], vec![1, 1, 2], vec![1, 9]] {
        let told = shape.clone();
        let (client, daemon) = serve(move |server| {
            let (id, _) = generated(server);
            let bytes = 4 * shape.iter().product::<u64>();
            let data = TensorData::Inline(vec![0; bytes as usize]);
            server.reply(id, sound(0, &shape, data));
            let (_, request) = server.next();
            assert!(matches!(request, Request::Cancel { target } if target == id));
        });
        let mut work = client.generate_clip(request()).expect("sent");
        let refused = work.next().expect("not over");
        assert!(
            matches!(refused, Err(ClientError::Protocol(_))),
            "{told:?}: {refused:?}"
        );
        assert!(work.next().is_none());
        drop((work, client));
        daemon.join().expect("the script held");
    }
}

#[test]
fn what_a_clip_is_made_of_travels_with_it() {
    let (client, daemon) = serve(|server| {
        let (id, clip) = generated(server);
        assert_eq!(clip.segments.len(), 2);
        assert_eq!(clip.segments[1].prompt, "it turns");
        assert_eq!(
            (clip.segments[0].frames, clip.segments[1].frames),
            (Some(9), None)
        );
        assert_eq!(clip.negative_prompt, "blur");
        assert_eq!(
            (clip.guidance, clip.seed, clip.steps),
            (Some(2.5), Some(7), Some(3))
        );
        assert_eq!(
            (clip.width, clip.height, clip.frame_rate),
            (Some(64), Some(32), Some(12))
        );
        assert_eq!(clip.scheduler.as_deref(), Some("euler"));
        assert_eq!(clip.strength, Some(0.5));
        assert_eq!(clip.output_format, ClipFormat::RawRgb8);
        let content =
            |fd: Option<OwnedFd>| common::read(&File::from(fd.expect("it was passed")), 0, 5);
        assert_eq!(content(clip.first_image), b"first");
        assert!(clip.last_image.is_none());
        assert_eq!(content(clip.reference_image), b"refer");
        assert_eq!(content(clip.source), b"sourc");
        assert!(clip.contact_sheet.is_none());
        let checkpoint = File::from(clip.checkpoint.expect("it was passed"));
        checkpoint.write_all_at(b"steps", 0).expect("writable");
        File::from(clip.output)
            .write_all_at(b"clip!", 0)
            .expect("writable");
        server.reply(id, done("shapes-clip"));
    });
    let (output, checkpoint) = (file(), file());
    let same = |fd: &OwnedFd| File::from(fd.try_clone().expect("a descriptor"));
    let (written, kept) = (same(&output), same(&checkpoint));
    let segment = |prompt: &str, frames| ClipSegment {
        prompt: prompt.into(),
        frames,
    };
    let request = GenerateClip {
        segments: vec![segment("a square", Some(9)), segment("it turns", None)],
        negative_prompt: "blur".into(),
        guidance: Some(2.5),
        seed: Some(7),
        steps: Some(3),
        width: Some(64),
        height: Some(32),
        frame_rate: Some(12),
        scheduler: Some("euler".into()),
        strength: Some(0.5),
        output_format: ClipFormat::RawRgb8,
        first_image: Some(memory(b"first").into_fd()),
        reference_image: Some(memory(b"refer").into_fd()),
        source: Some(memory(b"sourc").into_fd()),
        checkpoint: Some(checkpoint),
        ..GenerateClip::new("shapes-clip", "", output)
    };
    let mut work = client.generate_clip(request).expect("sent");
    assert!(matches!(work.next(), Some(Ok(ClipEvent::Done(_)))));
    assert_eq!(common::read(&written, 0, 5), b"clip!");
    assert_eq!(common::read(&kept, 0, 5), b"steps");
    daemon.join().expect("the script held");
}

#[test]
fn another_thread_pauses_resumes_and_steers() {
    let (client, daemon) = serve(|server| {
        let (id, _) = generated(server);
        for wanted in [true, false] {
            let (said, request) = server.next();
            let Request::Pause { target, paused } = request else {
                panic!("{request:?}");
            };
            assert_eq!((target, paused), (id, wanted));
            server.reply(said, Reply::Ok);
        }
        let (said, request) = server.next();
        let Request::SteerClip(SteerClip { target, prompt }) = request else {
            panic!("{request:?}");
        };
        assert_eq!((target, &*prompt), (id, "a blue disc"));
        server.reply(said, Reply::Ok);
        server.reply(id, Reply::Steered(Steered::From { segment: 1 }));
        server.reply(id, done("shapes-clip"));
        // To one that is over, and nothing comes of it.
        // Nobody waits for what a daemon would say to it.
        let (_, request) = server.next();
        assert!(matches!(request, Request::Pause { target, .. } if target == id));
        server.expect_end();
    });
    let mut work = client.generate_clip(request()).expect("sent");
    let steering = work.steering();
    let other = std::thread::spawn(move || {
        steering.pause()?;
        steering.resume()?;
        steering.clone().set_prompt("a blue disc")?;
        Ok::<_, ClientError>(steering)
    });
    let steered = work.next().expect("not over").expect("no error");
    assert_eq!(steered, ClipEvent::Steered(Steered::From { segment: 1 }));
    assert!(matches!(work.next(), Some(Ok(ClipEvent::Done(_)))));
    let steering = other.join().expect("no panic").expect("all was sent");
    steering.pause().expect("it does no harm");
    assert!(work.next().is_none());
    drop((work, steering, client));
    daemon.join().expect("the script held");
}

fn seen(frame_index: u64) -> FrameLabels {
    let label = |class, label: &str, score| Label {
        class,
        label: label.into(),
        score,
    };
    FrameLabels {
        frame_index,
        frame_count: 2,
        time_us: 40_000 * frame_index,
        labels: vec![label(2, "left", 0.75), label(0, "", 0.25)],
        boxes: vec![LabelBox {
            label: label(1, "square", 0.5),
            x0: 1.0,
            y0: 2.0,
            x1: 3.5,
            y1: 4.0,
        }],
    }
}

#[test]
fn labels_come_frame_by_frame() {
    let (client, daemon) = serve(|server| {
        let (id, request) = server.next();
        let Request::LabelClip(clip) = request else {
            panic!("{request:?}");
        };
        assert_eq!(
            (clip.every, clip.frames_max, clip.frame_rate),
            (Some(2), Some(6), None)
        );
        assert_eq!((clip.labels_max, clip.score_min), (Some(5), Some(0.1)));
        assert_eq!(common::read(&File::from(clip.input), 0, 4), b"clip");
        (0..3).for_each(|index| server.reply(id, Reply::Labels(seen(2 * index))));
        server.reply(id, done("motion"));
    });
    let request = LabelClip {
        model: "motion".into(),
        frames_max: Some(6),
        every: Some(2),
        frame_rate: None,
        labels_max: Some(5),
        score_min: Some(0.1),
        options: WorkOptions::default(),
        input: memory(b"clip").into_fd(),
    };
    let events: Result<Vec<_>, _> = client.label_clip(request).expect("sent").collect();
    let events = events.expect("no error");
    for (index, event) in events[..3].iter().enumerate() {
        assert_eq!(*event, ClipEvent::Labels(seen(2 * index as u64)));
    }
    assert!(matches!(&events[3], ClipEvent::Done(_)));
    daemon.join().expect("the script held");
}

#[test]
fn a_clip_that_is_left_is_cancelled_and_a_refusal_is_the_last() {
    let (client, daemon) = serve(|server| {
        let (id, _) = generated(server);
        let (said, request) = server.next();
        assert!(matches!(request, Request::Cancel { target } if target == id));
        server.reply(said, Reply::Ok);
        let (id, _) = generated(server);
        server.reply(id, Reply::Failed(Status::invalid("steps", "too many")));
        server.expect_end();
    });
    drop(client.generate_clip(request()).expect("sent"));
    let mut work = client.generate_clip(request()).expect("sent");
    let refused = work.next().expect("not over").expect_err("refused");
    assert!(matches!(refused.status(), Some(Status::Invalid { field, .. }) if field == "steps"));
    assert!(work.next().is_none());
    drop((work, client));
    daemon.join().expect("the script held");
}
