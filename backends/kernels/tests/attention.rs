//! Attention through the public door: against a plain reference, and bit by bit across instruction sets,
//! threads, rows beside it and how many positions come at once.

use half::f16;
use mote_kernels::{
    Alone, Asked, Attention, AttentionError, Cache, Element, Kernels, Parallel, Projected, Scratch,
};
use proptest::prelude::*;

/// Calls in another order, and everything twice, which is against the rules.
struct Backwards;

impl Parallel for Backwards {
    fn run(&self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        (0..count).rev().chain(0..count).for_each(work);
    }
}

const CONTEXT: usize = 90;

/// A conversation's projections, `[positions, heads + 2 × kv_heads, head_dim]`, and tables of angles.
struct Case {
    attention: Attention,
    half: usize,
    packed: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

fn floats(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

impl Case {
    fn new(attention: Attention, half: usize, positions: usize, seed: u64) -> Self {
        let angles = (0..CONTEXT * half).map(|index| {
            let (position, pair) = (index / half, index % half);
            position as f32 * 100f32.powf(-(pair as f32) / half as f32)
        });
        let angles: Vec<f32> = angles.collect();
        let width = (attention.heads + 2 * attention.kv_heads) * attention.head_dim;
        Self {
            attention,
            half,
            packed: floats(seed, positions * width),
            cos: angles.iter().map(|angle| angle.cos()).collect(),
            sin: angles.iter().map(|angle| angle.sin()).collect(),
        }
    }

    fn width(&self) -> usize {
        (self.attention.heads + 2 * self.attention.kv_heads) * self.attention.head_dim
    }

    fn positions(&self) -> usize {
        self.packed.len() / self.width()
    }

    fn asked<'a>(&'a self, packed: &'a [f32], length: usize, totals: &'a [usize]) -> Asked<'a> {
        let Attention {
            heads,
            kv_heads,
            head_dim,
            ..
        } = self.attention;
        let part = |first| Projected {
            numbers: packed,
            stride: self.width(),
            first,
        };
        Asked {
            queries: part(0),
            keys: part(heads * head_dim),
            values: part((heads + kv_heads) * head_dim),
            length,
            totals,
            cos: &self.cos,
            sin: &self.sin,
            half: self.half,
        }
    }

    /// What all positions give, computed so many at a time.
    fn run(&self, kernels: &Kernels, chunks: &[usize], threads: &impl Parallel) -> Vec<f32> {
        self.run_over(f32::NAN, kernels, chunks, threads)
    }

    /// Likewise, over a cache of halves.
    fn run_over_halves(
        &self,
        kernels: &Kernels,
        chunks: &[usize],
        threads: &impl Parallel,
    ) -> Vec<f32> {
        self.run_over(f16::NAN, kernels, chunks, threads)
    }

    /// Likewise, over a cache that is full of `before`, which has no say.
    fn run_over<E: Element>(
        &self,
        before: E,
        kernels: &Kernels,
        chunks: &[usize],
        threads: &impl Parallel,
    ) -> Vec<f32> {
        let Attention {
            heads,
            kv_heads,
            head_dim,
            ..
        } = self.attention;
        let cached = kv_heads * CONTEXT * head_dim;
        let (mut keys, mut values) = (vec![before; cached], vec![before; cached]);
        let mut out = vec![f32::NAN; self.positions() * heads * head_dim];
        let (mut done, mut scratch) = (0, Scratch::default());
        for &length in chunks {
            let until = done + length;
            let packed = &self.packed[done * self.width()..until * self.width()];
            let cache = Cache {
                keys: &mut keys,
                values: &mut values,
                positions: CONTEXT,
            };
            let out = &mut out[done * heads * head_dim..until * heads * head_dim];
            let asked = self.asked(packed, length, std::slice::from_ref(&until));
            let ran = self
                .attention
                .compute(kernels, &asked, cache, out, &mut scratch, threads);
            ran.expect("fits");
            done = until;
        }
        assert_eq!(done, self.positions());
        out
    }

    /// The same in f64, as it is written in papers.
    fn reference(&self) -> Vec<f64> {
        let Attention {
            heads,
            kv_heads,
            head_dim,
            scale,
            window,
            interleaved,
        } = self.attention;
        let head = |position: usize, head: usize, is_turned: bool| -> Vec<f64> {
            let from = position * self.width() + head * head_dim;
            let plain: Vec<f64> = self.packed[from..from + head_dim]
                .iter()
                .map(|&x| x.into())
                .collect();
            let mut made = plain.clone();
            for pair in (0..self.half).filter(|_| is_turned) {
                let (one, other) = match interleaved {
                    true => (2 * pair, 2 * pair + 1),
                    false => (pair, pair + self.half),
                };
                let angle = position * self.half + pair;
                let (cos, sin) = (f64::from(self.cos[angle]), f64::from(self.sin[angle]));
                made[one] = plain[one] * cos - plain[other] * sin;
                made[other] = plain[other] * cos + plain[one] * sin;
            }
            made
        };
        let mut out = Vec::new();
        for position in 0..self.positions() {
            let begin = window.map_or(0, |window| (position + 1).saturating_sub(window));
            for asking in 0..heads {
                let query = head(position, asking, true);
                let shared = asking / (heads / kv_heads);
                let scores = (begin..=position).map(|at| {
                    let key = head(at, heads + shared, true);
                    let product: f64 = query.iter().zip(&key).map(|(a, b)| a * b).sum();
                    (product * f64::from(scale)).exp()
                });
                let scores: Vec<f64> = scores.collect();
                let sum: f64 = scores.iter().sum();
                let mut made = vec![0.0; head_dim];
                for (at, score) in (begin..=position).zip(&scores) {
                    let value = head(at, heads + kv_heads + shared, false);
                    made.iter_mut()
                        .zip(&value)
                        .for_each(|(made, value)| *made += score / sum * value);
                }
                out.extend(made);
            }
        }
        out
    }
}

fn attentions() -> impl Strategy<Value = (Attention, usize)> {
    let sizes = (1usize..5, 1usize..4, 1usize..7, 0.05f32..1.5);
    (
        sizes,
        proptest::option::of(1usize..40),
        any::<bool>(),
        1usize..9,
    )
        .prop_map(
            |((group, kv_heads, dim, scale), window, interleaved, half)| {
                let attention = Attention {
                    heads: group * kv_heads,
                    kv_heads,
                    head_dim: dim * 16,
                    scale,
                    window,
                    interleaved,
                };
                (attention, half.min(dim * 8))
            },
        )
}

fn same(one: &[f32], other: &[f32]) -> bool {
    one.iter()
        .map(|x| x.to_bits())
        .eq(other.iter().map(|x| x.to_bits()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn it_is_the_reference_and_the_same_however_it_is_cut(
        (attention, half) in attentions(),
        chunks in prop::collection::vec(prop_oneof![Just(1), 1usize..45], 1..5),
        seed in any::<u64>(),
    ) {
        let positions = chunks.iter().sum::<usize>().min(CONTEXT);
        let mut left = positions;
        let cut = chunks.iter().map(|&chunk| {
            let length = chunk.min(left);
            left -= length;
            length
        });
        let cut: Vec<usize> = cut.filter(|&length| length > 0).collect();
        let case = Case::new(attention, half, positions, seed);
        let all = case.run(Kernels::best(), &[positions], &Alone);
        for (found, exact) in all.iter().zip(case.reference()) {
            prop_assert!((f64::from(*found) - exact).abs() < 2e-5, "{found} {exact}");
        }
        let halves = case.run_over_halves(Kernels::best(), &[positions], &Alone);
        for (found, exact) in halves.iter().zip(case.reference()) {
            // Keys are off by 2⁻¹² of at most √2 each, so a score by no more than 1.5 × 96 × √2 × √2 × 2⁻¹²,
            // which is 0.07, and a weight by no more than e^0.14 − 1 of itself; values are 1 at most.
            prop_assert!((f64::from(*found) - exact).abs() < 0.15, "{found} {exact}");
        }
        let single = vec![1; positions];
        for kernels in Kernels::all() {
            for cut in [&cut, &single, &vec![positions]] {
                let out = case.run(kernels, cut, &Backwards);
                prop_assert!(same(&out, &all), "{} {cut:?}", kernels.name);
                let out = case.run_over_halves(kernels, cut, &Backwards);
                prop_assert!(same(&out, &halves), "{} {cut:?}, halves", kernels.name);
            }
        }
    }

    #[test]
    fn rows_do_not_see_each_other(
        (attention, half) in attentions(),
        lengths in prop::collection::vec(1usize..CONTEXT, 1..6),
        seed in any::<u64>(),
    ) {
        let Attention { heads, kv_heads, head_dim, .. } = attention;
        let cases = lengths.iter().zip(0..).map(|(&length, row)| Case::new(attention, half, length, seed ^ row));
        let cases: Vec<Case> = cases.collect();
        let cached = kv_heads * CONTEXT * head_dim;
        let (mut keys, mut values) = (vec![0.0; cached * cases.len()], vec![0.0; cached * cases.len()]);
        let mut scratch = Scratch::default();
        let mut last = Vec::new();
        for (row, case) in cases.iter().enumerate() {
            let before = case.positions() - 1;
            let cache = Cache {
                keys: &mut keys[row * cached..(row + 1) * cached],
                values: &mut values[row * cached..(row + 1) * cached],
                positions: CONTEXT,
            };
            let (packed, one) = case.packed.split_at(before * case.width());
            last.extend(one);
            let totals = [before];
            let mut out = vec![0.0; before * heads * head_dim];
            let asked = case.asked(packed, before, &totals);
            attention.compute(Kernels::best(), &asked, cache, &mut out, &mut scratch, &Alone).expect("fits");
        }
        let cache = Cache { keys: &mut keys, values: &mut values, positions: CONTEXT };
        let mut out = vec![0.0; cases.len() * heads * head_dim];
        let asked = cases[0].asked(&last, 1, &lengths);
        attention.compute(Kernels::best(), &asked, cache, &mut out, &mut scratch, &Backwards).expect("fits");
        for (case, out) in cases.iter().zip(out.chunks_exact(heads * head_dim)) {
            let alone = case.run(Kernels::best(), &[case.positions()], &Alone);
            prop_assert!(same(out, &alone[alone.len() - out.len()..]));
        }
    }
}

const GOOD: Attention = Attention {
    heads: 4,
    kv_heads: 2,
    head_dim: 16,
    scale: 0.25,
    window: None,
    interleaved: false,
};

#[test]
fn what_is_no_number_stays_behind_its_position() {
    let mut case = Case::new(GOOD, 8, 50, 3);
    let clean = case.run(Kernels::best(), &[50], &Alone);
    let (width, wide) = (case.width(), GOOD.heads * GOOD.head_dim);
    case.packed[40 * width..41 * width].fill(f32::NAN);
    for kernels in Kernels::all() {
        let out = case.run(kernels, &[50], &Alone);
        assert!(same(&out[..40 * wide], &clean[..40 * wide]));
        assert!(out[40 * wide..].iter().all(|value| value.is_nan()));
        let out = case.run_over_halves(kernels, &[50], &Alone);
        assert!(out[..40 * wide].iter().all(|value| value.is_finite()));
        assert!(out[40 * wide..].iter().all(|value| value.is_nan()));
    }
}

/// Whatever halves hold exactly gives the same bits as singles do.
#[test]
fn halves_are_rounded_once_and_never_infinite() {
    let mut case = Case::new(GOOD, 8, 50, 11);
    let (asking, width) = (GOOD.heads * GOOD.head_dim, case.width());
    // Without angles, what is kept is what comes.
    case.cos.fill(1.0);
    case.sin.fill(0.0);
    let kept = |case: &mut Case, keep: &dyn Fn(f32) -> f32| {
        for position in case.packed.chunks_exact_mut(width) {
            position[asking..]
                .iter_mut()
                .for_each(|number| *number = keep(*number));
        }
    };
    // Subnormal halves, too.
    kept(&mut case, &|number| number * number * number * 1e-3);
    let halves = case.run_over_halves(Kernels::best(), &[50], &Alone);
    assert!(!same(&halves, &case.run(Kernels::best(), &[50], &Alone)));
    kept(&mut case, &|number| f16::from_f32(number).to_f32());
    assert!(same(&halves, &case.run(Kernels::best(), &[50], &Alone)));

    case.packed[asking] = 1e9;
    case.packed[width - 1] = f32::NEG_INFINITY;
    let halves = case.run_over_halves(Kernels::best(), &[50], &Alone);
    assert!(halves.iter().all(|number| number.is_finite()));
    case.packed[asking] = 65504.0;
    case.packed[width - 1] = -65504.0;
    assert!(same(&halves, &case.run(Kernels::best(), &[50], &Alone)));
}

#[test]
fn sizes_that_do_not_fit_are_refused_and_nothing_is_written() {
    for attention in [
        Attention { heads: 3, ..GOOD },
        Attention { heads: 0, ..GOOD },
        Attention {
            kv_heads: 0,
            ..GOOD
        },
        Attention {
            head_dim: 24,
            ..GOOD
        },
        Attention {
            head_dim: usize::MAX - 15,
            ..GOOD
        },
        Attention {
            window: Some(0),
            ..GOOD
        },
    ] {
        let refused = attention.check();
        assert!(
            matches!(refused, Err(AttentionError::Sizes { .. })),
            "{attention:?}"
        );
    }
    let case = Case::new(GOOD, 8, 4, 5);
    let cached = 2 * CONTEXT * 16;
    let run = |change: &dyn Fn(&mut Asked<'_>), (cached, out): (usize, usize)| {
        let (mut keys, mut values) = (vec![7.0; cached], vec![7.0; cached]);
        let mut out = vec![7.0; out];
        let totals = [4];
        let mut asked = case.asked(&case.packed, 4, &totals);
        change(&mut asked);
        let cache = Cache {
            keys: &mut keys,
            values: &mut values,
            positions: CONTEXT,
        };
        let ran = GOOD.compute(
            Kernels::best(),
            &asked,
            cache,
            &mut out,
            &mut Scratch::default(),
            &Alone,
        );
        let is_untouched = keys
            .iter()
            .chain(&values)
            .chain(&out)
            .all(|&number| number == 7.0);
        assert_eq!(ran.is_err(), is_untouched);
        ran
    };
    let good = (cached, 4 * 64);
    run(&|_| {}, good).expect("fits");
    let length = |ran, what| assert_eq!(ran, Err(AttentionError::Length { what }));
    length(run(&|asked| asked.queries.first = 80, good), "queries");
    length(run(&|asked| asked.keys.stride += 1, good), "keys");
    length(
        run(&|asked| asked.values.first = usize::MAX, good),
        "values",
    );
    length(run(&|_| {}, (cached - 1, 4 * 64)), "cached keys");
    length(run(&|_| {}, (cached, 4 * 64 + 1)), "results");
    length(run(&|asked| asked.half = 9, good), "cosines and sines");
    length(run(&|asked| asked.half = 0, good), "cosines and sines");
    length(
        run(&|asked| asked.sin = &asked.sin[1..], good),
        "cosines and sines",
    );
    for totals in [[3], [CONTEXT + 1], [usize::MAX]] {
        let asked = case.asked(&case.packed, 4, &totals);
        let (mut keys, mut values) = (vec![7.0; cached], vec![7.0; cached]);
        let cache = Cache {
            keys: &mut keys,
            values: &mut values,
            positions: CONTEXT,
        };
        let mut out = vec![7.0; 4 * 64];
        let mut scratch = Scratch::default();
        let ran = GOOD.compute(
            Kernels::best(),
            &asked,
            cache,
            &mut out,
            &mut scratch,
            &Alone,
        );
        assert!(
            matches!(ran, Err(AttentionError::Position { .. })),
            "{ran:?}"
        );
        assert!(keys.iter().chain(&out).all(|&number| number == 7.0));
    }
}
