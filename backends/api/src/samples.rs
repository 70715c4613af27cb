//! Samples of a model's outputs, and how far two sets of them are apart.

use crate::tensor::{DType, Tensor, TensorError};
use half::{bf16, f16};
use serde::{Deserialize, Serialize};

/// Numbers sampled from all outputs of a model together.
pub const SAMPLES_MAX: usize = 64 << 10;
/// Of so many samples the worst one does not count: deep networks have outliers.
const OUTLIERS_ONE_IN: usize = 1_000;
/// Steps by which small integers may differ: they are rounded numbers.
const QUANTISED_STEPS: f64 = 2.;
/// Share of indices and truth values that may differ, where a model gives nothing else: near ties
/// fall either way.
const DISCRETE_SHARE_MAX: f64 = 0.1;

/// Samples of all outputs of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Samples(Vec<Output>);
/// Outputs smaller than this count as so large: probabilities of what is not there are the rounding
/// errors of a sigmoid, and differ by their own size from one library to the next.
const SIZE_MIN: f64 = 1e-2;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Output {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    /// As bits: JSON knows no NaN.
    bits: Vec<u32>,
}

/// How far numbers are from where they should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The output that is furthest off.
    pub output: String,
    /// By how much, relative to its size; infinite when it is nothing to compare.
    pub error: f64,
}

/// What kind of numbers an output holds.
#[derive(PartialEq, Eq)]
enum Kind {
    Measures,
    /// Rounded to small integers.
    Quantised,
    /// Indices, truth values.
    Discrete,
}

fn kind(dtype: DType) -> Kind {
    match dtype {
        DType::F32 | DType::F16 | DType::Bf16 | DType::F64 => Kind::Measures,
        DType::I8 | DType::U8 | DType::I16 | DType::U16 => Kind::Quantised,
        DType::I32 | DType::U32 | DType::I64 | DType::U64 | DType::Bool => Kind::Discrete,
    }
}

impl Samples {
    /// Samples of these outputs, at even distances.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn of<'a>(
        outputs: impl ExactSizeIterator<Item = (&'a str, &'a Tensor)>,
    ) -> Result<Self, TensorError> {
        let each_max = SAMPLES_MAX / outputs.len().max(1);
        let sampled = outputs.map(|(name, tensor)| {
            let values = numbers(tensor)?;
            let stride = values.len().div_ceil(each_max.max(1)).max(1);
            let bits = values.iter().step_by(stride).map(|value| value.to_bits());
            Ok(Output {
                name: name.to_owned(),
                dtype: tensor.dtype(),
                shape: tensor.shape().to_vec(),
                bits: bits.take(each_max).collect(),
            })
        });
        Ok(Self(sampled.collect::<Result<_, TensorError>>()?))
    }

    /// How far `have` is from these, in the output where it is furthest off.
    pub fn difference(&self, have: &Self) -> Difference {
        let discrete_only = self.0.iter().all(|one| kind(one.dtype) == Kind::Discrete);
        let mut worst = Difference {
            output: String::new(),
            error: 0.,
        };
        for want in &self.0 {
            let error = match have.0.iter().find(|one| one.name == want.name) {
                Some(have) if have.shape == want.shape && have.bits.len() == want.bits.len() => {
                    error(want, have, discrete_only)
                }
                _ => f64::INFINITY,
            };
            if error > worst.error {
                worst = Difference {
                    output: want.name.clone(),
                    error,
                };
            }
        }
        worst
    }
}

fn error(want: &Output, have: &Output, discrete_only: bool) -> f64 {
    let values = |one: &Output| -> Vec<f64> {
        let values = one.bits.iter().map(|bits| f64::from(f32::from_bits(*bits)));
        values.collect()
    };
    let (want_values, have_values) = (values(want), values(have));
    match kind(want.dtype) {
        // Beside numbers that prove more they prove nothing.
        Kind::Discrete if !discrete_only => 0.,
        Kind::Discrete => {
            let pairs = want_values.iter().zip(&have_values);
            let differing = pairs.filter(|(want, have)| want != have).count();
            let share = differing as f64 / want_values.len().max(1) as f64;
            if share > DISCRETE_SHARE_MAX {
                share.max(1.)
            } else {
                0.
            }
        }
        Kind::Quantised => relative(&want_values, &have_values, QUANTISED_STEPS),
        Kind::Measures => relative(&want_values, &have_values, 0.),
    }
}

/// Largest difference beyond `free`, each relative to the number and to the size of the whole.
fn relative(want: &[f64], have: &[f64], free: f64) -> f64 {
    let finite = want.iter().filter(|value| value.is_finite());
    let (count, squares) = finite.fold((0u32, 0.), |(count, sum), value| {
        (count + 1, sum + value * value)
    });
    let size = (squares / f64::from(count.max(1))).sqrt();
    let mut errors: Vec<f64> = std::iter::zip(want, have)
        .map(|(&want, &have)| {
            if want.is_finite() && have.is_finite() {
                let off = ((want - have).abs() - free).max(0.);
                let scale = want.abs() + size;
                if off == 0. {
                    0.
                } else {
                    off / scale.max(SIZE_MIN)
                }
            } else if want == have || (want.is_nan() && have.is_nan()) {
                0.
            } else {
                f64::INFINITY
            }
        })
        .collect();
    let spare = errors.len() / OUTLIERS_ONE_IN;
    errors.sort_unstable_by(|a, b| b.total_cmp(a));
    // No outlier is infinite.
    match errors.first() {
        Some(worst) if worst.is_infinite() => f64::INFINITY,
        _ => errors.get(spare).copied().unwrap_or(0.),
    }
}

/// The elements as f32, in which every kind of number has room enough to be compared.
fn numbers(tensor: &Tensor) -> Result<Vec<f32>, TensorError> {
    fn cast<T: crate::tensor::Element>(
        tensor: &Tensor,
        cast: impl Fn(T) -> f32,
    ) -> Result<Vec<f32>, TensorError> {
        Ok(tensor.read::<T>()?.into_iter().map(cast).collect())
    }
    match tensor.dtype() {
        DType::F32 => tensor.read(),
        DType::F16 => cast(tensor, f16::to_f32),
        DType::Bf16 => cast(tensor, bf16::to_f32),
        DType::F64 => cast(tensor, |value: f64| value as f32),
        DType::I8 => cast(tensor, |value: i8| f32::from(value)),
        DType::U8 => cast(tensor, |value: u8| f32::from(value)),
        DType::I16 => cast(tensor, |value: i16| f32::from(value)),
        DType::U16 => cast(tensor, |value: u16| f32::from(value)),
        DType::I32 => cast(tensor, |value: i32| value as f32),
        DType::U32 => cast(tensor, |value: u32| value as f32),
        DType::I64 => cast(tensor, |value: i64| value as f32),
        DType::U64 => cast(tensor, |value: u64| value as f32),
        DType::Bool => Ok(tensor.read_bytes()?.into_iter().map(f32::from).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f32]) -> Samples {
        let tensor = Tensor::from_slice(&[values.len()], values).expect("small");
        Samples::of([("y", &tensor)].into_iter()).expect("read")
    }

    #[test]
    fn the_difference_is_relative_to_the_size_of_an_output() {
        let want = samples(&[0., 1000., -1000.]);
        assert_eq!(want.difference(&want).error, 0.);
        let near = want.difference(&samples(&[1., 1000., -1000.]));
        assert!(near.error > 1e-4 && near.error < 2e-3, "{near:?}");
        let off = samples(&[0., 0.1]).difference(&samples(&[0.5, 0.6]));
        assert!(off.error > 1., "{off:?}");
        assert_eq!(off.output, "y");
        // A sigmoid that sees nothing.
        let nothing = samples(&[1e-6, 2e-6]).difference(&samples(&[9e-6, 0.]));
        assert!(nothing.error < 1e-2, "{nothing:?}");
    }

    #[test]
    fn nothing_stands_in_for_a_number() {
        let want = samples(&[1., 2., f32::INFINITY, f32::NAN]);
        assert_eq!(want.difference(&want).error, 0.);
        for wrong in [
            [1., f32::NAN, f32::INFINITY, f32::NAN],
            [1., 2., f32::NEG_INFINITY, f32::NAN],
            [1., 2., f32::INFINITY, 0.],
        ] {
            assert!(want.difference(&samples(&wrong)).error.is_infinite());
        }
        let many = vec![1f32; 5_000];
        let mut one_nan = many.clone();
        one_nan[7] = f32::NAN;
        assert!(
            samples(&many)
                .difference(&samples(&one_nan))
                .error
                .is_infinite()
        );
        assert!(
            samples(&[1.])
                .difference(&samples(&[1., 1.]))
                .error
                .is_infinite()
        );
        assert!(
            samples(&[1.])
                .difference(&Samples::default())
                .error
                .is_infinite()
        );
    }

    #[test]
    fn one_outlier_in_a_thousand_does_not_count_and_two_do() {
        let want = vec![1f32; 1_000];
        let mut have = want.clone();
        have[3] = 2.;
        assert_eq!(samples(&want).difference(&samples(&have)).error, 0.);
        have[4] = 2.;
        assert!(samples(&want).difference(&samples(&have)).error > 0.4);
    }

    #[test]
    fn samples_are_bounded_and_survive_json() {
        let big = vec![f32::NAN; 3 * SAMPLES_MAX + 1];
        let sampled = samples(&big);
        assert!(sampled.0[0].bits.len() <= SAMPLES_MAX);
        let json = serde_json::to_vec(&sampled).expect("plain");
        let read: Samples = serde_json::from_slice(&json).expect("the same");
        assert_eq!(read, sampled);
    }

    #[test]
    fn indices_count_only_where_there_is_nothing_else() {
        let index = |at: i64| Tensor::from_slice(&[1], &[at]).expect("small");
        let score = Tensor::from_slice(&[1], &[0.5f32]).expect("small");
        let both = |at| {
            let index = index(at);
            Samples::of([("i", &index), ("y", &score)].into_iter()).expect("read")
        };
        assert_eq!(both(3).difference(&both(4)).error, 0.);
        let alone = |at| {
            let index = index(at);
            Samples::of([("i", &index)].into_iter()).expect("read")
        };
        assert!(alone(3).difference(&alone(4)).error >= 1.);
        let small = |at: u8| {
            let tensor = Tensor::from_slice(&[1], &[at]).expect("small");
            Samples::of([("q", &tensor)].into_iter()).expect("read")
        };
        assert_eq!(small(10).difference(&small(12)).error, 0.);
        assert!(small(10).difference(&small(40)).error > 0.5);
    }
}
