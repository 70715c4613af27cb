//! Vectors of texts from what a model computes.

use crate::PipelineError;
use half::{bf16, f16};
use mote_api::{DType, Pooling, RunError, Tensor};

/// The vector of one text of `tokens` tokens, f32 `[width]`, from a row of the model's output:
/// `[s, width]` with a vector for each token, padding behind them, or `[width]` where the graph pools.
///
/// # Errors
/// [`PipelineError::Run`] when the row cannot be read.
pub(super) fn pool(
    row: &Tensor,
    pooling: Pooling,
    tokens: usize,
    width: usize,
) -> Result<Vec<f32>, PipelineError> {
    Ok(match pooling {
        Pooling::Graph | Pooling::Cls => read(row, 0, width)?,
        Pooling::Last => read(row, (tokens - 1) * width, width)?,
        Pooling::Mean => {
            let all = read(row, 0, tokens * width)?;
            let mut sums = vec![0f64; width];
            for vector in all.chunks_exact(width) {
                for (sum, &value) in sums.iter_mut().zip(vector) {
                    *sum += f64::from(value);
                }
            }
            let mean = |sum: f64| (sum / tokens as f64) as f32;
            sums.into_iter().map(mean).collect()
        }
    })
}

/// Keeps the first `dimensions` elements and gives what is left the length 1, if asked to. A vector of
/// zeros stays one.
///
/// # Errors
/// [`PipelineError::Vector`] when there are numbers that are none.
pub(super) fn finish(
    mut vector: Vec<f32>,
    dimensions: usize,
    normalise: bool,
) -> Result<Vec<f32>, PipelineError> {
    vector.truncate(dimensions);
    if !vector.iter().all(|value| value.is_finite()) {
        let why = "holds numbers that are not finite";
        return Err(PipelineError::Vector { why });
    }
    if normalise {
        let squares = vector.iter().map(|&value| f64::from(value).powi(2));
        let length = squares.sum::<f64>().sqrt();
        if length > 0.0 {
            let scale = |value: &mut f32| *value = (f64::from(*value) / length) as f32;
            vector.iter_mut().for_each(scale);
        }
    }
    Ok(vector)
}

/// `count` elements from the element `from` on.
fn read(row: &Tensor, from: usize, count: usize) -> Result<Vec<f32>, RunError> {
    let dtype = row.dtype();
    let offset = row.offset() + from * dtype.bytes();
    let part = Tensor::new(dtype, &[count], row.buffer().clone(), offset)?;
    Ok(match dtype {
        DType::F16 => part.read::<f16>()?.into_iter().map(f16::to_f32).collect(),
        DType::Bf16 => part.read::<bf16>()?.into_iter().map(bf16::to_f32).collect(),
        _ => part.read()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_vector_is_normed_again() {
        let cut = finish(vec![3.0, 4.0, 12.0], 2, true).expect("finite");
        assert_eq!(cut, [0.6, 0.8]);
        let plain = finish(vec![3.0, 4.0, 12.0], 2, false).expect("finite");
        assert_eq!(plain, [3.0, 4.0]);
        assert_eq!(finish(vec![0.0; 2], 2, true).expect("finite"), [0.0; 2]);
        // Squares that no f32 holds.
        let large = finish(vec![3e30, 4e30], 2, true).expect("finite");
        assert!((large[0] - 0.6).abs() < 1e-6 && (large[1] - 0.8).abs() < 1e-6);
        for value in [f32::NAN, f32::INFINITY] {
            assert!(finish(vec![value, 1.0], 2, false).is_err());
        }
        // What is cut off is nobody's matter.
        assert!(finish(vec![1.0, f32::NAN], 1, true).is_ok());
    }
}
