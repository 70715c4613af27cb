//! [`Restorer`]: better or larger frames out of frames.

mod engine;
mod plan;
mod ports;
mod tiles;

use super::filter::{FilterStep, FrameFilter};
use super::interpolator::check_frame;
use super::{Planes, Rgb};
use crate::PipelineError;
use engine::Engine;
use mote_api::{Canceller, Model, RestorationSpec, RunReport, TileLimits, Tiling};
use plan::{Next, Plan};
pub(crate) use ports::input_shape;
use std::collections::VecDeque;
use std::sync::Arc;

/// What tiles may be made of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestorationOptions {
    /// Pixels of a tile's side at most, also where memory allows more.
    pub tile_side_max: Option<usize>,
    /// Memory for runs, states and frames together, without the model's weights; any when absent.
    pub memory_bytes_max: Option<u64>,
}

/// What [`Restorer::step_planes`] came to.
#[derive(Clone, Debug, PartialEq)]
pub enum PlanesStep {
    /// Nothing can be done before [`FrameFilter::push`] or [`FrameFilter::end`].
    NeedsFrame,
    /// The model ran on `done` of the `total` tiles of what comes next.
    Working {
        /// Tiles that are done.
        done: usize,
        /// All tiles.
        total: usize,
    },
    /// The next frame, in order of display.
    Frame(Planes),
    /// All frames are out.
    Ended,
}

/// Restores the frames of one clip: one comes out for each that goes in, `scale` times as wide and high.
///
/// *Recurrent* models are given each frame with those around it and what they carry over from the frames
/// before, as AnimeSR (Wu et al., 2022). *Windowed* models are given windows of a fixed length, as
/// BasicVSR (Chan et al., 2021). Frames that do not fit the model or the memory are cut into tiles, each with states
/// of its own ([`Tiling`]). States stay where the model computes, where that can keep them.
pub struct Restorer {
    engine: Engine,
    plan: Plan,
    scale: usize,
    /// Frames that are complete.
    out: VecDeque<Planes>,
    /// Height and width of all frames, once there is one.
    size: Option<[usize; 2]>,
}

impl Restorer {
    /// A restorer for one clip.
    ///
    /// # Errors
    /// [`PipelineError::Graph`] when the model is not what `spec` says.
    pub fn open(
        model: &Arc<dyn Model>,
        spec: &RestorationSpec,
        options: &RestorationOptions,
    ) -> Result<Self, PipelineError> {
        let limits = TileLimits {
            side_max: options.tile_side_max,
            memory_bytes_max: options.memory_bytes_max,
            ..TileLimits::default()
        };
        Ok(Self {
            engine: Engine::open(model, spec, limits)?,
            plan: Plan::new(spec),
            scale: spec.scale,
            out: VecDeque::new(),
            size: None,
        })
    }

    /// Runs the model at most once; as [`FrameFilter::step`], before frames are rounded to 8 bits.
    ///
    /// # Errors
    /// What failed; after [`PipelineError::Cancelled`] the step can be asked for again.
    pub fn step_planes(&mut self) -> Result<PlanesStep, PipelineError> {
        if let Some(frame) = self.out.pop_front() {
            return Ok(PlanesStep::Frame(frame));
        }
        if self.engine.progress().is_none() {
            match self.plan.next() {
                Next::NeedsFrame => return Ok(PlanesStep::NeedsFrame),
                Next::Ended => return Ok(PlanesStep::Ended),
                Next::Run(frames) => self.engine.begin(frames),
            }
        }
        if let Some(frames) = self.engine.step()? {
            self.out.extend(self.plan.made(frames));
        }
        Ok(match (self.out.pop_front(), self.engine.progress()) {
            (Some(frame), _) => PlanesStep::Frame(frame),
            (None, Some((done, total))) => PlanesStep::Working { done, total },
            (None, None) => PlanesStep::NeedsFrame,
        })
    }

    /// How frames are cut, once the first one came.
    pub fn tiling(&self) -> Option<&Tiling> {
        self.engine.tiling()
    }

    fn needs_frame(&self) -> bool {
        self.out.is_empty()
            && self.engine.progress().is_none()
            && matches!(self.plan.next(), Next::NeedsFrame)
    }
}

impl FrameFilter for Restorer {
    fn push(&mut self, frame: Rgb) -> Result<(), PipelineError> {
        check_frame(frame.as_frame())?;
        if !self.needs_frame() {
            return Err(PipelineError::invalid("frame", "comes out of turn"));
        }
        let size = [frame.height, frame.width];
        match self.size {
            None => {
                self.engine.prepare(size)?;
                self.size = Some(size);
            }
            Some([height, width]) if [height, width] != size => {
                let why = format!("is {}x{} after {width}x{height}", frame.width, frame.height);
                return Err(PipelineError::invalid("frame", why));
            }
            Some(_) => {}
        }
        self.plan.push(Arc::new(frame));
        Ok(())
    }

    fn end(&mut self) {
        self.plan.end();
    }

    fn step(&mut self) -> Result<FilterStep, PipelineError> {
        Ok(match self.step_planes()? {
            PlanesStep::NeedsFrame => FilterStep::NeedsFrame,
            PlanesStep::Working { done, total } => FilterStep::Working { done, total },
            PlanesStep::Frame(planes) => FilterStep::Frame(planes.to_rgb()),
            PlanesStep::Ended => FilterStep::Ended,
        })
    }

    fn canceller(&self) -> Canceller {
        self.engine.cancel.canceller()
    }

    fn report(&self) -> RunReport {
        self.engine.report
    }

    fn steps(&self) -> u64 {
        self.engine.steps
    }

    fn size_out(&self, width: usize, height: usize) -> (usize, usize) {
        (width * self.scale, height * self.scale)
    }

    fn frames_out(&self, frames_in: u64) -> u64 {
        frames_in
    }
}
