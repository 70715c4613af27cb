//! Samples and what is told of them.

use serde::Serialize;
use std::time::Duration;

/// Times of one repeated thing.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

/// Median and tail, in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Summary {
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
}

impl Samples {
    /// One more, as a duration.
    pub fn push(&mut self, sample: Duration) {
        self.0.push(sample.as_secs_f64() * 1e6);
    }

    /// One more, in microseconds.
    pub fn push_us(&mut self, sample_us: f64) {
        self.0.push(sample_us);
    }

    /// Those of another part of the run, too.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The value below which a share of the samples lies (nearest rank); 0 without samples.
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = ((sorted.len() as f64 * share).ceil() as usize).saturating_sub(1);
        sorted.get(rank).copied().unwrap_or(0.0)
    }

    /// Median and tail.
    pub fn summary(&self) -> Summary {
        Summary {
            p50_us: self.quantile(0.5),
            p99_us: self.quantile(0.99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let mut samples = Samples::default();
        for n in 1..=100 {
            samples.push_us(f64::from(n));
        }
        assert_eq!(
            (samples.quantile(0.5), samples.quantile(0.99)),
            (50.0, 99.0)
        );
        assert_eq!(Samples::default().quantile(0.5), 0.0);
    }
}
