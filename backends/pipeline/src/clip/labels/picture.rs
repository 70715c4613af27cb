//! Frames as a labeller's model takes them: fitted, resampled, in its layout and range.

use crate::PipelineError;
use crate::clip::RgbFrame;
use mote_api::{ColourOrder, FrameFit, InputHint, LabellingSpec, PictureLayout, TensorSpec};

const CHANNELS: usize = 3;
/// What fills the space beside a letterboxed frame.
const GREY: f32 = 114.0;
/// Pixels of a side at most.
const SIDE_MAX: usize = 4096;

/// Order of the dimensions of a model's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Frames, channels, rows, columns.
    Planes,
    /// Channels, frames, rows, columns.
    PlanesOfClip,
    /// Frames, rows, columns, channels.
    Pixels,
}

/// What a model's input looks like.
pub(super) struct Picture {
    pub shape: Vec<usize>,
    pub width: usize,
    pub height: usize,
    frames: usize,
    order: Order,
    fit: FrameFit,
    colours: ColourOrder,
    scale: f32,
    mean: [f32; CHANNELS],
    std: [f32; CHANNELS],
}

/// Where a frame lies in what the model sees: pixel (x, y) of the frame at (left + x * across, top + y * down).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    pub left: f64,
    pub top: f64,
    pub across: f64,
    pub down: f64,
}

impl Picture {
    pub fn new(
        input: &TensorSpec,
        spec: &LabellingSpec,
        hint: Option<&InputHint>,
    ) -> Result<Self, PipelineError> {
        let refuse = |why: String| PipelineError::graph(&input.name, why);
        let layout = hint.map_or(PictureLayout::Nchw, |hint| hint.layout);
        let (order, window_at, channels_at, rank) = match (layout, spec.window) {
            (PictureLayout::Nchw, 1) => (Order::Planes, None, 1, 4),
            (PictureLayout::Nhwc, 1) => (Order::Pixels, None, 3, 4),
            (PictureLayout::Ntchw, _) => (Order::Planes, Some(1), 2, 5),
            (PictureLayout::Ncthw, _) => (Order::PlanesOfClip, Some(2), 1, 5),
            (PictureLayout::Nthwc, _) => (Order::Pixels, Some(1), 4, 5),
            (layout, window) => {
                return Err(refuse(format!(
                    "has the layout {layout} for {window} frames"
                )));
            }
        };
        if input.shape.len() != rank || input.dtype != mote_api::DType::F32 {
            let (dtype, shape) = (input.dtype, &input.shape);
            return Err(refuse(format!(
                "is {dtype} {shape:?}, not f32 like {layout}"
            )));
        }
        let height_at = if order == Order::Pixels {
            rank - 3
        } else {
            rank - 2
        };
        let side = |at: usize, said: Option<usize>, name: &str| match (input.shape[at], said) {
            (Some(fixed), Some(said)) if fixed != said => Err(refuse(format!(
                "has the {name} {fixed}, not {said} as the manifest says"
            ))),
            (Some(side), _) | (None, Some(side)) if (1..=SIDE_MAX).contains(&side) => Ok(side),
            (Some(side), _) => Err(refuse(format!(
                "has the {name} {side}, not 1 to {SIDE_MAX}"
            ))),
            (None, _) => Err(refuse(format!(
                "leaves its {name} open, and so does the manifest"
            ))),
        };
        let height = side(height_at, spec.height, "height")?;
        let width = side(height_at + 1, spec.width, "width")?;
        let mut shape = vec![1; rank];
        shape[channels_at] = CHANNELS;
        (shape[height_at], shape[height_at + 1]) = (height, width);
        if let Some(at) = window_at {
            shape[at] = spec.window;
        }
        if !input.accepts(input.dtype, &shape) {
            return Err(refuse(format!("is {:?}, not like {shape:?}", input.shape)));
        }
        Ok(Self {
            shape,
            width,
            height,
            frames: spec.window,
            order,
            fit: spec.fit,
            colours: spec.colours,
            scale: hint.map_or(1.0 / 255.0, |hint| hint.scale),
            mean: hint.map_or([0.0; CHANNELS], |hint| hint.mean),
            std: hint.map_or([1.0; CHANNELS], |hint| hint.std),
        })
    }

    /// Where a frame of this size lies.
    pub fn place(&self, width: usize, height: usize) -> Place {
        let (have, want) = ([width, height], [self.width, self.height]);
        let ratios = [0, 1].map(|axis| want[axis] as f64 / have[axis] as f64);
        let ratio = match self.fit {
            FrameFit::Letterbox | FrameFit::Corner => ratios[0].min(ratios[1]),
            FrameFit::Crop => ratios[0].max(ratios[1]),
            FrameFit::Stretch => 0.0,
        };
        let sides = [0, 1].map(|axis| match self.fit {
            FrameFit::Stretch => want[axis],
            _ => ((have[axis] as f64 * ratio).round() as usize).max(1),
        });
        let starts = [0, 1].map(|axis| match self.fit {
            FrameFit::Letterbox | FrameFit::Crop => {
                ((want[axis] as f64 - sides[axis] as f64) / 2.0).floor()
            }
            FrameFit::Corner | FrameFit::Stretch => 0.0,
        });
        Place {
            left: starts[0],
            top: starts[1],
            across: sides[0] as f64 / width as f64,
            down: sides[1] as f64 / height as f64,
        }
    }

    /// A frame as RGB values 0..=255, `[height, width, 3]` of what the model sees.
    pub fn fitted(&self, frame: RgbFrame<'_>) -> Vec<f32> {
        let place = self.place(frame.width, frame.height);
        let columns = taps(frame.width, self.width, place.left, place.across);
        let rows = taps(frame.height, self.height, place.top, place.down);
        let outside = match self.fit {
            FrameFit::Letterbox => GREY,
            _ => 0.0,
        };
        // Across first, for those rows of the frame that are of use.
        let used = rows.iter().flatten();
        let first = used.clone().map(|tap| tap.first).min().unwrap_or(0);
        let end = used
            .map(|tap| tap.first + tap.weights.len())
            .max()
            .unwrap_or(0);
        let line = self.width * CHANNELS;
        let mut across = vec![0.0; (end - first) * line];
        for (y, made) in (first..end).zip(across.chunks_exact_mut(line)) {
            let pixels = &frame.rgb8[y * frame.width * CHANNELS..][..frame.width * CHANNELS];
            for (made, tap) in made.as_chunks_mut::<CHANNELS>().0.iter_mut().zip(&columns) {
                let Some(tap) = tap else { continue };
                let pixels = pixels.as_chunks::<CHANNELS>().0[tap.first..].iter();
                for (pixel, weight) in pixels.zip(&tap.weights) {
                    for (made, &value) in made.iter_mut().zip(pixel) {
                        *made += weight * f32::from(value);
                    }
                }
            }
        }
        let mut fitted = vec![outside; self.height * line];
        for (made, tap) in fitted.chunks_exact_mut(line).zip(&rows) {
            let Some(tap) = tap else { continue };
            for (column, made) in columns.iter().zip(made.as_chunks_mut::<CHANNELS>().0) {
                *made = if column.is_some() {
                    [0.0; CHANNELS]
                } else {
                    [outside; CHANNELS]
                };
            }
            for (y, weight) in (tap.first - first..).zip(&tap.weights) {
                let values = &across[y * line..(y + 1) * line];
                let pixels = made.as_chunks_mut::<CHANNELS>().0.iter_mut();
                let values = values.as_chunks::<CHANNELS>().0.iter();
                for ((made, values), _) in pixels
                    .zip(values)
                    .zip(&columns)
                    .filter(|(_, c)| c.is_some())
                {
                    for (made, value) in made.iter_mut().zip(values) {
                        *made += weight * value;
                    }
                }
            }
        }
        fitted
    }

    /// Puts what [`Self::fitted`] gave at place `at` of the window into the whole input.
    pub fn put(&self, fitted: &[f32], at: usize, input: &mut [f32]) {
        let plane = self.width * self.height;
        for (pixel, rgb) in fitted.as_chunks::<CHANNELS>().0.iter().enumerate() {
            for channel in 0..CHANNELS {
                let colour = match self.colours {
                    ColourOrder::Rgb => channel,
                    ColourOrder::Bgr => CHANNELS - 1 - channel,
                };
                let to = match self.order {
                    Order::Planes => (at * CHANNELS + channel) * plane + pixel,
                    Order::PlanesOfClip => (channel * self.frames + at) * plane + pixel,
                    Order::Pixels => (at * plane + pixel) * CHANNELS + channel,
                };
                input[to] = (rgb[colour] * self.scale - self.mean[channel]) / self.std[channel];
            }
        }
    }
}

/// What one pixel of the result is made of: pixels of the frame from `first` on, with their weights.
struct Tap {
    first: usize,
    weights: Vec<f32>,
}

/// Bilinear, with the filter widened where pictures shrink, as Pillow's `BILINEAR` and PyTorch's
/// `interpolate(antialias=True)`: pixel `x` of the result is the mean of the frame's pixels under a triangle
/// around (x − start + ½) / ratio, of half the width max(1, 1 / ratio). `None` beside the frame.
fn taps(have: usize, want: usize, start: f64, ratio: f64) -> Vec<Option<Tap>> {
    let reach = (1.0 / ratio).max(1.0);
    let made = (have as f64 * ratio).round();
    let tap = |x: usize| {
        let at = x as f64 - start;
        if at < 0.0 || at >= made {
            return None;
        }
        let middle = (at + 0.5) / ratio;
        let first = ((middle - reach + 0.5).floor().max(0.0) as usize).min(have - 1);
        let end = ((middle + reach + 0.5).floor() as usize).clamp(first + 1, have);
        let weight = |pixel: usize| (1.0 - (pixel as f64 + 0.5 - middle).abs() / reach).max(0.0);
        let sum: f64 = (first..end).map(weight).sum();
        Some(Tap {
            first,
            weights: (first..end)
                .map(|pixel| (weight(pixel) / sum) as f32)
                .collect(),
        })
    };
    (0..want).map(tap).collect()
}
