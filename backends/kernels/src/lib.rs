//! Kernels of our own, for what no library that Mote loads computes both fast and in place: products
//! with quantised matrices, and whole Mixture-of-Experts feed-forward blocks, on the CPU, over weights
//! that are read where they lie, as in a mapped file, and attention of many conversations over their
//! caches. Nothing is prepared at load, and there is no second copy.
//!
//! * `layout`: how quantised matrices lie in memory, and how they are laid out.
//! * `ffn`: the block: [`MoeFfn`].
//! * `product`: one matrix alone: [`Product`].
//! * `routing`: which experts work on a token.
//! * `attention`: grouped-query attention and its cache: [`Attention`]; `attend`: the arithmetic of it.
//! * `isa`: products of quantised matrices and vectors, per instruction set: AVX-512 with VNNI,
//!   AVX2, NEON with and without dot products, and portable code. The choice is made at run time.
//! * `float`: arithmetic that is the same on all of them.
//! * `parallel`: threads are the caller's; results that they write side by side.
//!
//! **Numbers.** Weights are codes of 4 or 8 bits with a scale per 32 columns. Activations are
//! quantised to 8 bits, per row and 32 columns, before each product. Codes are multiplied and summed as
//! integers within a block, and blocks are summed as f32 in the order of columns, experts in the order of
//! their numbers, the shared one last. The router and the shared expert's switch are f32 and are not
//! quantised, nor is what they multiply: each logit is four sums, whose columns take turns. So what a row
//! gives has the same bits, where it is a number, for any number of threads, beside any other rows, and on
//! any instruction set. Attention computes with f32, and likewise: the same bits for any number of positions at once,
//! beside any other rows. Keys and values that are kept as f16 are rounded once, when they are kept, and are 65504
//! where they are larger or infinite. Elsewhere, where a row has an infinity, and everywhere, where it has what is no
//! number, what it gives is no number either; which bits say so may differ.
//!
//! **Unsafe.** Each instruction set has its door, and so have prefetching and panels of results; all of them
//! check what they rely on.
//!
//! Dependencies: `half` for 16-bit floats, `thiserror`. Not `gemm`, `matrixmultiply` or another crate
//! of kernels: none multiplies 4-bit codes with scales per block.

#![deny(unsafe_code)]

mod attend;
mod attention;
mod ffn;
mod float;
mod isa;
mod layout;
mod parallel;
mod product;
mod routing;

pub use attention::{Asked, Attention, AttentionError, Cache, Element, Projected};
pub use ffn::{Expert, FfnError, MoeFfn, Scratch, Shared, Weights};
pub use isa::Kernels;
pub use layout::{BLOCK, Bits, LayoutError, TILE_ROWS, pack_tile, tile_bytes};
pub use parallel::{Alone, Parallel};
pub use product::Product;
pub use routing::{Groups, Routing, Score};
