//! Attention of a few queries over one head's keys and values, written once and compiled for each
//! instruction set, as `float` is: the order of all sums is written out.
//!
//! A score is 16 sums of every sixteenth product, added up as a tree. What weighted values add up
//! to, is summed in the order of positions. So it does not matter how many queries are looked at
//! together. Keys and values may be kept as halves, each of which is a single, too: they are widened as they
//! are read, and arithmetic is the same.

use crate::float::exp;
use half::f16;
use std::ops::Range;

/// Sums that a score is made of.
pub(crate) const PARTS: usize = 16;
/// Queries of one position that are looked at together.
const TOGETHER: usize = 4;
/// Positions whose values are kept near while all queries of a band are given their share.
const NEAR: usize = 64;

/// How an instruction set reads numbers of a cache.
pub(crate) trait Read {
    /// What is kept.
    type Kept: Copy;

    /// Numbers, as singles.
    fn read(kept: &[Self::Kept; PARTS]) -> [f32; PARTS];
}

/// How it writes halves of one.
pub(crate) trait Write {
    /// The nearest halves, half to even.
    fn write(numbers: [f32; PARTS]) -> [f16; PARTS];
}

/// Singles, by any instruction set.
pub(crate) struct Singles;

impl Read for Singles {
    type Kept = f32;

    #[inline(always)]
    fn read(kept: &[f32; PARTS]) -> [f32; PARTS] {
        *kept
    }
}

/// Halves, where no instruction widens them.
pub(crate) struct Halves;

impl Read for Halves {
    type Kept = f16;

    #[inline(always)]
    fn read(kept: &[f16; PARTS]) -> [f32; PARTS] {
        kept.map(f16::to_f32_const)
    }
}

impl Write for Halves {
    #[inline(always)]
    fn write(numbers: [f32; PARTS]) -> [f16; PARTS] {
        numbers.map(f16::from_f32_const)
    }
}

/// The largest half.
const HALF_MAX: f32 = 65504.0;

/// Keeps `numbers`, a multiple of [`PARTS`], as halves; those beyond the largest become that.
#[inline(always)]
pub(crate) fn keep<W: Write>(numbers: &[f32], kept: &mut [f16]) {
    let parts = numbers.as_chunks::<PARTS>().0.iter();
    for (numbers, kept) in parts.zip(kept.as_chunks_mut().0) {
        let mut near = [0.0; PARTS];
        for (near, number) in near.iter_mut().zip(numbers) {
            *near = number.clamp(-HALF_MAX, HALF_MAX);
        }
        *kept = W::write(near);
    }
}

/// What queries see.
#[derive(Clone, Copy)]
pub struct Sight {
    /// Position of the first query; the others follow.
    pub first: usize,
    /// Most positions that a query sees, its own included.
    pub window: usize,
    /// Heads that share keys and values, and a position.
    pub group: usize,
}

impl Sight {
    /// What the query of `head` sees.
    fn of(self, head: usize) -> Range<usize> {
        let end = self.first + head / self.group + 1;
        end.saturating_sub(self.window)..end
    }
}

/// Queries of one group of heads, and what they look at, kept as `K`.
#[derive(Clone, Copy)]
pub struct Band<'a, K> {
    /// `[queries, group, dim]`, turned to their positions and scaled.
    pub queries: &'a [f32],
    /// `[positions, dim]`, the queries' own included.
    pub keys: &'a [K],
    /// `[positions, dim]`
    pub values: &'a [K],
    /// What they see of that.
    pub sight: Sight,
    /// Width of a head, a multiple of [`PARTS`].
    pub dim: usize,
}

impl<'a, K> Band<'a, K> {
    fn heads(&self) -> usize {
        self.queries.len() / self.dim
    }

    /// What any query sees.
    fn seen_by_all(&self) -> Range<usize> {
        let last = self.heads().saturating_sub(1);
        self.sight.of(0).start..self.sight.of(last).end
    }

    fn query(&self, head: usize) -> &'a [f32] {
        &self.queries[head * self.dim..][..self.dim]
    }

    fn check(&self, out: &[f32]) {
        let end = self.seen_by_all().end * self.dim;
        assert!(
            self.dim > 0
                && self.sight.group > 0
                && self.dim.is_multiple_of(PARTS)
                && self
                    .queries
                    .len()
                    .is_multiple_of(self.sight.group * self.dim)
                && out.len() == self.queries.len()
                && end <= self.keys.len().min(self.values.len()),
            "queries, keys and values of an attention belong together"
        );
    }
}

/// Attention of `band` into `out` `[queries, group, dim]`. `QUERIES` scores are computed together for
/// `KEYS` positions, and weighted values for `QUERIES` heads and `COLUMNS` columns, as it suits the registers.
#[inline(always)]
pub(crate) fn attend<R: Read, const KEYS: usize, const QUERIES: usize, const COLUMNS: usize>(
    band: Band<'_, R::Kept>,
    scores: &mut Vec<f32>,
    out: &mut [f32],
) {
    band.check(out);
    let all = band.seen_by_all();
    let stride = all.len().next_multiple_of(KEYS);
    let heads = band.heads();
    // Those of one position may lie where the last call's did; each is written before it is read.
    let nearest = NEAR.max(KEYS) * band.dim;
    scores.resize(heads * (stride + 1) + nearest, 0.0);
    let (scores, near) = scores.split_at_mut(heads * stride);
    let (near, sums) = near.split_at_mut(nearest);
    if heads <= band.sight.group {
        let keys = &band.keys[all.start * band.dim..all.end * band.dim];
        let queries = band.queries.chunks(TOGETHER * band.dim);
        for (queries, scores) in queries.zip(scores.chunks_mut(TOGETHER * stride)) {
            let with = (queries, band.dim);
            match queries.len() / band.dim {
                1 => score_rows::<R, 1>(with, keys, (scores, stride)),
                2 => score_rows::<R, 2>(with, keys, (scores, stride)),
                3 => score_rows::<R, 3>(with, keys, (scores, stride)),
                _ => score_rows::<R, TOGETHER>(with, keys, (scores, stride)),
            }
        }
    } else {
        let turned = &mut near[..KEYS * band.dim];
        score_tiles::<R, KEYS, QUERIES>(band, all.clone(), (&mut *scores, stride), turned);
    }
    for (head, (row, sum)) in scores.chunks_exact_mut(stride).zip(&mut *sums).enumerate() {
        let seen = band.sight.of(head);
        *sum = weights(&mut row[seen.start - all.start..seen.end - all.start]);
    }
    out.fill(0.0);
    let from = (&*scores, all.start, stride);
    if heads <= band.sight.group {
        let values = &band.values[all.start * band.dim..all.end * band.dim];
        mix::<R, QUERIES, COLUMNS>((values, all, band.dim), from, band.sight, out);
    } else {
        let begins = all.clone().step_by(NEAR);
        for begin in begins {
            let some = begin..all.end.min(begin + NEAR);
            let kept = &band.values[some.start * band.dim..some.end * band.dim];
            let values = &mut near[..kept.len()];
            let parts = values.as_chunks_mut::<PARTS>().0.iter_mut();
            for (values, kept) in parts.zip(kept.as_chunks().0) {
                *values = R::read(kept);
            }
            mix::<Singles, QUERIES, COLUMNS>((values, some, band.dim), from, band.sight, out);
        }
    }
    for (sum, out) in sums.iter().zip(out.chunks_exact_mut(band.dim)) {
        out.iter_mut().for_each(|value| *value /= sum);
    }
}

/// Scores of `N` queries, position by position.
#[inline(always)]
fn score_rows<R: Read, const N: usize>(
    (queries, dim): (&[f32], usize),
    keys: &[R::Kept],
    (scores, stride): (&mut [f32], usize),
) {
    let queries: [&[[f32; PARTS]]; N] =
        std::array::from_fn(|n| queries[n * dim..][..dim].as_chunks().0);
    // Parts are added up some positions later, so that the compiler does not take the first sums apart.
    let mut kept = [[[0.0f32; PARTS]; N]; PARTS];
    for (block, keys) in keys.chunks(PARTS * dim).enumerate() {
        let count = keys.len() / dim;
        for (key, kept) in keys.chunks_exact(dim).zip(&mut kept) {
            let mut parts = [[0.0f32; PARTS]; N];
            for (chunk, key) in key.as_chunks::<PARTS>().0.iter().enumerate() {
                let key = R::read(key);
                for n in 0..N {
                    let query = &queries[n][chunk];
                    for lane in 0..PARTS {
                        parts[n][lane] = query[lane].mul_add(key[lane], parts[n][lane]);
                    }
                }
            }
            *kept = parts;
        }
        for n in 0..N {
            let scores = &mut scores[n * stride + block * PARTS..][..count];
            for (score, kept) in scores.iter_mut().zip(&kept) {
                *score = std::hint::black_box(total(kept[n]));
            }
        }
    }
}

/// All parts, as a tree.
#[inline(always)]
fn total(parts: [f32; PARTS]) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|index| parts[index] + parts[index + 8]);
    let four: [f32; 4] = std::array::from_fn(|index| eight[index] + eight[index + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

/// Scores of all queries, of `KEYS` positions at a time, whose keys are turned so that a register holds
/// one element of each. Scores of positions that a query does not see may be anything.
#[inline(always)]
fn score_tiles<R: Read, const KEYS: usize, const QUERIES: usize>(
    band: Band<'_, R::Kept>,
    all: Range<usize>,
    (scores, stride): (&mut [f32], usize),
    turned: &mut [f32],
) {
    let heads = band.heads();
    let turned = turned.as_chunks_mut::<KEYS>().0;
    for tile in (0..stride).step_by(KEYS) {
        let begin = all.start + tile;
        let end = all.end.min(begin + KEYS);
        let keys = &band.keys[begin * band.dim..end * band.dim];
        for (lane, key) in keys.chunks_exact(band.dim).enumerate() {
            let parts = key.as_chunks().0.iter();
            for (part, rows) in parts.zip(turned.as_chunks_mut::<PARTS>().0) {
                for (value, row) in R::read(part).iter().zip(rows) {
                    row[lane] = *value;
                }
            }
        }
        for first in (0..heads).step_by(QUERIES) {
            let last = (first + QUERIES).min(heads) - 1;
            if band.sight.of(last).end <= begin || band.sight.of(first).start >= end {
                continue;
            }
            let tile = (&*turned, tile);
            if last + 1 - first == QUERIES {
                score_tile::<R, KEYS, QUERIES>(band, first, tile, (&mut *scores, stride));
            } else {
                for head in first..=last {
                    score_tile::<R, KEYS, 1>(band, head, tile, (&mut *scores, stride));
                }
            }
        }
    }
}

/// Scores of `N` queries from `first` on, of one tile.
#[inline(always)]
fn score_tile<R: Read, const KEYS: usize, const N: usize>(
    band: Band<'_, R::Kept>,
    first: usize,
    (keys, tile): (&[[f32; KEYS]], usize),
    (scores, stride): (&mut [f32], usize),
) {
    let queries: [&[[f32; PARTS]]; N] =
        std::array::from_fn(|index| band.query(first + index).as_chunks().0);
    let keys = keys.as_chunks::<PARTS>().0;
    let sums = add(eight(&queries, keys, 0), eight(&queries, keys, 1));
    for (index, sums) in sums.iter().enumerate() {
        scores[(first + index) * stride + tile..][..KEYS].copy_from_slice(sums);
    }
}

/// Every second part from `one` on, as `total` adds them up. Here and below there are functions where
/// closures would do, which might not be inlined, and would then be compiled for any processor.
#[inline(always)]
fn eight<const KEYS: usize, const N: usize>(
    queries: &[&[[f32; PARTS]]; N],
    keys: &[[[f32; KEYS]; PARTS]],
    one: usize,
) -> [[f32; KEYS]; N] {
    add(four(queries, keys, one), four(queries, keys, one + 2))
}

#[inline(always)]
fn four<const KEYS: usize, const N: usize>(
    queries: &[&[[f32; PARTS]]; N],
    keys: &[[[f32; KEYS]; PARTS]],
    one: usize,
) -> [[f32; KEYS]; N] {
    add(pair(queries, keys, one), pair(queries, keys, one + 4))
}

#[inline(always)]
fn pair<const KEYS: usize, const N: usize>(
    queries: &[&[[f32; PARTS]]; N],
    keys: &[[[f32; KEYS]; PARTS]],
    one: usize,
) -> [[f32; KEYS]; N] {
    add(part_of(queries, keys, one), part_of(queries, keys, one + 8))
}

/// One part of the scores of a tile.
#[inline(always)]
fn part_of<const KEYS: usize, const N: usize>(
    queries: &[&[[f32; PARTS]]; N],
    keys: &[[[f32; KEYS]; PARTS]],
    part: usize,
) -> [[f32; KEYS]; N] {
    let mut sums = [[0.0f32; KEYS]; N];
    for (chunk, keys) in keys.iter().enumerate() {
        for (sums, query) in sums.iter_mut().zip(queries) {
            let value = query[chunk][part];
            for (sum, key) in sums.iter_mut().zip(&keys[part]) {
                *sum = value.mul_add(*key, *sum);
            }
        }
    }
    sums
}

#[inline(always)]
fn add<const KEYS: usize, const N: usize>(
    mut one: [[f32; KEYS]; N],
    other: [[f32; KEYS]; N],
) -> [[f32; KEYS]; N] {
    for (one, other) in one.iter_mut().zip(&other) {
        for (one, other) in one.iter_mut().zip(other) {
            *one += other;
        }
    }
    one
}

/// Makes weights of scores, and returns what they add up to.
#[inline(always)]
fn weights(scores: &mut [f32]) -> f32 {
    let mut most = [f32::NEG_INFINITY; PARTS];
    let (chunks, rest) = scores.as_chunks::<PARTS>();
    for chunk in chunks {
        for (most, score) in most.iter_mut().zip(chunk) {
            *most = most.max(*score);
        }
    }
    let most = most
        .iter()
        .chain(rest)
        .fold(f32::NEG_INFINITY, |most, score| most.max(*score));
    let mut sums = [0.0f32; PARTS];
    let (chunks, rest) = scores.as_chunks_mut::<PARTS>();
    for chunk in chunks {
        for (sum, score) in sums.iter_mut().zip(chunk) {
            *score = exp(*score - most);
            *sum += *score;
        }
    }
    for (sum, score) in sums.iter_mut().zip(rest) {
        *score = exp(*score - most);
        *sum += *score;
    }
    total(sums)
}

/// Adds weighted values of `positions` to `out` `[heads, dim]`, of `QUERIES` heads at a time. Rows of weights
/// are `stride` apart, and begin at position `start`.
#[inline(always)]
fn mix<R: Read, const QUERIES: usize, const COLUMNS: usize>(
    (values, positions, dim): (&[R::Kept], Range<usize>, usize),
    (weights, start, stride): (&[f32], usize, usize),
    sight: Sight,
    out: &mut [f32],
) {
    let offset = positions.start - start;
    for (group, out) in out.chunks_mut(QUERIES * dim).enumerate() {
        let first = group * QUERIES;
        let from = (values, &positions, dim);
        let weights = (&weights[first * stride + offset..], stride);
        match out.len() / dim {
            1 => mix_heads::<R, 1, COLUMNS>(from, weights, (sight, first), out),
            2 => mix_heads::<R, 2, COLUMNS>(from, weights, (sight, first), out),
            3 => mix_heads::<R, 3, COLUMNS>(from, weights, (sight, first), out),
            _ => mix_heads::<R, QUERIES, COLUMNS>(from, weights, (sight, first), out),
        }
    }
}

/// Likewise, of `N` heads from `first` on.
#[inline(always)]
fn mix_heads<R: Read, const N: usize, const COLUMNS: usize>(
    (values, positions, dim): (&[R::Kept], &Range<usize>, usize),
    (weights, stride): (&[f32], usize),
    (sight, first): (Sight, usize),
    out: &mut [f32],
) {
    let count = positions.len();
    let mut rows: [&[f32]; N] = [&[]; N];
    let mut seen = [(0, 0); N];
    for n in 0..N {
        rows[n] = &weights[n * stride..][..count];
        let Range { start, end } = sight.of(first + n);
        let within =
            |position: usize| position.clamp(positions.start, positions.end) - positions.start;
        seen[n] = (within(start), within(end));
    }
    let whole = dim - dim % COLUMNS;
    for column in (0..whole).step_by(COLUMNS) {
        mix_columns::<R, N, COLUMNS>((values, dim), (&rows, &seen), (column, &mut *out));
    }
    for column in (whole..dim).step_by(PARTS) {
        mix_columns::<R, N, PARTS>((values, dim), (&rows, &seen), (column, &mut *out));
    }
}

#[inline(always)]
fn mix_columns<R: Read, const N: usize, const COLUMNS: usize>(
    (values, dim): (&[R::Kept], usize),
    (rows, seen): (&[&[f32]; N], &[(usize, usize); N]),
    (column, out): (usize, &mut [f32]),
) {
    // Of what queries see that follow each other, all but the ends is seen by all.
    let begin = seen.iter().map(|seen| seen.0).max().unwrap_or(0);
    let end = seen.iter().map(|seen| seen.1).min().unwrap_or(0);
    let end = end.max(begin);
    for n in 0..N {
        let before = seen[n].0..begin.min(seen[n].1);
        let out = &mut out[n * dim..][..dim];
        mix_rows::<R, 1, COLUMNS>((values, dim), [rows[n]], before, (column, out));
    }
    mix_rows::<R, N, COLUMNS>((values, dim), *rows, begin..end, (column, &mut *out));
    for n in 0..N {
        let after = end.max(seen[n].0)..seen[n].1;
        let out = &mut out[n * dim..][..dim];
        mix_rows::<R, 1, COLUMNS>((values, dim), [rows[n]], after, (column, out));
    }
}

/// Adds weighted values of some `positions` to `out` `[N, dim]`.
#[inline(always)]
fn mix_rows<R: Read, const N: usize, const COLUMNS: usize>(
    (values, dim): (&[R::Kept], usize),
    rows: [&[f32]; N],
    positions: Range<usize>,
    (column, out): (usize, &mut [f32]),
) {
    if positions.is_empty() {
        return;
    }
    let count = positions.len();
    let mut weights: [&[f32]; N] = [&[]; N];
    for n in 0..N {
        weights[n] = &rows[n][positions.clone()];
    }
    let values = &values[positions.start * dim..positions.end * dim];
    let mut sums = [[0.0f32; COLUMNS]; N];
    for n in 0..N {
        sums[n].copy_from_slice(&out[n * dim + column..][..COLUMNS]);
    }
    for (position, values) in values.chunks_exact(dim).enumerate().take(count) {
        let mut read = [0.0f32; COLUMNS];
        let parts = values[column..column + COLUMNS].as_chunks().0.iter();
        for (read, part) in read.as_chunks_mut::<PARTS>().0.iter_mut().zip(parts) {
            *read = R::read(part);
        }
        for n in 0..N {
            let weight = weights[n][position];
            for lane in 0..COLUMNS {
                sums[n][lane] = weight.mul_add(read[lane], sums[n][lane]);
            }
        }
    }
    for n in 0..N {
        out[n * dim + column..][..COLUMNS].copy_from_slice(&sums[n]);
    }
}
