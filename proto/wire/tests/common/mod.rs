//! What the tests of the wire share.
#![allow(dead_code, reason = "every test binary uses its own part")]

pub mod clips;
pub mod describe;
pub mod failures;
pub mod generate;
pub mod golden;
pub mod golden_clips;
pub mod raw;
pub mod text;

use mote_wire::Memfd;
use std::os::fd::OwnedFd;

/// A descriptor of sealed memory.
pub fn sealed(bytes: u64) -> OwnedFd {
    Memfd::create("test", bytes).expect("a memfd").into_fd()
}

/// Descriptors this process has open.
pub fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .expect("/proc")
        .filter(|entry| entry.is_ok())
        .count()
}

/// Numbers from a seed (SplitMix64).
pub struct Random(u64);

impl Random {
    /// Seeded by `MOTE_SEED`, or else by the clock; the seed is shown when the test fails.
    pub fn new() -> Self {
        let seed = match std::env::var("MOTE_SEED") {
            Ok(seed) => seed.parse().expect("MOTE_SEED is a number"),
            Err(_) => std::time::UNIX_EPOCH
                .elapsed()
                .map_or(0, |since| since.as_nanos() as u64),
        };
        eprintln!("MOTE_SEED={seed}");
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}
