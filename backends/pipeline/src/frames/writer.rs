//! A tensor becomes a frame, written straight to where it is wanted.

use super::colour::{Chroma, Levels, Weights, to_byte};
use super::layout::{Frame, FrameFormat, FrameLayout};
use super::picture::{Picture, Sample};
use crate::PipelineError;
use half::f16;
use mote_api::{DType, MemoryError, Tensor, TensorError};

/// Makes frames of one format and colour of tensors of one type and size.
///
/// The order of things: a number of the tensor becomes a pixel as the hint says, clamped to 0..=255; then
/// luma and chroma are made of it, a chroma sample of the mean of its four pixels; then it is rounded, halves
/// to even.
pub(crate) struct FrameWriter {
    format: FrameFormat,
    picture: Picture,
    levels: Levels,
    weights: Weights,
    chroma: Chroma,
    /// Two rows, a plane each for red, green and blue; of formats of floats, the channels as they are.
    rows: [[Vec<f32>; 3]; 2],
    floats: Vec<f32>,
    bytes: Vec<u8>,
}

impl FrameWriter {
    pub fn new(layout: &FrameLayout, picture: &Picture) -> Self {
        Self {
            format: layout.format,
            picture: *picture,
            levels: Levels::of(layout.range),
            weights: Weights::of(layout.matrix),
            chroma: Chroma::of(layout.matrix, layout.range),
            rows: [0, 1].map(|_| [0, 1, 2].map(|_| vec![0.0; picture.width])),
            floats: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// Writes `tensor`, which has the picture's type and shape, to a frame of its size; the bytes it wrote.
    ///
    /// # Errors
    /// When the frame's memory is read-only.
    pub fn write(&mut self, tensor: &Tensor, frame: &Frame) -> Result<u64, PipelineError> {
        match self.picture.dtype {
            DType::F32 => self.fill::<f32>(tensor, frame),
            DType::F16 => self.fill::<f16>(tensor, frame),
            DType::I8 => self.fill::<i8>(tensor, frame),
            _ => self.fill::<u8>(tensor, frame),
        }
        .map_err(|error| PipelineError::from(TensorError::from(error)))
    }

    fn fill<T: Sample>(&mut self, tensor: &Tensor, frame: &Frame) -> Result<u64, MemoryError> {
        let mut elements: Vec<T> = Vec::new();
        let mut written = 0;
        for y in 0..self.picture.height {
            self.load(&mut elements, tensor, y)?;
            written += match self.format {
                FrameFormat::Rgb8 => self.packed::<3>(frame, y, [0, 1, 2])?,
                FrameFormat::Bgr8 => self.packed::<3>(frame, y, [2, 1, 0])?,
                FrameFormat::Rgba8 => self.packed::<4>(frame, y, [0, 1, 2])?,
                FrameFormat::Gray8 => self.luma(frame, y)?,
                FrameFormat::Nv12 | FrameFormat::I420 => {
                    let luma = self.luma(frame, y)?;
                    let chroma = match y % 2 {
                        0 => 0,
                        _ => self.chroma(frame, y / 2)?,
                    };
                    luma + chroma
                }
                FrameFormat::F32Nchw | FrameFormat::F16Nchw => self.float_planes(frame, y)?,
                FrameFormat::F32Nhwc | FrameFormat::F16Nhwc => self.float_pixels(frame, y)?,
            };
        }
        Ok(written)
    }

    /// Reads row `y` of the tensor.
    fn load<T: Sample>(
        &mut self,
        elements: &mut Vec<T>,
        tensor: &Tensor,
        y: usize,
    ) -> Result<(), MemoryError> {
        let picture = self.picture;
        let Picture {
            width,
            height,
            channels,
            ..
        } = picture;
        let step = if picture.layout.is_planar() {
            1
        } else {
            channels
        };
        let row = &mut self.rows[y % 2];
        elements.resize(width * step, T::default());
        self.floats.resize(width * step, 0.0);
        let line_bytes = size_of_val(&elements[..]);
        for channel in 0..channels {
            if step == 1 || channel == 0 {
                let line = if step == 1 { channel * height + y } else { y };
                let offset = tensor.offset() + line * line_bytes;
                tensor.buffer().copy_out(offset, elements)?;
                T::load(elements, &mut self.floats);
            }
            let start = if step == 1 { 0 } else { channel };
            let values = self.floats[start..].iter().step_by(step);
            if self.format.is_float() {
                let pairs = row[channel].iter_mut().zip(values);
                pairs.for_each(|(target, &value)| *target = value);
                continue;
            }
            let (gain, offset) = (
                picture.inverse_gain[channel],
                picture.inverse_offset[channel],
            );
            let target = &mut row[picture.colour_of(channel)];
            for (target, &value) in target.iter_mut().zip(values) {
                *target = (value * gain + offset).clamp(0.0, 255.0);
            }
        }
        if channels == 1 && !self.format.is_float() {
            let [first, rest @ ..] = row;
            rest.iter_mut()
                .for_each(|plane| plane.copy_from_slice(first));
        }
        Ok(())
    }

    fn packed<const SIZE: usize>(
        &mut self,
        frame: &Frame,
        y: usize,
        places: [usize; 3],
    ) -> Result<u64, MemoryError> {
        self.bytes.resize(SIZE * self.picture.width, 255);
        let levels = self.levels;
        let pixels = self.bytes.as_chunks_mut::<SIZE>().0;
        for (plane, place) in self.rows[y % 2].iter().zip(places) {
            for (pixel, &value) in pixels.iter_mut().zip(plane) {
                pixel[place] = to_byte(levels.encode(value));
            }
        }
        for pixel in pixels {
            pixel[3..].fill(255);
        }
        self.put(frame, 0, y)
    }

    fn luma(&mut self, frame: &Frame, y: usize) -> Result<u64, MemoryError> {
        self.bytes.resize(self.picture.width, 0);
        let (levels, weights) = (self.levels, self.weights);
        let is_gray = self.picture.channels == 1;
        let [red, green, blue] = &self.rows[y % 2];
        let colours = red.iter().zip(green).zip(blue);
        for (byte, ((&red, &green), &blue)) in self.bytes.iter_mut().zip(colours) {
            let luma = match is_gray {
                true => red,
                false => weights.luma([red, green, blue]),
            };
            *byte = to_byte(levels.encode(luma));
        }
        self.put(frame, 0, y)
    }

    /// The chroma of both rows.
    fn chroma(&mut self, frame: &Frame, y: usize) -> Result<u64, MemoryError> {
        let half = self.picture.width / 2;
        let (weights, chroma) = (self.weights, self.chroma);
        let [upper, lower] = &self.rows;
        let mean = |colour: usize, x: usize| {
            let (upper, lower) = (&upper[colour], &lower[colour]);
            ((upper[2 * x] + upper[2 * x + 1]) + (lower[2 * x] + lower[2 * x + 1])) * 0.25
        };
        let pair = |x: usize| {
            let colours = [mean(0, x), mean(1, x), mean(2, x)];
            let luma = weights.luma(colours);
            let cb = 128.0 + (colours[2] - luma) * chroma.cb_of_blue;
            let cr = 128.0 + (colours[0] - luma) * chroma.cr_of_red;
            [to_byte(cb), to_byte(cr)]
        };
        if self.format == FrameFormat::Nv12 {
            self.bytes.resize(2 * half, 0);
            let pairs = self.bytes.as_chunks_mut::<2>().0.iter_mut();
            pairs.enumerate().for_each(|(x, target)| *target = pair(x));
            return self.put(frame, 1, y);
        }
        let mut written = 0;
        for plane in [1, 2] {
            self.bytes.resize(half, 0);
            for (x, byte) in self.bytes.iter_mut().enumerate() {
                *byte = pair(x)[plane - 1];
            }
            frame.write_row(plane, y, &self.bytes)?;
            written += half as u64;
        }
        Ok(written)
    }

    fn float_planes(&mut self, frame: &Frame, y: usize) -> Result<u64, MemoryError> {
        let mut written = 0;
        for channel in 0..self.picture.channels {
            self.floats.clear();
            self.floats.extend_from_slice(&self.rows[y % 2][channel]);
            written += self.put_floats(frame, channel, y)?;
        }
        Ok(written)
    }

    fn float_pixels(&mut self, frame: &Frame, y: usize) -> Result<u64, MemoryError> {
        let channels = self.picture.channels;
        self.floats.resize(channels * self.picture.width, 0.0);
        for (channel, plane) in self.rows[y % 2].iter().enumerate().take(channels) {
            let targets = self.floats[channel..].iter_mut().step_by(channels);
            targets
                .zip(plane)
                .for_each(|(target, &value)| *target = value);
        }
        self.put_floats(frame, 0, y)
    }

    fn put(&self, frame: &Frame, plane: usize, row: usize) -> Result<u64, MemoryError> {
        frame.write_row(plane, row, &self.bytes)?;
        Ok(self.bytes.len() as u64)
    }

    fn put_floats(&self, frame: &Frame, plane: usize, row: usize) -> Result<u64, MemoryError> {
        if self.format.dtype() == DType::F32 {
            frame.write_row(plane, row, &self.floats)?;
            return Ok(size_of_val(&self.floats[..]) as u64);
        }
        let mut halves = vec![f16::ZERO; self.floats.len()];
        Sample::store(&self.floats, &mut halves);
        frame.write_row(plane, row, &halves)?;
        Ok(size_of_val(&halves[..]) as u64)
    }
}
