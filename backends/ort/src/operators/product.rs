//! `TiledMatMul`: the product with one quantised matrix; `TiledGather`: rows of one.
//!
//! Inputs: `input`, f32 `[.., columns]` or, for rows, their numbers, i64 `[..]`; and `weight`, u8
//! `[1, tiles, tile bytes]`, a constant that is `[rows, columns]`; [`mote_kernels`] says what the bytes
//! are. Output: f32 `[.., rows]` or, of rows, `[.., columns]`. Attributes: `bits`, 4 or 8, and `columns`.

use super::{
    Constant, INPUT, SharedScratch, bits, constant, into_output, numbers, on_rows, refused, size,
};
use crate::failure::chain;
use mote_kernels::{Bits, Kernels, Product, TILE_ROWS};
use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput,
};
use ort::value::{TensorElementType, TensorValueType};

const WEIGHT: &str = "weight";

/// The operator.
pub(super) struct TiledMatMul(pub(super) SharedScratch);

impl Operator for TiledMatMul {
    type Kernel<'attr> = Multiply<'attr>;

    fn name(&self) -> &str {
        "TiledMatMul"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [TensorElementType::Float32, TensorElementType::Uint8].map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, info: &KernelContext<'attr>) -> ort::Result<Multiply<'attr>> {
        Ok(Multiply {
            weight: Weight::new(info)?,
            scratch: self.0.clone(),
        })
    }
}

/// The operator.
pub(super) struct TiledGather;

impl Operator for TiledGather {
    type Kernel<'attr> = Gather<'attr>;

    fn name(&self) -> &str {
        "TiledGather"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [TensorElementType::Int64, TensorElementType::Uint8].map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, info: &KernelContext<'attr>) -> ort::Result<Gather<'attr>> {
        Ok(Gather(Weight::new(info)?))
    }
}

/// One node's matrix.
struct Weight<'attr> {
    weight: Constant<'attr, u8>,
    bits: Bits,
    columns: usize,
}

impl<'attr> Weight<'attr> {
    fn new(info: &KernelContext<'attr>) -> ort::Result<Self> {
        let weight = Self {
            weight: info.constant_input(1).ok(),
            bits: bits(info, "bits")?,
            columns: size(info, "columns")?,
        };
        weight.product()?;
        Ok(weight)
    }

    fn product(&self) -> ort::Result<Product<'_>> {
        let (sizes, bytes) = constant(&self.weight, WEIGHT)?;
        let &[1, tiles, _] = sizes.as_slice() else {
            return Err(refused(WEIGHT, "is not one matrix of tiles"));
        };
        let sizes = [tiles.saturating_mul(TILE_ROWS), self.columns];
        Product::new(self.bits, sizes, bytes).map_err(|error| ort::Error::new(chain(&error)))
    }
}

/// A node that multiplies.
pub(super) struct Multiply<'attr> {
    weight: Weight<'attr>,
    scratch: SharedScratch,
}

impl Kernel for Multiply<'_> {
    fn compute(&mut self, run: &ComputeContext) -> ort::Result<()> {
        let product = self.weight.product()?;
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

/// A node that looks rows up.
pub(super) struct Gather<'attr>(Weight<'attr>);

impl Kernel for Gather<'_> {
    fn compute(&mut self, run: &ComputeContext) -> ort::Result<()> {
        let product = self.0.product()?;
        let [columns, rows] = product.widths();
        let input = run.input(0)?.ok_or_else(|| refused(INPUT, "is missing"))?;
        let input = input.downcast::<TensorValueType<i64>>()?;
        let (shape, input) = numbers(&input, INPUT)?;
        let mut wanted = Vec::with_capacity(input.len());
        for &number in input {
            let number = usize::try_from(number).ok().filter(|&number| number < rows);
            wanted.push(number.ok_or_else(|| refused(INPUT, "asks for a row that is not there"))?);
        }
        into_output(run, (shape, columns), wanted.len() * columns, |output| {
            for (&number, output) in wanted.iter().zip(output.chunks_exact_mut(columns)) {
                product.row(number, output);
            }
        })
    }
}
