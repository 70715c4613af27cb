//! [`FrameWindow`]: a stream of frames, made denser.

use super::Rgb;
use super::interpolator::{Interpolator, check_factor};
use crate::PipelineError;

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
    factor: u32,
    /// Whether a frame came at all.
    begun: bool,
    /// The last frame taken, until it is passed on.
    waiting: Option<Rgb>,
    ended: bool,
}

impl FrameWindow {
    /// An empty window.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] for a factor not in [`super::FACTORS`].
    pub fn new(interpolator: Interpolator, factor: u32) -> Result<Self, PipelineError> {
        check_factor(factor)?;
        Ok(Self {
            interpolator,
            factor,
            begun: false,
            waiting: None,
            ended: false,
        })
    }

    /// Takes the next frame of the input; only after [`WindowStep::NeedsFrame`].
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] for a frame of another size or out of turn.
    pub fn push(&mut self, frame: Rgb) -> Result<(), PipelineError> {
        if self.waiting.is_some() || self.ended {
            return Err(PipelineError::invalid("frame", "comes out of turn"));
        }
        if self.begun {
            self.interpolator.advance(frame.as_frame(), self.factor)?;
        } else {
            self.interpolator.load(frame.as_frame())?;
            self.begun = true;
        }
        self.waiting = Some(frame);
        Ok(())
    }

    /// Says that there are no more frames.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Gives the next frame in order of display, running the model at most once.
    ///
    /// # Errors
    /// What failed; after [`PipelineError::Cancelled`] the step can be asked for again.
    pub fn step(&mut self) -> Result<WindowStep, PipelineError> {
        if self.waiting.is_some()
            && let Some(between) = self.interpolator.next_between()?
        {
            return Ok(WindowStep::Between(between));
        }
        Ok(match self.waiting.take() {
            Some(frame) => WindowStep::Original(frame),
            None if self.ended => WindowStep::Ended,
            None => WindowStep::NeedsFrame,
        })
    }

    /// By how much the frame rate grows.
    pub fn factor(&self) -> u32 {
        self.factor
    }

    /// The interpolator, for its figures and its canceller.
    pub fn interpolator(&self) -> &Interpolator {
        &self.interpolator
    }
}
