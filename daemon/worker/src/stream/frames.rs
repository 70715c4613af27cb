//! Frames in, more frames out: a frame interpolator as a stream.
//!
//! A push brings one frame, `frame` u8 `[height, width, 3]` (RGB). The answer is `frames` u8
//! `[n, height, width, 3]` in order of display: the first frame alone at first, later the frames
//! between the last one and this one, then this one.

use crate::buffers::Buffers;
use crate::convert;
use crate::load::LoadedModel;
use crate::status::{self, Failure};
use mote_api::{DType, Signature, Tensor, TensorSpec};
use mote_pipeline::{FrameWindow, Interpolator, NamedTensor, Rgb, WindowStep};
use mote_wire::types::{Status, StreamPush, StreamResult};

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
        let mut inputs = push.inputs;
        let (Some(tensor), true) = (inputs.pop(), inputs.is_empty()) else {
            return Err(Status::invalid("inputs", "one input, `frame`, is wanted").into());
        };
        let frame = convert::input(tensor, buffers)?;
        let before = self.window.interpolator().report();
        self.window
            .push(rgb_of(&frame)?)
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
            None => (Tensor::from_slice(&shape, &pixels).map_err(internal)?, None),
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
                + frame.tensor.bytes() as u64,
        })
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
