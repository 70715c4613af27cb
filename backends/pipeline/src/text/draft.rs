//! Drafts of what comes next, looked up in prompt and answer.
//!
//! Prompt lookup decoding (Saxena 2023): where the last tokens stand elsewhere in the text, what followed
//! them there may follow here, too. The model computes a draft in one run, as it does a prompt, and every
//! token is chosen by its logits as ever; what was drafted rightly costs no run of its own.

/// Last tokens that are looked up, the longest first.
const NGRAM_TOKENS: std::ops::RangeInclusive<usize> = 2..=4;

/// Up to `count` tokens that may follow `tokens`; none when their end stands nowhere else.
pub(super) fn draft(tokens: &[u32], count: usize) -> Vec<u32> {
    if count == 0 {
        return Vec::new();
    }
    for length in NGRAM_TOKENS.rev() {
        let Some(start) = tokens.len().checked_sub(length) else {
            continue;
        };
        let (earlier, last) = (&tokens[..tokens.len() - 1], &tokens[start..]);
        // The latest occurrence: what was said last is what is gone on with.
        let found = earlier.windows(length).rposition(|window| window == last);
        if let Some(at) = found {
            let follows = tokens[at + length..].iter();
            return follows.take(count).copied().collect();
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::draft;

    #[test]
    fn a_draft_is_what_followed_the_same_words_the_last_time() {
        let cases: [(&[u32], usize, &[u32]); 8] = [
            (&[], 4, &[]),
            (&[1], 4, &[]),
            (&[1, 2, 3], 4, &[]),
            (&[1, 2, 9, 1, 2], 4, &[9, 1, 2]),
            (&[1, 2, 9, 1, 2], 1, &[9]),
            (&[1, 2, 9, 1, 2], 0, &[]),
            // The longer match counts, though the shorter one is later.
            (&[5, 1, 2, 7, 8, 1, 2, 8, 5, 1, 2], 2, &[7, 8]),
            (&[4, 4, 4], 3, &[4]),
        ];
        for (tokens, count, want) in cases {
            assert_eq!(draft(tokens, count), want, "{tokens:?}");
        }
    }
}
