//! Contact sheets: a clip at a glance.

use crate::frame::{Frame, rgb_bytes};
use crate::{Limits, MediaError};

/// How frames are laid out on a sheet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SheetLayout {
    /// Frames side by side, at least 1.
    pub columns: u32,
    /// Width of each picture on the sheet, in pixels; at least 1. Heights follow the first frame's aspect.
    pub cell_width: u32,
    /// Black margin between and around pictures, in pixels.
    pub gap: u32,
}

impl Default for SheetLayout {
    fn default() -> Self {
        Self {
            columns: 4,
            cell_width: 240,
            gap: 4,
        }
    }
}

/// Draws frames, row by row, scaled to the same size. The sheet keeps within the default [`Limits`].
pub fn contact_sheet(frames: &[Frame], layout: &SheetLayout) -> Result<Frame, MediaError> {
    let first = frames.first().ok_or(MediaError::NoFrames)?;
    for (index, frame) in (0..).zip(frames) {
        if !frame.is_consistent() || frame.rgb.is_empty() {
            let have = (frame.width, frame.height);
            return Err(MediaError::FrameSize {
                frame: index,
                have,
                want: (first.width, first.height),
            });
        }
    }
    let cell_width = u64::from(layout.cell_width.max(1));
    let cell_height = (cell_width * u64::from(first.height) / u64::from(first.width)).max(1);
    let columns = u64::from(layout.columns.max(1)).min(frames.len() as u64);
    let rows = (frames.len() as u64).div_ceil(columns);
    let gap = u64::from(layout.gap);
    let side = |cells: u64, pixels: u64| {
        let side = cells.saturating_mul(pixels + gap).saturating_add(gap);
        u32::try_from(side).unwrap_or(u32::MAX)
    };
    let (width, height) = (side(columns, cell_width), side(rows, cell_height));
    Limits::default().check_size(width, height)?;
    let mut sheet = Frame::black(width, height);
    for (index, frame) in (0_u64..).zip(frames) {
        let cell = scaled(frame, cell_width as u32, cell_height as u32);
        let left = gap + index % columns * (cell_width + gap);
        let top = gap + index / columns * (cell_height + gap);
        paste(&mut sheet, &cell, (left as usize, top as usize));
    }
    Ok(sheet)
}

fn paste(sheet: &mut Frame, cell: &Frame, (left, top): (usize, usize)) {
    let (sheet_row, cell_row) = (sheet.width as usize * 3, cell.width as usize * 3);
    let rows = sheet.rgb.chunks_exact_mut(sheet_row).skip(top);
    for (to, from) in rows.zip(cell.rgb.chunks_exact(cell_row)) {
        to[left * 3..left * 3 + cell_row].copy_from_slice(from);
    }
}

/// The frame at another size: each pixel is the mean of the pixels it covers, or the one it lies in.
pub fn scaled(frame: &Frame, width: u32, height: u32) -> Frame {
    let columns = spans(frame.width, width);
    let mut rgb = Vec::with_capacity(rgb_bytes(width, height));
    for (top, bottom) in spans(frame.height, height) {
        for &(left, right) in &columns {
            let mut sum = [0_u32; 3];
            for y in top..bottom {
                let row = y * frame.width as usize;
                for pixel in frame.rgb[(row + left) * 3..(row + right) * 3].chunks_exact(3) {
                    for (sum, &channel) in sum.iter_mut().zip(pixel) {
                        *sum += u32::from(channel);
                    }
                }
            }
            let count = ((bottom - top) * (right - left)) as u32;
            rgb.extend(sum.map(|sum| ((sum + count / 2) / count) as u8));
        }
    }
    Frame { width, height, rgb }
}

/// For each of `to` pixels the range of the `from` pixels it stands for; never empty.
fn spans(from: u32, to: u32) -> Vec<(usize, usize)> {
    let edge = |at: u32| (u64::from(at) * u64::from(from) / u64::from(to)) as usize;
    (0..to)
        .map(|at| (edge(at), edge(at + 1).max(edge(at) + 1)))
        .collect()
}
