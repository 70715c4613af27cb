//! Tensors in and out: in frames, in buffers, in passed memory.

mod common;

use common::{Server, done, read, serve};
use mote_client::{
    ClientError, DType, FrameFormat, FramePlane, FramesPush, Input, Output, OwnedData, Status,
    StreamResult, TensorSpec, VideoFrame, WorkOptions,
};
use mote_wire::types::{
    BufferRange, Infer, Reply, Request, StreamOpened, StreamPush, Tensor, TensorData,
};
use mote_wire::{Memfd, types};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::thread;

fn infer(server: &mut Server) -> (u64, Infer) {
    match server.next() {
        (id, Request::Infer(infer)) => (id, infer),
        (_, other) => panic!("{other:?}"),
    }
}

fn output(name: &str, data: TensorData) -> Tensor {
    Tensor {
        name: name.into(),
        dtype: DType::U8,
        shape: vec![data.bytes()],
        data,
    }
}

fn range(tensor: &Tensor) -> BufferRange {
    match tensor.data {
        TensorData::Range(range) => range,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn small_inputs_travel_in_the_frame_and_outputs_come_back() {
    let (client, daemon) = serve(|server| {
        let (id, infer) = infer(server);
        assert_eq!(infer.model, "m");
        let [input] = &infer.inputs[..] else {
            panic!("{infer:?}");
        };
        assert_eq!(
            (&*input.name, input.dtype, &input.shape[..]),
            ("x", DType::I16, &[2][..])
        );
        assert!(matches!(&input.data, TensorData::Inline(bytes) if bytes[..] == [1, 0, 2, 0]));
        let passed = Memfd::holding("test", &[7; 100_000]).expect("a memfd");
        server.reply(id, Reply::Accepted { queue_position: 0 });
        server.reply(
            id,
            Reply::Tensor(output("small", TensorData::Inline(vec![1, 2, 3]))),
        );
        let (fd, bytes) = (passed.into_fd(), 100_000);
        server.reply(
            id,
            Reply::Tensor(output("large", TensorData::Passed { fd, bytes })),
        );
        server.reply(id, done("m"));
    });
    let input = Input::bytes("x", DType::I16, &[2], &[1, 0, 2, 0]);
    let result = client
        .infer("m", &[input], &[], &WorkOptions::default())
        .expect("outputs");
    assert_eq!(result.done.receipt.model, "m");
    let [small, large] = &result.outputs[..] else {
        panic!("{result:?}");
    };
    assert_eq!(
        (&*small.name, small.bytes()),
        ("small", Some(&[1, 2, 3][..]))
    );
    assert_eq!((&*large.name, &large.shape[..]), ("large", &[100_000][..]));
    assert_eq!(large.bytes(), Some(&[7; 100_000][..]));
    daemon.join().expect("the script held");
}

#[test]
fn large_inputs_go_through_a_buffer_that_is_used_again() {
    let (client, daemon) = serve(|server| {
        let (buffer, memory) = server.register();
        for round in 1..=3u8 {
            let (id, infer) = infer(server);
            let [one, two, small] = &infer.inputs[..] else {
                panic!("{infer:?}");
            };
            for (input, value, bytes) in [(one, round, 70_001), (two, round + 100, 90_000)] {
                let range = range(input);
                assert_eq!(
                    (range.buffer, range.offset % 64, range.bytes),
                    (buffer, 0, bytes)
                );
                let content = read(&memory, range.offset, bytes as usize);
                assert!(content.iter().all(|byte| *byte == value));
            }
            assert!(matches!(small.data, TensorData::Inline(_)));
            server.reply(id, done("m"));
        }
        server.expect_end();
    });
    for round in 1..=3u8 {
        let (one, two) = (vec![round; 70_001], vec![round + 100; 90_000]);
        let inputs = [
            Input::bytes("one", DType::U8, &[70_001], &one),
            Input::bytes("two", DType::U8, &[90_000], &two),
            Input::bytes("small", DType::U8, &[1], &[0]),
        ];
        client
            .infer("m", &inputs, &[], &WorkOptions::default())
            .expect("outputs");
    }
    drop(client);
    daemon.join().expect("the script held");
}

#[test]
fn many_small_inputs_do_not_fill_the_frame() {
    let (client, daemon) = serve(|server| {
        let (_, memory) = server.register();
        let (id, infer) = infer(server);
        assert_eq!(infer.inputs.len(), 100);
        let mut inline_bytes = 0;
        for input in &infer.inputs {
            match &input.data {
                TensorData::Inline(bytes) => inline_bytes += bytes.len(),
                TensorData::Range(range) => {
                    assert!(
                        read(&memory, range.offset, 60_000)
                            .iter()
                            .all(|byte| *byte == 3)
                    );
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(
            inline_bytes > 0 && inline_bytes <= 1 << 20,
            "{inline_bytes}"
        );
        server.reply(id, done("m"));
    });
    let elements = vec![3; 60_000];
    let names: Vec<_> = (0..100).map(|index| format!("x{index}")).collect();
    let input = |name: &'static str| Input::bytes(name, DType::U8, &[60_000], &elements);
    let names: Vec<&'static str> = names.into_iter().map(|name| &*name.leak()).collect();
    let inputs: Vec<_> = names.into_iter().map(input).collect();
    client
        .infer("m", &inputs, &[], &WorkOptions::default())
        .expect("outputs");
    daemon.join().expect("the script held");
}

#[test]
fn buffers_are_shared_both_ways_and_forgotten_when_dropped() {
    let (client, daemon) = serve(|server| {
        let (buffer, memory) = server.register();
        let (id, infer) = infer(server);
        let input = range(&infer.inputs[0]);
        let target = &infer.outputs[0];
        assert_eq!((input.buffer, target.range.buffer), (buffer, buffer));
        assert_eq!((input.offset, input.bytes), (64, 8));
        assert_eq!((&*target.name, &target.shape[..]), ("y", &[2, 4][..]));
        let content = read(&memory, input.offset, 8);
        memory
            .write_all_at(&content, target.range.offset)
            .expect("writable");
        server.reply(
            id,
            Reply::Tensor(output("y", TensorData::Range(target.range))),
        );
        server.reply(id, done("m"));
        // Nobody waits for the answer.
        let (_, request) = server.next();
        assert!(matches!(request, Request::UnregisterBuffer { buffer: one } if one == buffer));
        server.expect_end();
    });
    let mut buffer = client.buffer(4096).expect("a buffer");
    assert_eq!(buffer.bytes(), 4096);
    buffer.copy_in(64, &[1, 2, 3, 4, 5, 6, 7, 8]).expect("room");
    let input = Input::buffer_at("x", DType::F64, &[1], (&buffer, 64));
    let target = Output::buffer("y", &buffer, 128, 8).shape(&[2, 4]);
    let result = client.infer("m", &[input], &[target], &WorkOptions::default());
    let result = result.expect("outputs");
    assert_eq!(
        result.outputs[0].data,
        OwnedData::InBuffer(buffer.range(128, 8))
    );
    assert_eq!(result.outputs[0].bytes(), None);
    let mut copy = [0; 8];
    buffer.copy_out(128, &mut copy).expect("there");
    assert_eq!(copy, [1, 2, 3, 4, 5, 6, 7, 8]);
    buffer.with_slice_mut(|bytes| bytes[128] = 9);
    assert_eq!(buffer.with_slice(|bytes| bytes[128..130].to_vec()), [9, 2]);
    drop(buffer);
    drop(client);
    daemon.join().expect("the script held");
}

#[test]
fn nothing_outside_a_buffer_is_reached() {
    let (client, daemon) = serve(|server| {
        server.register();
    });
    let mut buffer = client.buffer(100).expect("a buffer");
    let inside = buffer
        .copy_in(90, &[1; 10])
        .and_then(|()| buffer.copy_out(90, &mut [0; 10]));
    inside.expect("just inside");
    for offset in [91, 100, 101, u64::MAX - 4, u64::MAX] {
        let written = buffer.copy_in(offset, &[1; 10]);
        assert!(matches!(
            written,
            Err(ClientError::OutOfRange {
                bytes: 10,
                have_bytes: 100,
                ..
            })
        ));
        let read = buffer.copy_out(offset, &mut [0; 10]);
        assert!(matches!(
            read,
            Err(ClientError::OutOfRange {
                bytes: 10,
                have_bytes: 100,
                ..
            })
        ));
    }
    assert!(matches!(
        client.buffer(0),
        Err(ClientError::Memory { bytes: 0, .. })
    ));
    daemon.join().expect("the script held");
}

#[test]
fn answers_find_their_requests_from_any_thread() {
    const THREADS: usize = 8;
    let (client, daemon) = serve(|server| {
        for _ in 0..20 {
            let mut requests: Vec<_> = (0..THREADS).map(|_| infer(server)).collect();
            // Answers nobody has asked for are no harm.
            server.reply(1 << 60, done("nobody"));
            let fd = Memfd::holding("test", &[1]).expect("a memfd").into_fd();
            let stray = output("y", TensorData::Passed { fd, bytes: 1 });
            server.reply(1 << 60, Reply::Tensor(stray));
            while let Some((id, infer)) = requests.pop() {
                server.reply(id, done(&infer.model));
            }
        }
    });
    thread::scope(|scope| {
        for number in 0..THREADS {
            let client = &client;
            scope.spawn(move || {
                let model = format!("model {number}");
                for _ in 0..20 {
                    let result = client.infer(&model, &[], &[], &WorkOptions::default());
                    assert_eq!(result.expect("outputs").done.receipt.model, model);
                }
            });
        }
    });
    daemon.join().expect("the script held");
}

/// Opens a stream whose worker's end is served by `script`.
fn streaming(
    script: impl FnOnce(&mut Server) + Send + 'static,
) -> (mote_client::Client, thread::JoinHandle<()>) {
    serve(|server| {
        let (id, request) = server.next();
        assert!(matches!(request, Request::OpenStream(open) if open.model == "vad"));
        let (here, there) = UnixStream::pair().expect("a pair");
        let spec = |name: &str| TensorSpec {
            name: name.into(),
            dtype: DType::F32,
            shape: vec![Some(1), None],
        };
        server.reply(id, Reply::Accepted { queue_position: 0 });
        let opened = StreamOpened {
            socket: here.into(),
            inputs: vec![spec("input")],
            outputs: vec![spec("output")],
        };
        server.reply(id, Reply::StreamOpened(opened));
        script(&mut Server::new(there));
    })
}

fn push(server: &mut Server) -> (u64, StreamPush) {
    match server.next() {
        (id, Request::StreamPush(push)) => (id, push),
        (_, other) => panic!("{other:?}"),
    }
}

fn result(outputs: Vec<Tensor>) -> Reply {
    Reply::StreamResult(types::StreamResult {
        outputs,
        compute_us: 33,
        bytes_copied: 4,
        bytes_converted: 5,
    })
}

/// Writes the sum of the input, found in `memory`, to the target.
fn sum(memory: &File, push: &StreamPush) -> Tensor {
    let input = range(&push.inputs[0]);
    let sum = read(memory, input.offset, input.bytes as usize)
        .iter()
        .fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
    let target = push.outputs[0].range;
    memory
        .write_all_at(&[sum], target.offset)
        .expect("writable");
    output("output", TensorData::Range(target))
}

#[test]
fn frames_are_named_where_they_lie() {
    let (client, daemon) = streaming(|server| {
        server.register();
        let (id, push) = push(server);
        assert!(push.inputs.is_empty() && push.outputs.is_empty());
        let (camera, mask) = (&push.frames[0], &push.frame_outputs[0]);
        assert_eq!((&*camera.name, &*mask.name), ("image", "mask"));
        assert_eq!(camera.buffer, mask.buffer);
        assert_eq!((camera.width, camera.height), (64, 48));
        assert_eq!(camera.tensor_size, Some((32, 24)));
        assert_eq!(mask.planes[0].offset, 4608);
        server.reply(id, result(Vec::new()));
        server.expect_end();
    });
    let mut stream = client
        .open_stream("vad", &WorkOptions::default())
        .expect("a stream");
    let buffer = stream.buffer(8192).expect("a buffer");
    assert_eq!(FrameFormat::Nv12.dense_bytes(64, 48, 3), 4608);
    let camera = VideoFrame {
        tensor_size: Some((32, 24)),
        ..buffer.frame("image", FrameFormat::Nv12, (64, 48))
    };
    let mask = VideoFrame {
        planes: vec![FramePlane {
            offset: 4608,
            stride: 32,
        }],
        ..buffer.frame("mask", FrameFormat::Gray8, (32, 24))
    };
    let push = FramesPush {
        frames: &[camera],
        frame_outputs: &[mask],
        ..FramesPush::default()
    };
    let result = stream.push_frames(&push).expect("a result");
    assert_eq!((result.outputs.len(), result.bytes_converted), (0, 5));
    drop((stream, client));
    daemon.join().expect("the script held");
}

#[test]
fn a_stream_runs_over_buffers() {
    let (client, daemon) = streaming(|server| {
        let (_, memory) = server.register();
        for _ in 0..100 {
            let (id, push) = push(server);
            server.reply(id, result(vec![sum(&memory, &push)]));
        }
        let (id, request) = server.next();
        assert!(matches!(request, Request::StreamClose));
        server.reply(id, done("vad"));
        server.expect_end();
    });
    let mut stream = client
        .open_stream("vad", &WorkOptions::default())
        .expect("a stream");
    assert_eq!(
        (&*stream.inputs()[0].name, &*stream.outputs()[0].name),
        ("input", "output")
    );
    let mut buffer = stream.buffer(1024).expect("a buffer");
    for step in 0..100 {
        buffer.copy_in(0, &[step, 1, 1]).expect("room");
        let input = Input::buffer("input", DType::U8, &[3], &buffer);
        let target = Output::buffer("output", &buffer, 64, 1);
        let StreamResult {
            outputs,
            compute_us,
            bytes_copied,
            bytes_converted,
        } = stream.push(&[input], &[target]).expect("a result");
        assert_eq!((outputs.len(), compute_us), (1, 33));
        assert_eq!((bytes_copied, bytes_converted), (4, 5));
        assert_eq!(buffer.with_slice(|bytes| bytes[64]), step + 2);
    }
    assert_eq!(stream.close().expect("a receipt").model, "vad");
    drop(client);
    daemon.join().expect("the script held");
}

#[test]
fn a_refused_push_does_not_end_the_stream() {
    let (client, daemon) = streaming(|server| {
        let (id, _) = push(server);
        server.reply(
            id,
            Reply::Failed(Status::invalid("inputs[0].shape", "it does not fit")),
        );
        let (id, _) = push(server);
        server.reply(id, result(Vec::new()));
        // Then the broker takes the stream away.
        push(server);
        let why = String::from("the model was unloaded");
        server.reply(0, Reply::Failed(Status::Revoked { why }));
    });
    let mut stream = client
        .open_stream("vad", &WorkOptions::default())
        .expect("a stream");
    let mut push = || stream.push(&[Input::bytes("input", DType::U8, &[1], &[1])], &[]);
    assert!(matches!(
        push(),
        Err(ClientError::Refused(Status::Invalid { .. }))
    ));
    push().expect("a result");
    assert!(matches!(
        push(),
        Err(ClientError::Refused(Status::Revoked { .. }))
    ));
    assert!(matches!(push(), Err(ClientError::Closed)));
    daemon.join().expect("the script held");
}

#[test]
fn a_worker_that_dies_ends_its_stream_and_nothing_else() {
    let (client, daemon) = serve(|server| {
        let (id, _) = server.next();
        let (here, there) = UnixStream::pair().expect("a pair");
        let opened = StreamOpened {
            socket: here.into(),
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        server.reply(id, Reply::StreamOpened(opened));
        drop(there);
        let (id, _) = server.next();
        server.reply(id, Reply::StatusReport(Box::default()));
    });
    let mut stream = client
        .open_stream("vad", &WorkOptions::default())
        .expect("a stream");
    assert!(matches!(stream.push(&[], &[]), Err(ClientError::Closed)));
    client.status().expect("the daemon is there");
    daemon.join().expect("the script held");
}

#[test]
fn a_streams_own_buffer_grows_with_its_inputs() {
    let (client, daemon) = streaming(|server| {
        let (first, _) = server.register();
        for _ in 0..2 {
            let (id, push) = push(server);
            assert_eq!(range(&push.inputs[0]).buffer, first);
            server.reply(id, result(Vec::new()));
        }
        let (id, request) = server.next();
        assert!(matches!(request, Request::UnregisterBuffer { buffer } if buffer == first));
        server.reply(id, Reply::Ok);
        let (second, memory) = server.register();
        let (id, push) = push(server);
        let range = range(&push.inputs[0]);
        assert_eq!((range.buffer, range.bytes), (second, 900_000));
        assert!(
            read(&memory, range.offset, 900_000)
                .iter()
                .all(|byte| *byte == 5)
        );
        server.reply(id, result(Vec::new()));
        server.expect_end();
    });
    let mut stream = client
        .open_stream("vad", &WorkOptions::default())
        .expect("a stream");
    for bytes in [100_000usize, 110_000, 900_000] {
        let elements = vec![5; bytes];
        let shape = [bytes as u64];
        let input = Input::bytes("input", DType::U8, &shape, &elements);
        stream.push(&[input], &[]).expect("a result");
    }
    drop(stream);
    daemon.join().expect("the script held");
}
