//! Scores out of a model's numbers.

use super::Label;
use mote_api::{Activation, ClassificationSpec};

/// Makes scores of numbers, in place. What is not finite stays so.
pub(super) fn activate(activation: Activation, values: &mut [f32]) {
    match activation {
        Activation::None => {}
        Activation::Sigmoid => {
            for value in values {
                *value = 1.0 / (1.0 + (-*value).exp());
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
