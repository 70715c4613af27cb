//! The product of rows and one quantised matrix.

use crate::{
    Kernels, Parallel, Scratch,
    ffn::{ROWS_MAX, TOGETHER},
    float::Quantised,
    layout::{BLOCK, Bits, LayoutError, Matrix, TILE_ROWS},
    parallel::Panels,
};
use std::sync::atomic::AtomicBool;

/// `input × weightᵀ`.
#[derive(Debug, Clone, Copy)]
pub struct Product<'a> {
    weight: Matrix<'a>,
    rows: usize,
}

impl<'a> Product<'a> {
    /// The product with the matrix `[rows, columns]` that `bytes` are.
    pub fn new(
        bits: Bits,
        [rows, columns]: [usize; 2],
        bytes: &'a [u8],
    ) -> Result<Self, LayoutError> {
        let weight = Matrix::new(bits, [rows, columns], bytes)?;
        Ok(Self { weight, rows })
    }

    /// Numbers in a row of the input, and in one of the output.
    pub fn widths(&self) -> [usize; 2] {
        [self.weight.blocks() * BLOCK, self.rows]
    }

    /// Writes the row `index` of the matrix to `out`.
    ///
    /// # Panics
    /// If there is no such row, or `out` is not as wide.
    pub fn row(&self, index: usize, out: &mut [f32]) {
        assert!(
            index < self.rows && out.len() == self.weight.blocks() * BLOCK,
            "a row of the matrix"
        );
        let tile = self.weight.tile(index / TILE_ROWS);
        let blocks = out.as_chunks_mut().0;
        for (block, out) in blocks.iter_mut().enumerate() {
            tile.read(block, index % TILE_ROWS, out);
        }
    }

    /// Computes all rows of `input` `[n, columns]` into `output` `[n, rows]`. What a row gives
    /// depends on nothing but the row.
    ///
    /// # Panics
    /// If the lengths are not so.
    pub fn compute(
        &self,
        kernels: &Kernels,
        (input, output): (&[f32], &mut [f32]),
        scratch: &mut Scratch,
        threads: &impl Parallel,
    ) {
        let [wide, tall] = self.widths();
        assert!(
            input.len().is_multiple_of(wide) && output.len() == input.len() / wide * tall,
            "input and output have as many rows"
        );
        let inputs = input.chunks(ROWS_MAX * wide);
        for (input, output) in inputs.zip(output.chunks_mut(ROWS_MAX * tall)) {
            scratch.quantise(kernels, (input, wide), threads);
            self.multiply(kernels, output, scratch, threads);
        }
    }

    fn multiply(
        &self,
        kernels: &Kernels,
        output: &mut [f32],
        scratch: &mut Scratch,
        threads: &impl Parallel,
    ) {
        let (tiles, rows) = (self.rows / TILE_ROWS, output.len() / self.rows);
        let Scratch { inputs, marks, .. } = scratch;
        marks.resize_with(marks.len().max(tiles), AtomicBool::default);
        let panels = Panels::new(output, rows, &mut marks[..tiles]);
        let width = self.weight.blocks();
        threads.run(tiles, &|index| {
            let Some(mut panel) = panels.take(index) else {
                return;
            };
            let tile = self.weight.tile(index);
            for (first, some) in inputs.chunks(TOGETHER * width).enumerate() {
                let mut given: [&[Quantised]; TOGETHER] = [&[]; TOGETHER];
                let mut sums = [[0.0; TILE_ROWS]; TOGETHER];
                let count = some.len() / width;
                for (given, some) in given.iter_mut().zip(some.chunks_exact(width)) {
                    *given = some;
                }
                (kernels.multiply)(tile, &given[..count], &mut sums[..count]);
                for (index, sums) in sums[..count].iter().enumerate() {
                    panel.row(first * TOGETHER + index).copy_from_slice(sums);
                }
            }
        });
    }
}
