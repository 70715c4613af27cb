//! Progress and cancellation of an import.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::ImportError;

/// What an import is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Digesting the source file.
    Digest,
    /// Converting tensors that belong to no layer.
    Outer,
    /// Converting decoder layer `index` of `count`.
    Layer {
        /// Layer, counted from 0.
        index: usize,
        /// Layers in all.
        count: usize,
    },
    /// Reading the written files back.
    Verify,
}

/// How far an import is. `Outer` and `Layer` count the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What it is busy with.
    pub stage: Stage,
    /// Bytes done: source bytes, or written bytes when verifying.
    pub bytes_done: u64,
    /// Bytes to do.
    pub bytes_total: u64,
}

/// Counts work, tells the caller, and notices cancellation.
pub(crate) struct Monitor<'a> {
    cancel: &'a AtomicBool,
    report: &'a mut dyn FnMut(Progress),
    stage: Stage,
    units_done: u64,
    units_total: u64,
    bytes_total: u64,
}

impl<'a> Monitor<'a> {
    pub fn new(cancel: &'a AtomicBool, report: &'a mut dyn FnMut(Progress)) -> Self {
        Self {
            cancel,
            report,
            stage: Stage::Digest,
            units_done: 0,
            units_total: 0,
            bytes_total: 0,
        }
    }

    /// Begins a phase of `units_total` units of work that stand for `bytes_total` bytes.
    pub fn begin(&mut self, stage: Stage, units_total: u64, bytes_total: u64) {
        self.stage = stage;
        self.units_done = 0;
        self.units_total = units_total;
        self.bytes_total = bytes_total;
    }

    /// Goes on with the same phase under another name.
    pub fn enter(&mut self, stage: Stage) {
        self.stage = stage;
    }

    /// Reports `units` more units done; fails when the import was cancelled.
    pub fn advance(&mut self, units: usize) -> Result<(), ImportError> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(ImportError::Cancelled);
        }
        self.units_done = (self.units_done + units as u64).min(self.units_total);
        let done = u128::from(self.bytes_total) * u128::from(self.units_done)
            / u128::from(self.units_total.max(1));
        (self.report)(Progress {
            stage: self.stage,
            bytes_done: done as u64,
            bytes_total: self.bytes_total,
        });
        Ok(())
    }
}
