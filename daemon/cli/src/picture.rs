//! Small pictures as text: two pixels a character, the upper one in the colour of the letter, the lower one
//! in that of the ground.

use anyhow::{Context, Result};
use image::imageops::FilterType;
use std::fmt::Write;
use std::io::{IsTerminal, stderr};

/// Characters of a line.
const COLUMNS_MAX: u32 = 64;
/// Bytes of a picture that is drawn.
const PNG_BYTES_MAX: usize = 16 << 20;

/// Whether the terminal shows pictures, as far as it says.
pub fn can_draw() -> bool {
    let colours = std::env::var("COLORTERM").unwrap_or_default();
    stderr().is_terminal() && matches!(colours.as_str(), "truecolor" | "24bit")
}

/// A PNG file as lines of text.
pub fn text(png: &[u8]) -> Result<String> {
    anyhow::ensure!(png.len() <= PNG_BYTES_MAX, "a preview is too large");
    let picture = image::load_from_memory_with_format(png, image::ImageFormat::Png)
        .context("cannot read a preview")?
        .into_rgb8();
    let width = picture.width().clamp(1, COLUMNS_MAX);
    let height = (picture.height() * width / picture.width().max(1)).max(2) & !1;
    let picture = image::imageops::resize(&picture, width, height, FilterType::Triangle);
    let mut text = String::new();
    for row in (0..height).step_by(2) {
        for column in 0..width {
            let [upper, lower] = [row, row + 1].map(|y| picture.get_pixel(column, y).0);
            let ([r, g, b], [x, y, z]) = (upper, lower);
            let _ = write!(text, "\x1b[38;2;{r};{g};{b};48;2;{x};{y};{z}m▀");
        }
        text.push_str("\x1b[0m\n");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_rows_are_a_line() {
        let picture = image::RgbImage::from_fn(4, 4, |x, y| image::Rgb([x as u8, y as u8, 7]));
        let mut png = std::io::Cursor::new(Vec::new());
        let written = picture.write_to(&mut png, image::ImageFormat::Png);
        written.expect("written");
        let text = text(png.get_ref()).expect("drawn");
        assert_eq!(text.lines().count(), 2);
        assert!(text.starts_with("\x1b[38;2;0;0;7;48;2;0;1;7m▀"), "{text:?}");
    }
}
