//! Philox4x32-10: a random number generator without state.
//!
//! Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Its output
//! is a function of key and counter alone, so a draw can be repeated without those before it.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const KEY_STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// The block at `counter` under `key`.
pub(crate) fn block(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..ROUNDS {
        if round > 0 {
            key = [0, 1].map(|i| key[i].wrapping_add(KEY_STEPS[i]));
        }
        let [(high_0, low_0), (high_1, low_1)] = [0, 1].map(|i| {
            let product = u64::from(MULTIPLIERS[i]) * u64::from(counter[2 * i]);
            ((product >> 32) as u32, product as u32)
        });
        counter = [
            high_1 ^ counter[1] ^ key[0],
            low_1,
            high_0 ^ counter[3] ^ key[1],
            low_0,
        ];
    }
    counter
}

/// Draw number `index` of `seed`, uniform in 0..1 with 53 bits.
pub(crate) fn uniform(seed: u64, index: u64) -> f64 {
    let counter = [index as u32, (index >> 32) as u32, 0, 0];
    let [low, high, ..] = block(counter, [seed as u32, (seed >> 32) as u32]);
    let bits = (u64::from(high) << 32 | u64::from(low)) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that the authors publish with Random123 (`kat_vectors`).
    #[test]
    fn known_answers() {
        let cases = [
            (
                [0; 4],
                [0; 2],
                [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8],
            ),
            (
                [u32::MAX; 4],
                [u32::MAX; 2],
                [0x408F_276D, 0x41C8_3B0E, 0xA20B_C7C6, 0x6D54_51FD],
            ),
            (
                [0x243F_6A88, 0x85A3_08D3, 0x1319_8A2E, 0x0370_7344],
                [0xA409_3822, 0x299F_31D0],
                [0xD16C_FE09, 0x94FD_CCEB, 0x5001_E420, 0x2412_6EA1],
            ),
        ];
        for (counter, key, want) in cases {
            assert_eq!(block(counter, key), want, "{counter:x?} {key:x?}");
        }
    }

    #[test]
    fn draws_differ_by_seed_and_index_and_stay_below_one() {
        let mut draws: Vec<u64> = (0..100u64)
            .flat_map(|seed| (0..100).map(move |index| uniform(seed << 31, index)))
            .inspect(|&draw| assert!((0.0..1.0).contains(&draw)))
            .map(f64::to_bits)
            .collect();
        draws.sort_unstable();
        draws.dedup();
        assert_eq!(draws.len(), 100 * 100);
    }
}
