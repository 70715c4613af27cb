//! Bytes of a file as the input of magika, as its own package does it (tests/models/magika/README.md).

use anyhow::{Context, Result};
use mote_api::Manifest;
use mote_client::{Client, Input};
use mote_wire::types::{DType, Receipt, WorkOptions};
use std::path::Path;

/// A file that is always at hand.
pub const SAMPLE: &[u8] = include_bytes!("../../ARCHITECTURE.md");

const BLOCK_BYTES: usize = 4096;
const SIDE_TOKENS: usize = 1024;
const PADDING: i32 = 256;
const WHITESPACE: &[u8] = b"\t\n\x0b\x0c\r ";

/// What magika says.
pub struct Answer {
    /// The likeliest kind.
    pub label: String,
    /// Its probability.
    pub score: f32,
    /// What computed it.
    pub receipt: Receipt,
}

/// The 2,048 tokens of a file: its beginning without leading and its end without trailing
/// whitespace, padded away from the file's middle.
pub fn tokens(bytes: &[u8]) -> Vec<i32> {
    let block = bytes.len().min(BLOCK_BYTES);
    let is_text = |byte: &u8| !WHITESPACE.contains(byte);
    let head = &bytes[..block];
    let head = &head[head.iter().position(is_text).unwrap_or(block)..];
    let tail = &bytes[bytes.len() - block..];
    let tail = &tail[..tail.iter().rposition(is_text).map_or(0, |last| last + 1)];
    let head = &head[..head.len().min(SIDE_TOKENS)];
    let tail = &tail[tail.len() - tail.len().min(SIDE_TOKENS)..];
    let padding = |used: usize| std::iter::repeat_n(PADDING, SIDE_TOKENS - used);
    let token = |byte: &u8| i32::from(*byte);
    let first = head.iter().map(token).chain(padding(head.len()));
    first
        .chain(padding(tail.len()))
        .chain(tail.iter().map(token))
        .collect()
}

/// Asks the daemon.
pub fn classify(client: &Client, bytes: &[u8], options: &WorkOptions) -> Result<Answer> {
    let input: Vec<u8> = tokens(bytes)
        .iter()
        .flat_map(|token| token.to_le_bytes())
        .collect();
    let shape = [1, 2 * SIDE_TOKENS as u64];
    let input = Input::bytes("bytes", DType::I32, &shape, &input);
    let result = client.infer("magika", &[input], &[], options)?;
    let output = result.outputs.first().and_then(|output| output.bytes());
    let scores = output
        .context("magika gave no output")?
        .chunks_exact(4)
        .map(|chunk| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(chunk);
            f32::from_le_bytes(bytes)
        });
    let best = scores
        .enumerate()
        .reduce(|best, one| if one.1 > best.1 { one } else { best });
    let (index, score) = best.context("magika gave an empty output")?;
    let details = client.inspect("magika")?;
    let manifest = Manifest::parse(&details.manifest_toml, Path::new("magika"))?;
    let labels = manifest
        .labels
        .context("magika's manifest names no labels")?;
    let labels = std::fs::read_to_string(Path::new(&details.folder).join(labels))
        .context("cannot read magika's labels")?;
    let label = labels
        .lines()
        .nth(index)
        .context("magika has fewer labels than outputs")?;
    Ok(Answer {
        label: label.to_owned(),
        score,
        receipt: result.done.receipt,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_file_is_seen_from_both_sides() {
        let tokens = tokens(b"\n ab c \n");
        assert_eq!(tokens.len(), 2 * SIDE_TOKENS);
        assert_eq!(tokens[..7], [97, 98, 32, 99, 32, 10, PADDING]);
        assert_eq!(tokens[2 * SIDE_TOKENS - 5..], [32, 97, 98, 32, 99]);
        assert_eq!(tokens[2 * SIDE_TOKENS - 6], 10);
    }
}
