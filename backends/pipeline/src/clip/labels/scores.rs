//! Scores out of a model's numbers.

use super::Label;
use mote_api::{Activation, ClassificationSpec};

/// Makes scores of numbers, in place. What is no finite number gives no finite score either, but for the 0 that the
/// softmax makes of −∞.
pub(super) fn activate(activation: Activation, values: &mut [f32]) {
    match activation {
        Activation::None => {}
        Activation::Sigmoid => {
            for value in values {
                *value = match value.is_finite() {
                    true => 1.0 / (1.0 + (-*value).exp()),
                    false => f32::NAN,
                };
            }
        }
        Activation::Softmax => {
            let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            for value in &mut *values {
                *value = (*value - largest).exp();
            }
            let sum: f32 = values.iter().sum();
            for value in values {
                *value /= sum;
            }
        }
    }
}

/// The labels with the best scores, the best first, and the first class first among equals.
pub(super) fn best(spec: &ClassificationSpec, scores: &[f32]) -> Vec<Label> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let enough = order
        .into_iter()
        .filter(|&class| scores[class] >= spec.score_min);
    let label = |class: usize| Label {
        class: class as u32,
        label: String::new(),
        score: scores[class],
    };
    enough.take(spec.top).map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_is_no_score() {
        for activation in [Activation::None, Activation::Sigmoid, Activation::Softmax] {
            for rubbish in [f32::NAN, f32::INFINITY] {
                let mut values = [0.0, rubbish];
                activate(activation, &mut values);
                assert!(!values[1].is_finite(), "{activation:?}: {values:?}");
            }
        }
        let mut values = [0.0, f32::NEG_INFINITY, f32::MIN, f32::MAX];
        activate(Activation::Sigmoid, &mut values);
        assert!(values[1].is_nan(), "{values:?}");
        assert_eq!((values[0], values[2], values[3]), (0.5, 0.0, 1.0));
    }
}
