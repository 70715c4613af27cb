//! What a process writes to stdout and stderr: logged line by line, its last bytes kept.

use crate::limits::STDERR_TAIL_BYTES;
use std::collections::VecDeque;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// Bytes of one line in the log.
const LINE_BYTES_MAX: usize = 1_024;
const CHUNK_BYTES: usize = 4_096;

/// Reads until the end; answers the last lines.
pub async fn follow(mut output: pipe::Receiver, name: String) -> String {
    let mut tail = VecDeque::new();
    let mut line = Vec::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = match output.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        keep(&mut tail, &chunk[..read]);
        for byte in &chunk[..read] {
            if *byte == b'\n' || line.len() == LINE_BYTES_MAX {
                say(&name, &mut line);
            }
            if *byte != b'\n' {
                line.push(*byte);
            }
        }
    }
    say(&name, &mut line);
    let (front, back) = tail.as_slices();
    String::from_utf8_lossy(&[front, back].concat())
        .trim_end()
        .to_owned()
}

fn say(name: &str, line: &mut Vec<u8>) {
    if !line.is_empty() {
        log::debug!(process = name; "{}", String::from_utf8_lossy(line));
        line.clear();
    }
}

fn keep(tail: &mut VecDeque<u8>, bytes: &[u8]) {
    let bytes = &bytes[bytes.len().saturating_sub(STDERR_TAIL_BYTES)..];
    let excess = (tail.len() + bytes.len()).saturating_sub(STDERR_TAIL_BYTES);
    tail.drain(..excess);
    tail.extend(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_end_and_no_longer_than_its_limit() {
        let mut tail = VecDeque::new();
        let mut all = Vec::new();
        for size in [1, 10, STDERR_TAIL_BYTES - 5, 7, STDERR_TAIL_BYTES * 2, 3] {
            let bytes: Vec<u8> = (0..size).map(|i| (i * size % 251) as u8).collect();
            keep(&mut tail, &bytes);
            all.extend(bytes);
            let from = all.len().saturating_sub(STDERR_TAIL_BYTES);
            assert_eq!(Vec::from(tail.clone()), all[from..]);
        }
    }
}
