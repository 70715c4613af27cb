//! [`FrameFilter`]: whatever turns a stream of frames into another.

use super::{FrameWindow, Rgb, WindowStep};
use crate::PipelineError;
use mote_api::{Canceller, RunReport};

/// What [`FrameFilter::step`] came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterStep {
    /// Nothing can be done before [`FrameFilter::push`] or [`FrameFilter::end`].
    NeedsFrame,
    /// The model ran on `done` of the `total` pieces of what comes next.
    Working {
        /// Pieces that are done.
        done: usize,
        /// All pieces.
        total: usize,
    },
    /// The next frame, in order of display.
    Frame(Rgb),
    /// All frames are out.
    Ended,
}

/// Turns a stream of frames into another, one step at a time, in memory that does not grow with the
/// stream: interpolation, restoration, enlargement.
pub trait FrameFilter: Send {
    /// Takes the next frame of the input; only after [`FilterStep::NeedsFrame`].
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] for a frame of another size or out of turn, or when there is no room for
    /// frames of this size.
    fn push(&mut self, frame: Rgb) -> Result<(), PipelineError>;

    /// Says that there are no more frames.
    fn end(&mut self);

    /// Runs the model at most once.
    ///
    /// # Errors
    /// What failed; after [`PipelineError::Cancelled`] the step can be asked for again.
    fn step(&mut self) -> Result<FilterStep, PipelineError>;

    /// Stops the step in progress, or else the next one that runs the model, from another thread.
    fn canceller(&self) -> Canceller;

    /// Sums over all runs so far.
    fn report(&self) -> RunReport;

    /// Runs so far.
    fn steps(&self) -> u64;

    /// Width and height of what comes out for what goes in.
    fn size_out(&self, width: usize, height: usize) -> (usize, usize);

    /// How many frames come out for how many that go in.
    fn frames_out(&self, frames_in: u64) -> u64;
}

impl FrameFilter for FrameWindow {
    fn push(&mut self, frame: Rgb) -> Result<(), PipelineError> {
        Self::push(self, frame)
    }

    fn end(&mut self) {
        Self::end(self);
    }

    fn step(&mut self) -> Result<FilterStep, PipelineError> {
        Ok(match Self::step(self)? {
            WindowStep::NeedsFrame => FilterStep::NeedsFrame,
            WindowStep::Original(frame) | WindowStep::Between(frame) => FilterStep::Frame(frame),
            WindowStep::Ended => FilterStep::Ended,
        })
    }

    fn canceller(&self) -> Canceller {
        self.interpolator().canceller()
    }

    fn report(&self) -> RunReport {
        self.interpolator().report()
    }

    fn steps(&self) -> u64 {
        self.interpolator().steps()
    }

    fn size_out(&self, width: usize, height: usize) -> (usize, usize) {
        (width, height)
    }

    fn frames_out(&self, frames_in: u64) -> u64 {
        match frames_in {
            0 => 0,
            _ => (frames_in - 1)
                .saturating_mul(u64::from(self.factor()))
                .saturating_add(1),
        }
    }
}
