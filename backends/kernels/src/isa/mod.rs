//! The kernels of each instruction set, behind one table of functions.
//!
//! Each module keeps its `unsafe` to itself: what is in the table is safe to call, and a table is
//! given out only where the processor has what it needs.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
mod prefetch;

#[cfg(target_arch = "x86_64")]
use prefetch::ahead;

use crate::{
    Score,
    attend::Band,
    float::Quantised,
    layout::{TILE_ROWS, Tile},
};
use half::f16;

/// Sums of one tile, one for each of its rows.
pub(crate) type Sums = [f32; TILE_ROWS];

/// Adds to each of `sums` the product of `tile` and the input of the same number. All inputs
/// have as many blocks as the tile. Per sum: `sum ← fma(Σ codes × codes, scale × scale, sum)`, block by
/// block.
pub(crate) type Multiply = fn(tile: Tile<'_>, inputs: &[&[Quantised]], sums: &mut [Sums]);

/// Attention of a band into `[queries, group, dim]`, with memory for scores that is used again.
pub(crate) type Attend<K> = fn(band: Band<'_, K>, scores: &mut Vec<f32>, out: &mut [f32]);

/// What one instruction set computes with.
#[derive(Debug)]
pub struct Kernels {
    /// The instruction set's name.
    pub name: &'static str,
    pub(crate) multiply: Multiply,
    pub(crate) quantise: fn(values: &[f32], out: &mut [Quantised]),
    pub(crate) swiglu: fn(gate: &Sums, up: &Sums, out: &mut Sums),
    pub(crate) router: fn(input: &[f32], weight: &[f32], logits: &mut [f32]),
    pub(crate) scores: fn(score: Score, values: &mut [f32]),
    pub(crate) attend: Attend<f32>,
    /// Likewise, over a cache of halves.
    pub(crate) attend_halves: Attend<f16>,
    /// Numbers become such halves; there are a multiple of [`PARTS`](crate::attend::PARTS).
    pub(crate) keep_halves: fn(numbers: &[f32], kept: &mut [f16]),
}

impl Kernels {
    /// All that this processor can run, best first. The last runs everywhere.
    pub fn all() -> Vec<&'static Self> {
        #[cfg(target_arch = "x86_64")]
        let special = [avx512::kernels(), avx2::kernels()];
        #[cfg(target_arch = "aarch64")]
        let special = neon::kernels();
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let special: [Option<&'static Self>; 0] = [];
        let mut all: Vec<_> = special.into_iter().flatten().collect();
        all.push(&portable::KERNELS);
        all
    }

    /// The best that this processor can run.
    pub fn best() -> &'static Self {
        static BEST: std::sync::OnceLock<&Kernels> = std::sync::OnceLock::new();
        BEST.get_or_init(|| Self::all()[0])
    }
}

/// Checks what every [`Multiply`] relies on.
///
/// # Panics
/// If an input has not as many blocks as the tile, or there are not as many sums as inputs.
fn check(tile: Tile<'_>, inputs: &[&[Quantised]], sums: &[Sums]) {
    let blocks = tile.blocks();
    assert!(
        inputs.len() == sums.len() && inputs.iter().all(|input| input.len() == blocks),
        "inputs, tile and sums of a product belong together"
    );
}
