//! Rows of a frame as numbers: one plane per colour, or luma alone.

use super::colour::{Chroma, Levels, Weights};
use super::layout::{Frame, FrameFormat, FrameLayout};
use super::picture::Sample;
use half::f16;
use mote_api::{DType, MemoryError};

/// A row, a plane per channel: red, green and blue as pixels 0..=255, or luma alone in the first; of a format
/// of floats, its own numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    pub planes: [Vec<f32>; 3],
}

/// Reads rows of frames of one format, size and colour. Of each row only the `columns` that somebody wants
/// are converted.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    format: FrameFormat,
    width: usize,
    /// 1 or 3: what a [`Row`] has.
    channels: usize,
    columns: Option<Vec<u32>>,
    levels: Levels,
    weights: Weights,
    chroma: Chroma,
    /// A row as it lies in memory: it stays in the cache, and nobody changes it while it is converted.
    bytes: Vec<u8>,
    more_bytes: [Vec<u8>; 2],
    floats: Vec<f32>,
    halves: Vec<f16>,
    /// What the chroma of this row adds to red, green and blue.
    chroma_row: Option<usize>,
    added: [Vec<f32>; 3],
}

impl Source {
    pub fn new(layout: &FrameLayout, channels: usize, columns: Option<Vec<u32>>) -> Self {
        let wide = columns.as_ref().map_or(layout.width, Vec::len);
        let is_coloured = layout.format.is_subsampled() && channels == 3;
        let added = if is_coloured { wide } else { 0 };
        Self {
            format: layout.format,
            width: layout.width,
            channels,
            columns,
            levels: Levels::of(layout.range),
            weights: Weights::of(layout.matrix),
            chroma: Chroma::of(layout.matrix, layout.range),
            bytes: Vec::new(),
            more_bytes: [Vec::new(), Vec::new()],
            floats: Vec::new(),
            halves: Vec::new(),
            chroma_row: None,
            added: [added; 3].map(|length| vec![0.0; length]),
        }
    }

    /// Columns of a row.
    pub fn columns(&self) -> usize {
        self.columns.as_ref().map_or(self.width, Vec::len)
    }

    /// A row with room for all columns.
    pub fn new_row(&self) -> Row {
        let length = |channel| match channel < self.channels {
            true => self.columns(),
            false => 0,
        };
        Row {
            planes: [0, 1, 2].map(|channel| vec![0.0; length(channel)]),
        }
    }

    /// Forgets what it knows of the last frame.
    pub fn begin(&mut self) {
        self.chroma_row = None;
    }

    /// Reads a row of `frame`, which is of this source's format, size and colour.
    ///
    /// # Errors
    /// Never for a frame that was checked; kept for the buffer's own checks.
    pub fn read(&mut self, frame: &Frame, row: usize, into: &mut Row) -> Result<(), MemoryError> {
        match self.format {
            FrameFormat::Rgb8 => self.read_packed::<3>(frame, row, [0, 1, 2], into),
            FrameFormat::Bgr8 => self.read_packed::<3>(frame, row, [2, 1, 0], into),
            FrameFormat::Rgba8 => self.read_packed::<4>(frame, row, [0, 1, 2], into),
            FrameFormat::Gray8 => {
                self.read_luma(frame, row, into)?;
                let [first, rest @ ..] = &mut into.planes;
                for plane in rest.iter_mut().take(self.channels - 1) {
                    plane.copy_from_slice(first);
                }
                Ok(())
            }
            FrameFormat::Nv12 | FrameFormat::I420 => self.read_subsampled(frame, row, into),
            FrameFormat::F32Nchw | FrameFormat::F16Nchw => self.read_planes(frame, row, into),
            FrameFormat::F32Nhwc | FrameFormat::F16Nhwc => self.read_pixels(frame, row, into),
        }
    }

    fn read_packed<const SIZE: usize>(
        &mut self,
        frame: &Frame,
        row: usize,
        places: [usize; 3],
        into: &mut Row,
    ) -> Result<(), MemoryError> {
        self.bytes.resize(SIZE * self.width, 0);
        frame.read_row(0, row, &mut self.bytes)?;
        let pixels = self.bytes.as_chunks::<SIZE>().0;
        let (levels, weights) = (self.levels, self.weights);
        let colours = |pixel: &[u8; SIZE]| {
            places.map(|place| levels.decode(f32::from(pixel[place])).clamp(0.0, 255.0))
        };
        let [red, green, blue] = &mut into.planes;
        if self.channels == 1 {
            each(&self.columns, pixels, red, |pixel| {
                weights.luma(colours(pixel))
            });
            return Ok(());
        }
        let targets = red.iter_mut().zip(green).zip(blue);
        match &self.columns {
            None => {
                for (((red, green), blue), pixel) in targets.zip(pixels) {
                    [*red, *green, *blue] = colours(pixel);
                }
            }
            Some(columns) => {
                for (((red, green), blue), &column) in targets.zip(columns) {
                    [*red, *green, *blue] = colours(&pixels[column as usize]);
                }
            }
        }
        Ok(())
    }

    fn read_luma(&mut self, frame: &Frame, row: usize, into: &mut Row) -> Result<(), MemoryError> {
        self.bytes.resize(self.width, 0);
        frame.read_row(0, row, &mut self.bytes)?;
        let levels = self.levels;
        each(&self.columns, &self.bytes, &mut into.planes[0], |&byte| {
            levels.decode(f32::from(byte)).clamp(0.0, 255.0)
        });
        Ok(())
    }

    fn read_subsampled(
        &mut self,
        frame: &Frame,
        row: usize,
        into: &mut Row,
    ) -> Result<(), MemoryError> {
        if self.channels == 1 {
            return self.read_luma(frame, row, into);
        }
        if self.chroma_row != Some(row / 2) {
            self.read_chroma(frame, row / 2)?;
            self.chroma_row = Some(row / 2);
        }
        self.bytes.resize(self.width, 0);
        frame.read_row(0, row, &mut self.bytes)?;
        let levels = self.levels;
        let [red, green, blue] = &mut into.planes;
        each(&self.columns, &self.bytes, red, |&byte| {
            levels.decode(f32::from(byte))
        });
        let [add_red, add_green, add_blue] = &self.added;
        let sum = |luma: f32, added: f32| (luma + added).clamp(0.0, 255.0);
        for ((green, &luma), &added) in green.iter_mut().zip(&*red).zip(add_green) {
            *green = sum(luma, added);
        }
        for ((blue, &luma), &added) in blue.iter_mut().zip(&*red).zip(add_blue) {
            *blue = sum(luma, added);
        }
        for (red, &added) in red.iter_mut().zip(add_red) {
            *red = sum(*red, added);
        }
        Ok(())
    }

    /// What a row of chroma adds, for each column of two rows of pixels.
    fn read_chroma(&mut self, frame: &Frame, row: usize) -> Result<(), MemoryError> {
        let half = self.width / 2;
        let [cb, cr] = &mut self.more_bytes;
        cb.resize(half, 0);
        cr.resize(half, 0);
        if self.format == FrameFormat::Nv12 {
            self.bytes.resize(self.width, 0);
            frame.read_row(1, row, &mut self.bytes)?;
            let pairs = self.bytes.as_chunks::<2>().0;
            for ((cb, cr), &pair) in cb.iter_mut().zip(cr.iter_mut()).zip(pairs) {
                [*cb, *cr] = pair;
            }
        } else {
            frame.read_row(1, row, cb)?;
            frame.read_row(2, row, cr)?;
        }
        let chroma = self.chroma;
        let of = |byte: u8| f32::from(byte) - 128.0;
        let [red, green, blue] = &mut self.added;
        if let Some(columns) = &self.columns {
            let targets = red.iter_mut().zip(green).zip(blue);
            for (((red, green), blue), &column) in targets.zip(columns) {
                let at = column as usize / 2;
                let (cb, cr) = (of(cb[at]), of(cr[at]));
                *red = cr * chroma.red_of_cr;
                *green = cb * chroma.green_of_cb + cr * chroma.green_of_cr;
                *blue = cb * chroma.blue_of_cb;
            }
            return Ok(());
        }
        for (pair, &cr) in red.as_chunks_mut::<2>().0.iter_mut().zip(&*cr) {
            *pair = [of(cr) * chroma.red_of_cr; 2];
        }
        let green = green.as_chunks_mut::<2>().0.iter_mut();
        for ((pair, &cb), &cr) in green.zip(&*cb).zip(&*cr) {
            *pair = [of(cb) * chroma.green_of_cb + of(cr) * chroma.green_of_cr; 2];
        }
        for (pair, &cb) in blue.as_chunks_mut::<2>().0.iter_mut().zip(&*cb) {
            *pair = [of(cb) * chroma.blue_of_cb; 2];
        }
        Ok(())
    }

    fn read_planes(
        &mut self,
        frame: &Frame,
        row: usize,
        into: &mut Row,
    ) -> Result<(), MemoryError> {
        for channel in 0..self.channels {
            self.read_floats(frame, channel, row, self.width)?;
            each(
                &self.columns,
                &self.floats,
                &mut into.planes[channel],
                |&value| value,
            );
        }
        Ok(())
    }

    fn read_pixels(
        &mut self,
        frame: &Frame,
        row: usize,
        into: &mut Row,
    ) -> Result<(), MemoryError> {
        let channels = self.channels;
        self.read_floats(frame, 0, row, channels * self.width)?;
        for (channel, plane) in into.planes.iter_mut().enumerate().take(channels) {
            match &self.columns {
                None => {
                    let values = self.floats[channel..].iter().step_by(channels);
                    for (target, &value) in plane.iter_mut().zip(values) {
                        *target = value;
                    }
                }
                Some(columns) => {
                    for (target, &column) in plane.iter_mut().zip(columns) {
                        *target = self.floats[column as usize * channels + channel];
                    }
                }
            }
        }
        Ok(())
    }

    fn read_floats(
        &mut self,
        frame: &Frame,
        plane: usize,
        row: usize,
        length: usize,
    ) -> Result<(), MemoryError> {
        self.floats.resize(length, 0.0);
        if self.format.dtype() == DType::F32 {
            return frame.read_row(plane, row, &mut self.floats);
        }
        self.halves.resize(length, f16::ZERO);
        frame.read_row(plane, row, &mut self.halves)?;
        Sample::load(&self.halves, &mut self.floats);
        Ok(())
    }
}

/// Converts all of `from`, or only some columns.
fn each<T>(columns: &Option<Vec<u32>>, from: &[T], into: &mut [f32], convert: impl Fn(&T) -> f32) {
    match columns {
        None => {
            for (target, value) in into.iter_mut().zip(from) {
                *target = convert(value);
            }
        }
        Some(columns) => {
            for (target, &column) in into.iter_mut().zip(columns) {
                *target = convert(&from[column as usize]);
            }
        }
    }
}
