//! `TiledMatMul`: the product with one quantised matrix.
//!
//! Inputs: `input`, f32 `[.., columns]`, and `weight`, u8 `[1, tiles, tile bytes]`, a constant that is
//! `[rows, columns]`; [`mote_kernels`] says what the bytes are. Output: f32 `[.., rows]`. Attributes:
//! `bits`, 4 or 8, and `columns`.

use super::{Constant, SharedScratch, bits, constant, on_rows, refused, size};
use crate::failure::chain;
use mote_kernels::{Bits, Kernels, Product, TILE_ROWS};
use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput,
};
use ort::value::TensorElementType;

const WEIGHT: &str = "weight";

/// The operator.
pub(super) struct TiledMatMul(pub(super) SharedScratch);

impl Operator for TiledMatMul {
    type Kernel<'attr> = Weight<'attr>;

    fn name(&self) -> &str {
        "TiledMatMul"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [TensorElementType::Float32, TensorElementType::Uint8].map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, info: &KernelContext<'attr>) -> ort::Result<Weight<'attr>> {
        let weight = Weight {
            weight: info.constant_input(1).ok(),
            bits: bits(info, "bits")?,
            columns: size(info, "columns")?,
            scratch: self.0.clone(),
        };
        weight.product()?;
        Ok(weight)
    }
}

/// One node's matrix.
pub(super) struct Weight<'attr> {
    weight: Constant<'attr, u8>,
    bits: Bits,
    columns: usize,
    scratch: SharedScratch,
}

impl Weight<'_> {
    fn product(&self) -> ort::Result<Product<'_>> {
        let (sizes, bytes) = constant(&self.weight, WEIGHT)?;
        let &[1, tiles, _] = sizes.as_slice() else {
            return Err(refused(WEIGHT, "is not one matrix of tiles"));
        };
        let sizes = [tiles.saturating_mul(TILE_ROWS), self.columns];
        Product::new(self.bits, sizes, bytes).map_err(|error| ort::Error::new(chain(&error)))
    }
}

impl Kernel for Weight<'_> {
    fn compute(&mut self, run: &ComputeContext) -> ort::Result<()> {
        let product = self.product()?;
        on_rows(
            run,
            product.widths(),
            &self.scratch,
            |rows, scratch, threads| {
                product.compute(Kernels::best(), rows, scratch, threads);
            },
        )
    }
}
