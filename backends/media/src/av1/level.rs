//! AV1 levels (AV1 bitstream specification, A.3).

use crate::ClipSpec;

/// `seq_level_idx` that promises nothing.
pub(super) const UNLIMITED: u8 = 31;

/// A row of the table of level limits.
struct Level {
    index: u8,
    pixels_max: u64,
    width_max: u32,
    height_max: u32,
    pixels_per_second_max: u64,
}

const fn level(
    index: u8,
    pixels_max: u64,
    (width_max, height_max): (u32, u32),
    pixels_per_second_max: u64,
) -> Level {
    Level {
        index,
        pixels_max,
        width_max,
        height_max,
        pixels_per_second_max,
    }
}

/// Levels 4.0 to 6.2. Lower ones would also bound the bit rate below what a small clip may need, and every decoder in
/// use reaches 4.0.
const LEVELS: [Level; 9] = [
    level(8, 2_359_296, (6144, 3456), 70_778_880),
    level(9, 2_359_296, (6144, 3456), 141_557_760),
    level(12, 8_912_896, (8192, 4352), 267_386_880),
    level(13, 8_912_896, (8192, 4352), 534_773_760),
    level(14, 8_912_896, (8192, 4352), 1_069_547_520),
    level(16, 35_651_584, (16_384, 8704), 1_069_547_520),
    level(17, 35_651_584, (16_384, 8704), 2_139_095_040),
    level(18, 35_651_584, (16_384, 8704), 4_278_190_080),
    level(UNLIMITED, u64::MAX, (u32::MAX, u32::MAX), u64::MAX),
];

/// `seq_level_idx` of the lowest level, from 4.0 on, that holds the clip's size and frame rate.
pub(super) fn level_index(spec: &ClipSpec) -> u8 {
    let pixels = u64::from(spec.width) * u64::from(spec.height);
    let pixels_per_second = (pixels as f64 * spec.frame_rate.as_f64()).ceil() as u64;
    LEVELS
        .iter()
        .find(|level| {
            pixels <= level.pixels_max
                && spec.width <= level.width_max
                && spec.height <= level.height_max
                && pixels_per_second <= level.pixels_per_second_max
        })
        .map_or(UNLIMITED, |level| level.index)
}
