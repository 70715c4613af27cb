//! [`Interpolator`]: the frames between two frames, one run of the model each.

use super::convert::{self, Padded};
use super::{Rgb, RgbFrame};
use crate::PipelineError;
use mote_api::{
    Canceller, Carry, ClipSpec, DType, FRAME_PIXELS_MAX, Model, OutputTarget, RunReport, Session,
    Signature, StateSpec, Stateful, Tensor,
};
use std::sync::Arc;

/// Factors by which the number of frames may grow.
pub const FACTORS: [u32; 2] = [2, 4];

/// The frames of a pair, as states of the session.
const EARLIER: usize = 0;
const LATER: usize = 1;

/// Computes the frames between two frames, one run of the model per call.
///
/// Frames become f32 `[1, 3, height, width]` in 0..=1, padded on the right and below with their
/// edge pixels to the model's multiple; results are cropped, clamped and rounded. Time goes in
/// evenly: ½, or ¼, ½, ¾. A frame stays where the model computes for as long as it is part of a pair: it
/// is brought there once, and not for each run.
pub struct Interpolator {
    session: Stateful,
    ports: Ports,
    pad_multiple: usize,
    /// Height and width that the model is fixed to.
    fixed: [Option<usize>; 2],
    timestep: Tensor,
    canvas: Option<Canvas>,
    /// How many of the two frames the session keeps.
    frames_kept: usize,
    /// Frames between that the current pair shall have, and how many of them are out.
    factor: u32,
    given: u32,
    report: RunReport,
    steps: u64,
}

/// Positions in the model's signature.
struct Ports {
    first: usize,
    second: usize,
    timestep: usize,
    output: usize,
}

/// Memory for frames of one size.
struct Canvas {
    width: usize,
    height: usize,
    padded: Padded,
    output: Tensor,
    scratch: Vec<f32>,
}

impl Interpolator {
    /// A new session on a frame interpolation model.
    ///
    /// # Errors
    /// [`PipelineError::Graph`] when the model is not what `spec` says.
    pub fn open(model: &Arc<dyn Model>, spec: &ClipSpec) -> Result<Self, PipelineError> {
        let signature = model.signature();
        let ports = Ports::find(signature, spec)?;
        let frame_shape = &signature.inputs[ports.first].shape;
        let fixed = [frame_shape[2], frame_shape[3]];
        let times = &signature.inputs[ports.timestep].shape;
        let times: Vec<usize> = times.iter().map(|dim| dim.unwrap_or(1)).collect();
        let timestep = Tensor::zeroed(DType::F32, &times)?;
        let mut session = Stateful::new(model.session()?);
        session.bind_input(ports.timestep, &timestep)?;
        Ok(Self {
            session,
            ports,
            pad_multiple: spec.pad_multiple.max(1),
            fixed,
            timestep,
            canvas: None,
            frames_kept: 0,
            factor: 1,
            given: 0,
            report: RunReport::default(),
            steps: 0,
        })
    }

    /// Takes two frames of the same size; [`Self::next_between`] gives the `factor - 1` frames
    /// between them.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] for a factor not in [`FACTORS`] or frames that do not fit.
    pub fn start_pair(
        &mut self,
        first: RgbFrame<'_>,
        second: RgbFrame<'_>,
        factor: u32,
    ) -> Result<(), PipelineError> {
        check_factor(factor)?;
        self.load(first)?;
        self.advance(second, factor)
    }

    /// Takes the first frame of a row of pairs; [`Self::advance`] takes the next.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] for a frame that does not fit.
    pub fn load(&mut self, frame: RgbFrame<'_>) -> Result<(), PipelineError> {
        check_frame(frame)?;
        let same = |c: &Canvas| (c.width, c.height) == (frame.width, frame.height);
        if !self.canvas.as_ref().is_some_and(same) {
            self.canvas = None;
            self.canvas = Some(self.new_canvas(frame)?);
        }
        (self.factor, self.given) = (1, 0);
        self.write_later(frame)
    }

    /// Makes the later frame of the last pair the earlier one of a new pair with `second`.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] for a factor not in [`FACTORS`], a frame of another size, or
    /// when there was no frame before.
    pub fn advance(&mut self, second: RgbFrame<'_>, factor: u32) -> Result<(), PipelineError> {
        check_factor(factor)?;
        check_frame(second)?;
        let Some(canvas) = &self.canvas else {
            return Err(PipelineError::invalid("frame", "is the first"));
        };
        if (second.width, second.height) != (canvas.width, canvas.height) {
            let why = format!(
                "is {}x{} after {}x{}",
                second.width, second.height, canvas.width, canvas.height
            );
            return Err(PipelineError::invalid("frame", why));
        }
        self.session.exchange(EARLIER, LATER)?;
        self.write_later(second)?;
        (self.factor, self.given) = (factor, 0);
        Ok(())
    }

    /// Runs the model once and gives the next frame of the pair, in order of time; `None` when
    /// there is none left. After [`PipelineError::Cancelled`] the same frame can be asked for
    /// again.
    ///
    /// # Errors
    /// What failed.
    pub fn next_between(&mut self) -> Result<Option<Rgb>, PipelineError> {
        let (Some(canvas), true) = (&mut self.canvas, self.given + 1 < self.factor) else {
            return Ok(None);
        };
        let time = (self.given + 1) as f32 / self.factor as f32;
        self.timestep.write(&vec![time; self.timestep.elements()])?;
        let report = self.session.run()?;
        self.given += 1;
        self.steps += 1;
        self.report.compute_us += report.compute_us;
        self.report.bytes_copied += report.bytes_copied;
        canvas.output.read_into(&mut canvas.scratch)?;
        let (width, height) = (canvas.width, canvas.height);
        Ok(Some(Rgb {
            width,
            height,
            rgb8: convert::from_planes(&canvas.scratch, canvas.padded, width, height),
        }))
    }

    /// Sums over all runs so far.
    pub fn report(&self) -> RunReport {
        self.report
    }

    /// Runs so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Stops the run in progress, or else the next one, from another thread.
    pub fn canceller(&self) -> Canceller {
        self.session.canceller()
    }

    fn new_canvas(&mut self, frame: RgbFrame<'_>) -> Result<Canvas, PipelineError> {
        let padded = Padded {
            height: frame.height.next_multiple_of(self.pad_multiple),
            width: frame.width.next_multiple_of(self.pad_multiple),
        };
        let [height, width] = self.fixed;
        if height.is_some_and(|h| h != padded.height) || width.is_some_and(|w| w != padded.width) {
            let dim = |d: Option<usize>| d.map_or("?".to_owned(), |d| d.to_string());
            let why = format!(
                "is {}x{} after padding, the model takes {}x{}",
                padded.width,
                padded.height,
                dim(width),
                dim(height)
            );
            return Err(PipelineError::invalid("frame", why));
        }
        let shape = [1, 3, padded.height, padded.width];
        let output = Tensor::zeroed(DType::F32, &shape)?;
        let target = OutputTarget::Into(output.clone());
        self.session.bind_output(self.ports.output, target)?;
        self.make_frames(&shape)?;
        Ok(Canvas {
            width: frame.width,
            height: frame.height,
            padded,
            output,
            scratch: vec![0.0; padded.elements()],
        })
    }

    /// Room for two frames of this shape.
    fn make_frames(&mut self, shape: &[usize]) -> Result<(), PipelineError> {
        for (number, input) in [(EARLIER, self.ports.first), (LATER, self.ports.second)] {
            if self.frames_kept > number {
                self.session.reshape(number, shape)?;
                continue;
            }
            self.session.keep(StateSpec {
                input,
                dtype: DType::F32,
                shape: shape.to_vec(),
                carry: Carry::Held,
            })?;
            self.frames_kept = number + 1;
        }
        Ok(())
    }

    fn write_later(&mut self, frame: RgbFrame<'_>) -> Result<(), PipelineError> {
        let Some(canvas) = &mut self.canvas else {
            return Ok(());
        };
        convert::to_planes(frame, canvas.padded, &mut canvas.scratch);
        Ok(self.session.write_values(LATER, &canvas.scratch)?)
    }
}

impl Ports {
    fn find(signature: &Signature, spec: &ClipSpec) -> Result<Self, PipelineError> {
        let found = |name: &String, position: Option<usize>| {
            position
                .ok_or_else(|| PipelineError::graph(name, "is named by the manifest and missing"))
        };
        let ports = Self {
            first: found(&spec.first, signature.input(&spec.first))?,
            second: found(&spec.second, signature.input(&spec.second))?,
            timestep: found(&spec.timestep, signature.input(&spec.timestep))?,
            output: found(&spec.output, signature.output(&spec.output))?,
        };
        let known = [ports.first, ports.second, ports.timestep];
        let unknown = (0..signature.inputs.len()).find(|index| !known.contains(index));
        if let Some(index) = unknown {
            let why = "is an input that frame interpolation does not know";
            return Err(PipelineError::graph(&signature.inputs[index].name, why));
        }
        for frame in [
            &signature.inputs[ports.first],
            &signature.inputs[ports.second],
            &signature.outputs[ports.output],
        ] {
            let shape = &frame.shape;
            let planes = shape.len() == 4
                && shape[0].is_none_or(|n| n == 1)
                && shape[1].is_none_or(|c| c == 3);
            if frame.dtype != DType::F32 || !planes {
                let why = format!(
                    "is {} {shape:?}, not f32 [1, 3, height, width]",
                    frame.dtype
                );
                return Err(PipelineError::graph(&frame.name, why));
            }
        }
        let time = &signature.inputs[ports.timestep];
        if time.dtype != DType::F32 || time.shape.iter().flatten().any(|&dim| dim != 1) {
            let why = format!("is {} {:?}, not f32 [1, 1, 1, 1]", time.dtype, time.shape);
            return Err(PipelineError::graph(&time.name, why));
        }
        Ok(ports)
    }
}

pub(super) fn check_factor(factor: u32) -> Result<(), PipelineError> {
    if FACTORS.contains(&factor) {
        return Ok(());
    }
    let why = format!("{factor} is not one of {FACTORS:?}");
    Err(PipelineError::invalid("factor", why))
}

pub(super) fn check_frame(frame: RgbFrame<'_>) -> Result<(), PipelineError> {
    let pixels = frame.width.checked_mul(frame.height);
    let Some(pixels) = pixels.filter(|p| (1..=FRAME_PIXELS_MAX).contains(p)) else {
        let why = format!(
            "{}x{} is not 1 to {FRAME_PIXELS_MAX} pixels",
            frame.width, frame.height
        );
        return Err(PipelineError::invalid("frame", why));
    };
    if frame.rgb8.len() != pixels * 3 {
        let why = format!(
            "{} bytes are not those of {}x{} RGB",
            frame.rgb8.len(),
            frame.width,
            frame.height
        );
        return Err(PipelineError::invalid("frame", why));
    }
    Ok(())
}
