//! A frame becomes a tensor: one pass that converts colours, scales, and writes.

use super::axis::{Axis, FittedRect};
use super::layout::{Frame, FrameLayout};
use super::picture::{Picture, Sample};
use super::source::{Row, Source};
use crate::PipelineError;
use half::f16;
use mote_api::{DType, InputHint, Tensor};
use std::ops::Range;

/// Makes tensors of frames of one format, size and colour.
///
/// The order of things, which the numbers depend on: each pixel becomes red, green and blue (a chroma sample
/// counts for the four pixels that it lies between), clamped to 0..=255 and not rounded; then rows are
/// weighted and summed, then columns; then each channel is scaled and shifted as the hint says.
pub(crate) struct FrameReader {
    source: Source,
    picture: Picture,
    rect: FittedRect,
    vertical: Axis,
    horizontal: Axis,
    /// The last two rows that were read, by whether their number is odd.
    rows: [(Option<usize>, Row); 2],
    /// A weighted sum of rows.
    summed: Row,
    /// A row of the picture, a plane per channel.
    scaled: Row,
    /// That row as numbers of the tensor.
    line: Vec<f32>,
    /// Per channel of the tensor: scale, shift, and the number beside the picture.
    finish: [(f32, f32, f32); 3],
    /// Per channel of the tensor: which plane of a row it is.
    colours: [usize; 3],
}

impl FrameReader {
    pub fn new(layout: &FrameLayout, picture: &Picture, hint: &InputHint) -> Self {
        let (filter, size) = (hint.filter, (layout.width, layout.height));
        let rect = FittedRect::new(hint.fit, size, (picture.width, picture.height));
        let horizontal = Axis::new(filter, layout.width, rect.width);
        let (columns, horizontal) = match horizontal.compact(layout.width) {
            Some((columns, compact)) => (Some(columns), compact),
            None => (None, horizontal),
        };
        let source = Source::new(layout, picture.channels, columns);
        let row = source.new_row();
        let is_float = layout.format.is_float();
        let finish = [0, 1, 2].map(|channel| {
            let (gain, offset) = (picture.gain[channel], picture.offset[channel]);
            let beside = f32::from(hint.pad[picture.colour_of(channel)]) * gain + offset;
            match is_float {
                true => (1.0, 0.0, beside),
                false => (gain, offset, beside),
            }
        });
        Self {
            picture: *picture,
            rect,
            vertical: Axis::new(filter, layout.height, rect.height),
            horizontal,
            rows: [(None, row.clone()), (None, row.clone())],
            summed: row,
            scaled: Row {
                planes: [0; 3].map(|_| vec![0.0; rect.width]),
            },
            line: Vec::new(),
            finish,
            colours: [0, 1, 2].map(|channel| match is_float {
                true => channel,
                false => picture.colour_of(channel),
            }),
            source,
        }
    }

    /// Fills `tensor`, which has the picture's type and shape; the bytes it wrote.
    ///
    /// # Errors
    /// When the tensor cannot be written.
    pub fn read(&mut self, frame: &Frame, tensor: &Tensor) -> Result<u64, PipelineError> {
        match self.picture.dtype {
            DType::F32 => self.fill::<f32>(frame, tensor),
            DType::F16 => self.fill::<f16>(frame, tensor),
            DType::I8 => self.fill::<i8>(frame, tensor),
            _ => self.fill::<u8>(frame, tensor),
        }
    }

    fn fill<T: Sample>(&mut self, frame: &Frame, tensor: &Tensor) -> Result<u64, PipelineError> {
        self.source.begin();
        for (row, _) in &mut self.rows {
            *row = None;
        }
        let mut elements: Vec<T> = Vec::new();
        for y in 0..self.picture.height {
            let within = y.checked_sub(self.rect.y).filter(|&y| y < self.rect.height);
            if let Some(y) = within {
                self.scale(frame, y)?;
            }
            self.write(y, within.is_some(), (&mut elements, tensor))?;
        }
        Ok(tensor.bytes() as u64)
    }

    /// Makes row `y` of the picture: into `scaled`, or, where nothing is to be scaled, as one that was read.
    fn scale(&mut self, frame: &Frame, y: usize) -> Result<(), PipelineError> {
        let vertical = &self.vertical;
        let (first, weights) = vertical.neighbours(y);
        let channels = self.picture.channels;
        for (index, &weight) in weights.iter().enumerate() {
            let row = first + index;
            let (held, values) = &mut self.rows[row % 2];
            if *held != Some(row) {
                self.source
                    .read(frame, row, values)
                    .map_err(mote_api::TensorError::from)?;
                *held = Some(row);
            }
            if weights.len() == 1 {
                break;
            }
            let planes = self.summed.planes.iter_mut().zip(&values.planes);
            for (sum, plane) in planes.take(channels) {
                weigh(sum, plane, weight, index == 0);
            }
        }
        let from = match weights.len() {
            1 => &self.rows[first % 2].1,
            _ => &self.summed,
        };
        for (target, plane) in self
            .scaled
            .planes
            .iter_mut()
            .zip(&from.planes)
            .take(channels)
        {
            if self.horizontal.is_identity() {
                target.copy_from_slice(plane);
            } else {
                squeeze(&self.horizontal, plane, target);
            }
        }
        Ok(())
    }

    /// Writes row `y` of the tensor: `scaled` with what is beside it, or only that.
    fn write<T: Sample>(
        &mut self,
        y: usize,
        is_within: bool,
        (elements, tensor): (&mut Vec<T>, &Tensor),
    ) -> Result<(), PipelineError> {
        let Picture {
            width,
            height,
            channels,
            layout,
            ..
        } = self.picture;
        let inside = match is_within {
            true => self.rect.x..self.rect.x + self.rect.width,
            false => 0..0,
        };
        let step = if layout.is_planar() { 1 } else { channels };
        self.line.resize(width * step, 0.0);
        elements.resize(width * step, T::default());
        for channel in 0..channels {
            self.fill_line(channel, step, &inside);
            if step > 1 && channel + 1 < channels {
                continue;
            }
            let line = if step > 1 { y } else { channel * height + y };
            T::store(&self.line, elements);
            let offset = tensor.offset() + line * size_of_val(&elements[..]);
            tensor
                .buffer()
                .copy_in(offset, elements)
                .map_err(mote_api::TensorError::from)?;
        }
        Ok(())
    }

    /// A channel's numbers in the line: each `step`-th of them, from `channel` on where channels share it.
    fn fill_line(&mut self, channel: usize, step: usize, inside: &Range<usize>) {
        let (gain, offset, beside) = self.finish[channel];
        let values = &self.scaled.planes[self.colours[channel]];
        let finish = |(target, &value): (&mut f32, &f32)| *target = value * gain + offset;
        if step == 1 {
            self.line[..inside.start].fill(beside);
            self.line[inside.end..].fill(beside);
            let line = self.line[inside.clone()].iter_mut();
            line.zip(values).for_each(finish);
            return;
        }
        if inside.len() * step < self.line.len() {
            let line = self.line[channel..].iter_mut().step_by(step);
            line.for_each(|target| *target = beside);
        }
        let line = self.line[inside.start * step..].iter_mut();
        let line = line.skip(channel).step_by(step).take(inside.len());
        line.zip(values).for_each(finish);
    }
}

fn weigh(sum: &mut [f32], row: &[f32], weight: f32, is_first: bool) {
    let pairs = sum.iter_mut().zip(row);
    if is_first {
        pairs.for_each(|(sum, &value)| *sum = value * weight);
    } else {
        pairs.for_each(|(sum, &value)| *sum += value * weight);
    }
}

fn squeeze(axis: &Axis, row: &[f32], target: &mut [f32]) {
    for (x, target) in target.iter_mut().enumerate() {
        let (first, weights) = axis.neighbours(x);
        let row = &row[first..first + weights.len()];
        let (&first, rest) = weights.split_first().unwrap_or((&0.0, &[]));
        let start = row[0] * first;
        let pairs = row[1..].iter().zip(rest);
        *target = pairs.fold(start, |sum, (&value, &weight)| sum + value * weight);
    }
}
