//! What does not hold is refused with the field that is at fault, and the connection lives on.

mod common;

use common::raw::Raw;
use common::sealed;
use mote_wire::limits::*;
use mote_wire::types::{Command, Hello, Reply, Request, Status};
use mote_wire::{
    Frame, Memfd, check_sealed, command_to_frame, frame_to_command, frame_to_event, frame_to_reply,
    frame_to_request, negotiate,
};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

/// Numbers of the verbs.
const HELLO: u64 = 10;
const LIST_MODELS: u64 = 11;
const LOAD: u64 = 15;
const INFER: u64 = 18;
const STREAM_PUSH: u64 = 20;
const GENERATE: u64 = 22;
const TRANSFORM_CLIP: u64 = 23;
const CANCEL: u64 = 24;
const CREDIT: u64 = 25;
const REGISTER_BUFFER: u64 = 26;
const EMBED: u64 = 31;

fn verb(number: u64, body: Raw) -> Frame {
    Raw::request().message(number, body).frame()
}

fn verb_with(number: u64, body: Raw, fds: Vec<OwnedFd>) -> Frame {
    let message = Raw::request().varint(2, fds.len() as u64);
    message.message(number, body).frame_with(fds)
}

/// The field a frame is refused for; the refusal is not fatal and names request 7.
#[track_caller]
fn refused(frame: Frame) -> String {
    let refusal = frame_to_request(frame).expect_err("it must be refused");
    assert_eq!((refusal.request_id, refusal.fatal), (7, false));
    match refusal.status {
        Status::Invalid { field, why } => {
            assert!(!why.is_empty());
            field
        }
        Status::LimitExceeded { what, have, limit } => {
            assert!(have > limit);
            what
        }
        other => panic!("refused as {other:?}"),
    }
}

#[track_caller]
fn accepted(frame: Frame) -> Request {
    let (id, request) = frame_to_request(frame).expect("it holds");
    assert_eq!(id, 7);
    request
}

fn model() -> Raw {
    Raw::new().bytes(1, "m")
}

/// An input `x` of two float32 values, inline.
fn input(shape: &[u64], data: usize) -> Raw {
    let head = Raw::new().bytes(1, "x").varint(2, 1);
    let head = shape.iter().fold(head, |raw, size| raw.varint(3, *size));
    head.bytes(4, vec![0; data])
}

fn infer(input: Raw) -> Frame {
    verb(INFER, model().message(2, input))
}

fn range(buffer: u64, offset: u64, bytes: u64) -> Raw {
    Raw::new()
        .varint(1, buffer)
        .varint(2, offset)
        .varint(3, bytes)
}

fn ranged(range: Raw) -> Raw {
    Raw::new()
        .bytes(1, "x")
        .varint(2, 1)
        .varint(3, 2)
        .message(5, range)
}

fn target(name: &str, range: Raw) -> Raw {
    Raw::new().bytes(1, name).message(2, range)
}

#[test]
fn tensors() {
    accepted(infer(input(&[2], 8)));
    accepted(infer(input(&[], 4)));
    accepted(infer(input(&[0, 3], 0)));
    accepted(infer(ranged(range(1, 64, 8))));

    for (frame, field) in [
        (infer(input(&[3], 8)), "inputs[0].shape"),
        (infer(input(&[2], 9)), "inputs[0].shape"),
        (infer(input(&[u64::MAX, 2], 8)), "inputs[0].shape"),
        (infer(input(&[1 << 32, 1 << 32], 0)), "inputs[0].shape"),
        (infer(input(&[1; 9], 4)), "rank of inputs[0].shape"),
        (
            infer(input(&[16_385], 4 * 16_385)),
            "bytes of inputs[0].inline",
        ),
        (infer(ranged(range(0, 0, 8))), "inputs[0].range.buffer"),
        (infer(ranged(range(1, 32, 8))), "inputs[0].range.offset"),
        (infer(ranged(range(1, 0, 12))), "inputs[0].shape"),
        (
            infer(ranged(range(1, u64::MAX - 63, 8))),
            "inputs[0].range.bytes",
        ),
        (
            infer(ranged(range(1, BUFFER_BYTES_MAX, 8))),
            "inputs[0].range.bytes",
        ),
        // No data; no type; a type of a later version; no name.
        (
            infer(Raw::new().bytes(1, "x").varint(2, 1)),
            "inputs[0].data",
        ),
        (
            infer(Raw::new().bytes(1, "x").bytes(4, "")),
            "inputs[0].dtype",
        ),
        (
            infer(Raw::new().bytes(1, "x").varint(2, 99).bytes(4, "abcd")),
            "inputs[0].dtype",
        ),
        (
            infer(Raw::new().varint(2, 1).bytes(4, "abcd")),
            "inputs[0].name",
        ),
        (
            infer(
                Raw::new()
                    .bytes(1, "n".repeat(257))
                    .varint(2, 1)
                    .bytes(4, "abcd"),
            ),
            "bytes of inputs[0].name",
        ),
        // Memory passed by a client.
        (
            verb_with(
                INFER,
                model().message(2, input(&[2], 0).message(6, Raw::new().varint(1, 8))),
                vec![sealed(8)],
            ),
            "inputs[0].passed",
        ),
        (
            verb(
                STREAM_PUSH,
                Raw::new()
                    .message(1, input(&[2], 8))
                    .message(1, input(&[1], 4)),
            ),
            "inputs[1].name",
        ),
    ] {
        assert_eq!(refused(frame), field);
    }
    let many = (0..=TENSORS_MAX).fold(model(), |raw, _| raw.message(2, input(&[1], 4)));
    assert_eq!(refused(verb(INFER, many)), "inputs");
}

/// A frame `x` of 4 × 2 pixels of NV12 in buffer 1, as far as it is not said otherwise.
fn frame(fields: &[(u64, u64)]) -> Raw {
    let usual = [(2, 4), (3, 4), (4, 2), (5, 1)];
    let usual = usual.into_iter().filter(|(number, _)| {
        let mut said = fields.iter();
        !said.any(|(other, _)| other == number)
    });
    let all = usual.chain(fields.iter().copied());
    all.fold(Raw::new().bytes(1, "x"), |raw, (number, value)| {
        raw.varint(number, value)
    })
}

#[test]
fn frames() {
    let as_input = |frame: Raw| verb(STREAM_PUSH, Raw::new().message(3, frame));
    let as_output = |frame: Raw| verb(STREAM_PUSH, Raw::new().message(4, frame));
    let plane = || Raw::new().varint(1, 64).varint(2, 128);
    accepted(as_input(frame(&[])));
    accepted(as_output(frame(&[])));
    accepted(as_input(frame(&[(7, 3), (8, 2), (9, 16_384), (10, 1)])));
    accepted(as_input(frame(&[]).message(6, plane())));

    let side = u64::from(FRAME_SIDE_PIXELS_MAX) + 1;
    for (frame, field) in [
        (as_input(Raw::new().varint(2, 4)), "frames[0].width"),
        (as_input(frame(&[(2, 0)])), "frames[0].format"),
        (as_input(frame(&[(2, 99)])), "frames[0].format"),
        (as_input(frame(&[(3, 0)])), "frames[0].width"),
        (as_input(frame(&[(3, side)])), "frames[0].width"),
        (as_input(frame(&[(4, 0)])), "frames[0].height"),
        (as_output(frame(&[(4, side)])), "frame_outputs[0].height"),
        (as_output(frame(&[(5, 0)])), "frame_outputs[0].buffer"),
        (as_input(frame(&[(7, 4)])), "frames[0].matrix"),
        (as_input(frame(&[(8, 3)])), "frames[0].range"),
        (as_input(frame(&[(9, 5)])), "frames[0].tensor_height"),
        (
            as_input(frame(&[(9, side), (10, 5)])),
            "frames[0].tensor_width",
        ),
        (
            as_output(frame(&[(9, 5), (10, 5)])),
            "frame_outputs[0].tensor_width",
        ),
        (
            as_input((0..4).fold(frame(&[]), |frame, _| frame.message(6, plane()))),
            "frames[0].planes",
        ),
        (as_input(frame(&[]).bytes(1, "")), "frames[0].name"),
        (
            as_input(frame(&[]).bytes(1, "n".repeat(257))),
            "bytes of frames[0].name",
        ),
        (
            verb(
                STREAM_PUSH,
                Raw::new().message(3, frame(&[])).message(3, frame(&[])),
            ),
            "frames[1].name",
        ),
    ] {
        assert_eq!(refused(frame), field);
    }
    let many = (0..=TENSORS_MAX).fold(Raw::new(), |raw, _| raw.message(3, frame(&[])));
    assert_eq!(refused(verb(STREAM_PUSH, many)), "frames");
}

#[test]
fn output_targets() {
    let push = |targets: &[Raw]| {
        let body = Raw::new().message(1, ranged(range(1, 64, 8)));
        let body = targets
            .iter()
            .fold(body, |raw, target| raw.message(2, target.clone()));
        verb(STREAM_PUSH, body)
    };
    accepted(push(&[
        target("a", range(1, 128, 8)),
        target("b", range(2, 64, 8)),
    ]));
    accepted(push(&[
        target("a", range(1, 0, 64)),
        target("b", range(1, 128, 8)),
    ]));

    for (targets, field) in [
        (&[target("", range(1, 128, 8))][..], "outputs[0].name"),
        (&[Raw::new().bytes(1, "a")], "outputs[0].range"),
        (&[target("a", range(0, 0, 8))], "outputs[0].range.buffer"),
        (&[target("a", range(1, 1, 8))], "outputs[0].range.offset"),
        (
            &[(0..9).fold(target("a", range(1, 0, 8)), |raw, _| raw.varint(3, 1))],
            "rank of outputs[0].shape",
        ),
        (
            &[target("a", range(2, 0, 8)), target("a", range(3, 0, 8))],
            "outputs[1].name",
        ),
        // Over an input; over another output.
        (&[target("a", range(1, 0, 65))], "outputs[0].range"),
        (
            &[target("a", range(2, 0, 100)), target("b", range(2, 64, 8))],
            "outputs[1].range",
        ),
    ] {
        assert_eq!(refused(push(targets)), field);
    }
}

#[test]
fn the_form_of_an_answer() {
    let plain = || model().bytes(3, "hello");
    let bias = |id: u64, bias: f32| Raw::new().varint(1, id).float(2, bias);
    let constrained = |constraint| verb(GENERATE, plain().message(10, constraint));
    let spoken = |fields: &str| {
        let message = Raw::new().bytes(1, "user").bytes(2, "x").bytes(3, fields);
        verb(GENERATE, model().message(2, message))
    };
    let largest = "x".repeat(CONSTRAINT_BYTES_MAX);
    accepted(constrained(Raw::new().bytes(1, &largest)));
    accepted(constrained(Raw::new().bytes(2, &largest)));
    accepted(verb(GENERATE, plain().varint(8, LOGPROBS_MAX.into())));
    accepted(verb(GENERATE, plain().message(9, bias(7, -BIAS_MAX))));
    accepted(verb(GENERATE, plain().message(11, Raw::new().varint(1, 0))));
    accepted(spoken("{}"));

    let many = (0..=LOGIT_BIAS_MAX as u64).fold(plain(), |raw, id| raw.message(9, bias(id, 1.0)));
    let twice = plain().message(9, bias(7, 1.0)).message(9, bias(7, 2.0));
    for (frame, field) in [
        (
            verb(GENERATE, plain().varint(8, u64::from(LOGPROBS_MAX) + 1)),
            "logprobs",
        ),
        (verb(GENERATE, many), "logit_bias"),
        (verb(GENERATE, twice), "logit_bias[1].token_id"),
        (
            verb(GENERATE, plain().message(9, bias(7, 100.5))),
            "logit_bias[0].bias",
        ),
        (
            verb(GENERATE, plain().message(9, bias(7, f32::NAN))),
            "logit_bias[0].bias",
        ),
        (constrained(Raw::new()), "constraint.kind"),
        (
            constrained(Raw::new().bytes(1, "")),
            "constraint.json_schema",
        ),
        (constrained(Raw::new().bytes(2, "")), "constraint.regex"),
        (
            constrained(Raw::new().bytes(1, largest.clone() + "x")),
            "bytes of constraint.json_schema",
        ),
        (
            constrained(Raw::new().bytes(2, largest + "x")),
            "bytes of constraint.regex",
        ),
        (
            verb(GENERATE, plain().bytes(12, "x".repeat(TOOLS_BYTES_MAX + 1))),
            "bytes of tools_json",
        ),
        (spoken(&"x".repeat(PROMPT_BYTES_MAX)), "bytes of messages"),
    ] {
        assert_eq!(refused(frame), field);
    }
}

#[test]
fn generation() {
    let prompt = |text: &str| model().bytes(3, text);
    accepted(verb(GENERATE, prompt("hello")));
    let message = |role: &str, content: &str| Raw::new().bytes(1, role).bytes(2, content);
    accepted(verb(GENERATE, model().message(2, message("user", ""))));
    let sampled = |sampling| verb(GENERATE, prompt("hello").message(5, sampling));
    accepted(sampled(
        Raw::new().float(1, 100.0).float(3, 1.0).float(4, 0.0),
    ));

    for (frame, field) in [
        (verb(GENERATE, Raw::new().bytes(3, "hello")), "model"),
        (
            verb(
                GENERATE,
                Raw::new().bytes(1, "m".repeat(257)).bytes(3, "hello"),
            ),
            "bytes of model",
        ),
        (verb(GENERATE, model()), "prompt"),
        (
            verb(GENERATE, prompt("hello").message(2, message("user", "x"))),
            "prompt",
        ),
        (
            verb(GENERATE, prompt(&"x".repeat(PROMPT_BYTES_MAX + 1))),
            "bytes of prompt",
        ),
        (
            verb(
                GENERATE,
                model()
                    .message(2, message("user", &"x".repeat(PROMPT_BYTES_MAX)))
                    .message(2, message("user", "x")),
            ),
            "bytes of messages",
        ),
        (
            verb(GENERATE, model().message(2, message("", "x"))),
            "messages[0].role",
        ),
        (
            verb(
                GENERATE,
                (0..=MESSAGES_MAX).fold(model(), |raw, _| raw.message(2, message("user", "x"))),
            ),
            "messages",
        ),
        (verb(GENERATE, prompt("hello").bytes(6, "")), "stop[0]"),
        (
            verb(GENERATE, prompt("hello").bytes(6, "x".repeat(257))),
            "bytes of stop[0]",
        ),
        (
            verb(
                GENERATE,
                (0..=STOPS_MAX).fold(prompt("hello"), |raw, _| raw.bytes(6, "x")),
            ),
            "stop",
        ),
        (
            sampled(Raw::new().float(1, f32::NAN)),
            "sampling.temperature",
        ),
        (sampled(Raw::new().float(1, -0.1)), "sampling.temperature"),
        (
            sampled(Raw::new().float(1, f32::INFINITY)),
            "sampling.temperature",
        ),
        (sampled(Raw::new().varint(2, 0)), "sampling.top_k"),
        (sampled(Raw::new().float(3, 0.0)), "sampling.top_p"),
        (sampled(Raw::new().float(3, 1.1)), "sampling.top_p"),
        (sampled(Raw::new().float(4, 1.0)), "sampling.min_p"),
        (sampled(Raw::new().float(4, f32::NAN)), "sampling.min_p"),
        (
            sampled(Raw::new().float(5, 0.0)),
            "sampling.repetition_penalty",
        ),
        (
            sampled(Raw::new().float(5, 10.5)),
            "sampling.repetition_penalty",
        ),
    ] {
        assert_eq!(refused(frame), field);
    }
}

#[test]
fn texts_to_be_embedded() {
    let texts = |texts: &[&str]| {
        let add = |body: Raw, text: &&str| body.bytes(2, text);
        texts.iter().fold(model(), add)
    };
    accepted(verb(EMBED, texts(&["one", "世界"]).varint(3, 2)));
    let most = vec!["t"; 1024];
    accepted(verb(EMBED, texts(&most)));
    let long = "t".repeat((256 << 10) + 1);
    for (body, field) in [
        (Raw::new().bytes(2, "one"), "model"),
        (model(), "texts"),
        (texts(&["one", ""]), "texts[1]"),
        (texts(&["one", "t\0o"]), "texts[1]"),
        (texts(&["one", &long]), "bytes of texts[1]"),
        (texts(&[&long[1..]; 5]), "bytes of texts"),
        (texts(&[&most[..], &["t"]].concat()), "texts"),
        (texts(&["one"]).varint(3, 3), "kind"),
        (
            texts(&["one"]).message(6, Raw::new().varint(1, 9)),
            "options.priority",
        ),
    ] {
        assert_eq!(refused(verb(EMBED, body)), field);
    }
}

/// What a daemon answers is checked as well: vectors are f32, a row for each text.
#[test]
fn vectors_that_are_none() {
    let vectors = |dtype, shape: [u64; 2], bytes: usize| {
        let tensor = Raw::new().bytes(1, "v").varint(2, dtype);
        let tensor = tensor.varint(3, shape[0]).varint(3, shape[1]);
        tensor.bytes(4, vec![0; bytes])
    };
    let good = || Raw::new().message(1, vectors(1, [2, 1], 8));
    let frame = |body: Raw| Raw::request().message(28, body).frame();
    let tokens = [3, 4];
    let (_, reply) = frame_to_reply(frame(good().bytes(2, tokens).bytes(3, [1]))).expect("good");
    assert!(matches!(reply, Reply::Embeddings(_)), "{reply:?}");
    for body in [
        Raw::new().bytes(2, tokens),
        good(),
        good().bytes(2, [3]),
        good().bytes(2, tokens).bytes(3, [2]),
        good().bytes(2, tokens).bytes(3, [1, 1]),
        Raw::new()
            .message(1, vectors(9, [2, 1], 8))
            .bytes(2, tokens),
    ] {
        frame_to_reply(frame(body)).expect_err("it does not hold");
    }
}

/// So is sound: f32, a row for each sample, and no more of it than the limits say.
#[test]
fn sound_that_is_none() {
    let tensor = |dtype, shape: &[u64], bytes: usize| {
        let tensor = Raw::new().bytes(1, "a").varint(2, dtype);
        let tensor = shape.iter().fold(tensor, |raw, size| raw.varint(3, *size));
        tensor.bytes(4, vec![0; bytes])
    };
    let sound = |index: u64, rate: u64, audio: Raw| {
        let sound = Raw::new().varint(1, index).varint(2, rate);
        sound.message(3, audio)
    };
    let frame = |body: Raw| Raw::request().message(30, body).frame();
    let stereo = || tensor(1, &[3, 2], 24);
    let (_, reply) = frame_to_reply(frame(sound(7, 192_000, stereo()))).expect("it holds");
    let Reply::Audio(audio) = reply else {
        panic!("{reply:?}");
    };
    assert_eq!((audio.sample_index, audio.samples()), (7, 3));

    let ranged = Raw::new().bytes(1, "a").varint(2, 1);
    let ranged = ranged.varint(3, 3).varint(3, 2);
    for (body, field) in [
        (Raw::new().varint(2, 1), "audio"),
        (sound(0, 0, stereo()), "sample_rate"),
        (sound(0, 192_001, stereo()), "sample_rate"),
        (sound(u64::MAX - 2, 1, stereo()), "sample_index"),
        (sound(0, 1, tensor(2, &[3, 2], 12)), "audio[0].dtype"),
        (sound(0, 1, tensor(1, &[6], 24)), "audio[0].shape"),
        (sound(0, 1, tensor(1, &[1, 3, 2], 24)), "audio[0].shape"),
        (sound(0, 1, tensor(1, &[3, 2], 20)), "audio[0].shape"),
        (sound(0, 1, tensor(1, &[0, 2], 0)), "audio[0].shape"),
        (sound(0, 1, tensor(1, &[3, 0], 0)), "audio[0].shape"),
        (sound(0, 1, tensor(1, &[1, 9], 36)), "channels of audio[0]"),
        (
            sound(0, 1, ranged.message(5, range(1, 0, 24))),
            "audio[0].range",
        ),
    ] {
        let refusal = frame_to_reply(frame(body)).expect_err(field);
        let what = match refusal.status {
            Status::Invalid { field, .. } => field,
            Status::LimitExceeded { what, .. } => what,
            other => panic!("{field}: refused as {other:?}"),
        };
        assert_eq!(what, field);
    }
    // Nothing of it is written, so it takes no memory here.
    let samples = AUDIO_BYTES_MAX / 4 + 1;
    let passed = Raw::new().varint(1, 4 * samples);
    let long = Raw::new().varint(2, 1).varint(3, samples).varint(3, 1);
    let long = sound(0, 1, long.message(6, passed));
    let long = Raw::request().varint(2, 1).message(30, long);
    let refusal = frame_to_reply(long.frame_with(vec![sealed(4 * samples)])).expect_err("long");
    assert!(
        matches!(&refusal.status, Status::LimitExceeded { what, .. } if what == "bytes of audio[0]"),
        "{refusal}"
    );
}

#[test]
fn options_and_credit() {
    let load = |options| verb(LOAD, model().message(2, options));
    for (wire, credit) in [(0, 256), (1, 1), (256, 256), (100_000, 256)] {
        let Request::Load { options, .. } = accepted(load(Raw::new().varint(9, wire))) else {
            panic!("another verb");
        };
        assert_eq!(options.credit, credit);
    }
    let Request::Load { options, .. } = accepted(verb(LOAD, model())) else {
        panic!("another verb");
    };
    assert_eq!(options.credit, CREDIT_MAX);
    assert_eq!(refused(load(Raw::new().varint(1, 9))), "options.priority");
    assert_eq!(
        refused(load(Raw::new().bytes(5, "p".repeat(300)))),
        "bytes of options.require_provider"
    );

    let credit = |target, frames| verb(CREDIT, Raw::new().varint(1, target).varint(2, frames));
    assert!(matches!(
        accepted(credit(3, 5000)),
        Request::Credit {
            target: 3,
            frames: CREDIT_MAX
        }
    ));
    assert_eq!(refused(credit(3, 0)), "frames");
    assert_eq!(refused(credit(0, 3)), "target_request_id");
    assert_eq!(refused(verb(CANCEL, Raw::new())), "target_request_id");
}

/// A descriptor opened for reading only.
fn read_only() -> OwnedFd {
    File::open("/proc/self/exe").expect("a file").into()
}

fn pipe() -> OwnedFd {
    std::io::pipe().expect("a pipe").0.into()
}

#[test]
fn clips() {
    let clip = |fields: Raw, fds| {
        let mut body = model().varint(2, 2);
        body.0.extend(fields.0);
        verb_with(TRANSFORM_CLIP, body, fds)
    };
    let files = || vec![read_only(), sealed(1)];
    accepted(clip(Raw::new(), files()));
    accepted(clip(
        Raw::new().varint(4, 1),
        vec![read_only(), sealed(1), sealed(1)],
    ));

    for (frame, field) in [
        (clip(Raw::new().varint(2, 3), files()), "factor"),
        (clip(Raw::new().varint(3, 9), files()), "output_format"),
        (clip(Raw::new().varint(6, 20_000), files()), "width_max"),
        (clip(Raw::new().varint(7, 20_000), files()), "height_max"),
        (clip(Raw::new().varint(8, 1_001), files()), "frame_rate"),
        (clip(Raw::new().varint(9, 11), files()), "encoder_speed"),
        (clip(Raw::new(), vec![]), "input"),
        (clip(Raw::new(), vec![read_only()]), "output"),
        (clip(Raw::new().varint(4, 1), files()), "contact_sheet"),
        (
            clip(Raw::new(), vec![read_only(), sealed(1), sealed(1)]),
            "fd_count",
        ),
        // Not to be written; not a file.
        (clip(Raw::new(), vec![read_only(), read_only()]), "output"),
        (clip(Raw::new(), vec![pipe(), sealed(1)]), "input"),
    ] {
        assert_eq!(refused(frame), field);
    }
}

#[test]
fn generated_clips() {
    const GENERATE_CLIP: u64 = 32;
    let shot = |prompt: &str| Raw::new().bytes(1, prompt);
    let clip = |fields: Raw, fds| {
        let mut body = model().message(2, shot("a red square"));
        body.0.extend(fields.0);
        verb_with(GENERATE_CLIP, body, fds)
    };
    let out = || vec![sealed(1)];
    accepted(clip(Raw::new(), out()));
    // Contact sheet, first image and checkpoint.
    let flags = Raw::new().varint(14, 1).varint(15, 1).varint(19, 1);
    accepted(clip(
        flags,
        vec![sealed(1), sealed(1), read_only(), sealed(1)],
    ));
    let source = || Raw::new().varint(18, 1);
    accepted(clip(source().float(11, 1.0), vec![sealed(1), read_only()]));

    let mut many = Raw::new();
    for _ in 0..16 {
        many = many.message(2, shot(""));
    }
    for (frame, field) in [
        (verb_with(GENERATE_CLIP, model(), out()), "segments"),
        (clip(many, out()), "segments"),
        (
            clip(Raw::new().message(2, shot("\0")), out()),
            "segments[1].prompt",
        ),
        (
            clip(Raw::new().message(2, Raw::new().varint(2, 4_097)), out()),
            "frames",
        ),
        (clip(Raw::new().bytes(3, "\0"), out()), "negative_prompt"),
        (clip(Raw::new().float(4, -1.0), out()), "guidance"),
        (clip(Raw::new().float(4, f32::NAN), out()), "guidance"),
        (clip(Raw::new().varint(6, 1_001), out()), "steps"),
        (clip(Raw::new().varint(7, 20_000), out()), "width"),
        (clip(Raw::new().varint(8, 20_000), out()), "height"),
        (clip(Raw::new().varint(9, 1_001), out()), "frame_rate"),
        (
            clip(Raw::new().bytes(10, "x".repeat(257)), out()),
            "bytes of scheduler",
        ),
        (clip(Raw::new().float(11, 0.5), out()), "strength"),
        (
            clip(source().float(11, 0.0), vec![sealed(1), read_only()]),
            "strength",
        ),
        (clip(Raw::new().varint(12, 99), out()), "output_format"),
        (clip(Raw::new().varint(13, 11), out()), "encoder_speed"),
        (clip(Raw::new(), vec![]), "output"),
        (clip(Raw::new(), vec![read_only()]), "output"),
        (clip(source(), out()), "source"),
        // What is gone on from is written, too.
        (
            clip(Raw::new().varint(19, 1), vec![sealed(1), read_only()]),
            "checkpoint",
        ),
        (clip(Raw::new(), vec![sealed(1), sealed(1)]), "fd_count"),
    ] {
        assert_eq!(refused(frame), field);
    }

    let long = Raw::new().bytes(2, "x".repeat((1 << 20) + 1));
    let steer = |fields: Raw| {
        let mut body = Raw::new().varint(1, 7);
        body.0.extend(fields.0);
        verb(34, body)
    };
    accepted(steer(Raw::new().bytes(2, "a blue circle")));
    assert_eq!(refused(steer(long)), "bytes of prompt");
    assert_eq!(refused(verb(34, Raw::new())), "target_request_id");
    assert_eq!(refused(verb(33, Raw::new())), "target_request_id");

    let label = |fields: Raw, fds| {
        let mut body = model();
        body.0.extend(fields.0);
        verb_with(35, body, fds)
    };
    accepted(label(Raw::new().float(6, 0.5), vec![read_only()]));
    for (frame, field) in [
        (
            label(Raw::new().float(6, f32::NAN), vec![read_only()]),
            "score_min",
        ),
        (
            label(Raw::new().varint(5, 1_025), vec![read_only()]),
            "labels_max",
        ),
        (label(Raw::new(), vec![pipe()]), "input"),
        (label(Raw::new(), vec![]), "input"),
    ] {
        assert_eq!(refused(frame), field);
    }
}

#[test]
fn buffers() {
    let register = |buffer, bytes, writable, fd| {
        let body = Raw::new()
            .varint(1, buffer)
            .varint(2, bytes)
            .varint(3, writable);
        verb_with(REGISTER_BUFFER, body, vec![fd])
    };
    let frozen = || {
        Memfd::holding("test", &[7; 100])
            .expect("a memfd")
            .into_fd()
    };
    let unsealed = || {
        let flags = nix::sys::memfd::MFdFlags::MFD_ALLOW_SEALING;
        let fd = nix::sys::memfd::memfd_create("test", flags).expect("a memfd");
        nix::unistd::ftruncate(&fd, 4096).expect("a size");
        fd
    };
    accepted(register(1, 4096, 1, sealed(4096)));
    accepted(register(1, 100, 0, sealed(4096)));
    accepted(register(1, 100, 0, frozen()));

    for (frame, field) in [
        (register(0, 100, 0, sealed(100)), "buffer"),
        (register(1, 0, 0, sealed(100)), "bytes"),
        (register(1, BUFFER_BYTES_MAX + 1, 0, sealed(100)), "bytes"),
        (register(1, 4097, 0, sealed(4096)), "fd"),
        (register(1, 100, 1, frozen()), "fd"),
        (register(1, 100, 0, unsealed()), "fd"),
        (register(1, 100, 0, read_only()), "fd"),
        (register(1, 100, 0, pipe()), "fd"),
        (
            verb(REGISTER_BUFFER, Raw::new().varint(1, 1).varint(2, 100)),
            "fd",
        ),
    ] {
        assert_eq!(refused(frame), field);
    }
    // Opened anew for reading, a memfd cannot be mapped for writing.
    let memfd = Memfd::create("test", 100).expect("a memfd");
    let again = File::open(format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&memfd.as_fd())
    ))
    .expect("opened again");
    assert_eq!(check_sealed(again.as_fd(), 100, false), Ok(()));
    assert!(check_sealed(again.as_fd(), 100, true).is_err());
}

#[test]
fn hello_and_versions() {
    let hello = |min, max| verb(HELLO, Raw::new().varint(1, min).varint(2, max));
    accepted(hello(1, 1));
    assert_eq!(refused(hello(0, 1)), "version_min");
    assert_eq!(refused(hello(2, 1)), "version_min");
    let named = Raw::new()
        .varint(1, 1)
        .varint(2, 1)
        .bytes(3, "x".repeat(257));
    assert_eq!(refused(verb(HELLO, named)), "bytes of client_name");

    let speaks = |version_min, version_max| {
        negotiate(&Hello {
            version_min,
            version_max,
            client_name: String::new(),
        })
    };
    assert_eq!(speaks(1, 9), Ok(WIRE_VERSION));
    let refusal = Status::VersionUnsupported {
        version_min: WIRE_VERSION,
        version_max: WIRE_VERSION,
    };
    assert_eq!(speaks(2, 9), Err(refusal));
}

#[test]
fn verbs_of_later_versions_are_told_and_their_descriptors_closed() {
    for (frame, name) in [
        (verb(60, Raw::new().bytes(1, "anything")), "verb 60"),
        (verb_with(60, Raw::new(), vec![sealed(1)]), "verb 60"),
    ] {
        match accepted(frame) {
            Request::Unsupported { what } => assert_eq!(what, name),
            other => panic!("taken for {other:?}"),
        }
    }
    // Fields that a later version adds to a known verb.
    let body = model().bytes(90, "new").varint(91, 5);
    assert!(matches!(accepted(verb(LOAD, body)), Request::Load { .. }));
}

#[test]
fn frames_without_a_request() {
    assert_eq!(refused(Raw::request().frame()), "body");
    let nameless = Raw::new().message(LIST_MODELS, Raw::new());
    for frame in [nameless.clone().frame(), nameless.varint(1, 0).frame()] {
        let refusal = frame_to_request(frame).expect_err("it must be refused");
        assert_eq!((refusal.request_id, refusal.fatal), (0, false));
        assert!(matches!(refusal.status, Status::Invalid { field, .. } if field == "request_id"));
    }
}

#[test]
fn what_is_no_message_ends_the_connection() {
    let mismatch = Raw::request().varint(2, 2).message(LIST_MODELS, Raw::new());
    for (frame, id) in [
        (Raw(vec![0xff; 20]).frame(), 0),
        (Raw(vec![0x0a]).frame(), 0),
        (
            Raw::request().bytes(GENERATE, [0x0a, 0x50, 0x41]).frame(),
            7,
        ),
        (verb(GENERATE, model().varint(3, 5)), 7),
        (verb(GENERATE, model().bytes(3, [0xc3, 0x28])), 7),
        (mismatch.clone().frame(), 7),
        (mismatch.frame_with(vec![sealed(1)]), 7),
        (verb(LOAD, model()).with_fd(sealed(1)), 7),
    ] {
        let refusal = frame_to_request(frame).expect_err("it must be refused");
        assert_eq!((refusal.request_id, refusal.fatal), (id, true));
    }
}

trait WithFd {
    fn with_fd(self, fd: OwnedFd) -> Self;
}

impl WithFd for Frame {
    fn with_fd(mut self, fd: OwnedFd) -> Self {
        self.fds.push(fd);
        self
    }
}

#[test]
fn answers_of_later_versions_are_no_reason_to_leave() {
    let refusal = frame_to_reply(verb(60, Raw::new())).expect_err("nobody knows it");
    assert!(matches!(refusal.status, Status::Unsupported { .. }));
    assert_eq!((refusal.request_id, refusal.fatal), (7, false));
    // A failure of a new kind keeps its text.
    let failed = Raw::new().message(
        1,
        Raw::new().bytes(1, "out of luck").message(99, Raw::new()),
    );
    let (_, reply) = frame_to_reply(verb(18, failed)).expect("a failure all the same");
    let mote_wire::types::Reply::Failed(Status::Internal { cause, .. }) = reply else {
        panic!("taken for {reply:?}");
    };
    assert_eq!(cause, "out of luck");
}

#[test]
fn between_broker_and_worker_every_refusal_is_fatal() {
    let unsealed = File::open("/proc/self/exe").expect("a file");
    let command = Command::MapBuffer {
        buffer: 1,
        bytes: 10,
        writable: false,
        fd: unsealed.into(),
    };
    let frame = command_to_frame(command).expect("it fits");
    assert!(frame_to_command(frame).expect_err("no memfd").fatal);
    for message in [Raw::new(), Raw::new().message(90, Raw::new()), Raw(vec![7])] {
        assert!(
            frame_to_command(message.clone().frame())
                .expect_err("nothing")
                .fatal
        );
        assert!(frame_to_event(message.frame()).expect_err("nothing").fatal);
    }
}
