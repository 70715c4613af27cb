//! The tensor's side: what a picture is there.

use super::colour::{to_byte, to_signed_byte};
use crate::{FRAME_PIXELS_MAX, PipelineError};
use half::f16;
use half::slice::HalfFloatSliceExt;
use mote_api::{ChannelOrder, DType, Element, InputHint, OutputHint, PictureLayout, TensorSpec};

/// A tensor that is a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Picture {
    pub layout: PictureLayout,
    pub dtype: DType,
    pub width: usize,
    pub height: usize,
    /// 1 or 3.
    pub channels: usize,
    pub order: ChannelOrder,
    /// Per channel: a number of the tensor is a pixel times `gain` plus `offset`.
    pub gain: [f32; 3],
    pub offset: [f32; 3],
    /// The other way round.
    pub inverse_gain: [f32; 3],
    pub inverse_offset: [f32; 3],
}

/// The order of the tensor's dimensions: where height, width and channels are, counted from the last one.
fn places(layout: PictureLayout) -> [usize; 3] {
    match layout.is_planar() {
        true => [2, 1, 3],
        false => [3, 2, 1],
    }
}

impl Picture {
    /// An input, as `hint` describes it. Where the model leaves height or width open, they are those of
    /// `size` (width, height).
    ///
    /// # Errors
    /// When the input is no picture, or `size` is not what it takes.
    pub fn of_input(
        spec: &TensorSpec,
        hint: &InputHint,
        size: (usize, usize),
    ) -> Result<Self, PipelineError> {
        let scales = (hint.scale, &hint.mean, &hint.std);
        Self::new(spec, (hint.layout, hint.order), scales, size)
    }

    /// An output, as `hint` describes it.
    ///
    /// # Errors
    /// As [`Picture::of_input`].
    pub fn of_output(
        spec: &TensorSpec,
        hint: &OutputHint,
        size: (usize, usize),
    ) -> Result<Self, PipelineError> {
        let scales = (hint.scale, &hint.mean, &hint.std);
        Self::new(spec, (hint.layout, hint.order), scales, size)
    }

    fn new(
        spec: &TensorSpec,
        (layout, order): (PictureLayout, ChannelOrder),
        (scale, mean, std): (f32, &[f32; 3], &[f32; 3]),
        size: (usize, usize),
    ) -> Result<Self, PipelineError> {
        let refuse = |why: String| PipelineError::invalid("name", why);
        // Its frames lie between channels and height.
        if layout == PictureLayout::Ncthw {
            return Err(refuse(format!(
                "has the layout {layout}, which is no picture"
            )));
        }
        let rank = spec.shape.len();
        let leading = rank.checked_sub(3).map(|at| &spec.shape[..at]);
        if leading.is_none_or(|dims| dims.iter().any(|dim| dim.is_some_and(|dim| dim != 1))) {
            return Err(refuse(format!("is {:?}, which is no picture", spec.shape)));
        }
        let [height, width, channels] = places(layout).map(|place| spec.shape[rank - place]);
        let channels = channels.unwrap_or(3);
        if !matches!(channels, 1 | 3) {
            return Err(refuse(format!(
                "has {channels} channels; 1 or 3 make a picture"
            )));
        }
        if !matches!(spec.dtype, DType::F32 | DType::F16 | DType::U8 | DType::I8) {
            return Err(refuse(format!(
                "is {}; no picture becomes that",
                spec.dtype
            )));
        }
        let (width, height) = (width.unwrap_or(size.0), height.unwrap_or(size.1));
        let pixels = width.checked_mul(height);
        if !pixels.is_some_and(|pixels| (1..=FRAME_PIXELS_MAX).contains(&pixels)) {
            let why = format!("{width} × {height} are not 1 to {FRAME_PIXELS_MAX} pixels");
            return Err(refuse(why));
        }
        let of = |of: &dyn Fn(f64, f64) -> f64| {
            [0, 1, 2].map(|c: usize| of(f64::from(mean[c]), f64::from(std[c])) as f32)
        };
        let scale = f64::from(scale);
        Ok(Self {
            layout,
            dtype: spec.dtype,
            width,
            height,
            channels,
            order,
            gain: of(&|_, std| scale / std),
            offset: of(&|mean, std| -mean / std),
            inverse_gain: of(&|_, std| std / scale),
            inverse_offset: of(&|mean, _| mean / scale),
        })
    }

    /// The tensor's shape, of as many dimensions as the model has.
    pub fn shape(&self, rank: usize) -> Vec<usize> {
        let mut shape = vec![1; rank];
        let sides = [self.height, self.width, self.channels];
        for (place, side) in places(self.layout).into_iter().zip(sides) {
            shape[rank - place] = side;
        }
        shape
    }

    /// Which of red, green and blue a channel is.
    pub fn colour_of(&self, channel: usize) -> usize {
        match (self.channels, self.order) {
            (3, ChannelOrder::Bgr) => 2 - channel,
            _ => channel,
        }
    }

    /// Whether numbers are pixels as they are.
    pub fn holds_pixels(&self) -> bool {
        self.gain == [1.0; 3] && self.offset == [0.0; 3]
    }
}

/// An element type that pictures are made of.
pub(crate) trait Sample: Element {
    /// Numbers as elements; integers are rounded, and kept within their range.
    fn store(values: &[f32], elements: &mut [Self]);
    /// Elements as numbers.
    fn load(elements: &[Self], values: &mut [f32]);
}

impl Sample for f32 {
    fn store(values: &[f32], elements: &mut [Self]) {
        elements.copy_from_slice(values);
    }

    fn load(elements: &[Self], values: &mut [f32]) {
        values.copy_from_slice(elements);
    }
}

impl Sample for f16 {
    fn store(values: &[f32], elements: &mut [Self]) {
        elements.convert_from_f32_slice(values);
    }

    fn load(elements: &[Self], values: &mut [f32]) {
        elements.convert_to_f32_slice(values);
    }
}

impl Sample for u8 {
    fn store(values: &[f32], elements: &mut [Self]) {
        for (element, &value) in elements.iter_mut().zip(values) {
            *element = to_byte(value);
        }
    }

    fn load(elements: &[Self], values: &mut [f32]) {
        for (value, &element) in values.iter_mut().zip(elements) {
            *value = f32::from(element);
        }
    }
}

impl Sample for i8 {
    fn store(values: &[f32], elements: &mut [Self]) {
        for (element, &value) in elements.iter_mut().zip(values) {
            *element = to_signed_byte(value);
        }
    }

    fn load(elements: &[Self], values: &mut [f32]) {
        for (value, &element) in values.iter_mut().zip(elements) {
            *value = f32::from(element);
        }
    }
}
