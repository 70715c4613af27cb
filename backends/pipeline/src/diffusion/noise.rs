//! Gaussian noise without state.

use crate::philox;
use std::f64::consts::TAU;

/// Values that one block of random bits gives.
const VALUES: usize = 4;
/// Keeps these blocks apart from those that tokens are drawn with.
const PURPOSE: u32 = 1;
/// Width of one of the 2^32 intervals of 0..1.
const INTERVAL: f64 = 1.0 / (1u64 << 32) as f64;

/// Fills `out` with independent normal values of mean 0 and variance 1.
///
/// Value `i` is a function of `seed`, `stream` and `i` alone: the same seed gives the same sample
/// whatever was drawn before, and a longer `out` begins with the values of a shorter one.
///
/// Exactly: with `a, b, c, d` the four words of Philox4x32-10 (Salmon et al. 2011) at the counter
/// `[k, k >> 32, stream, 1]` under the key `[seed, seed >> 32]` (the low 32 bits of each) and
/// `u(w) = (w + 1/2) / 2^32`, values `4k` to `4k + 3` are, after Box and Muller (1958),
/// `r cos(t)`, `r sin(t)` with `r = sqrt(-2 ln u(a))`, `t = 2π u(b)`, then the same of `c` and
/// `d`; all in f64, rounded to f32 at the end. No value is beyond ±6.77.
pub fn gaussian(seed: u64, stream: u32, out: &mut [f32]) {
    let key = [seed as u32, (seed >> 32) as u32];
    for (block, values) in (0u64..).zip(out.chunks_mut(VALUES)) {
        let counter = [block as u32, (block >> 32) as u32, stream, PURPOSE];
        let [a, b, c, d] = philox::block(counter, key);
        let normal = [pair(a, b), pair(c, d)];
        let normal = normal.as_flattened();
        values.copy_from_slice(&normal[..values.len()]);
    }
}

/// Two normal values of two random words.
fn pair(radius: u32, angle: u32) -> [f32; 2] {
    let [radius, angle] = [radius, angle].map(|word| (f64::from(word) + 0.5) * INTERVAL);
    let radius = (-2.0 * radius.ln()).sqrt();
    let (sine, cosine) = (TAU * angle).sin_cos();
    [(radius * cosine) as f32, (radius * sine) as f32]
}
