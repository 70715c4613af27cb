//! Frames in, more frames out: a frame interpolator as a stream.
//!
//! A push brings one frame, `frame`: as a tensor u8 `[height, width, 3]` (RGB), or as a frame of any format
//! of bytes. The answer is `frames` u8 `[n, height, width, 3]` in order of display: the first frame alone at
//! first, later the frames between the last one and this one, then this one.

use super::pictures;
use crate::buffers::Buffers;
use crate::convert;
use crate::load::LoadedModel;
use crate::status::{self, Failure};
use mote_api::{DType, Signature, TensorSpec};
use mote_pipeline::{FrameWindow, Interpolator, NamedTensor, PipelineError, Rgb, WindowStep};
use mote_wire::types::{Status, StreamPush, StreamResult, Tensor, VideoFrame};

/// Frames out per frame in.
const FACTOR: u32 = 2;

/// A window over a stream of frames.
pub struct FrameStream {
    window: FrameWindow,
    signature: Signature,
}

impl FrameStream {
    /// With no frame seen.
    pub fn open(loaded: &LoadedModel) -> Result<Self, Status> {
        let spec = loaded.manifest.clip.as_ref();
        let spec = spec.ok_or_else(|| Status::invalid("model", "has no clip section"))?;
        let interpolator =
            Interpolator::open(&loaded.model, spec).map_err(|error| status::of_pipeline(&error))?;
        let window =
            FrameWindow::new(interpolator, FACTOR).map_err(|error| status::of_pipeline(&error))?;
        let frames = TensorSpec {
            name: "frames".into(),
            dtype: DType::U8,
            shape: vec![None, None, None, Some(3)],
        };
        let signature = Signature {
            inputs: Vec::new(),
            outputs: vec![frames],
        };
        Ok(Self { window, signature })
    }

    /// One frame in.
    pub fn push(&mut self, push: StreamPush, buffers: &Buffers) -> Result<StreamResult, Failure> {
        if !push.frame_outputs.is_empty() {
            let why = "there may be several frames in an answer: they are told as a tensor";
            return Err(Status::invalid("frame_outputs", why).into());
        }
        let (frame, taken) = taken(push.inputs, &push.frames, buffers)?;
        let before = self.window.interpolator().report();
        self.window
            .push(frame)
            .map_err(|error| status::of_step(&error))?;
        let mut pixels = Vec::new();
        let (mut count, mut size) = (0, (0, 0));
        loop {
            match self
                .window
                .step()
                .map_err(|error| status::of_step(&error))?
            {
                WindowStep::NeedsFrame | WindowStep::Ended => break,
                WindowStep::Original(rgb) | WindowStep::Between(rgb) => {
                    (count, size) = (count + 1, (rgb.height, rgb.width));
                    pixels.extend_from_slice(&rgb.rgb8);
                }
            }
        }
        let shape = [count, size.0, size.1, 3];
        let internal = |error| status::internal("collect frames", &error);
        let (tensor, range) = match push.outputs.first() {
            None => (
                mote_api::Tensor::from_slice(&shape, &pixels).map_err(internal)?,
                None,
            ),
            Some(target) => {
                let memory = convert::target(target, &self.signature, buffers)?;
                let fitting = memory.tensor.reshaped(&shape);
                let fitting =
                    fitting.map_err(|error| Status::invalid("outputs[frames].shape", error))?;
                fitting.write(&pixels).map_err(internal)?;
                (fitting, Some(target.range))
            }
        };
        let named = NamedTensor {
            name: "frames".into(),
            tensor,
        };
        let (output, copied) = convert::output(&named, range)?;
        let report = self.window.interpolator().report();
        Ok(StreamResult {
            outputs: vec![output],
            compute_us: report.compute_us - before.compute_us,
            bytes_copied: report.bytes_copied - before.bytes_copied
                + copied
                + pixels.len() as u64
                + taken.bytes_copied,
            bytes_converted: taken.bytes_converted,
        })
    }
}

/// How a frame came here.
struct Taken {
    bytes_copied: u64,
    bytes_converted: u64,
}

/// The one frame of a push, to be kept.
fn taken(
    mut inputs: Vec<Tensor>,
    frames: &[VideoFrame],
    buffers: &Buffers,
) -> Result<(Rgb, Taken), Status> {
    match (inputs.pop(), frames) {
        (Some(tensor), []) if inputs.is_empty() => {
            let frame = convert::input(tensor, buffers)?;
            let taken = Taken {
                bytes_copied: frame.tensor.bytes() as u64,
                bytes_converted: 0,
            };
            Ok((rgb_of(&frame)?, taken))
        }
        (None, [frame]) if frame.name == "frame" => {
            let (buffer, layout) = pictures::place(frame, buffers, "frames")?;
            let rgb = mote_pipeline::rgb_of(&buffer, &layout);
            let rgb = rgb.map_err(|error| match error {
                PipelineError::Invalid { field, why } => {
                    Status::invalid(format!("frames[frame].{field}"), why)
                }
                other => status::of_pipeline(&other),
            })?;
            // Converted once, and copied to be kept beside the model.
            let bytes = rgb.rgb8.len() as u64;
            let taken = Taken {
                bytes_copied: bytes,
                bytes_converted: bytes,
            };
            Ok((rgb, taken))
        }
        _ => Err(Status::invalid("inputs", "one input, `frame`, is wanted")),
    }
}

fn rgb_of(frame: &NamedTensor) -> Result<Rgb, Status> {
    if frame.name != "frame" {
        return Err(Status::invalid(
            format!("inputs[{}]", frame.name),
            "`frame` is wanted",
        ));
    }
    let &[height, width, 3] = frame.tensor.shape() else {
        return Err(Status::invalid(
            "inputs[frame].shape",
            "is not [height, width, 3]",
        ));
    };
    let rgb8 = frame.tensor.read::<u8>();
    let rgb8 = rgb8.map_err(|error| Status::invalid("inputs[frame].dtype", error))?;
    Ok(Rgb {
        width,
        height,
        rgb8,
    })
}
