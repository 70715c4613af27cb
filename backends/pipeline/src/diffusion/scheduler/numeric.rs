//! The few functions of numpy, torch and scipy that schedules are made with.
//!
//! A schedule's last digits decide between neighbouring training steps and are what is left of
//! `1 - alpha` near the end, so these round where the originals round.

/// `count` numbers from `start` to `end`, both included: `numpy.linspace`.
pub(super) fn linspace(start: f64, end: f64, count: usize) -> Vec<f64> {
    let intervals = count.saturating_sub(1).max(1) as f64;
    let step = (end - start) / intervals;
    let mut numbers: Vec<f64> = (0..count).map(|i| i as f64 * step + start).collect();
    if let [_, .., last] = &mut numbers[..] {
        *last = end;
    }
    numbers
}

/// The same in f32 as torch computes it: from both ends to the middle, with fused multiplication.
pub(super) fn linspace_f32(start: f32, end: f32, count: usize) -> Vec<f32> {
    let step = (end - start) / count.saturating_sub(1).max(1) as f32;
    let number = |i: usize| {
        if i < count / 2 {
            step.mul_add(i as f32, start)
        } else {
            (-step).mul_add((count - i - 1) as f32, end)
        }
    };
    (0..count).map(number).collect()
}

/// The numbers from `start` down to but without `end`, `step` apart: `numpy.arange`.
pub(super) fn falling_range(start: f64, end: f64, step: f64) -> Vec<f64> {
    let count = ((start - end) / step).ceil() as usize;
    let step = (start - step) - start;
    (0..count).map(|i| start + i as f64 * step).collect()
}

/// The value of the line through `values` (at 0, 1, 2, …) at `x`, that of the nearest end outside:
/// `numpy.interp`. `values` has at least two.
pub(super) fn interpolate(values: &[f32], x: f64) -> f64 {
    let last = values.len() - 1;
    if x >= last as f64 {
        return f64::from(values[last]);
    }
    let x = x.max(0.0);
    let below = x as usize;
    let (low, high) = (f64::from(values[below]), f64::from(values[below + 1]));
    (high - low) * (x - below as f64) + low
}

/// Numbers without a gap between those of `f32`, as `astype(float32)` leaves them.
pub(super) fn rounded(number: f64) -> f64 {
    f64::from(number as f32)
}

/// The value below which a share `p` of the beta distribution with both parameters 0.6 lies.
///
/// The distribution is symmetric, so only the half below 1/2 is solved, by bisection.
pub(super) fn beta_quantile(p: f64) -> f64 {
    if p > 0.5 {
        return 1.0 - beta_quantile(1.0 - p);
    }
    let (mut low, mut high) = (0.0, 0.5);
    for _ in 0..BISECTIONS {
        let middle = 0.5 * (low + high);
        if beta_share(middle) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// Halvings after which an interval of f64 grows no smaller where it matters.
const BISECTIONS: usize = 80;
/// Both parameters of the distribution in "Beta Sampling is All You Need" (Lee et al. 2024).
const BETA_SHAPE: f64 = 0.6;
/// The beta function at (0.6, 0.6): Γ(0.6)² / Γ(1.2).
const BETA_FUNCTION: f64 = 2.415_344_208_002_472_3;
/// Below 1/2 the terms of the series halve at least.
const BETA_TERMS: usize = 60;

/// The share of the beta distribution below `x` ≤ 1/2: the regularised incomplete beta function by
/// its power series (Abramowitz and Stegun, 26.5.4).
fn beta_share(x: f64) -> f64 {
    let mut term = 1.0;
    let mut sum = 0.0;
    for n in 0..BETA_TERMS {
        let n = n as f64;
        sum += term / (BETA_SHAPE + n);
        term *= x * (n + 1.0 - BETA_SHAPE) / (n + 1.0);
    }
    x.powf(BETA_SHAPE) * sum / BETA_FUNCTION
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `scipy.stats.beta.ppf(p, 0.6, 0.6)` gives.
    #[test]
    fn beta_quantiles_are_scipys() {
        for (p, want) in BETA_QUANTILES {
            let got = beta_quantile(p);
            assert!((got - want).abs() < 1e-14, "{p}: {got} {want}");
        }
    }

    const BETA_QUANTILES: [(f64, f64); 7] = [
        (0.0, 0.0),
        (0.001, 1.855873851745199e-05),
        (0.25, 0.17568037865269498),
        (0.5, 0.5000000000000001),
        (0.75, 0.824319621347305),
        (0.9, 0.9604155944112192),
        (1.0, 1.0),
    ];

    #[test]
    fn interpolation_ends_with_its_ends() {
        let values = [1.0, 3.0, 7.0];
        for (x, want) in [
            (-1.0, 1.0),
            (0.5, 2.0),
            (1.0, 3.0),
            (1.75, 6.0),
            (2.0, 7.0),
            (9.0, 7.0),
        ] {
            assert_eq!(interpolate(&values, x), want, "{x}");
        }
    }
}
