//! Frames as inputs and outputs of a stream: which are bound as they are, and which are converted.

use super::layout::{Frame, FrameFormat, FrameLayout, overlap};
use super::picture::Picture;
use super::reader::FrameReader;
use super::writer::FrameWriter;
use super::{ColorRange, FRAME_SIDE_PIXELS_MAX};
use crate::{NamedTarget, NamedTensor, PipelineError};
use mote_api::{
    Buffer, ChannelOrder, DType, InputHint, OutputHint, PictureLayout, Signature, Tensor,
    TensorSpec,
};
use std::ops::Range;

/// Frames are bound only where libraries may read whole registers: TFLite asks for it.
const ALIGNMENT_BYTES: usize = 64;

/// A frame that becomes an input.
#[derive(Clone, Debug)]
pub struct FrameSource {
    /// Name of the input in the model.
    pub name: String,
    /// Where it lies.
    pub buffer: Buffer,
    /// How.
    pub layout: FrameLayout,
    /// Width and height of the input, where the model leaves them open; those of the frame when absent.
    pub size: Option<(usize, usize)>,
}

/// Where an output is to be written as a frame. Its size is that of the output.
#[derive(Clone, Debug)]
pub struct FrameTarget {
    /// Name of the output in the model.
    pub name: String,
    /// Where it is to lie.
    pub buffer: Buffer,
    /// How.
    pub layout: FrameLayout,
}

/// What of a frame decides how it is converted; where its planes lie does not.
#[derive(Clone, Debug, PartialEq)]
struct Kind {
    layout: FrameLayout,
    picture: Picture,
}

impl Kind {
    fn of(layout: &FrameLayout, picture: &Picture) -> Self {
        let planes = Vec::new();
        Self {
            layout: FrameLayout {
                planes,
                ..layout.clone()
            },
            picture: *picture,
        }
    }
}

/// What a stream knows of frames from its earlier pushes: at most one converter for each input and output.
pub(crate) struct FramePorts {
    input_hints: Vec<InputHint>,
    output_hints: Vec<OutputHint>,
    readers: Vec<Reading>,
    writers: Vec<Writing>,
    /// Whether a tensor was replaced by one of another size.
    outgrown: bool,
}

struct Reading {
    name: String,
    kind: Kind,
    reader: FrameReader,
    /// What the input is bound to.
    tensor: Tensor,
}

impl Reading {
    fn new(
        (name, shape): (&str, &[usize]),
        (layout, picture): (&FrameLayout, &Picture),
        hint: &InputHint,
    ) -> Result<Self, PipelineError> {
        Ok(Self {
            name: name.to_owned(),
            kind: Kind::of(layout, picture),
            reader: FrameReader::new(layout, picture, hint),
            tensor: Tensor::zeroed(picture.dtype, shape)?,
        })
    }

    /// Makes it one for frames of this kind.
    fn fit(&mut self, (layout, picture): (&FrameLayout, &Picture), hint: &InputHint) {
        let kind = Kind::of(layout, picture);
        if self.kind != kind {
            self.reader = FrameReader::new(layout, picture, hint);
            self.kind = kind;
        }
    }
}

struct Writing {
    name: String,
    kind: Kind,
    writer: FrameWriter,
}

/// A frame whose input is known.
pub(crate) struct CheckedSource {
    name: String,
    frame: Frame,
    tensor: Tensor,
    is_converted: bool,
}

/// A frame whose output is known.
pub(crate) struct CheckedTarget {
    /// Place of the output in the signature.
    pub index: usize,
    name: String,
    frame: Frame,
    picture: Picture,
    /// What the output must turn out to be.
    shape: Vec<usize>,
    /// The frame's own memory, where the output is bound to it.
    tensor: Option<Tensor>,
}

impl CheckedSource {
    /// What is to be bound.
    pub fn input(&self) -> NamedTensor {
        NamedTensor {
            name: self.name.clone(),
            tensor: self.tensor.clone(),
        }
    }
}

impl CheckedTarget {
    /// What is to be bound, if it is the frame itself.
    pub fn output(&self) -> Option<NamedTarget> {
        let name = self.name.clone();
        self.tensor
            .clone()
            .map(|tensor| NamedTarget { name, tensor })
    }
}

impl FramePorts {
    pub fn new(input_hints: &[InputHint], output_hints: &[OutputHint]) -> Self {
        Self {
            input_hints: input_hints.to_vec(),
            output_hints: output_hints.to_vec(),
            readers: Vec::new(),
            writers: Vec::new(),
            outgrown: false,
        }
    }

    /// Checks a frame against the input it is to become, and has a tensor for it.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] with the field's path (`frames[NAME].planes[0].stride`, …).
    pub fn source(
        &mut self,
        signature: &Signature,
        source: &FrameSource,
    ) -> Result<CheckedSource, PipelineError> {
        let checked = self.check_source(&signature.inputs, source);
        checked.map_err(|error| within("frames", &source.name, error))
    }

    fn check_source(
        &mut self,
        specs: &[TensorSpec],
        source: &FrameSource,
    ) -> Result<CheckedSource, PipelineError> {
        let spec = specs.iter().find(|spec| spec.name == source.name);
        let spec = spec.ok_or_else(|| {
            PipelineError::invalid("name", "the model has no such input for frames")
        })?;
        let hint = self.input_hints.iter().find(|hint| hint.name == spec.name);
        let own = tensor_layout(source.layout.format);
        let plain = own.map(|layout| InputHint::plain(&spec.name, layout));
        let hint_or_plain = hint.or(plain.as_ref());
        let hint_or_plain = hint_or_plain.ok_or_else(|| no_hint("input", "becomes this input"))?;
        let layout = &source.layout;
        let size = source.size.unwrap_or((layout.width, layout.height));
        check_size(size)?;
        let picture = Picture::of_input(spec, hint_or_plain, size)?;
        if source.size.is_some() && size != (picture.width, picture.height) {
            let why = format!("the model takes {} × {}", picture.width, picture.height);
            return Err(PipelineError::invalid("tensor_width", why));
        }
        let frame = Frame::new(&source.buffer, layout, picture.channels)?;
        let shape = picture.shape(spec.shape.len());
        let name = source.name.clone();
        if let Some(tensor) = bound(&frame, &picture, &shape)? {
            return Ok(CheckedSource {
                name,
                frame,
                tensor,
                is_converted: false,
            });
        }
        let hint = hint.ok_or_else(|| no_hint("input", "becomes this input"))?;
        let reading = self.readers.iter_mut().find(|known| known.name == name);
        let reading = match reading {
            Some(known) => known,
            None => {
                let new = Reading::new((&name, &shape), (layout, &picture), hint)?;
                self.readers.push_mut(new)
            }
        };
        if reading.tensor.shape() != shape {
            self.outgrown = true;
            *reading = Reading::new((&name, &shape), (layout, &picture), hint)?;
        }
        reading.fit((layout, &picture), hint);
        Ok(CheckedSource {
            tensor: reading.tensor.clone(),
            name,
            frame,
            is_converted: true,
        })
    }

    /// Whether a tensor was replaced by one of another size since this was asked last: what is bound to the old
    /// one should let go of it.
    pub fn take_outgrown(&mut self) -> bool {
        std::mem::take(&mut self.outgrown)
    }

    /// Fills the tensor of a frame, unless it is the frame itself; the bytes written.
    pub fn read(&mut self, source: &CheckedSource) -> Result<u64, PipelineError> {
        if !source.is_converted {
            return Ok(0);
        }
        let mut readers = self.readers.iter_mut();
        let reading = readers.find(|reading| reading.name == source.name);
        let reading = reading.ok_or_else(|| PipelineError::invalid("frames", "is not known"))?;
        reading.reader.read(&source.frame, &source.tensor)
    }

    /// Checks a frame against the output it is to be made of.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] with the field's path (`frame_outputs[NAME].width`, …).
    pub fn target(
        &self,
        signature: &Signature,
        target: &FrameTarget,
    ) -> Result<CheckedTarget, PipelineError> {
        let checked = self.check_target(&signature.outputs, target);
        checked.map_err(|error| within("frame_outputs", &target.name, error))
    }

    fn check_target(
        &self,
        specs: &[TensorSpec],
        target: &FrameTarget,
    ) -> Result<CheckedTarget, PipelineError> {
        let index = specs.iter().position(|spec| spec.name == target.name);
        let index = index.ok_or_else(|| {
            PipelineError::invalid("name", "the model has no such output for frames")
        })?;
        let spec = &specs[index];
        let layout = &target.layout;
        let hint = self.output_hints.iter().find(|hint| hint.name == spec.name);
        let own = tensor_layout(layout.format);
        let plain = own.map(|layout| OutputHint::plain(&spec.name, layout));
        let hint_or_plain = hint.or(plain.as_ref());
        let hint_or_plain = hint_or_plain.ok_or_else(|| no_hint("output", "is a picture"))?;
        let size = (layout.width, layout.height);
        check_size(size)?;
        let picture = Picture::of_output(spec, hint_or_plain, size)?;
        check_output_size(layout, (picture.width, picture.height))?;
        let frame = Frame::new(&target.buffer, layout, picture.channels)?;
        if !frame.is_writable() {
            return Err(PipelineError::invalid("buffer", "is read-only"));
        }
        let shape = picture.shape(spec.shape.len());
        let tensor = bound(&frame, &picture, &shape)?;
        if tensor.is_none() && hint.is_none() {
            return Err(no_hint("output", "is a picture"));
        }
        Ok(CheckedTarget {
            index,
            name: target.name.clone(),
            frame,
            picture,
            shape,
            tensor,
        })
    }

    /// Writes what the model computed, unless the output was bound to the frame; the bytes written.
    ///
    /// # Errors
    /// When the output turned out to be of another size.
    pub fn write(&mut self, target: &CheckedTarget, output: &Tensor) -> Result<u64, PipelineError> {
        let picture = &target.picture;
        if target.tensor.is_some() {
            return Ok(0);
        }
        if output.shape() != target.shape {
            let why = format!("the output is {:?}", output.shape());
            let error = PipelineError::invalid("width", why);
            return Err(within("frame_outputs", &target.name, error));
        }
        let kind = Kind::of(target.frame.layout(), picture);
        self.writers
            .retain(|known| known.name != target.name || known.kind == kind);
        let known = self
            .writers
            .iter()
            .position(|known| known.name == target.name);
        let at = known.unwrap_or_else(|| {
            self.writers.push(Writing {
                name: target.name.clone(),
                writer: FrameWriter::new(target.frame.layout(), picture),
                kind,
            });
            self.writers.len() - 1
        });
        self.writers[at].writer.write(output, &target.frame)
    }
}

/// Refuses frames that are to be written where something else of the push lies, and two frames for one
/// input or output.
pub(crate) fn check_apart(
    (sources, targets): (&[CheckedSource], &[CheckedTarget]),
    (inputs, outputs): (&[NamedTensor], &[NamedTarget]),
) -> Result<(), PipelineError> {
    let addresses = |tensor: &Tensor| {
        let start = tensor.as_ptr().addr();
        start..start + tensor.bytes()
    };
    let inputs_at = inputs.iter().map(|input| addresses(&input.tensor));
    let outputs_at = outputs.iter().map(|output| addresses(&output.tensor));
    let mut taken: Vec<Range<usize>> = inputs_at.chain(outputs_at).collect();
    taken.extend(sources.iter().map(|source| source.frame.addresses()));
    for target in targets {
        let here = target.frame.addresses();
        if taken.iter().any(|there| overlap(there, &here)) {
            let error = PipelineError::invalid("planes", "overlap an input or another output");
            return Err(within("frame_outputs", &target.name, error));
        }
        taken.push(here);
    }
    let twice = |list: &str, name: &str| {
        let error = PipelineError::invalid("name", "is there twice");
        Err(within(list, name, error))
    };
    for (index, source) in sources.iter().enumerate() {
        let named = inputs.iter().any(|input| input.name == source.name);
        if named
            || sources[..index]
                .iter()
                .any(|other| other.name == source.name)
        {
            return twice("frames", &source.name);
        }
    }
    for (index, target) in targets.iter().enumerate() {
        let named = outputs.iter().any(|output| output.name == target.name);
        if named
            || targets[..index]
                .iter()
                .any(|other| other.name == target.name)
        {
            return twice("frame_outputs", &target.name);
        }
    }
    Ok(())
}

/// The frame as a tensor of the picture's type and shape, if its bytes are just that.
fn bound(
    frame: &Frame,
    picture: &Picture,
    shape: &[usize],
) -> Result<Option<Tensor>, PipelineError> {
    let layout = frame.layout();
    let is_same = (layout.width, layout.height) == (picture.width, picture.height)
        && layout.format.dtype() == picture.dtype
        && match layout.format {
            FrameFormat::Nv12 | FrameFormat::I420 | FrameFormat::Rgba8 => false,
            FrameFormat::Gray8 => picture.channels == 1,
            FrameFormat::Rgb8 => is_packed(picture, ChannelOrder::Rgb),
            FrameFormat::Bgr8 => is_packed(picture, ChannelOrder::Bgr),
            floats => picture.channels == 1 || tensor_layout(floats) == Some(picture.layout),
        };
    let holds_pixels = picture.holds_pixels() && layout.range == ColorRange::Full;
    if !is_same || !(layout.format.is_float() || holds_pixels) {
        return Ok(None);
    }
    match frame.dense_offset() {
        Some(offset) if offset.is_multiple_of(ALIGNMENT_BYTES) => {
            let buffer = frame.buffer().clone();
            Ok(Some(Tensor::new(picture.dtype, shape, buffer, offset)?))
        }
        _ => Ok(None),
    }
}

fn is_packed(picture: &Picture, order: ChannelOrder) -> bool {
    picture.dtype == DType::U8
        && picture.channels == 3
        && picture.layout == PictureLayout::Nhwc
        && picture.order == order
}

fn tensor_layout(format: FrameFormat) -> Option<PictureLayout> {
    match format {
        FrameFormat::F32Nchw | FrameFormat::F16Nchw => Some(PictureLayout::Nchw),
        FrameFormat::F32Nhwc | FrameFormat::F16Nhwc => Some(PictureLayout::Nhwc),
        _ => None,
    }
}

fn check_size((width, height): (usize, usize)) -> Result<(), PipelineError> {
    for (field, side) in [("width", width), ("height", height)] {
        if !(1..=FRAME_SIDE_PIXELS_MAX).contains(&side) {
            let why = format!("{side} is not 1 to {FRAME_SIDE_PIXELS_MAX}");
            return Err(PipelineError::invalid(field, why));
        }
    }
    Ok(())
}

fn check_output_size(
    layout: &FrameLayout,
    (width, height): (usize, usize),
) -> Result<(), PipelineError> {
    for (field, have, want) in [
        ("width", layout.width, width),
        ("height", layout.height, height),
    ] {
        if have != want {
            let why = format!("is {have}, the output's is {want}");
            return Err(PipelineError::invalid(field, why));
        }
    }
    Ok(())
}

fn no_hint(section: &str, what: &str) -> PipelineError {
    let why = format!("the model's manifest does not say how a picture {what} ([[{section}]])");
    PipelineError::invalid("name", why)
}

fn within(list: &str, name: &str, error: PipelineError) -> PipelineError {
    match error {
        PipelineError::Invalid { field, why } => {
            PipelineError::invalid(format!("{list}[{name}].{field}"), why)
        }
        other => other,
    }
}
