//! [`Lane`]: a job's hold of one row of a bank.

use super::bank::Bank;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A row that nobody else computes with while this lives.
pub(crate) struct Lane {
    bank: Arc<Mutex<Bank>>,
    pub row: usize,
}

impl Lane {
    /// Takes `row`.
    pub fn new(bank: &Arc<Mutex<Bank>>, row: usize) -> Self {
        let lane = Self {
            bank: Arc::clone(bank),
            row,
        };
        lane.lock().rows[row].is_taken = true;
        lane
    }

    /// The bank. Jobs of one bank compute in turns, on one thread.
    pub fn lock(&self) -> MutexGuard<'_, Bank> {
        lock(&self.bank)
    }

    /// Whether both are of one bank, so that one run can serve both.
    pub fn is_beside(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.bank, &other.bank)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let mut bank = self.lock();
        let row = &mut bank.rows[self.row];
        row.is_taken = false;
        row.reserved_tokens = 0;
    }
}

pub(crate) fn lock(bank: &Mutex<Bank>) -> MutexGuard<'_, Bank> {
    bank.lock().unwrap_or_else(PoisonError::into_inner)
}
