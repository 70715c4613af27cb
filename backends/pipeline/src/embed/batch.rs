//! Which texts are computed together.

use super::graph::EmbeddingGraph;
use std::collections::VecDeque;

/// Tokens of one run of several texts at most, padding included: what else waits for the device waits
/// for a run at most.
const TOKENS_MAX: usize = 2_048;
/// The longest text of a run is at most so many times as long as its shortest: padding is computed as
/// well.
const RATIO_MAX: usize = 2;

/// Texts by their places, in the order they are computed: like lengths together, the shortest first.
pub(super) fn plan(lengths: &[usize], graph: &EmbeddingGraph) -> VecDeque<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&index| lengths[index]);
    let mut batches: VecDeque<Vec<usize>> = VecDeque::new();
    for index in order {
        match batches.back_mut() {
            Some(batch) if fits(batch, lengths, index, graph) => batch.push(index),
            _ => batches.push_back(vec![index]),
        }
    }
    batches
}

/// Whether one more text, which is no shorter than the others, belongs to a batch.
fn fits(batch: &[usize], lengths: &[usize], index: usize, graph: &EmbeddingGraph) -> bool {
    let rows = batch.len() + 1;
    match graph.rows {
        Some(rows_max) => rows <= rows_max,
        None if !graph.has_mask => false,
        None => {
            let longest = graph.columns.unwrap_or(lengths[index]);
            let is_like = lengths[index] <= lengths[batch[0]].saturating_mul(RATIO_MAX);
            rows <= graph.rows_max
                && rows * longest <= TOKENS_MAX
                && (is_like || graph.columns.is_some())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(rows: Option<usize>, columns: Option<usize>, has_mask: bool) -> EmbeddingGraph {
        EmbeddingGraph {
            inputs: Vec::new(),
            output: 0,
            has_mask,
            rows_max: 16,
            rows,
            columns,
        }
    }

    #[test]
    fn texts_of_like_length_are_computed_together() {
        let open = graph(None, None, true);
        assert_eq!(plan(&[9, 4, 100, 8], &open), [vec![1, 3], vec![0], vec![2]]);
        assert_eq!(plan(&[5; 40], &open).len(), 3);
        let long = plan(&[900; 5], &open);
        assert_eq!(long.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
        let alone = EmbeddingGraph {
            rows_max: 1,
            ..graph(None, None, true)
        };
        assert_eq!(plan(&[5; 4], &alone).len(), 4);
        // Longer than any batch may be, alone.
        assert_eq!(plan(&[9_000, 9_000], &open).len(), 2);
    }

    #[test]
    fn what_the_graph_fixes_holds() {
        assert_eq!(plan(&[4; 3], &graph(None, None, false)).len(), 3);
        assert_eq!(plan(&[4; 3], &graph(Some(1), None, true)).len(), 3);
        let two = plan(&[4, 400, 4], &graph(Some(2), None, true));
        assert_eq!(two, [vec![0, 2], vec![1]]);
        // All are padded to the same length anyway.
        let fixed = plan(&[4, 400, 4], &graph(None, Some(512), true));
        assert_eq!(fixed, [vec![0, 2, 1]]);
        assert_eq!(plan(&[4; 9], &graph(None, Some(512), true)).len(), 3);
    }
}
