//! Attention of a few queries over one head's keys and values, written once and compiled for each
//! instruction set, as `float` is: the order of all sums is written out.
//!
//! A score is 16 sums of every sixteenth product, added up as a tree. What weighted values add up
//! to, is summed in the order of positions. So it does not matter how many queries are looked at
//! together.

use crate::float::exp;
use std::ops::Range;

/// Sums that a score is made of.
pub(crate) const PARTS: usize = 16;
/// Queries of one position that are looked at together.
const TOGETHER: usize = 4;

/// Queries of one group of heads, and what they look at.
#[derive(Clone, Copy)]
pub(crate) struct Band<'a> {
    /// `[queries, group, dim]`, turned to their positions and scaled.
    pub queries: &'a [f32],
    /// `[positions, dim]`, the queries' own included.
    pub keys: &'a [f32],
    /// `[positions, dim]`
    pub values: &'a [f32],
    /// Position of the first query; the others follow.
    pub first: usize,
    /// Most positions that a query sees, its own included.
    pub window: usize,
    /// Heads that share keys and values.
    pub group: usize,
    /// Width of a head, a multiple of [`PARTS`].
    pub dim: usize,
}

impl<'a> Band<'a> {
    fn heads(&self) -> usize {
        self.queries.len() / self.dim
    }

    /// What the query of `head` sees.
    fn seen(&self, head: usize) -> Range<usize> {
        let end = self.first + head / self.group + 1;
        end.saturating_sub(self.window)..end
    }

    /// What any query sees.
    fn seen_by_all(&self) -> Range<usize> {
        let last = self.heads().saturating_sub(1);
        self.seen(0).start..self.seen(last).end
    }

    fn query(&self, head: usize) -> &'a [f32] {
        &self.queries[head * self.dim..][..self.dim]
    }

    fn check(&self, out: &[f32]) {
        let end = self.seen_by_all().end * self.dim;
        assert!(
            self.dim > 0
                && self.group > 0
                && self.dim.is_multiple_of(PARTS)
                && self.queries.len().is_multiple_of(self.group * self.dim)
                && out.len() == self.queries.len()
                && end <= self.keys.len().min(self.values.len()),
            "queries, keys and values of an attention belong together"
        );
    }
}

/// Attention of `band` into `out` `[queries, group, dim]`. `QUERIES` scores are computed together for
/// `KEYS` positions, and weighted values for `QUERIES` heads and `COLUMNS` columns, as it suits the registers.
#[inline(always)]
pub(crate) fn attend<const KEYS: usize, const QUERIES: usize, const COLUMNS: usize>(
    band: Band<'_>,
    scores: &mut Vec<f32>,
    out: &mut [f32],
) {
    band.check(out);
    let all = band.seen_by_all();
    let stride = all.len().next_multiple_of(KEYS);
    let heads = band.heads();
    // Those of one position may lie where the last call's did; each is written before it is read.
    scores.resize(heads * stride + band.dim * KEYS, 0.0);
    let (scores, turned) = scores.split_at_mut(heads * stride);
    if heads <= band.group {
        let keys = &band.keys[all.start * band.dim..all.end * band.dim];
        let queries = band.queries.chunks(TOGETHER * band.dim);
        for (queries, scores) in queries.zip(scores.chunks_mut(TOGETHER * stride)) {
            let with = (queries, band.dim);
            match queries.len() / band.dim {
                1 => score_rows::<1>(with, keys, (scores, stride)),
                2 => score_rows::<2>(with, keys, (scores, stride)),
                3 => score_rows::<3>(with, keys, (scores, stride)),
                _ => score_rows::<TOGETHER>(with, keys, (scores, stride)),
            }
        }
    } else {
        score_tiles::<KEYS, QUERIES>(band, all.clone(), (scores, stride), turned);
    }
    for first in (0..heads).step_by(QUERIES) {
        let some = first..(first + QUERIES).min(heads);
        let mut sums = [1.0f32; QUERIES];
        for (sum, head) in sums.iter_mut().zip(some.clone()) {
            let seen = band.seen(head);
            let row = &mut scores[head * stride..][..stride];
            *sum = weights(&mut row[seen.start - all.start..seen.end - all.start]);
        }
        let out = &mut out[some.start * band.dim..some.end * band.dim];
        let from = (first, all.start);
        match some.len() {
            1 => mix::<1, COLUMNS>(band, from, (scores, stride), out),
            2 => mix::<2, COLUMNS>(band, from, (scores, stride), out),
            3 => mix::<3, COLUMNS>(band, from, (scores, stride), out),
            _ => mix::<QUERIES, COLUMNS>(band, from, (scores, stride), out),
        }
        for (sum, out) in sums.iter().zip(out.chunks_exact_mut(band.dim)) {
            out.iter_mut().for_each(|value| *value /= sum);
        }
    }
}

/// Scores of `N` queries, position by position.
#[inline(always)]
fn score_rows<const N: usize>(
    (queries, dim): (&[f32], usize),
    keys: &[f32],
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
fn score_tiles<const KEYS: usize, const QUERIES: usize>(
    band: Band<'_>,
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
            for (value, row) in key.iter().zip(&mut *turned) {
                row[lane] = *value;
            }
        }
        for first in (0..heads).step_by(QUERIES) {
            let last = (first + QUERIES).min(heads) - 1;
            if band.seen(last).end <= begin || band.seen(first).start >= end {
                continue;
            }
            let tile = (&*turned, tile);
            if last + 1 - first == QUERIES {
                score_tile::<KEYS, QUERIES>(band, first, tile, (&mut *scores, stride));
            } else {
                for head in first..=last {
                    score_tile::<KEYS, 1>(band, head, tile, (&mut *scores, stride));
                }
            }
        }
    }
}

/// Scores of `N` queries from `first` on, of one tile.
#[inline(always)]
fn score_tile<const KEYS: usize, const N: usize>(
    band: Band<'_>,
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

/// Sums of weighted values of `N` heads from `first` on into `out` `[N, dim]`. Rows of `scores` are `stride`
/// apart, and begin at position `start`.
#[inline(always)]
fn mix<const N: usize, const COLUMNS: usize>(
    band: Band<'_>,
    (first, start): (usize, usize),
    (scores, stride): (&[f32], usize),
    out: &mut [f32],
) {
    let rows: [&[f32]; N] = std::array::from_fn(|n| &scores[(first + n) * stride..][..stride]);
    let seen: [Range<usize>; N] = std::array::from_fn(|n| band.seen(first + n));
    let whole = band.dim - band.dim % COLUMNS;
    for column in (0..whole).step_by(COLUMNS) {
        mix_columns::<N, COLUMNS>(band, start, (&rows, &seen), (column, &mut *out));
    }
    for column in (whole..band.dim).step_by(PARTS) {
        mix_columns::<N, PARTS>(band, start, (&rows, &seen), (column, &mut *out));
    }
}

#[inline(always)]
fn mix_columns<const N: usize, const COLUMNS: usize>(
    band: Band<'_>,
    start: usize,
    (rows, seen): (&[&[f32]; N], &[Range<usize>; N]),
    (column, out): (usize, &mut [f32]),
) {
    // Of what queries see that follow each other, all but the ends is seen by all.
    let begin = seen.iter().map(|seen| seen.start).max().unwrap_or(0);
    let end = seen.iter().map(|seen| seen.end).min().unwrap_or(0);
    let end = end.max(begin);
    let mut sums = [[0.0f32; COLUMNS]; N];
    for ((sums, row), seen) in sums.iter_mut().zip(rows).zip(seen) {
        let before = seen.start..begin.min(seen.end);
        *sums = mix_rows(
            band,
            [&row[before.start - start..]],
            (before, column),
            [*sums],
        )[0];
    }
    let common = rows.map(|row| &row[begin - start..]);
    sums = mix_rows(band, common, (begin..end, column), sums);
    for ((sums, row), seen) in sums.iter_mut().zip(rows).zip(seen) {
        let after = end.max(seen.start)..seen.end;
        *sums = mix_rows(
            band,
            [&row[after.start - start..]],
            (after, column),
            [*sums],
        )[0];
    }
    for (sums, out) in sums.iter().zip(out.chunks_exact_mut(band.dim)) {
        out[column..][..COLUMNS].copy_from_slice(sums);
    }
}

/// Adds weighted values of `positions`, whose weights are the first of `rows`.
#[inline(always)]
fn mix_rows<const N: usize, const COLUMNS: usize>(
    band: Band<'_>,
    rows: [&[f32]; N],
    (positions, column): (Range<usize>, usize),
    mut sums: [[f32; COLUMNS]; N],
) -> [[f32; COLUMNS]; N] {
    if positions.is_empty() {
        return sums;
    }
    let count = positions.len();
    let mut weights: [&[f32]; N] = [&[]; N];
    for n in 0..N {
        weights[n] = &rows[n][..count];
    }
    let values = &band.values[positions.start * band.dim..positions.end * band.dim];
    let values = values.chunks_exact(band.dim);
    for (position, values) in values.enumerate().take(count) {
        let values: [f32; COLUMNS] = match values[column..].first_chunk() {
            Some(values) => *values,
            None => return sums,
        };
        for n in 0..N {
            let weight = weights[n][position];
            for lane in 0..COLUMNS {
                sums[n][lane] = weight.mul_add(values[lane], sums[n][lane]);
            }
        }
    }
    sums
}
