//! How quantised matrices lie in memory, for the kernels to read in one direction and in place.
//!
//! A matrix `[rows, columns]` is cut into **tiles** of [`TILE_ROWS`] rows, and a tile into blocks of
//! [`BLOCK`] columns. Two blocks are a record: the codes of the first, the codes of the second,
//! the scales of the first (f16, `[TILE_ROWS]`), the scales of the second; a tile with an odd number
//! of blocks ends with one of zeros. So all that a tile needs is one stream, which processors fetch
//! ahead, in whole cache lines. Within a block, codes lie in chunks of four columns, because four
//! products of bytes make one sum of 32 bits on every instruction set there is:
//!
//! * 8 bits: `[8 chunks][TILE_ROWS][4 columns]` of i8.
//! * 4 bits: `[4 chunks][TILE_ROWS][4 columns]` of bytes, whose low nibble is of chunk `c` and
//!   whose high nibble of chunk `c + 4`, each the code plus 8.
//!
//! All of it is little endian.

use half::f16;
use thiserror::Error;

/// Columns that share one scale.
pub const BLOCK: usize = 32;
/// Rows that are multiplied together.
pub const TILE_ROWS: usize = 16;
/// Columns whose products make one sum of 32 bits.
const CHUNK: usize = 4;
/// Bytes of a block's scales.
const SCALES_BYTES: usize = TILE_ROWS * 2;
/// Blocks of a record.
const RECORD_BLOCKS: usize = 2;
/// Longest row, in blocks: sums of any row stay exact as integers per block, and sizes in range.
pub const BLOCKS_MAX: usize = 1 << 16;

/// Width of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    /// From −8 to 7.
    Four,
    /// From −128 to 127.
    Eight,
}

impl Bits {
    /// The width of `count` bits, if there is one.
    pub fn of(count: usize) -> Option<Self> {
        match count {
            4 => Some(Self::Four),
            8 => Some(Self::Eight),
            _ => None,
        }
    }

    /// How many bits.
    pub fn count(self) -> usize {
        match self {
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    /// Bytes of the codes of one block of a tile.
    pub(crate) const fn block_bytes(self) -> usize {
        match self {
            Self::Four => BLOCK * TILE_ROWS / 2,
            Self::Eight => BLOCK * TILE_ROWS,
        }
    }

    /// Bytes of a record.
    const fn record_bytes(self) -> usize {
        RECORD_BLOCKS * (self.block_bytes() + SCALES_BYTES)
    }
}

/// Why sizes or bytes are no matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LayoutError {
    /// Rows are not whole tiles.
    #[error("{rows} rows are not a positive multiple of {TILE_ROWS}")]
    Rows {
        /// What was given.
        rows: usize,
    },
    /// Columns are not whole blocks, or too many.
    #[error("{columns} columns are not a positive multiple of {BLOCK} up to {}", BLOCK * BLOCKS_MAX)]
    Columns {
        /// What was given.
        columns: usize,
    },
    /// The bytes are not as many as the sizes say.
    #[error("{rows} × {columns} codes of {bits} bits do not lie in {bytes} bytes")]
    Bytes {
        /// Rows.
        rows: usize,
        /// Columns.
        columns: usize,
        /// Bits per code.
        bits: usize,
        /// What was given.
        bytes: usize,
    },
}

/// Bytes of one tile of a matrix that is `columns` wide.
pub fn tile_bytes(bits: Bits, columns: usize) -> Result<usize, LayoutError> {
    let blocks = columns / BLOCK;
    if blocks == 0 || !columns.is_multiple_of(BLOCK) || blocks > BLOCKS_MAX {
        return Err(LayoutError::Columns { columns });
    }
    Ok(blocks.div_ceil(RECORD_BLOCKS) * bits.record_bytes())
}

/// A quantised matrix in memory of somebody else.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    bits: Bits,
    blocks: usize,
    tile_bytes: usize,
    bytes: &'a [u8],
}

impl<'a> Matrix<'a> {
    /// The matrix `[rows, columns]` that `bytes` are.
    pub fn new(
        bits: Bits,
        [rows, columns]: [usize; 2],
        bytes: &'a [u8],
    ) -> Result<Self, LayoutError> {
        let tile_bytes = tile_bytes(bits, columns)?;
        if rows == 0 || !rows.is_multiple_of(TILE_ROWS) {
            return Err(LayoutError::Rows { rows });
        }
        if (rows / TILE_ROWS).checked_mul(tile_bytes) != Some(bytes.len()) {
            return Err(LayoutError::Bytes {
                rows,
                columns,
                bits: bits.count(),
                bytes: bytes.len(),
            });
        }
        Ok(Self {
            bits,
            blocks: columns / BLOCK,
            tile_bytes,
            bytes,
        })
    }

    /// Blocks per row.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks
    }

    /// Rows `TILE_ROWS × index` and the ones after.
    pub(crate) fn tile(&self, index: usize) -> Tile<'a> {
        Tile {
            bits: self.bits,
            blocks: self.blocks,
            bytes: &self.bytes[index * self.tile_bytes..][..self.tile_bytes],
        }
    }
}

/// [`TILE_ROWS`] rows of a matrix. All its blocks lie in its bytes.
#[derive(Clone, Copy)]
pub(crate) struct Tile<'a> {
    bits: Bits,
    blocks: usize,
    bytes: &'a [u8],
}

impl<'a> Tile<'a> {
    /// Width of its codes.
    #[inline(always)]
    pub fn bits(&self) -> Bits {
        self.bits
    }

    /// Blocks per row.
    #[inline(always)]
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// All records.
    #[inline(always)]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Where the codes and the scales of `block` begin among the bytes.
    #[inline(always)]
    pub fn offsets(&self, block: usize) -> [usize; 2] {
        let (record, within) = (block / RECORD_BLOCKS, block % RECORD_BLOCKS);
        let (start, codes) = (record * self.bits.record_bytes(), self.bits.block_bytes());
        [
            start + within * codes,
            start + RECORD_BLOCKS * codes + within * SCALES_BYTES,
        ]
    }
}

impl Tile<'_> {
    /// Reads the numbers of `row` in `block`.
    pub fn read(&self, block: usize, row: usize, out: &mut [f32; BLOCK]) {
        let [codes, scales] = self.offsets(block).map(|offset| &self.bytes[offset..]);
        let scale = f16::from_le_bytes([scales[row * 2], scales[row * 2 + 1]]).to_f32();
        for (column, out) in out.iter_mut().enumerate() {
            let (chunk, within) = (column / CHUNK, column % CHUNK);
            let at = |chunk: usize| codes[(chunk * TILE_ROWS + row) * CHUNK + within];
            let half = BLOCK / CHUNK / 2;
            let code = match self.bits {
                Bits::Eight => at(chunk).cast_signed(),
                Bits::Four if chunk < half => (at(chunk) & 15).cast_signed() - 8,
                Bits::Four => (at(chunk - half) >> 4).cast_signed() - 8,
            };
            *out = f32::from(code) * scale;
        }
    }
}

/// Lays one tile out: appends to `out` what `codes` (`[TILE_ROWS, columns]`, signed) and `scales`
/// (`[TILE_ROWS, columns / BLOCK]`, rounded to f16) are in memory.
pub fn pack_tile(
    bits: Bits,
    (codes, scales): (&[i8], &[f32]),
    out: &mut Vec<u8>,
) -> Result<(), LayoutError> {
    let columns = codes.len() / TILE_ROWS;
    let bytes = tile_bytes(bits, columns)?;
    let blocks = columns / BLOCK;
    if codes.len() != TILE_ROWS * columns || scales.len() != TILE_ROWS * blocks {
        return Err(LayoutError::Columns { columns });
    }
    let start = out.len();
    out.resize(start + bytes, 0);
    let out = &mut out[start..];
    let chunks = bits.block_bytes() / (TILE_ROWS * CHUNK);
    for block in 0..blocks {
        let code = |chunk: usize, row: usize, column: usize| {
            codes[row * columns + block * BLOCK + chunk * CHUNK + column]
        };
        let record = &mut out[block / RECORD_BLOCKS * bits.record_bytes()..];
        let (all_codes, all_scales) = record.split_at_mut(RECORD_BLOCKS * bits.block_bytes());
        let within = block % RECORD_BLOCKS;
        let bytes = all_codes[within * bits.block_bytes()..].iter_mut();
        for ((chunk, row, column), byte) in positions(chunks).zip(bytes) {
            *byte = match bits {
                Bits::Eight => code(chunk, row, column).cast_unsigned(),
                Bits::Four => {
                    let [low, high] = [chunk, chunk + chunks]
                        .map(|chunk| code(chunk, row, column).wrapping_add(8).cast_unsigned());
                    (low & 15) | high << 4
                }
            };
        }
        let halves = all_scales[within * SCALES_BYTES..].as_chunks_mut().0;
        for (row, half) in halves.iter_mut().take(TILE_ROWS).enumerate() {
            *half = f16::from_f32(scales[row * blocks + block]).to_le_bytes();
        }
    }
    Ok(())
}

/// All (chunk, row, column) of `chunks` chunks, in the order they lie in memory.
fn positions(chunks: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..chunks).flat_map(|chunk| {
        (0..TILE_ROWS).flat_map(move |row| (0..CHUNK).map(move |column| (chunk, row, column)))
    })
}
