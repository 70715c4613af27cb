//! Work on several threads, and results that they write side by side.
//!
//! [`Panels`] is the door: what it hands out never overlaps, whoever asks for what.
#![allow(unsafe_code, reason = "the door to memory that several threads write")]

use std::{
    marker::PhantomData,
    sync::atomic::{AtomicBool, Ordering},
};

/// Threads that share work.
pub trait Parallel {
    /// Calls `work` with each number below `count` once, in any order, on any threads, and
    /// returns when all have returned.
    fn run(&self, count: usize, work: &(dyn Fn(usize) + Sync));
}

/// The calling thread alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Parallel for Alone {
    fn run(&self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        (0..count).for_each(work);
    }
}

/// A matrix of results, `[rows, columns × width]`, whose panels, each `width` columns of a band of rows,
/// are written by different threads.
pub(crate) struct Panels<'a, T> {
    start: *mut T,
    rows: usize,
    /// Rows of a panel; the last ones may have less.
    band: usize,
    columns: usize,
    width: usize,
    /// Which panels have been taken.
    taken: &'a [AtomicBool],
    target: PhantomData<&'a mut [T]>,
}

// SAFETY: threads share `Panels` to reach distinct elements of a slice that it borrows mutably;
// that takes no more than `T: Send`.
unsafe impl<T: Send> Sync for Panels<'_, T> {}

impl<'a, T> Panels<'a, T> {
    /// `target` as a matrix of `rows` rows and as many panels as `taken` has marks, which are
    /// cleared.
    ///
    /// # Panics
    /// If that is not what `target` can be.
    pub fn new(target: &'a mut [T], rows: usize, taken: &'a mut [AtomicBool]) -> Self {
        Self::in_bands(target, (rows, rows), taken)
    }

    /// Likewise, in bands of `band` rows each: panels are counted band by band.
    ///
    /// # Panics
    /// Likewise.
    pub fn in_bands(
        target: &'a mut [T],
        (rows, band): (usize, usize),
        taken: &'a mut [AtomicBool],
    ) -> Self {
        let band = band.max(1);
        let bands = rows.div_ceil(band).max(1);
        let columns = taken.len() / bands;
        let cells = rows * columns;
        let width = target.len().checked_div(cells).unwrap_or(0);
        assert!(
            cells.checked_mul(width) == Some(target.len()) && columns * bands == taken.len(),
            "panels must fill their matrix"
        );
        taken.iter_mut().for_each(|mark| *mark.get_mut() = false);
        Self {
            start: target.as_mut_ptr(),
            rows,
            band,
            columns,
            width,
            taken,
            target: PhantomData,
        }
    }

    /// The panel `index`, the first time that it is asked for.
    pub fn take(&self, index: usize) -> Option<Panel<'_, T>> {
        let taken = self.taken.get(index)?.swap(true, Ordering::Relaxed);
        (!taken).then_some(Panel {
            of: self,
            top: index / self.columns * self.band,
            first: index % self.columns * self.width,
        })
    }
}

/// One panel.
pub(crate) struct Panel<'a, T> {
    of: &'a Panels<'a, T>,
    top: usize,
    first: usize,
}

impl<T> Panel<'_, T> {
    /// The panel's part of `row`.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&mut self, row: usize) -> &mut [T] {
        let whole = self.top + row;
        assert!(
            row < self.of.band && whole < self.of.rows,
            "a row of the panel"
        );
        let stride = self.of.columns * self.of.width;
        // SAFETY: `in_bands` checked that `rows × stride` elements lie at `start`, which are borrowed
        // mutably as long as `of` lives; `whole` is below `rows`, and `first + width` at most
        // `stride` because it is that of one of the columns. No other reference reaches these elements:
        // a panel is taken once, rows, bands and columns do not overlap, and the caller's borrow of
        // `self` ends before the next.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.of.start.add(whole * stride + self.first),
                self.of.width,
            )
        }
    }
}
