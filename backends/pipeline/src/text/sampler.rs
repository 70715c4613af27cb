//! Chooses tokens from logits.

use super::philox;
use super::request::Sampling;
use crate::PipelineError;
use std::cmp::Ordering;

/// A token that may still be drawn.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: u32,
    logit: f32,
    /// Probability times an unknown constant; the likeliest token has 1.
    weight: f64,
}

/// Likelier first; of equals the lowest id. Logits hold no NaN here.
fn by_rank(a: &Candidate, b: &Candidate) -> Ordering {
    let falling = b.logit.partial_cmp(&a.logit);
    falling.unwrap_or(Ordering::Equal).then(a.id.cmp(&b.id))
}

/// Chooses the tokens of one answer; the steps and their order are those of [`Sampling`].
pub(crate) struct Sampler {
    sampling: Sampling,
    seed: u64,
    /// Which tokens have been seen, and the same as a list; empty without a penalty.
    is_seen: Vec<bool>,
    seen: Vec<u32>,
    candidates: Vec<Candidate>,
}

impl Sampler {
    pub fn new(sampling: Sampling, seed: u64, vocab: usize) -> Self {
        let penalised = sampling.repetition_penalty.is_some_and(|p| p != 1.0);
        Self {
            sampling,
            seed,
            is_seen: vec![false; if penalised { vocab } else { 0 }],
            seen: Vec::new(),
            candidates: Vec::new(),
        }
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
        self.penalise(logits);
        let (likeliest, logit_max) = argmax(logits)?;
        let Some(temperature) = self.sampling.drawing_temperature() else {
            return Ok(likeliest);
        };
        self.gather(logits, logit_max, f64::from(temperature));
        self.cut_to_top_p();
        if let Some(min_p) = self.sampling.min_p {
            self.candidates.retain(|c| c.weight >= f64::from(min_p));
        }
        Ok(draw(&self.candidates, philox::uniform(self.seed, index)).unwrap_or(likeliest))
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

    /// The candidates after top-k, with weights; in order of rank if there was a cut.
    fn gather(&mut self, logits: &[f32], logit_max: f32, temperature: f64) {
        self.candidates.clear();
        let all = logits.iter().zip(0u32..).map(|(&logit, id)| Candidate {
            id,
            logit,
            weight: 0.0,
        });
        self.candidates.extend(all);
        let keep = self.sampling.top_k.unwrap_or(0) as usize;
        if (1..self.candidates.len()).contains(&keep) {
            self.candidates.select_nth_unstable_by(keep - 1, by_rank);
            self.candidates.truncate(keep);
            self.candidates.sort_unstable_by(by_rank);
        }
        for candidate in &mut self.candidates {
            let below_max = f64::from(candidate.logit) - f64::from(logit_max);
            candidate.weight = (below_max / temperature).exp();
        }
    }

    /// Keeps a candidate while those likelier than it have less than top-p of the mass.
    fn cut_to_top_p(&mut self) {
        let Some(top_p) = self.sampling.top_p.map(f64::from).filter(|&p| p < 1.0) else {
            return;
        };
        let total = mass(&self.candidates);
        // All candidates this light together have less than the mass to be cut, so each is cut;
        // leaving them out first spares sorting a whole vocabulary.
        let light = (1.0 - top_p) * total / self.candidates.len() as f64;
        self.candidates.retain(|c| c.weight >= light);
        self.candidates.sort_unstable_by(by_rank);
        let mut likelier = 0.0;
        let kept = self.candidates.iter().take_while(|candidate| {
            let keep = likelier < top_p * total;
            likelier += candidate.weight;
            keep
        });
        let kept = kept.count().max(1);
        self.candidates.truncate(kept);
    }
}

fn mass(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|c| c.weight).sum()
}

/// The candidate at `point` (0..1) of the candidates' mass, in their order.
fn draw(candidates: &[Candidate], point: f64) -> Option<u32> {
    let target = point * mass(candidates);
    let mut passed = 0.0;
    let hit = candidates.iter().find(|candidate| {
        passed += candidate.weight;
        passed > target
    });
    // Rounding may leave the sum at the target itself.
    let possible = || candidates.iter().rev().find(|c| c.weight > 0.0);
    hit.or_else(possible).map(|c| c.id)
}

/// The lowest token with the highest logit, and that logit.
fn argmax(logits: &[f32]) -> Result<(u32, f32), PipelineError> {
    if logits.iter().any(|logit| logit.is_nan()) {
        return Err(PipelineError::Logits { why: "hold NaN" });
    }
    let max = logits.iter().fold(
        f32::NEG_INFINITY,
        |max, &logit| {
            if logit > max { logit } else { max }
        },
    );
    if !max.is_finite() {
        let why = "have no finite maximum";
        return Err(PipelineError::Logits { why });
    }
    let position = logits.iter().position(|&logit| logit == max);
    let id = position.and_then(|p| u32::try_from(p).ok());
    id.map(|id| (id, max)).ok_or(PipelineError::Logits {
        why: "have no finite maximum",
    })
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

    /// Leaving light candidates out before sorting must not change what top-p keeps.
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
            let have: Vec<usize> = sampler.candidates.iter().map(|c| c.id as usize).collect();
            assert_eq!(have, want, "seed {seed}, top-p {top_p}");
        }
    }
}
