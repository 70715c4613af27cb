//! Grouped-query attention (Ainslie et al. 2023) with rotary positions (Su et al. 2021) over a cache that
//! it writes to.

use crate::{
    Kernels, Parallel, Scratch,
    attend::{Band, PARTS, Sight},
    parallel::Panels,
};
use half::{f16, slice::HalfFloatSliceExt};
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
        /// Keeps `numbers`.
        fn keep(numbers: &[f32], kept: &mut [Self]);
        /// Attention over a cache of such elements.
        fn attend(kernels: &Kernels, band: Band<'_, Self>, scores: &mut Vec<f32>, out: &mut [f32]);
    }
}

impl sealed::Sealed for f32 {
    fn keep(numbers: &[f32], kept: &mut [f32]) {
        kept.copy_from_slice(numbers);
    }

    fn attend(kernels: &Kernels, band: Band<'_, f32>, scores: &mut Vec<f32>, out: &mut [f32]) {
        (kernels.attend)(band, scores, out);
    }
}

impl sealed::Sealed for f16 {
    fn keep(numbers: &[f32], kept: &mut [f16]) {
        let mut part = [0.0; PARTS];
        for (numbers, kept) in numbers.chunks(PARTS).zip(kept.chunks_mut(PARTS)) {
            let part = &mut part[..numbers.len()];
            for (part, number) in part.iter_mut().zip(numbers) {
                *part = number.clamp(f16::MIN.to_f32_const(), f16::MAX.to_f32_const());
            }
            kept.convert_from_f32_slice(part);
        }
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
        self.turn(
            asked,
            (&mut *cache.keys, &mut *cache.values),
            scratch,
            threads,
        );
        let Scratch { turned, marks, .. } = scratch;
        let run = Run {
            attention: self,
            kernels,
            asked,
            queries: turned,
            keys: cache.keys,
            values: cache.values,
            positions: cache.positions,
        };
        if length == 1 {
            run.rows((0, output), 1, marks, threads);
            return Ok(());
        }
        let width = length * self.heads * self.head_dim;
        for (row, output) in output.chunks_exact_mut(width).enumerate() {
            let group = self.heads / self.kv_heads;
            let band = SCORES / group.saturating_mul(asked.totals[row]).max(1);
            run.rows((row, output), band.clamp(BAND_MIN, BAND), marks, threads);
        }
        Ok(())
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

    /// Turns queries and keys to their positions: queries go to `scratch`, scaled, as
    /// `[rows, kv_heads, length, group, head_dim]`, keys and values to the cache.
    fn turn<E: Element>(
        &self,
        asked: &Asked<'_>,
        (keys, values): (&mut [E], &mut [E]),
        scratch: &mut Scratch,
        threads: &impl Parallel,
    ) {
        let (rows, length, dim) = (asked.totals.len(), asked.length, self.head_dim);
        let group = self.heads / self.kv_heads;
        let tasks = rows * self.kv_heads;
        let Scratch { turned, marks, .. } = scratch;
        turned.resize(tasks * length * group * dim, 0.0);
        marks.resize_with(marks.len().max(3 * tasks), AtomicBool::default);
        let (first, others) = marks.split_at_mut(tasks);
        let (second, others) = others.split_at_mut(tasks);
        let queries = Panels::new(turned, 1, first);
        let keys = Panels::new(keys, 1, second);
        let values = Panels::new(values, 1, &mut others[..tasks]);
        let work = |index: usize| {
            let taken = (queries.take(index), keys.take(index), values.take(index));
            let (Some(mut queries), Some(mut keys), Some(mut values)) = taken else {
                return;
            };
            let (row, head) = (index / self.kv_heads, index % self.kv_heads);
            let past = asked.totals[row] - length;
            let queries = queries.row(0).chunks_exact_mut(group * dim);
            let keys = keys.row(0)[past * dim..].chunks_exact_mut(dim);
            let values = values.row(0)[past * dim..].chunks_exact_mut(dim);
            for (at, ((queries, key), value)) in queries.zip(keys).zip(values).enumerate() {
                let of = |projected: &Projected<'_>, head: usize, heads: usize| {
                    let begin = (row * length + at) * projected.stride + projected.first;
                    begin + head * dim..begin + (head + heads) * dim
                };
                let angles = asked.half * (past + at)..asked.half * (past + at + 1);
                let angles = (&asked.cos[angles.clone()], &asked.sin[angles]);
                let wanted = of(&asked.queries, head * group, group);
                let wanted = asked.queries.numbers[wanted].chunks_exact(dim);
                for (query, turned) in wanted.zip(queries.chunks_exact_mut(dim)) {
                    self.turn_head(query, angles, turned);
                    turned.iter_mut().for_each(|number| *number *= self.scale);
                }
                KEPT.with_borrow_mut(|(turned, _)| {
                    turned.resize(turned.len().max(dim), 0.0);
                    let turned = &mut turned[..dim];
                    let wanted = of(&asked.keys, head, 1);
                    self.turn_head(&asked.keys.numbers[wanted], angles, turned);
                    E::keep(turned, key);
                });
                E::keep(&asked.values.numbers[of(&asked.values, head, 1)], value);
            }
        };
        match length {
            // Not worth the threads' while.
            1 => (0..tasks).for_each(work),
            _ => threads.run(tasks, &work),
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

/// What all bands of a run have in common.
struct Run<'a, E> {
    attention: &'a Attention,
    kernels: &'a Kernels,
    asked: &'a Asked<'a>,
    queries: &'a [f32],
    keys: &'a [E],
    values: &'a [E],
    positions: usize,
}

impl<E: Element> Run<'_, E> {
    /// Rows from `first` on, as many as `output` has, in bands of `band` positions. A band is of one row.
    fn rows(
        &self,
        (first, output): (usize, &mut [f32]),
        band: usize,
        marks: &mut Vec<AtomicBool>,
        threads: &impl Parallel,
    ) {
        let &Attention {
            heads,
            kv_heads,
            head_dim,
            ..
        } = self.attention;
        let places = output.len() / (heads * head_dim);
        let tasks = places.div_ceil(band) * kv_heads;
        marks.resize_with(marks.len().max(tasks), AtomicBool::default);
        let panels = Panels::in_bands(output, (places, band), &mut marks[..tasks]);
        threads.run(tasks, &|index| {
            let Some(mut panel) = panels.take(index) else {
                return;
            };
            let place = index / kv_heads * band;
            let count = band.min(places - place);
            let row = first + place / self.asked.length;
            let band = self.band((row, place % self.asked.length), index % kv_heads, count);
            KEPT.with_borrow_mut(|(scores, made)| {
                if count == 1 {
                    E::attend(self.kernels, band, scores, panel.row(0));
                    return;
                }
                made.resize(band.queries.len(), 0.0);
                E::attend(self.kernels, band, scores, made);
                for (at, made) in made.chunks_exact(band.sight.group * head_dim).enumerate() {
                    panel.row(at).copy_from_slice(made);
                }
            });
        });
    }

    /// `count` positions of a row, and one of the heads that are looked at.
    fn band(&self, (row, at): (usize, usize), head: usize, count: usize) -> Band<'_, E> {
        let attention = self.attention;
        let dim = attention.head_dim;
        let group = attention.heads / attention.kv_heads;
        let number = row * attention.kv_heads + head;
        let begin = (number * self.asked.length + at) * group * dim;
        let cached = number * self.positions * dim..(number + 1) * self.positions * dim;
        Band {
            queries: &self.queries[begin..begin + count * group * dim],
            keys: &self.keys[cached.clone()],
            values: &self.values[cached],
            sight: Sight {
                first: self.asked.totals[row] - self.asked.length + at,
                window: attention.window.unwrap_or(usize::MAX),
                group,
            },
            dim,
        }
    }
}
