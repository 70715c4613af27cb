//! Pages are asked for before they are needed. The processor fetches lines ahead by itself, but only
//! within a page, and a page that it has no translation for costs it the start: files are mapped
//! by small pages. Measured on one row over mapped weights: a tenth of the time and more. (Asking
//! for every line instead gains less, and for the lines after, nothing.)
#![allow(unsafe_code, reason = "the door to prefetching")]

use crate::layout::Tile;
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

/// How far ahead.
const AHEAD_BYTES: usize = 16_384;
const PAGE_BYTES: usize = 4096;

/// Asks for a page some way after `block`, in this tile or in those after, if a page begins about
/// where the block does.
#[inline(always)]
pub(super) fn ahead(tile: Tile<'_>, block: usize) {
    let start = tile.bytes().as_ptr().wrapping_add(tile.offsets(block)[0]);
    if start.addr() % PAGE_BYTES < tile.bits().block_bytes() {
        // SAFETY: prefetching reads nothing, and may be asked for any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(AHEAD_BYTES).cast()) };
    }
}
