//! Grouped-query attention (Ainslie et al. 2023) with rotary positions (Su et al. 2021) over a cache that
//! it writes to.

use crate::{
    Kernels, Parallel, Scratch,
    attend::{Band, PARTS, Sight},
    parallel::Panels,
};
use half::f16;
use std::{cell::RefCell, sync::atomic::AtomicBool};
use thiserror::Error;

/// Scores that a thread keeps at once, where those of [`BAND_MIN`] positions are not more.
const SCORES: usize = 1 << 16;
/// Positions whose queries are looked at together.
const BAND: usize = 32;
/// So many at least, however long the row.
const BAND_MIN: usize = 4;
/// Most of any one size.
const SIZE_MAX: usize = 1 << 24;

/// The sizes of an attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attention {
    /// Heads that ask.
    pub heads: usize,
    /// Heads that are looked at; as many of the others share each.
    pub kv_heads: usize,
    /// Width of a head, a multiple of 16.
    pub head_dim: usize,
    /// What scores are multiplied with.
    pub scale: f32,
    /// How many positions one sees at most, its own included.
    pub window: Option<usize>,
    /// Whether the two elements that are turned together lie beside each other, not half a head apart.
    pub interleaved: bool,
}

/// Heads of new positions, one position's after the other's, `stride` numbers apart.
#[derive(Debug, Clone, Copy)]
pub struct Projected<'a> {
    /// All numbers.
    pub numbers: &'a [f32],
    /// From one position to the next.
    pub stride: usize,
    /// Where the first position's heads begin.
    pub first: usize,
}

/// What comes with a run: rows of new positions.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// `[rows, length, heads × head_dim]`
    pub queries: Projected<'a>,
    /// `[rows, length, kv_heads × head_dim]`
    pub keys: Projected<'a>,
    /// Likewise.
    pub values: Projected<'a>,
    /// New positions of each row.
    pub length: usize,
    /// All positions of each row, the new ones included.
    pub totals: &'a [usize],
    /// Cosines `[positions, turned / 2]`; the first `turned` elements of a head are turned.
    pub cos: &'a [f32],
    /// Sines, likewise.
    pub sin: &'a [f32],
    /// Half of `turned`.
    pub half: usize,
}

/// What keys and values are kept as: singles or halves. Halves are the nearest ones, half to even; what is
/// beyond the largest, 65504, becomes that.
pub trait Element: Copy + Send + Sync + sealed::Sealed {}

impl Element for f32 {}
impl Element for f16 {}

mod sealed {
    use crate::{Kernels, attend::Band};

    /// What elements do; only this crate knows how.
    pub trait Sealed: Sized {
        /// Keeps `numbers`, a multiple of 16.
        fn keep(kernels: &Kernels, numbers: &[f32], kept: &mut [Self]);
        /// Attention over a cache of such elements.
        fn attend(kernels: &Kernels, band: Band<'_, Self>, scores: &mut Vec<f32>, out: &mut [f32]);
    }
}

impl sealed::Sealed for f32 {
    fn keep(_: &Kernels, numbers: &[f32], kept: &mut [f32]) {
        kept.copy_from_slice(numbers);
    }

    fn attend(kernels: &Kernels, band: Band<'_, f32>, scores: &mut Vec<f32>, out: &mut [f32]) {
        (kernels.attend)(band, scores, out);
    }
}

impl sealed::Sealed for f16 {
    fn keep(kernels: &Kernels, numbers: &[f32], kept: &mut [f16]) {
        (kernels.keep_halves)(numbers, kept);
    }

    fn attend(kernels: &Kernels, band: Band<'_, f16>, scores: &mut Vec<f32>, out: &mut [f32]) {
        (kernels.attend_halves)(band, scores, out);
    }
}

/// Keys and values of all positions so far, `[rows, kv_heads, positions, head_dim]` each.
#[derive(Debug)]
pub struct Cache<'a, E> {
    /// Turned.
    pub keys: &'a mut [E],
    /// As they are.
    pub values: &'a mut [E],
    /// Positions that there is room for.
    pub positions: usize,
}

/// Why something is no attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AttentionError {
    /// Sizes that nothing can be computed with.
    #[error("{heads} heads over {kv_heads}, {head_dim} wide, are no attention")]
    Sizes {
        /// As given.
        heads: usize,
        /// As given.
        kv_heads: usize,
        /// As given.
        head_dim: usize,
    },
    /// Numbers that are not as many as sizes say.
    #[error("there are not as many {what} as sizes say")]
    Length {
        /// Of what.
        what: &'static str,
    },
    /// A row that begins before its beginning, or goes beyond the cache's end or the tables'.
    #[error("a row of {total} positions, {length} of them new, has no place among {positions}")]
    Position {
        /// Positions of the row.
        total: usize,
        /// New ones.
        length: usize,
        /// Those that there is room for.
        positions: usize,
    },
}

thread_local! {
    /// Scores and results of a band.
    static KEPT: RefCell<(Vec<f32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

impl Attention {
    /// Checks the sizes.
    ///
    /// # Errors
    /// [`AttentionError::Sizes`]
    pub fn check(&self) -> Result<(), AttentionError> {
        let &Self {
            heads,
            kv_heads,
            head_dim,
            ..
        } = self;
        let sizes = [heads, kv_heads, head_dim];
        let is_good = sizes.iter().all(|size| (1..=SIZE_MAX).contains(size))
            && heads.is_multiple_of(kv_heads)
            && head_dim.is_multiple_of(PARTS)
            && self.window != Some(0);
        let refused = AttentionError::Sizes {
            heads,
            kv_heads,
            head_dim,
        };
        is_good.then_some(()).ok_or(refused)
    }

    /// Writes the new positions' keys and values to the cache, and what their queries find into `output`
    /// `[rows, length, heads × head_dim]`. What a position gives depends on nothing but itself and those
    /// before it in its row.
    ///
    /// # Errors
    /// When numbers and sizes do not fit together. Then nothing is written.
    pub fn compute<E: Element>(
        &self,
        kernels: &Kernels,
        asked: &Asked<'_>,
        cache: Cache<'_, E>,
        output: &mut [f32],
        scratch: &mut Scratch,
        threads: &impl Parallel,
    ) -> Result<(), AttentionError> {
        self.check()?;
        self.check_run(asked, &cache, output)?;
        let (rows, length) = (asked.totals.len(), asked.length);
        if rows == 0 || length == 0 {
            return Ok(());
        }
        let run = Run {
            attention: self,
            kernels,
            asked,
            positions: cache.positions,
        };
        if length == 1 {
            run.at_once(cache, output, scratch, threads);
            return Ok(());
        }
        run.turn((&mut *cache.keys, &mut *cache.values), scratch, threads);
        let Scratch { turned, marks, .. } = scratch;
        let kept = (&turned[..], &*cache.keys, &*cache.values);
        let width = length * self.heads * self.head_dim;
        for (row, output) in output.chunks_exact_mut(width).enumerate() {
            let band = SCORES / self.group().saturating_mul(asked.totals[row]).max(1);
            let band = band.clamp(BAND_MIN, BAND);
            run.row(kept, (row, output), band, marks, threads);
        }
        Ok(())
    }

    /// Heads that share keys and values.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    fn check_run<E: Element>(
        &self,
        asked: &Asked<'_>,
        cache: &Cache<'_, E>,
        output: &[f32],
    ) -> Result<(), AttentionError> {
        let (rows, length) = (asked.totals.len(), asked.length);
        let product = |sizes: &[usize]| sizes.iter().try_fold(1usize, |a, &b| a.checked_mul(b));
        let all = product(&[rows, length]);
        let has = |projected: &Projected<'_>, heads: usize| {
            let fits = projected.first.checked_add(heads * self.head_dim);
            fits.is_some_and(|end| end <= projected.stride)
                && all.and_then(|all| all.checked_mul(projected.stride))
                    == Some(projected.numbers.len())
        };
        let cached = product(&[rows, self.kv_heads, cache.positions, self.head_dim]);
        let places = asked.cos.len().checked_div(asked.half).unwrap_or(0);
        for (what, is_good) in [
            ("queries", has(&asked.queries, self.heads)),
            ("keys", has(&asked.keys, self.kv_heads)),
            ("values", has(&asked.values, self.kv_heads)),
            ("cached keys", cached == Some(cache.keys.len())),
            ("cached values", cached == Some(cache.values.len())),
            (
                "results",
                product(&[rows, length, self.heads, self.head_dim]) == Some(output.len()),
            ),
            (
                "cosines and sines",
                asked.half > 0
                    && asked.half <= self.head_dim / 2
                    && asked.cos.len() == asked.sin.len()
                    && places * asked.half == asked.cos.len(),
            ),
        ] {
            if !is_good {
                return Err(AttentionError::Length { what });
            }
        }
        let positions = places.min(cache.positions);
        match asked
            .totals
            .iter()
            .find(|&&total| total < length || total > positions)
        {
            Some(&total) => Err(AttentionError::Position {
                total,
                length,
                positions,
            }),
            None => Ok(()),
        }
    }

    fn turn_head(&self, head: &[f32], (cos, sin): (&[f32], &[f32]), turned: &mut [f32]) {
        turned.copy_from_slice(head);
        let half = cos.len();
        for (index, (cos, sin)) in cos.iter().zip(sin).enumerate() {
            let [one, other] = match self.interleaved {
                true => [2 * index, 2 * index + 1],
                false => [index, index + half],
            };
            turned[one] = head[one] * cos - head[other] * sin;
            turned[other] = head[other] * cos + head[one] * sin;
        }
    }
}

/// What all parts of a run have in common.
struct Run<'a> {
    attention: &'a Attention,
    kernels: &'a Kernels,
    asked: &'a Asked<'a>,
    /// That the cache has room for.
    positions: usize,
}

impl Run<'_> {
    /// One new position of each row: a head is turned, kept and attended with by the same thread.
    fn at_once<E: Element>(
        &self,
        cache: Cache<'_, E>,
        output: &mut [f32],
        scratch: &mut Scratch,
        threads: &impl Parallel,
    ) {
        let (kv_heads, dim) = (self.attention.kv_heads, self.attention.head_dim);
        let width = self.attention.group() * dim;
        let tasks = self.asked.totals.len() * kv_heads;
        let Scratch { turned, marks, .. } = scratch;
        turned.resize(tasks * width, 0.0);
        marks.resize_with(marks.len().max(4 * tasks), AtomicBool::default);
        let mut marks = marks[..4 * tasks].chunks_exact_mut(tasks);
        let mut next = || marks.next().unwrap_or_default();
        let queries = Panels::new(turned, 1, next());
        let keys = Panels::new(cache.keys, 1, next());
        let values = Panels::new(cache.values, 1, next());
        let output = Panels::new(output, 1, next());
        threads.run(tasks, &|index| {
            let of_cache = (keys.take(index), values.take(index));
            let ((Some(mut keys), Some(mut values)), Some(mut queries), Some(mut output)) =
                (of_cache, queries.take(index), output.take(index))
            else {
                return;
            };
            let (keys, values, queries) = (keys.row(0), values.row(0), queries.row(0));
            let (row, head) = (index / kv_heads, index % kv_heads);
            self.turn_one((row, head), queries, (keys, values));
            let band = self.band((row, 0), queries, (keys, values));
            KEPT.with_borrow_mut(|(scores, _)| {
                E::attend(self.kernels, band, scores, output.row(0));
            });
        });
    }

    /// Turns queries and keys to their positions: queries go to `scratch`, scaled, as
    /// `[rows, kv_heads, length, group, head_dim]`, keys and values to the cache.
    fn turn<E: Element>(
        &self,
        (keys, values): (&mut [E], &mut [E]),
        scratch: &mut Scratch,
        threads: &impl Parallel,
    ) {
        let kv_heads = self.attention.kv_heads;
        let tasks = self.asked.totals.len() * kv_heads;
        let width = self.asked.length * self.attention.group() * self.attention.head_dim;
        let Scratch { turned, marks, .. } = scratch;
        turned.resize(tasks * width, 0.0);
        marks.resize_with(marks.len().max(3 * tasks), AtomicBool::default);
        let mut marks = marks[..3 * tasks].chunks_exact_mut(tasks);
        let mut next = || marks.next().unwrap_or_default();
        let queries = Panels::new(turned, 1, next());
        let keys = Panels::new(keys, 1, next());
        let values = Panels::new(values, 1, next());
        threads.run(tasks, &|index| {
            let taken = (queries.take(index), keys.take(index), values.take(index));
            if let (Some(mut queries), Some(mut keys), Some(mut values)) = taken {
                let place = (index / kv_heads, index % kv_heads);
                self.turn_one(place, queries.row(0), (keys.row(0), values.row(0)));
            }
        });
    }

    /// Likewise, of one row and one of the heads that are looked at.
    fn turn_one<E: Element>(
        &self,
        (row, head): (usize, usize),
        queries: &mut [f32],
        (keys, values): (&mut [E], &mut [E]),
    ) {
        let &Run {
            attention,
            kernels,
            asked,
            ..
        } = self;
        let (dim, group) = (attention.head_dim, attention.group());
        let past = asked.totals[row] - asked.length;
        let queries = queries.chunks_exact_mut(group * dim);
        let keys = keys[past * dim..].chunks_exact_mut(dim);
        let values = values[past * dim..].chunks_exact_mut(dim);
        for (at, ((queries, key), value)) in queries.zip(keys).zip(values).enumerate() {
            let of = |projected: &Projected<'_>, head: usize, heads: usize| {
                let begin = (row * asked.length + at) * projected.stride + projected.first;
                begin + head * dim..begin + (head + heads) * dim
            };
            let angles = asked.half * (past + at)..asked.half * (past + at + 1);
            let angles = (&asked.cos[angles.clone()], &asked.sin[angles]);
            let wanted = of(&asked.queries, head * group, group);
            let wanted = asked.queries.numbers[wanted].chunks_exact(dim);
            for (query, turned) in wanted.zip(queries.chunks_exact_mut(dim)) {
                attention.turn_head(query, angles, turned);
                turned
                    .iter_mut()
                    .for_each(|number| *number *= attention.scale);
            }
            KEPT.with_borrow_mut(|(turned, _)| {
                turned.resize(turned.len().max(dim), 0.0);
                let turned = &mut turned[..dim];
                let wanted = of(&asked.keys, head, 1);
                attention.turn_head(&asked.keys.numbers[wanted], angles, turned);
                E::keep(kernels, turned, key);
            });
            let wanted = of(&asked.values, head, 1);
            E::keep(kernels, &asked.values.numbers[wanted], value);
        }
    }

    /// A row, in bands of `band` positions, with turned queries and the whole cache.
    fn row<E: Element>(
        &self,
        (queries, keys, values): (&[f32], &[E], &[E]),
        (row, output): (usize, &mut [f32]),
        band: usize,
        marks: &mut Vec<AtomicBool>,
        threads: &impl Parallel,
    ) {
        let (kv_heads, dim) = (self.attention.kv_heads, self.attention.head_dim);
        let (length, width) = (self.asked.length, self.attention.group() * dim);
        let tasks = length.div_ceil(band) * kv_heads;
        marks.resize_with(marks.len().max(tasks), AtomicBool::default);
        let panels = Panels::in_bands(output, (length, band), &mut marks[..tasks]);
        threads.run(tasks, &|index| {
            let Some(mut panel) = panels.take(index) else {
                return;
            };
            let at = index / kv_heads * band;
            let count = band.min(length - at);
            let number = row * kv_heads + index % kv_heads;
            let begin = (number * length + at) * width;
            let cached = number * self.positions * dim..(number + 1) * self.positions * dim;
            let kept = (&keys[cached.clone()], &values[cached]);
            let band = self.band((row, at), &queries[begin..begin + count * width], kept);
            KEPT.with_borrow_mut(|(scores, made)| {
                made.resize(count * width, 0.0);
                E::attend(self.kernels, band, scores, made);
                for (at, made) in made.chunks_exact(width).enumerate() {
                    panel.row(at).copy_from_slice(made);
                }
            });
        });
    }

    /// Queries from the new position `at` of a row on, of one of the heads that are looked at.
    fn band<'b, E>(
        &self,
        (row, at): (usize, usize),
        queries: &'b [f32],
        (keys, values): (&'b [E], &'b [E]),
    ) -> Band<'b, E> {
        let attention = self.attention;
        Band {
            queries,
            keys,
            values,
            sight: Sight {
                first: self.asked.totals[row] - self.asked.length + at,
                window: attention.window.unwrap_or(usize::MAX),
                group: attention.group(),
            },
            dim: attention.head_dim,
        }
    }
}
