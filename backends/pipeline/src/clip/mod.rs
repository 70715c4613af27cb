//! Frames between frames.

use crate::PipelineError;
use mote_api::{Canceller, ClipSpec, Model, RunReport, Session};
use std::sync::Arc;

/// Factors by which the number of frames may grow.
pub const FACTORS: [u32; 2] = [2, 4];
/// Pixels of one frame at most (8K).
pub const FRAME_PIXELS_MAX: usize = 1 << 25;

/// A borrowed picture: 8-bit RGB, rows from the top without gaps.
#[derive(Clone, Copy, Debug)]
pub struct RgbFrame<'a> {
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `width * height * 3` bytes.
    pub rgb8: &'a [u8],
}

/// A picture: 8-bit RGB, rows from the top without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb {
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `width * height * 3` bytes.
    pub rgb8: Vec<u8>,
}

impl Rgb {
    /// The same picture, borrowed.
    pub fn as_frame(&self) -> RgbFrame<'_> {
        RgbFrame {
            width: self.width,
            height: self.height,
            rgb8: &self.rgb8,
        }
    }
}

/// Computes the frames between two frames, one run of the model per call.
pub struct Interpolator {
    session: Box<dyn Session>,
}

impl Interpolator {
    /// A new session on a frame interpolation model.
    ///
    /// # Errors
    /// [`PipelineError::Graph`] when the model is not what `spec` says.
    pub fn open(model: &Arc<dyn Model>, spec: &ClipSpec) -> Result<Self, PipelineError> {
        let _ = spec;
        Ok(Self {
            session: model.session()?,
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
        let _ = (first, second, factor);
        Ok(())
    }

    /// As [`Self::start_pair`], with the second frame of the last pair as the first of this one.
    ///
    /// # Errors
    /// As [`Self::start_pair`]; also when there was no pair.
    pub fn advance(&mut self, second: RgbFrame<'_>, factor: u32) -> Result<(), PipelineError> {
        let _ = (second, factor);
        Ok(())
    }

    /// Runs the model once and gives the next frame of the pair, in order of time; `None` when
    /// there is none left. After [`PipelineError::Cancelled`] the same frame can be asked for
    /// again.
    ///
    /// # Errors
    /// What failed.
    pub fn next_between(&mut self) -> Result<Option<Rgb>, PipelineError> {
        Ok(None)
    }

    /// Sum of all runs so far.
    pub fn report(&self) -> RunReport {
        RunReport::default()
    }

    /// Runs so far.
    pub fn steps(&self) -> u64 {
        0
    }

    /// Stops the run in progress, or else the next one, from another thread.
    pub fn canceller(&self) -> Canceller {
        self.session.canceller()
    }
}

/// What [`FrameWindow::step`] came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WindowStep {
    /// Nothing can be done before [`FrameWindow::push`] or [`FrameWindow::end`].
    NeedsFrame,
    /// A frame of the input, passed on as it is.
    Original(Rgb),
    /// A frame the model made.
    Between(Rgb),
    /// All frames are out.
    Ended,
}

/// Turns a stream of frames into one with `factor` times the frame rate, one step at a time,
/// holding two frames. `n` frames in give `(n - 1) * factor + 1` out.
pub struct FrameWindow {
    interpolator: Interpolator,
}

impl FrameWindow {
    /// An empty window.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] for a factor not in [`FACTORS`].
    pub fn new(interpolator: Interpolator, factor: u32) -> Result<Self, PipelineError> {
        let _ = factor;
        Ok(Self { interpolator })
    }

    /// Takes the next frame of the input; only after [`WindowStep::NeedsFrame`].
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] for a frame of another size or out of turn.
    pub fn push(&mut self, frame: Rgb) -> Result<(), PipelineError> {
        let _ = frame;
        Ok(())
    }

    /// Says that there are no more frames.
    pub fn end(&mut self) {}

    /// Gives the next frame in order of display, running the model at most once.
    ///
    /// # Errors
    /// What failed; after [`PipelineError::Cancelled`] the step can be asked for again.
    pub fn step(&mut self) -> Result<WindowStep, PipelineError> {
        Ok(WindowStep::NeedsFrame)
    }

    /// The interpolator, for its figures and its canceller.
    pub fn interpolator(&self) -> &Interpolator {
        &self.interpolator
    }
}
