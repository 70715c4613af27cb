//! What `mote bench` measures with.

pub mod floor;
pub mod placement;
pub mod process;
pub mod stats;

/// Reads a 602,112-byte picture-sized tensor and computes its mean (tests/bench/make_reduce.py).
pub const REDUCE_MODEL: &[u8] = include_bytes!("reduce.onnx");
/// Its input, f32.
pub const REDUCE_SHAPE: [usize; 4] = [1, 3, 224, 224];
/// Bytes of its input.
pub const REDUCE_BYTES: usize = 602_112;
