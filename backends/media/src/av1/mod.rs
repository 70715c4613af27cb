//! AV1 through rav1e.

mod encoder;
mod level;
mod obu;

pub(crate) use encoder::Av1Writer;
