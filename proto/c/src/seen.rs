//! What is seen in a frame, as C reads it.

use crate::json::c_text;
use crate::structs::{Label, LabelBox};
use mote_client::FrameLabels;
use std::ffi::CString;

/// Labels and boxes of a frame, and the names that they point to.
#[derive(Default)]
pub(crate) struct Seen {
    labels: Vec<Label>,
    boxes: Vec<LabelBox>,
    /// A name lies where it is however its `CString` moves.
    names: Vec<CString>,
}

impl Seen {
    pub(crate) fn new(told: FrameLabels) -> Self {
        let mut seen = Self::default();
        for label in told.labels {
            let label = seen.label(&label);
            seen.labels.push(label);
        }
        for told in told.boxes {
            let label = seen.label(&told.label);
            seen.boxes.push(LabelBox {
                class_id: label.class_id,
                score: label.score,
                label: label.label,
                x0: told.x0,
                y0: told.y0,
                x1: told.x1,
                y1: told.y1,
            });
        }
        seen
    }

    fn label(&mut self, told: &mote_client::Label) -> Label {
        let name = c_text(&told.label);
        let label = Label {
            class_id: told.class,
            score: told.score,
            label: name.as_ptr(),
        };
        self.names.push(name);
        label
    }

    pub(crate) fn labels(&self) -> &[Label] {
        &self.labels
    }

    pub(crate) fn boxes(&self) -> &[LabelBox] {
        &self.boxes
    }
}
