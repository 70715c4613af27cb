//! [`Labeller`]: what is to be seen in frames.

mod boxes;
mod file;
mod labeller;
mod picture;
mod scores;

use crate::PipelineError;
use mote_api::{InputHint, LabellingSpec, TensorSpec};

pub use file::{LABEL_BYTES_MAX, LABELS_BYTES_MAX, LABELS_MAX, read_labels};
pub use labeller::{LabelStep, Labeller};

/// Shape of the input of a labeller's frames.
pub(crate) fn picture_shape(
    input: &TensorSpec,
    spec: &LabellingSpec,
    hint: Option<&InputHint>,
) -> Result<Vec<usize>, PipelineError> {
    Ok(picture::Picture::new(input, spec, hint)?.shape)
}

/// A class, and how sure the model is.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// The model's number for it, from 0.
    pub class: u32,
    /// Its name; the number where the model comes without names.
    pub label: String,
    /// 0..=1 from models that give scores, or are told how to make some.
    pub score: f32,
}

/// A part of a frame that shows something.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledBox {
    /// Left edge, in pixels of the frame.
    pub x0: f32,
    /// Top edge.
    pub y0: f32,
    /// Right edge.
    pub x1: f32,
    /// Bottom edge.
    pub y1: f32,
    /// The model's number for what it shows, from 0.
    pub class: u32,
    /// Its name; the number where the model comes without names.
    pub label: String,
    /// How sure the model is.
    pub score: f32,
}

/// What is to be seen in a frame, or in several.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Labelled {
    /// Number of the first frame that it is about, from 0.
    pub frame_index: u64,
    /// How many frames it is about.
    pub frame_count: u64,
    /// From a classifier: the best first.
    pub labels: Vec<Label>,
    /// From a detector: the best first.
    pub boxes: Vec<LabelledBox>,
}
