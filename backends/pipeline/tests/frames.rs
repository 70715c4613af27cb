//! Frames in and out of streams.

mod support;

use half::f16;
use mote_api::{
    Access, Buffer, DType, Fit, InputHint, Model, OutputHint, PictureLayout, Signature, Tensor,
};
use mote_pipeline::{
    ColorMatrix, ColorRange, FRAME_SIDE_PIXELS_MAX, FrameFormat, FrameLayout, FrameSource,
    FrameTarget, FramesPush, FramesResult, NamedTarget, NamedTensor, PipelineError, Plane,
    StreamSession, dense_bytes, rgb_of,
};
use proptest::prelude::*;
use serde::Deserialize;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use support::{closure_model, spec};

// ---- What the reference computed ----

#[derive(Deserialize)]
struct Case {
    kind: String,
    frame: CaseFrame,
    hint: serde_json::Value,
    dtype: DType,
    shape: Vec<usize>,
    memory: (usize, usize),
    tensor: (usize, usize),
}

#[derive(Deserialize)]
struct CaseFrame {
    format: String,
    width: usize,
    height: usize,
    planes: Vec<(usize, usize)>,
    matrix: String,
    range: String,
}

const FORMATS: [(&str, FrameFormat); 10] = [
    ("rgb8", FrameFormat::Rgb8),
    ("bgr8", FrameFormat::Bgr8),
    ("rgba8", FrameFormat::Rgba8),
    ("nv12", FrameFormat::Nv12),
    ("i420", FrameFormat::I420),
    ("gray8", FrameFormat::Gray8),
    ("f32_nchw", FrameFormat::F32Nchw),
    ("f32_nhwc", FrameFormat::F32Nhwc),
    ("f16_nchw", FrameFormat::F16Nchw),
    ("f16_nhwc", FrameFormat::F16Nhwc),
];

impl CaseFrame {
    fn layout(&self) -> FrameLayout {
        let format = FORMATS.iter().find(|(name, _)| *name == self.format);
        let planes = self.planes.iter();
        FrameLayout {
            format: format.expect("a format").1,
            width: self.width,
            height: self.height,
            planes: planes
                .map(|&(offset, stride)| Plane { offset, stride })
                .collect(),
            matrix: match &*self.matrix {
                "bt601" => ColorMatrix::Bt601,
                "bt709" => ColorMatrix::Bt709,
                other => {
                    assert_eq!(other, "bt2020");
                    ColorMatrix::Bt2020
                }
            },
            range: match &*self.range {
                "limited" => ColorRange::Limited,
                other => {
                    assert_eq!(other, "full");
                    ColorRange::Full
                }
            },
        }
    }
}

fn cases() -> (Vec<Case>, Vec<u8>) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/models/frames");
    let text = std::fs::read(format!("{folder}/cases.json")).expect("the cases are in git");
    let data = std::fs::read(format!("{folder}/cases.bin")).expect("their data too");
    (serde_json::from_slice(&text).expect("cases"), data)
}

/// The case's hint, for the tensor `name`.
fn named<T: serde::de::DeserializeOwned>(mut hint: serde_json::Value, name: &str) -> T {
    hint["name"] = name.into();
    serde_json::from_value(hint).expect("a hint")
}

fn memory(content: &[u8]) -> Buffer {
    let buffer = Buffer::private(content.len()).expect("memory");
    buffer.copy_in(0, content).expect("fits");
    buffer
}

fn content(buffer: &Buffer) -> Vec<u8> {
    let mut content = vec![0u8; buffer.len()];
    buffer.copy_out(0, &mut content).expect("fits");
    content
}

// ---- A model whose output is its input ----

/// Takes `x` and gives it as `y`; remembers which memory `x` was in.
struct Echo {
    stream: StreamSession,
    seen: Arc<Mutex<Option<Tensor>>>,
}

impl Echo {
    fn new(dtype: DType, shape: &[i64], hints: (Option<InputHint>, Option<OutputHint>)) -> Self {
        let signature = Signature {
            inputs: vec![spec("x", dtype, shape)],
            outputs: vec![spec("y", dtype, shape)],
        };
        let seen = Arc::new(Mutex::new(None));
        let saw = Arc::clone(&seen);
        let (model, _) = closure_model(signature, move |run| {
            *saw.lock().expect("not poisoned") = Some(run.inputs[0].clone());
            let bytes = run.inputs[0].read_bytes()?;
            if let Some(target) = &run.targets[0] {
                target.write_bytes(&bytes)?;
                return Ok(vec![None]);
            }
            let shape = run.inputs[0].shape();
            Ok(vec![Some(Tensor::from_bytes(
                run.inputs[0].dtype(),
                shape,
                &bytes,
            )?)])
        });
        let model: Arc<dyn Model> = model;
        let (input, output) = hints;
        let stream = StreamSession::open(&model, None).expect("opens");
        let inputs: Vec<_> = input.into_iter().collect();
        let outputs: Vec<_> = output.into_iter().collect();
        Self {
            stream: stream.with_pictures(&inputs, &outputs),
            seen,
        }
    }

    fn push(&mut self, sources: &[FrameSource]) -> Result<FramesResult, PipelineError> {
        self.stream.push_frames(&FramesPush {
            frames: sources,
            ..FramesPush::default()
        })
    }

    /// Where the input lay in the last push.
    fn input_at(&self) -> *mut u8 {
        let seen = self.seen.lock().expect("not poisoned");
        seen.as_ref().expect("it ran").as_ptr()
    }
}

fn source(buffer: &Buffer, layout: &FrameLayout) -> FrameSource {
    FrameSource {
        name: "x".into(),
        buffer: buffer.clone(),
        layout: layout.clone(),
        size: None,
    }
}

fn target(buffer: &Buffer, layout: &FrameLayout) -> FrameTarget {
    FrameTarget {
        name: "y".into(),
        buffer: buffer.clone(),
        layout: layout.clone(),
    }
}

fn dense(format: FrameFormat, width: usize, height: usize) -> FrameLayout {
    FrameLayout {
        format,
        width,
        height,
        planes: Vec::new(),
        matrix: ColorMatrix::Bt601,
        range: ColorRange::Full,
    }
}

fn plain() -> InputHint {
    InputHint::plain("x", PictureLayout::Nchw)
}

fn signed(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&side| side as i64).collect()
}

#[test]
fn frames_become_the_tensors_that_the_reference_computes() {
    let (cases, data) = cases();
    let mut count = 0;
    for (number, case) in cases.iter().enumerate() {
        if case.kind != "input" {
            continue;
        }
        count += 1;
        let about = format!("case {number}: {} → {:?}", case.frame.format, case.shape);
        let hint = named(case.hint.clone(), "x");
        let mut echo = Echo::new(case.dtype, &signed(&case.shape), (Some(hint), None));
        let buffer = memory(&data[case.memory.0..case.memory.1]);
        let source = source(&buffer, &case.frame.layout());
        for _ in 0..2 {
            let result = echo.push(std::slice::from_ref(&source)).expect(&about);
            let have = result.outputs[0].tensor.read_bytes().expect("readable");
            let want = &data[case.tensor.0..case.tensor.1];
            assert_eq!(have, want, "{about}");
            assert_eq!(result.bytes_converted, want.len() as u64, "{about}");
        }
    }
    assert!(count > 100, "{count}");
}

#[test]
fn outputs_become_the_frames_that_the_reference_computes() {
    let (cases, data) = cases();
    let mut count = 0;
    for (number, case) in cases.iter().enumerate() {
        if case.kind != "output" {
            continue;
        }
        count += 1;
        let about = format!("case {number}: {:?} → {}", case.shape, case.frame.format);
        let hint = named(case.hint.clone(), "y");
        let mut echo = Echo::new(case.dtype, &signed(&case.shape), (None, Some(hint)));
        let values = &data[case.tensor.0..case.tensor.1];
        let want = &data[case.memory.0..case.memory.1];
        let buffer = memory(&vec![7; want.len()]);
        let push = FramesPush {
            inputs: &[NamedTensor {
                name: "x".into(),
                tensor: Tensor::from_bytes(case.dtype, &case.shape, values).expect("fits"),
            }],
            frame_outputs: &[target(&buffer, &case.frame.layout())],
            ..FramesPush::default()
        };
        let result = echo.stream.push_frames(&push).expect(&about);
        assert!(result.outputs.is_empty(), "{about}: it is told twice");
        assert_eq!(content(&buffer), want, "{about}");
        let layout = FrameLayout {
            planes: Vec::new(),
            ..case.frame.layout()
        };
        let channels = match case.shape[1..] {
            [_, _, channels @ (1 | 3)] if case.hint["layout"] == "nhwc" => channels,
            _ => case.shape[1],
        };
        let bytes = dense_bytes(layout.format, layout.width, layout.height, channels);
        assert_eq!(result.bytes_converted, bytes as u64, "{about}");
    }
    assert!(count > 50, "{count}");
}

// ---- Frames that are bound ----

#[test]
fn what_a_model_takes_is_bound_itself_and_everything_else_is_converted() {
    let pixels = || InputHint {
        scale: 1.0,
        ..InputHint::plain("x", PictureLayout::Nhwc)
    };
    let nchw: &[i64] = &[1, 3, 4, 6];
    let nhwc: &[i64] = &[1, 4, 6, 3];
    let f = |format| dense(format, 6, 4);
    let limited = FrameLayout {
        range: ColorRange::Limited,
        ..f(FrameFormat::Rgb8)
    };
    let moved = FrameLayout {
        planes: vec![Plane {
            offset: 4,
            stride: 72,
        }],
        ..f(FrameFormat::F32Nhwc)
    };
    for (about, dtype, shape, hint, layout, is_bound) in [
        (
            "planes",
            DType::F32,
            nchw,
            Some(plain()),
            f(FrameFormat::F32Nchw),
            true,
        ),
        (
            "planes, no hint",
            DType::F32,
            nchw,
            None,
            f(FrameFormat::F32Nchw),
            true,
        ),
        (
            "halves",
            DType::F16,
            nhwc,
            None,
            f(FrameFormat::F16Nhwc),
            true,
        ),
        (
            "pixels",
            DType::U8,
            nhwc,
            Some(pixels()),
            f(FrameFormat::Rgb8),
            true,
        ),
        (
            "other order",
            DType::U8,
            nhwc,
            Some(pixels()),
            f(FrameFormat::Bgr8),
            false,
        ),
        (
            "other range",
            DType::U8,
            nhwc,
            Some(pixels()),
            limited,
            false,
        ),
        (
            "other layout",
            DType::F32,
            nchw,
            Some(plain()),
            f(FrameFormat::F32Nhwc),
            false,
        ),
        (
            "other type",
            DType::F32,
            nchw,
            Some(plain()),
            f(FrameFormat::F16Nchw),
            false,
        ),
        (
            "other size",
            DType::F32,
            nchw,
            Some(plain()),
            dense(FrameFormat::F32Nchw, 8, 4),
            false,
        ),
        ("misaligned", DType::F32, nhwc, Some(pixels()), moved, false),
        (
            "camera",
            DType::F32,
            nchw,
            Some(plain()),
            f(FrameFormat::Nv12),
            false,
        ),
    ] {
        let mut echo = Echo::new(dtype, shape, (hint, None));
        let buffer = Buffer::private(4096).expect("memory");
        buffer.copy_in(0, &[1u8; 4096]).expect("fits");
        let result = echo.push(&[source(&buffer, &layout)]).expect(about);
        assert_eq!(result.bytes_converted == 0, is_bound, "{about}");
        assert_eq!(result.report.bytes_copied, 0, "{about}");
        assert_eq!(echo.input_at() == buffer.as_ptr(), is_bound, "{about}");
    }
}

#[test]
fn an_output_is_bound_to_a_frame_of_its_own_numbers() {
    let mut echo = Echo::new(DType::F32, &[1, 1, 4, 6], (Some(plain()), None));
    let (frame, mask) = (memory(&[50; 24]), memory(&[0; 96]));
    let push = FramesPush {
        frames: &[source(&frame, &dense(FrameFormat::Gray8, 6, 4))],
        frame_outputs: &[target(&mask, &dense(FrameFormat::F32Nchw, 6, 4))],
        ..FramesPush::default()
    };
    let result = echo.stream.push_frames(&push).expect("runs");
    assert!(result.outputs.is_empty());
    assert_eq!(result.bytes_converted, 96, "of the input alone");
    let mut values = [0f32; 24];
    mask.copy_out(0, &mut values).expect("fits");
    let want = 50.0 * (1.0 / 255.0f32);
    assert_eq!(values, [want; 24]);
}

#[test]
fn a_ring_of_buffers_is_bound_again_and_again_and_let_go() {
    let mut echo = Echo::new(DType::F32, &[1, 3, 2, 2], (None, None));
    let ring: Vec<Buffer> = (0..5u8).map(|number| memory(&[number; 48])).collect();
    let layout = dense(FrameFormat::F32Nchw, 2, 2);
    for round in 0..30 {
        let buffer = &ring[round % ring.len()];
        let result = echo.push(&[source(buffer, &layout)]).expect("runs");
        assert_eq!(echo.input_at(), buffer.as_ptr());
        let bytes = result.outputs[0].tensor.read_bytes().expect("readable");
        assert_eq!(bytes, [(round % 5) as u8; 48]);
    }
    *echo.seen.lock().expect("not poisoned") = None;
    echo.stream.forget_all();
    for buffer in &ring {
        assert!(buffer.is_only_handle(), "it is kept mapped");
    }
}

#[test]
fn a_tensor_that_was_outgrown_is_let_go() {
    let mut echo = Echo::new(DType::F32, &[1, 3, -1, -1], (Some(plain()), None));
    let buffer = memory(&[90; 96]);
    let sized = |size| FrameSource {
        size: Some(size),
        ..source(&buffer, &dense(FrameFormat::Nv12, 8, 8))
    };
    echo.push(&[sized((5, 3))]).expect("runs");
    let small = echo.seen.lock().expect("not poisoned").take();
    let small = small.expect("it ran").buffer().clone();
    echo.push(&[sized((6, 3))]).expect("runs");
    assert!(small.is_only_handle(), "it is kept");
}

#[test]
fn an_open_size_is_that_of_the_frame_or_of_the_push() {
    let mut echo = Echo::new(DType::F32, &[-1, 3, -1, -1], (Some(plain()), None));
    let buffer = memory(&[90; 96]);
    let layout = dense(FrameFormat::Nv12, 8, 8);
    let shape = |result: &FramesResult| result.outputs[0].tensor.shape().to_vec();
    let result = echo.push(&[source(&buffer, &layout)]).expect("runs");
    assert_eq!(shape(&result), [1, 3, 8, 8]);
    let sized = FrameSource {
        size: Some((5, 3)),
        ..source(&buffer, &layout)
    };
    let result = echo.push(std::slice::from_ref(&sized)).expect("runs");
    assert_eq!(shape(&result), [1, 3, 3, 5]);
    let mut fixed = Echo::new(DType::F32, &[1, 3, 4, 4], (Some(plain()), None));
    assert_eq!(refused(fixed.push(&[sized])), "frames[x].tensor_width");
}

#[test]
fn a_frame_that_a_pipeline_keeps_is_rgb() {
    let layout = FrameLayout {
        range: ColorRange::Limited,
        ..dense(FrameFormat::I420, 2, 2)
    };
    let rgb = rgb_of(&memory(&[81, 81, 145, 16, 90, 240]), &layout).expect("fits");
    assert_eq!((rgb.width, rgb.height), (2, 2));
    assert_eq!(
        rgb.rgb8[..6],
        [254, 0, 0, 254, 0, 0],
        "red, as bytes hold it"
    );
    let floats = rgb_of(&memory(&[0; 96]), &dense(FrameFormat::F32Nchw, 2, 2));
    assert!(matches!(floats, Err(PipelineError::Invalid { field, .. }) if field == "format"));
}

// ---- What does not hold ----

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, PipelineError>) -> String {
    match result.expect_err("it must be refused") {
        PipelineError::Invalid { field, why } => {
            assert!(!why.is_empty());
            field
        }
        other => panic!("{other:?}"),
    }
}

/// A sealed file's pages, read-only or not.
fn shared(bytes: usize, access: Access) -> Buffer {
    let fd: OwnedFd = tempfile::tempfile().expect("a file").into();
    let file = std::fs::File::from(fd.try_clone().expect("descriptor"));
    file.set_len(bytes as u64).expect("room");
    Buffer::shared(fd, bytes, access).expect("maps")
}

#[test]
fn frames_that_do_not_hold_are_refused_by_field_before_anything_runs() {
    let mut echo = Echo::new(DType::F32, &[1, 3, 4, 4], (Some(plain()), None));
    let buffer = Buffer::private(4096).expect("memory");
    let layout = |format, width, height, planes: &[(usize, usize)]| FrameLayout {
        planes: planes
            .iter()
            .map(|&(offset, stride)| Plane { offset, stride })
            .collect(),
        ..dense(format, width, height)
    };
    let over = FRAME_SIDE_PIXELS_MAX + 1;
    let top = FRAME_SIDE_PIXELS_MAX;
    use FrameFormat::{F32Nchw, I420, Nv12, Rgb8};
    for (layout, field) in [
        (layout(Rgb8, 0, 4, &[]), "width"),
        (layout(Rgb8, 4, 0, &[]), "height"),
        (layout(Rgb8, over, 4, &[]), "width"),
        (layout(Rgb8, 4, usize::MAX, &[]), "height"),
        (layout(Rgb8, top, top, &[]), "height"),
        (layout(Nv12, 5, 4, &[]), "width"),
        (layout(I420, 4, 7, &[]), "height"),
        (layout(Rgb8, 4, 4, &[(0, 11)]), "planes[0].stride"),
        (layout(Rgb8, 4, 4, &[(0, usize::MAX)]), "planes[0].stride"),
        (layout(Rgb8, 4, 4, &[(usize::MAX, 12)]), "planes[0].offset"),
        (layout(Rgb8, 4, 4, &[(4096 - 47, 12)]), "planes[0].stride"),
        (layout(Rgb8, 64, 64, &[]), "planes[0].stride"),
        (layout(Nv12, 4, 4, &[(0, 4)]), "planes"),
        (layout(Rgb8, 4, 4, &[(0, 12), (48, 12)]), "planes"),
        (layout(Nv12, 4, 4, &[(0, 4), (15, 4)]), "planes[1].offset"),
        (layout(Nv12, 4, 4, &[(0, 4), (16, 3)]), "planes[1].stride"),
        (
            layout(I420, 4, 4, &[(0, 4), (16, 2), (4093, 2)]),
            "planes[2].stride",
        ),
        (
            layout(F32Nchw, 4, 4, &[(0, 16), (64, 16), (126, 16)]),
            "planes[2].offset",
        ),
        (
            layout(F32Nchw, 4, 4, &[(0, 16), (64, 18), (192, 16)]),
            "planes[1].stride",
        ),
    ] {
        let pushed = echo.push(&[source(&buffer, &layout)]);
        assert_eq!(refused(pushed), format!("frames[x].{field}"), "{layout:?}");
    }
    let good = source(&buffer, &dense(Rgb8, 4, 4));
    let named = FrameSource {
        name: "z".into(),
        ..good.clone()
    };
    assert_eq!(refused(echo.push(&[named])), "frames[z].name");
    let twice = [good.clone(), good.clone()];
    assert_eq!(refused(echo.push(&twice)), "frames[x].name");
    assert!(echo.seen.lock().expect("not poisoned").is_none(), "it ran");
    echo.push(&[good]).expect("the stream goes on");
}

#[test]
fn models_without_hints_and_inputs_that_are_no_pictures_are_refused() {
    let buffer = Buffer::private(4096).expect("memory");
    let frame = source(&buffer, &dense(FrameFormat::Rgb8, 4, 4));
    let of_clip = InputHint {
        layout: PictureLayout::Ncthw,
        ..plain()
    };
    for (dtype, shape, hint) in [
        (DType::F32, &[1, 3, 4, 4][..], None),
        (DType::F32, &[1, 1, 3, 4, 4], Some(of_clip)),
        (DType::F32, &[4, 4], Some(plain())),
        (DType::F32, &[2, 3, 4, 4], Some(plain())),
        (DType::F32, &[1, 4, 4, 3], Some(plain())),
        (DType::I64, &[1, 3, 4, 4], Some(plain())),
        (DType::F32, &[1, 3, 0, 4], Some(plain())),
        (DType::F32, &[1, 3, 1 << 20, 1 << 20], Some(plain())),
    ] {
        let mut echo = Echo::new(dtype, shape, (hint, None));
        let pushed = echo.push(std::slice::from_ref(&frame));
        assert_eq!(refused(pushed), "frames[x].name", "{shape:?}");
    }
    let mut echo = Echo::new(DType::F32, &[1, 3, -1, -1], (Some(plain()), None));
    let absurd = FrameSource {
        size: Some((FRAME_SIDE_PIXELS_MAX, FRAME_SIDE_PIXELS_MAX)),
        ..frame
    };
    assert_eq!(refused(echo.push(&[absurd])), "frames[x].name");
}

#[test]
fn frames_are_written_only_where_nothing_else_lies() {
    let hints = || {
        let output = OutputHint::plain("y", PictureLayout::Nchw);
        (Some(plain()), Some(output))
    };
    let mut echo = Echo::new(DType::F32, &[1, 3, 4, 4], hints());
    let buffer = shared(8192, Access::ReadWrite);
    let frame = dense(FrameFormat::Rgb8, 4, 4);
    let at = |offset| FrameLayout {
        planes: vec![Plane { offset, stride: 12 }],
        ..frame.clone()
    };
    let mut push = |buffer: &Buffer, outputs: &[FrameLayout], tensors: &[NamedTarget]| {
        let targets = outputs.iter().map(|layout| target(buffer, layout));
        let targets: Vec<_> = targets.collect();
        echo.stream.push_frames(&FramesPush {
            frames: &[source(&self::memory(&[9; 48]), &frame)],
            frame_outputs: &targets,
            outputs: tensors,
            ..FramesPush::default()
        })
    };
    push(&buffer, &[at(0)], &[]).expect("fits");
    let field = |name: &str| format!("frame_outputs[y].{name}");
    let wide = dense(FrameFormat::Rgb8, 5, 4);
    assert_eq!(refused(push(&buffer, &[wide], &[])), field("width"));
    let read_only = shared(8192, Access::ReadOnly);
    assert_eq!(refused(push(&read_only, &[at(0)], &[])), field("buffer"));
    assert_eq!(
        refused(push(&buffer, &[at(0), at(24)], &[])),
        field("planes")
    );
    assert_eq!(refused(push(&buffer, &[at(0), at(48)], &[])), field("name"));
    let tensor = NamedTarget {
        name: "y".into(),
        tensor: Tensor::new(DType::F32, &[1, 3, 4, 4], buffer.clone(), 64).expect("fits"),
    };
    let tensors = std::slice::from_ref(&tensor);
    assert_eq!(refused(push(&buffer, &[at(64)], tensors)), field("planes"));
    assert_eq!(refused(push(&buffer, &[at(0)], tensors)), field("name"));
    let over_input = FramesPush {
        frames: &[source(&buffer, &at(0))],
        frame_outputs: &[target(&buffer, &at(36))],
        ..FramesPush::default()
    };
    let mut echo = Echo::new(DType::F32, &[1, 3, 4, 4], hints());
    let pushed = echo.stream.push_frames(&over_input);
    assert_eq!(refused(pushed), field("planes"));
    let mut open = Echo::new(DType::F32, &[1, 3, -1, -1], hints());
    let other_size = FramesPush {
        frames: &[source(&buffer, &at(0))],
        frame_outputs: &[target(&buffer, &dense(FrameFormat::Nv12, 8, 8))],
        ..FramesPush::default()
    };
    let pushed = open.stream.push_frames(&other_size);
    assert_eq!(refused(pushed), field("planes"), "it overlaps the input");
    let elsewhere = shared(96, Access::ReadWrite);
    let pushed = open.stream.push_frames(&FramesPush {
        frame_outputs: &[target(&elsewhere, &dense(FrameFormat::Nv12, 8, 8))],
        ..other_size
    });
    assert_eq!(refused(pushed), field("width"), "only the run tells");
    assert_eq!(content(&elsewhere), [0; 96], "and nothing was written");
}

fn any_format() -> impl Strategy<Value = FrameFormat> {
    prop::sample::select(FORMATS.map(|(_, format)| format).to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever a layout says: it is refused with a field, or no byte outside its planes is written and none
    /// outside the buffer is read.
    #[test]
    fn a_layout_holds_or_is_refused(
        format in any_format(),
        (width, height) in (0usize..12, 0usize..12),
        planes in prop::collection::vec((0usize..400, 0usize..60), 0..4),
        wild in prop::option::of((0usize..3, any::<bool>(), any::<usize>())),
        bytes in 0usize..1200,
    ) {
        let mut planes: Vec<Plane> = planes
            .iter()
            .map(|&(offset, stride)| Plane { offset: offset / 4 * 4, stride: stride / 4 * 4 })
            .collect();
        if let Some((index, is_offset, value)) = wild
            && let Some(plane) = planes.get_mut(index)
        {
            match is_offset {
                true => plane.offset = value,
                false => plane.stride = value,
            }
        }
        let layout = FrameLayout { planes, ..dense(format, width, height) };
        let buffer = memory(&vec![3; bytes]);
        let shape = [1, 3, height.max(1) as i64, width.max(1) as i64];
        let hints = (Some(plain()), Some(OutputHint::plain("y", PictureLayout::Nchw)));
        let mut echo = Echo::new(DType::F32, &shape, hints);
        match echo.push(&[source(&buffer, &layout)]) {
            Ok(result) => {
                let values = result.outputs[0].tensor.read::<f32>().expect("f32");
                if !format.is_float() {
                    prop_assert!(values.iter().all(|value| (0.0..=1.0).contains(value)));
                }
                prop_assert!(bytes >= dense_bytes(format, width, height, 3));
            }
            Err(PipelineError::Invalid { field, .. }) => {
                prop_assert!(field.starts_with("frames[x]."), "{}", field);
            }
            Err(other) => prop_assert!(false, "{:?}", other),
        }
        let whole = Tensor::from_slice(&signed_usize(&shape), &vec![0.5f32; product(&shape)])
            .expect("fits");
        let push = FramesPush {
            inputs: &[NamedTensor { name: "x".into(), tensor: whole }],
            frame_outputs: &[target(&buffer, &layout)],
            ..FramesPush::default()
        };
        let written = echo.stream.push_frames(&push).is_ok();
        let after = content(&buffer);
        let inside = covered(&layout, 3);
        for (at, &byte) in after.iter().enumerate() {
            let is_inside = inside.iter().any(|range| range.contains(&at));
            if !written || !is_inside {
                prop_assert_eq!(byte, 3, "byte {} was written", at);
            }
        }
    }

    /// A frame that goes through a model which gives back what it takes is what it was, whatever the strides.
    #[test]
    fn bytes_survive_the_way_there_and_back(
        format in prop::sample::select(vec![
            FrameFormat::Rgb8, FrameFormat::Bgr8, FrameFormat::Gray8,
        ]),
        (width, height) in (1usize..20, 1usize..12),
        gap in 0usize..9,
        is_half: bool,
        range in prop::sample::select(vec![ColorRange::Full, ColorRange::Limited]),
        seed: u64,
    ) {
        let row = if format == FrameFormat::Gray8 { width } else { 3 * width };
        let layout = FrameLayout {
            planes: vec![Plane { offset: gap, stride: row + gap }],
            range,
            ..dense(format, width, height)
        };
        let bytes = gap + (row + gap) * height;
        let (low, high) = if range == ColorRange::Full { (0, 255) } else { (16, 235) };
        let noise = (0..bytes).map(|at| {
            let mixed = (seed ^ at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            (low + mixed % (high - low + 1)) as u8
        });
        let noise: Vec<u8> = noise.collect();
        let channels = if format == FrameFormat::Gray8 { 1 } else { 3 };
        let dtype = if is_half { DType::F16 } else { DType::F32 };
        let shape = [1, height as i64, width as i64, channels];
        let hints = (
            Some(InputHint::plain("x", PictureLayout::Nhwc)),
            Some(OutputHint::plain("y", PictureLayout::Nhwc)),
        );
        let mut echo = Echo::new(dtype, &shape, hints);
        let (from, to) = (memory(&noise), memory(&vec![0; bytes]));
        let push = FramesPush {
            frames: &[source(&from, &layout)],
            frame_outputs: &[target(&to, &layout)],
            ..FramesPush::default()
        };
        echo.stream.push_frames(&push).expect("holds");
        let (have, inside) = (content(&to), covered(&layout, channels as usize));
        for at in inside.into_iter().flatten() {
            prop_assert_eq!(have[at], noise[at], "byte {}", at);
        }
    }

    /// A letterboxed picture has its padding beside it and nothing of it is lost, also with floats.
    #[test]
    fn letterboxes_are_padded(
        (width, height) in (1usize..24, 1usize..24),
        (into_width, into_height) in (1usize..24, 1usize..24),
        is_area: bool,
    ) {
        let hint = InputHint {
            fit: Fit::Letterbox,
            filter: if is_area { mote_api::Filter::Area } else { mote_api::Filter::Bilinear },
            pad: [255, 0, 51],
            ..plain()
        };
        let rect = mote_pipeline::FittedRect::new(
            Fit::Letterbox, (width, height), (into_width, into_height),
        );
        let shape = [1, 3, into_height as i64, into_width as i64];
        let mut echo = Echo::new(DType::F32, &shape, (Some(hint), None));
        let frame = memory(&vec![102; 3 * width * height]);
        let layout = dense(FrameFormat::Rgb8, width, height);
        let result = echo.push(&[source(&frame, &layout)]).expect("holds");
        let values = result.outputs[0].tensor.read::<f32>().expect("f32");
        let (columns, rows) = (rect.x..rect.x + rect.width, rect.y..rect.y + rect.height);
        for (at, value) in values.iter().enumerate() {
            let (x, rest) = (at % into_width, at / into_width);
            let (y, channel) = (rest % into_height, rest / into_height);
            let is_inside = columns.contains(&x) && rows.contains(&y);
            let want = if is_inside { 0.4 } else { [1.0, 0.0, 0.2][channel] };
            prop_assert!((value - want).abs() < 1e-5, "{},{} of {}: {}", x, y, channel, value);
        }
    }
}

/// The bytes that are pixels.
fn covered(layout: &FrameLayout, channels: usize) -> Vec<Range<usize>> {
    let (width, height) = (layout.width, layout.height);
    let rows: Vec<(usize, usize)> = match layout.format {
        FrameFormat::Rgb8 | FrameFormat::Bgr8 => vec![(3 * width, height)],
        FrameFormat::Rgba8 => vec![(4 * width, height)],
        FrameFormat::Gray8 => vec![(width, height)],
        FrameFormat::Nv12 => vec![(width, height), (width, height / 2)],
        FrameFormat::I420 => vec![
            (width, height),
            (width / 2, height / 2),
            (width / 2, height / 2),
        ],
        FrameFormat::F32Nchw => vec![(4 * width, height); channels],
        FrameFormat::F16Nchw => vec![(2 * width, height); channels],
        FrameFormat::F32Nhwc => vec![(4 * channels * width, height)],
        FrameFormat::F16Nhwc => vec![(2 * channels * width, height)],
    };
    let mut next = 0;
    let mut ranges = Vec::new();
    for (index, (bytes, count)) in rows.into_iter().enumerate() {
        let dense = Plane {
            offset: next,
            stride: bytes,
        };
        let plane = layout.planes.get(index).copied().unwrap_or(dense);
        for row in 0..count {
            let start = plane
                .stride
                .saturating_mul(row)
                .saturating_add(plane.offset);
            ranges.push(start..start.saturating_add(bytes));
        }
        next += bytes * count;
    }
    ranges
}

fn product(shape: &[i64]) -> usize {
    shape.iter().map(|&side| side as usize).product()
}

fn signed_usize(shape: &[i64]) -> Vec<usize> {
    shape.iter().map(|&side| side as usize).collect()
}

#[test]
fn a_client_that_writes_meanwhile_makes_wrong_pixels_at_worst() {
    let (width, height) = (320, 180);
    let layout = dense(FrameFormat::Nv12, width, height);
    let bytes = dense_bytes(layout.format, width, height, 3);
    let fd: OwnedFd = tempfile::tempfile().expect("a file").into();
    let file = std::fs::File::from(fd.try_clone().expect("descriptor"));
    file.set_len(bytes as u64).expect("room");
    let here = Buffer::shared(&fd, bytes, Access::ReadOnly).expect("maps");
    let theirs = Buffer::shared(&fd, bytes, Access::ReadWrite).expect("maps");
    let over = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&over);
    let client = std::thread::spawn(move || {
        let mut value = 0u8;
        while !stop.load(Ordering::Relaxed) {
            value = value.wrapping_add(41);
            theirs.copy_in(0, &vec![value; bytes]).expect("fits");
        }
    });
    let hint = InputHint::plain("x", PictureLayout::Nchw);
    let mut echo = Echo::new(DType::F16, &[1, 3, 128, 128], (Some(hint), None));
    for _ in 0..50 {
        let result = echo.push(&[source(&here, &layout)]).expect("holds");
        let values = result.outputs[0].tensor.read::<f16>().expect("f16");
        let range = f16::ZERO..=f16::ONE;
        assert!(values.iter().all(|value| range.contains(value)));
    }
    over.store(true, Ordering::Relaxed);
    client.join().expect("no panic");
}
