//! Chooses tokens from logits.

use super::request::{Sampling, TokenBias};
use crate::{PipelineError, philox};
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Values worked on side by side; a multiple of every vector unit's width.
const LANES: usize = 16;

/// A token that may still be drawn. Ordered by rank: the likelier is greater, of equals the one
/// with the lower id. Its logit is not NaN.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub id: u32,
    pub logit: f32,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_logit = self.logit.partial_cmp(&other.logit);
        by_logit
            .unwrap_or(Ordering::Equal)
            .then(other.id.cmp(&self.id))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

/// Chooses the tokens of one answer; the steps and their order are those of [`Sampling`].
pub(crate) struct Sampler {
    sampling: Sampling,
    seed: u64,
    bias: Vec<TokenBias>,
    /// Which tokens have been seen, and the same as a list; empty without a penalty.
    is_seen: Vec<bool>,
    seen: Vec<u32>,
    /// Probabilities times an unknown constant: the likeliest token has 1, one that was cut has 0.
    weights: Vec<f32>,
}

impl Sampler {
    pub fn new(sampling: Sampling, seed: u64, vocab: usize) -> Self {
        let penalised = sampling.repetition_penalty.is_some_and(|p| p != 1.0);
        Self {
            sampling,
            seed,
            bias: Vec::new(),
            is_seen: vec![false; if penalised { vocab } else { 0 }],
            seen: Vec::new(),
            weights: Vec::new(),
        }
    }

    /// With this added to logits first.
    pub fn biased(self, bias: Vec<TokenBias>) -> Self {
        Self { bias, ..self }
    }

    /// Tells of a token of prompt or answer.
    pub fn observe(&mut self, id: u32) {
        if let Some(flag) = self.is_seen.get_mut(id as usize)
            && !std::mem::replace(flag, true)
        {
            self.seen.push(id);
        }
    }

    /// Chooses token number `index` of the answer; the same logits, seed and index give the same
    /// token. `logits` holds one value per token of the vocabulary and is changed.
    pub fn choose(&mut self, logits: &mut [f32], index: u64) -> Result<u32, PipelineError> {
        for &TokenBias { id, bias } in &self.bias {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit += bias;
            }
        }
        self.penalise(logits);
        let logit_max = maximum(logits)?;
        let Some(temperature) = self.sampling.drawing_temperature() else {
            return Ok(first_equal(logits, logit_max));
        };
        let weigh = |logit: &f32| exp((logit - logit_max) / temperature);
        self.weights.clear();
        self.weights.extend(logits.iter().map(weigh));
        let top_k = self.sampling.top_k.unwrap_or(0) as usize;
        if (1..logits.len()).contains(&top_k) {
            cut_to_top_k(logits, top_k, &mut self.weights);
        }
        if let Some(top_p) = self.sampling.top_p.filter(|&p| p < 1.0) {
            cut_to_top_p(f64::from(top_p), &mut self.weights);
        }
        if let Some(min_p) = self.sampling.min_p {
            let cut = |weight: &mut f32| *weight = if *weight < min_p { 0.0 } else { *weight };
            self.weights.iter_mut().for_each(cut);
        }
        let drawn = draw(&self.weights, philox::uniform(self.seed, index));
        let id = drawn.and_then(|position| u32::try_from(position).ok());
        Ok(id.unwrap_or_else(|| first_equal(logits, logit_max)))
    }

    fn penalise(&self, logits: &mut [f32]) {
        let Some(penalty) = self.sampling.repetition_penalty else {
            return;
        };
        for &id in &self.seen {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = if *logit > 0.0 {
                    *logit / penalty
                } else {
                    *logit * penalty
                };
            }
        }
    }
}

/// The `count` likeliest tokens, the least likely of them on top.
pub(super) fn likeliest(logits: &[f32], count: usize) -> BinaryHeap<Reverse<Candidate>> {
    let mut best: BinaryHeap<Reverse<Candidate>> = BinaryHeap::with_capacity(count);
    for (&logit, id) in logits.iter().zip(0u32..) {
        let candidate = Reverse(Candidate { id, logit });
        if best.len() < count {
            best.push(candidate);
        } else if let Some(mut worst) = best.peek_mut()
            && candidate < *worst
        {
            *worst = candidate;
        }
    }
    best
}

/// Keeps the weights of the `top_k` highest logits.
fn cut_to_top_k(logits: &[f32], top_k: usize, weights: &mut [f32]) {
    let best = likeliest(logits, top_k);
    let Some(Reverse(worst)) = best.peek() else {
        return;
    };
    for ((weight, &logit), id) in weights.iter_mut().zip(logits).zip(0u32..) {
        let kept = Candidate { id, logit } >= *worst;
        *weight = if kept { *weight } else { 0.0 };
    }
}

/// Keeps a weight while those above it, or equal to it and before it, have less than `top_p` of the
/// sum. Instead of sorting a whole vocabulary, weights are summed up in classes; only the class
/// that the cut goes through is sorted.
fn cut_to_top_p(top_p: f64, weights: &mut [f32]) {
    /// Exponent and three bits of mantissa, in the order of the weights themselves.
    fn class(weight: f32) -> usize {
        (weight.to_bits() >> 20) as usize
    }
    let total = sum(weights);
    // All weights below this one together have less than the share to be cut, so each is cut.
    let light = ((1.0 - top_p) * total / weights.len() as f64) as f32;
    let positions = weights.iter().copied().enumerate();
    let heavy: Vec<(usize, f32)> = positions.filter(|&(_, w)| w >= light && w > 0.0).collect();
    let mut sums = vec![0f64; class(1.0) + 1];
    for &(_, weight) in &heavy {
        sums[class(weight)] += f64::from(weight);
    }
    let target = top_p * total;
    let mut above = 0.0;
    let cut_class = sums.iter().enumerate().rev().find(|(_, sum)| {
        let reached = above + **sum >= target;
        above += if reached { 0.0 } else { **sum };
        reached
    });
    // Without one, rounding has put the target above the sum, and nothing is to be cut.
    let cut_class = cut_class.map_or(0, |(class, _)| class);
    weights.fill(0.0);
    let mut members = Vec::new();
    for (position, weight) in heavy {
        match class(weight).cmp(&cut_class) {
            Ordering::Greater => weights[position] = weight,
            Ordering::Equal => members.push((position, weight)),
            Ordering::Less => {}
        }
    }
    members.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    for (position, weight) in members {
        if above >= target {
            break;
        }
        weights[position] = weight;
        above += f64::from(weight);
    }
}

/// The sum of e to the power of each logit less `logit_max`, which is the highest of them.
pub(super) fn exp_sum(logits: &[f32], logit_max: f32) -> f64 {
    let of_chunk = |chunk: &[f32]| {
        let powers = chunk.iter().map(|&logit| exp(logit - logit_max));
        powers.map(f64::from).sum::<f64>()
    };
    logits.chunks(LANES).map(of_chunk).sum()
}

fn sum(weights: &[f32]) -> f64 {
    // Sums of chunks first: they do not wait for each other.
    let of_chunk = |chunk: &[f32]| chunk.iter().map(|&weight| f64::from(weight)).sum::<f64>();
    weights.chunks(LANES).map(of_chunk).sum()
}

/// Where `point` (0..1) of the weights' sum lies; never at a weight of 0.
fn draw(weights: &[f32], point: f64) -> Option<usize> {
    let target = point * sum(weights);
    let mut passed = 0.0;
    for (index, chunk) in weights.chunks(LANES).enumerate() {
        let end = passed + sum(chunk);
        if end <= target {
            passed = end;
            continue;
        }
        let hit = chunk.iter().position(|&weight| {
            passed += f64::from(weight);
            passed > target
        });
        if let Some(hit) = hit {
            return Some(index * LANES + hit);
        }
    }
    // Rounding may leave the sum at the target itself.
    weights.iter().rposition(|&weight| weight > 0.0)
}

/// The highest logit.
pub(super) fn maximum(logits: &[f32]) -> Result<f32, PipelineError> {
    let higher = |a: f32, b: f32| if b > a { b } else { a };
    let (chunks, rest) = logits.as_chunks::<LANES>();
    let mut highest = [f32::NEG_INFINITY; LANES];
    let mut nan = [false; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            highest[lane] = higher(highest[lane], chunk[lane]);
            nan[lane] |= chunk[lane].is_nan();
        }
    }
    if nan.contains(&true) || rest.iter().any(|logit| logit.is_nan()) {
        return Err(PipelineError::Logits { why: "hold NaN" });
    }
    let max = highest.iter().chain(rest).copied();
    let max = max.fold(f32::NEG_INFINITY, higher);
    if max.is_finite() {
        return Ok(max);
    }
    let why = "have no finite maximum";
    Err(PipelineError::Logits { why })
}

/// The lowest token whose logit is `logit`, which is one of them.
fn first_equal(logits: &[f32], logit: f32) -> u32 {
    let in_chunk = |chunk: &[f32]| chunk.iter().fold(false, |hit, &l| hit | (l == logit));
    let chunk = logits.chunks(LANES).position(in_chunk).unwrap_or(0);
    let start = chunk * LANES;
    let within = logits[start..].iter().position(|&l| l == logit);
    u32::try_from(start + within.unwrap_or(0)).unwrap_or(u32::MAX)
}

/// e to the power of a number not above 0, within 3e-7 of it, and 0 below -87. Without calls or
/// branches, so that a whole vocabulary is computed side by side, and with the same bits on every
/// machine. Split as x = n ln 2 + r with |r| ≤ ln 2 / 2, where eight terms of the series are enough
/// for r.
fn exp(x: f32) -> f32 {
    /// 1.5 · 2²³: adding it rounds to a whole number, which is then in the lowest bits.
    const ROUNDER: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let clamped = x.max(-87.0);
    let rounded = clamped * std::f32::consts::LOG2_E + ROUNDER;
    let n = rounded - ROUNDER;
    let r = clamped - n * LN_2_HIGH - n * LN_2_LOW;
    let terms = [
        1.0 / 5040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ];
    let series = terms.iter().fold(0.0, |sum, term| sum * r + term);
    let exponent = rounded.to_bits().wrapping_sub(ROUNDER.to_bits());
    let power = f32::from_bits(exponent.wrapping_add(127) << 23);
    if x < -87.0 { 0.0 } else { series * power }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 0x5EED;
    const DRAWS: u64 = 20_000;

    /// Shares of the tokens over many draws.
    fn shares(sampling: Sampling, logits: &[f32], seen: &[u32]) -> Vec<f64> {
        let mut sampler = Sampler::new(sampling, SEED, logits.len());
        seen.iter().for_each(|&id| sampler.observe(id));
        let mut counts = vec![0f64; logits.len()];
        for index in 0..DRAWS {
            let id = sampler.choose(&mut logits.to_vec(), index);
            counts[id.expect("finite logits") as usize] += 1.0;
        }
        counts.iter().map(|count| count / DRAWS as f64).collect()
    }

    fn softmax(logits: &[f32]) -> Vec<f64> {
        let weights: Vec<f64> = logits.iter().map(|&l| f64::from(l).exp()).collect();
        let total: f64 = weights.iter().sum();
        weights.iter().map(|w| w / total).collect()
    }

    /// 20,000 draws leave a standard error of at most 0.0036; this allows five of them.
    fn assert_close(have: &[f64], want: &[f64], what: &str) {
        for (id, (have, want)) in have.iter().zip(want).enumerate() {
            let off = (have - want).abs();
            assert!(
                off < 0.018,
                "{what}, token {id}, seed {SEED}: {have} for {want}"
            );
            assert!(
                *want > 0.0 || *have == 0.0,
                "{what}: token {id} was cut, yet drawn"
            );
        }
    }

    /// `want` is the plain softmax of logits that were changed by hand as the rule says.
    #[test]
    fn shares_follow_each_rule() {
        let logits = [2.0f32, 1.0, 0.5, -1.0, 1.5];
        let cut = f32::NEG_INFINITY;
        let with = |change: fn(&mut Sampling)| {
            let mut sampling = Sampling {
                temperature: Some(1.0),
                ..Sampling::default()
            };
            change(&mut sampling);
            sampling
        };
        // Probabilities of the plain softmax: 0.436 0.160 0.097 0.022 0.264.
        let cases: [(&str, Sampling, [f32; 5]); 7] = [
            ("temperature 1", with(|_| ()), logits),
            (
                "temperature 0.5",
                with(|s| s.temperature = Some(0.5)),
                [4.0, 2.0, 1.0, -2.0, 3.0],
            ),
            (
                "top-k 2",
                with(|s| s.top_k = Some(2)),
                [2.0, cut, cut, cut, 1.5],
            ),
            (
                "top-p 0.69",
                with(|s| s.top_p = Some(0.69)),
                [2.0, cut, cut, cut, 1.5],
            ),
            (
                "top-p 0.72",
                with(|s| s.top_p = Some(0.72)),
                [2.0, 1.0, cut, cut, 1.5],
            ),
            (
                "min-p 0.3",
                with(|s| s.min_p = Some(0.3)),
                [2.0, 1.0, cut, cut, 1.5],
            ),
            (
                // Top-k 3 leaves 0.507 0.186 0.307; 0.8 of that is reached by two.
                "top-k 3, then top-p 0.8",
                with(|s| {
                    s.top_k = Some(3);
                    s.top_p = Some(0.8);
                }),
                [2.0, cut, cut, cut, 1.5],
            ),
        ];
        for (what, sampling, want) in cases {
            assert_close(&shares(sampling, &logits, &[]), &softmax(&want), what);
        }
        let penalised = with(|s| s.repetition_penalty = Some(2.0));
        let want = softmax(&[1.0, 1.0, 0.5, -2.0, 1.5]);
        assert_close(
            &shares(penalised, &logits, &[0, 3, 0]),
            &want,
            "penalty, once per token",
        );
        let without_temperature = Sampling {
            top_k: Some(5),
            ..Sampling::default()
        };
        assert_close(
            &shares(without_temperature, &logits, &[]),
            &softmax(&logits),
            "temperature absent is 1",
        );
    }

    #[test]
    fn the_likeliest_is_taken_when_nothing_is_asked_and_ties_go_to_the_lowest_id() {
        let choose = |sampling, logits: &[f32]| {
            Sampler::new(sampling, SEED, logits.len())
                .choose(&mut logits.to_vec(), 7)
                .expect("finite")
        };
        let cold = Sampling {
            temperature: Some(0.0),
            top_k: Some(3),
            ..Sampling::default()
        };
        for greedy in [Sampling::default(), cold] {
            assert_eq!(choose(greedy, &[0.0, 3.0, 1.0, 3.0]), 1);
        }
        let first_of_equals = Sampling {
            top_k: Some(1),
            ..Sampling::default()
        };
        assert_eq!(choose(first_of_equals, &[1.0; 50]), 0);
        let tiny = Sampling {
            top_p: Some(1e-9),
            ..Sampling::default()
        };
        assert_eq!(choose(tiny, &[f32::NEG_INFINITY, -3.0, -3.0]), 1);
        let penalty = Sampling {
            repetition_penalty: Some(4.0),
            ..Sampling::default()
        };
        let mut sampler = Sampler::new(penalty, SEED, 2);
        sampler.observe(1);
        assert_eq!(sampler.choose(&mut [1.0, 3.0], 0).expect("finite"), 0);
    }

    #[test]
    fn logits_that_mean_nothing_are_refused() {
        for bad in [
            [f32::NAN, 1.0],
            [f32::INFINITY, 1.0],
            [f32::NEG_INFINITY; 2],
        ] {
            let result = Sampler::new(Sampling::default(), 0, 2).choose(&mut bad.clone(), 0);
            assert!(
                matches!(result, Err(PipelineError::Logits { .. })),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn exp_is_exp() {
        for step in 0..870_000u32 {
            let x = step as f32 * -1e-4;
            let (have, want) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(
                (have / want - 1.0).abs() < 3e-7,
                "exp({x}) is {want}, not {have}"
            );
        }
        assert_eq!(exp(0.0), 1.0);
        for none in [-88.0, -1e30, f32::NEG_INFINITY] {
            assert_eq!(exp(none), 0.0);
        }
    }

    #[test]
    fn top_p_equals_its_plain_definition() {
        for seed in 0..200u64 {
            let logits: Vec<f32> = (0..300)
                .map(|i| (philox::uniform(seed, i) * 12.0) as f32)
                .collect();
            let top_p = philox::uniform(seed, 1000).max(1e-6) as f32;
            let sampling = Sampling {
                top_p: Some(top_p),
                ..Sampling::default()
            };
            let mut sampler = Sampler::new(sampling, seed, logits.len());
            sampler
                .choose(&mut logits.clone(), 0)
                .expect("finite logits");
            let mut want: Vec<usize> = (0..logits.len()).collect();
            want.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
            let probabilities = softmax(&logits);
            let mut before = 0.0;
            want.retain(|&id| {
                let keep = before < f64::from(top_p);
                before += probabilities[id];
                keep
            });
            want.sort_unstable();
            let kept = sampler.weights.iter().enumerate();
            let have: Vec<usize> = kept.filter(|(_, w)| **w > 0.0).map(|(id, _)| id).collect();
            assert_eq!(have, want, "seed {seed}, top-p {top_p}");
        }
    }
}
