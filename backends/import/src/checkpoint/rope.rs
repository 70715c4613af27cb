//! Rotary positions: the frequency of each pair of elements.

use std::f64::consts::PI;

/// Rotary positions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub base: f32,
    /// How frequencies are stretched for contexts longer than those of the first training.
    pub scaling: RopeScaling,
    /// Whether the elements of a pair are neighbours, rather than half a head apart.
    pub interleaved: bool,
}

/// How frequencies are stretched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All are divided by `factor`.
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// Low frequencies are divided by `factor`, high ones are left, those between are mixed.
    Llama3 {
        /// The divisor.
        factor: f32,
        /// Turns within the first context below which frequencies are low.
        low: f32,
        /// Turns within the first context above which frequencies are high.
        high: f32,
        /// Context of the first training, in tokens.
        first_context: usize,
    },
    /// YaRN: like `Llama3` with a ramp over the elements; cosines and sines are scaled too.
    Yarn {
        /// The divisor.
        factor: f32,
        /// Turns within the first context above which frequencies are left.
        fast: f32,
        /// Turns within the first context below which they are divided.
        slow: f32,
        /// Context of the first training, in tokens.
        first_context: usize,
        /// Factor on cosines and sines.
        amplitude: f32,
        /// Whether the ramp begins and ends at whole elements.
        truncate: bool,
    },
}

impl Rope {
    /// Unscaled positions with halves apart.
    pub fn plain(base: f32) -> Self {
        Self {
            base,
            scaling: RopeScaling::None,
            interleaved: false,
        }
    }

    /// Whether nothing but the base is special.
    pub fn is_plain(&self) -> bool {
        *self == Self::plain(self.base)
    }

    /// Factor on cosines and sines.
    pub fn amplitude(&self) -> f32 {
        match self.scaling {
            RopeScaling::Yarn { amplitude, .. } => amplitude,
            _ => 1.0,
        }
    }

    /// The angle per position of each of `width / 2` pairs, in radians. In f32, as in the
    /// reference implementation that models are trained with.
    pub fn frequencies(&self, width: usize) -> Vec<f32> {
        let plain = (0..width / 2).map(|pair| {
            let exponent = (2 * pair) as f32 / width as f32;
            self.base.powf(exponent).recip()
        });
        match self.scaling {
            RopeScaling::None => plain.collect(),
            RopeScaling::Linear { factor } => plain.map(|frequency| frequency / factor).collect(),
            RopeScaling::Llama3 {
                factor,
                low,
                high,
                first_context,
            } => plain
                .map(|frequency| {
                    let turns = first_context as f32 * frequency / (2.0 * PI as f32);
                    let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    (1.0 - kept) * frequency / factor + kept * frequency
                })
                .collect(),
            RopeScaling::Yarn { factor, .. } => {
                let (from, to) = self.ramp(width);
                plain
                    .enumerate()
                    .map(|(pair, frequency)| {
                        let divided = ((pair as f32 - from) / (to - from)).clamp(0.0, 1.0);
                        frequency / factor * divided + frequency * (1.0 - divided)
                    })
                    .collect()
            }
        }
    }

    /// Between which pairs YaRN goes over from kept to divided frequencies.
    fn ramp(&self, width: usize) -> (f32, f32) {
        let RopeScaling::Yarn {
            fast,
            slow,
            first_context,
            truncate,
            ..
        } = self.scaling
        else {
            return (0.0, 1.0);
        };
        let pair = |turns: f32| {
            let length = first_context as f64 / (f64::from(turns) * 2.0 * PI);
            width as f64 * length.ln() / (2.0 * f64::from(self.base).ln())
        };
        let (mut from, mut to) = (pair(fast), pair(slow));
        if truncate {
            (from, to) = (from.floor(), to.ceil());
        }
        let (from, mut to) = (from.max(0.0), to.min(width as f64 - 1.0));
        if from == to {
            to += 0.001;
        }
        (from as f32, to as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_fall_from_one_by_powers_of_the_base() {
        let frequencies = Rope::plain(10_000.0).frequencies(4);
        assert_eq!(frequencies.len(), 2);
        assert_eq!(frequencies[0], 1.0);
        assert!((frequencies[1] - 0.01).abs() < 1e-8);
    }

    #[test]
    fn scalings_leave_high_frequencies_and_divide_low_ones() {
        let llama3 = RopeScaling::Llama3 {
            factor: 8.0,
            low: 1.0,
            high: 4.0,
            first_context: 8192,
        };
        let yarn = RopeScaling::Yarn {
            factor: 8.0,
            fast: 32.0,
            slow: 1.0,
            first_context: 8192,
            amplitude: 1.2,
            truncate: true,
        };
        let plain = Rope::plain(500_000.0).frequencies(64);
        for scaling in [llama3, yarn] {
            let rope = Rope {
                scaling,
                ..Rope::plain(500_000.0)
            };
            let scaled = rope.frequencies(64);
            assert_eq!(scaled[0], plain[0], "{scaling:?}");
            assert!((scaled[31] / plain[31] - 0.125).abs() < 1e-6, "{scaling:?}");
            assert!(
                scaled.windows(2).all(|pair| pair[0] > pair[1]),
                "{scaling:?}"
            );
        }
    }
}
