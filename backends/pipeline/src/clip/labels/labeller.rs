//! [`Labeller`]: a model that says what is in frames, run over a stream of them.

use super::boxes::{self, Detected, Table};
use super::picture::Picture;
use super::scores::{activate, best};
use super::{Labelled, LabelledBox};
use crate::PipelineError;
use crate::cancel::StepCancel;
use crate::clip::Rgb;
use crate::clip::interpolator::check_frame;
use mote_api::{
    Canceller, Carry, ClassificationSpec, DType, DetectionSpec, LabellingSpec, Manifest, Model,
    OutputTarget, RunReport, Session, Signature, StateSpec, Stateful, Tensor,
};
use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes of an input, of a state, or of what a window keeps.
const TENSOR_BYTES_MAX: usize = 1 << 30;
/// Numbers of an output that are looked at.
const OUTPUT_ELEMENTS_MAX: usize = 1 << 24;
/// The first number that is too large for a class.
const CLASSES_END: f32 = 4_294_967_296.0;

/// What [`Labeller::step`] came to.
#[derive(Clone, Debug, PartialEq)]
pub enum LabelStep {
    /// Nothing can be done before [`Labeller::push`] or [`Labeller::end`].
    NeedsFrame,
    /// What is to be seen in the next frame, or window.
    Labelled(Labelled),
    /// All frames are labelled.
    Ended,
}

/// Labels a stream of frames, one run of the model a step, in memory that does not grow with the stream.
///
/// Frames may differ in size, but for those of one window. States start at zero, go from run to run, and
/// stay where the model computes, where that can keep them.
pub struct Labeller {
    session: Stateful,
    spec: LabellingSpec,
    picture: Picture,
    ports: Ports,
    names: Vec<String>,
    input: Tensor,
    values: Vec<f32>,
    cancel: StepCancel,
    /// Frames of the window, as the model sees them.
    window: VecDeque<Vec<f32>>,
    /// Number of the first of them, and width and height of the last.
    first: u64,
    size: (usize, usize),
    /// Frames up to here are labelled.
    labelled: u64,
    ended: bool,
    last_scores: Vec<f32>,
    last_boxes: Vec<LabelledBox>,
    report: RunReport,
    steps: u64,
}

/// Positions of outputs in the model's signature.
enum Ports {
    Scores {
        output: usize,
        spec: ClassificationSpec,
    },
    Boxes {
        boxes: usize,
        scores: Option<usize>,
        classes: Option<usize>,
        spec: Box<DetectionSpec>,
    },
}

impl Labeller {
    /// A labeller for one stream. `names` are those of the classes, in order, or none.
    ///
    /// # Errors
    /// [`PipelineError::Graph`] when the model is not what the manifest says, or takes too much.
    pub fn open(
        model: &Arc<dyn Model>,
        manifest: &Manifest,
        names: Vec<String>,
    ) -> Result<Self, PipelineError> {
        let Some(spec) = &manifest.labelling else {
            return Err(PipelineError::invalid("model", "does not label frames"));
        };
        let signature = model.signature();
        let input = find(&spec.input, signature.input(&spec.input))?;
        let hint = manifest.inputs.iter().find(|hint| hint.name == spec.input);
        let picture = Picture::new(&signature.inputs[input], spec, hint)?;
        let ports = Ports::find(signature, spec, names.len())?;
        let states = states(signature, spec, input)?;
        bounded(&spec.input, &picture.shape)?;
        let mut session = Stateful::new(model.session()?);
        for state in states {
            session.keep(state)?;
        }
        let tensor = Tensor::zeroed(DType::F32, &picture.shape)?;
        session.bind_input(input, &tensor)?;
        for output in ports.outputs() {
            session.bind_output(output, OutputTarget::Allocate)?;
        }
        Ok(Self {
            session,
            spec: spec.clone(),
            values: vec![0.0; tensor.elements()],
            picture,
            ports,
            names,
            input: tensor,
            cancel: StepCancel::default(),
            window: VecDeque::new(),
            first: 0,
            size: (0, 0),
            labelled: 0,
            ended: false,
            last_scores: Vec::new(),
            last_boxes: Vec::new(),
            report: RunReport::default(),
            steps: 0,
        })
    }

    /// Takes the next frame; only after [`LabelStep::NeedsFrame`].
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] for a frame that is empty, too large, or out of turn.
    pub fn push(&mut self, frame: Rgb) -> Result<(), PipelineError> {
        check_frame(frame.as_frame())?;
        if self.ended || self.window.len() >= self.spec.window {
            return Err(PipelineError::invalid("frame", "comes out of turn"));
        }
        self.size = (frame.width, frame.height);
        self.window.push_back(self.picture.fitted(frame.as_frame()));
        Ok(())
    }

    /// Says that there are no more frames.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Runs the model at most once.
    ///
    /// # Errors
    /// What failed; after [`PipelineError::Cancelled`] the step can be asked for again.
    pub fn step(&mut self) -> Result<LabelStep, PipelineError> {
        let count = self.first + self.window.len() as u64;
        if self.window.len() < self.spec.window {
            match self.ended {
                false => return Ok(LabelStep::NeedsFrame),
                true if count <= self.labelled => return Ok(LabelStep::Ended),
                true => {}
            }
        }
        for at in 0..self.spec.window {
            // A window that is not full is filled up with its last frame.
            let frame = self.window.get(at).or(self.window.back());
            if let Some(frame) = frame {
                self.picture.put(frame, at, &mut self.values);
            }
        }
        self.input.write(&self.values)?;
        let report = self.cancel.run(&mut self.session)?;
        self.report.compute_us += report.compute_us;
        self.report.bytes_copied += report.bytes_copied;
        self.steps += 1;
        let labelled = self.read()?;
        self.labelled = count;
        for _ in 0..self.spec.stride().min(self.window.len()) {
            self.window.pop_front();
            self.first += 1;
        }
        Ok(LabelStep::Labelled(labelled))
    }

    fn read(&mut self) -> Result<Labelled, PipelineError> {
        let mut made = Labelled {
            frame_index: self.first,
            frame_count: self.window.len() as u64,
            ..Labelled::default()
        };
        match &self.ports {
            Ports::Scores { output, spec } => {
                let mut scores = self.floats(*output)?;
                activate(spec.activation, &mut scores);
                if scores.iter().any(|score| !score.is_finite()) {
                    let (frame_index, why) = (self.first, "are not all numbers");
                    return Err(PipelineError::Scores { frame_index, why });
                }
                check_names(self.names.len(), scores.len(), &spec.output)?;
                // The first result has nothing before it.
                if self.last_scores.len() == scores.len() {
                    for (score, last) in scores.iter_mut().zip(&self.last_scores) {
                        *score += (last - *score) * self.spec.smoothing;
                    }
                }
                made.labels = best(spec, &scores);
                self.last_scores = scores;
            }
            Ports::Boxes { spec, .. } => {
                made.boxes = self.boxes(spec)?;
                if self.spec.smoothing > 0.0 {
                    boxes::smooth(self.spec.smoothing, &self.last_boxes, &mut made.boxes);
                    self.last_boxes.clone_from(&made.boxes);
                }
            }
        }
        let name = |class: u32| match self.names.get(class as usize) {
            Some(name) => name.clone(),
            None => class.to_string(),
        };
        for label in &mut made.labels {
            label.label = name(label.class);
        }
        for labelled in &mut made.boxes {
            labelled.label = name(labelled.class);
        }
        Ok(made)
    }

    fn boxes(&self, spec: &DetectionSpec) -> Result<Vec<LabelledBox>, PipelineError> {
        let Ports::Boxes {
            boxes,
            scores,
            classes,
            ..
        } = &self.ports
        else {
            return Ok(Vec::new());
        };
        let box_tensor = self.session.output(*boxes)?;
        let box_values = self.floats(*boxes)?;
        let box_table = table(spec, &spec.boxes, &box_tensor, &box_values, false)?;
        let name = spec.scores.as_deref().unwrap_or_default();
        let score_tensor = scores
            .map(|output| self.session.output(output))
            .transpose()?;
        let score_values = scores.map(|output| self.floats(output)).transpose()?;
        let score_table = match (&score_tensor, &score_values) {
            (Some(tensor), Some(values)) => {
                Some(table(spec, name, tensor, values, spec.classes.is_some())?)
            }
            _ => None,
        };
        let classes =
            classes.map(|output| class_numbers(&self.bounded_output(output)?, self.names.len()));
        let classes = classes.transpose()?;
        let offset = 4 + usize::from(spec.objectness);
        let (numbers, taken) = match &score_table {
            Some(scores) => (scores.numbers, usize::from(spec.objectness)),
            None => (box_table.numbers, offset),
        };
        let fits = box_table.numbers >= 4
            && numbers > taken
            && score_table
                .as_ref()
                .is_none_or(|it| it.candidates == box_table.candidates)
            && classes
                .as_ref()
                .is_none_or(|it| it.len() == box_table.candidates);
        if !fits {
            let why = "and its scores do not fit each other, or what the manifest says";
            return Err(PipelineError::graph(&spec.boxes, why));
        }
        if classes.is_none() {
            check_names(self.names.len(), numbers - taken, &spec.boxes)?;
        }
        let detected = Detected {
            boxes: box_table,
            scores: score_table,
            classes,
        };
        Ok(boxes::boxes(spec, &detected, &self.picture, self.size))
    }

    fn floats(&self, output: usize) -> Result<Vec<f32>, PipelineError> {
        Ok(self.bounded_output(output)?.read::<f32>()?)
    }

    fn bounded_output(&self, output: usize) -> Result<Tensor, PipelineError> {
        let tensor = self.session.output(output)?;
        if tensor.elements() > OUTPUT_ELEMENTS_MAX {
            let why = format!("has over {OUTPUT_ELEMENTS_MAX} elements");
            return Err(PipelineError::graph(&self.output_name(output), why));
        }
        Ok(tensor)
    }

    fn output_name(&self, output: usize) -> String {
        match &self.ports {
            Ports::Scores { spec, .. } => spec.output.clone(),
            Ports::Boxes { boxes, spec, .. } if *boxes == output => spec.boxes.clone(),
            Ports::Boxes { classes, spec, .. } if *classes == Some(output) => {
                spec.classes.clone().unwrap_or_default()
            }
            Ports::Boxes { spec, .. } => spec.scores.clone().unwrap_or_default(),
        }
    }

    /// Sums over all runs so far.
    pub fn report(&self) -> RunReport {
        self.report
    }

    /// Runs so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Stops the run in progress, or else the next one, from another thread.
    pub fn canceller(&self) -> Canceller {
        self.cancel.canceller()
    }
}

impl Ports {
    fn find(
        signature: &Signature,
        spec: &LabellingSpec,
        names: usize,
    ) -> Result<Self, PipelineError> {
        let output = |name: &String| {
            let at = find(name, signature.output(name))?;
            match signature.outputs[at].dtype {
                DType::F32 => Ok(at),
                dtype => Err(PipelineError::graph(name, format!("is {dtype}, not f32"))),
            }
        };
        match (&spec.classification, &spec.detection) {
            (Some(classification), _) => {
                let at = output(&classification.output)?;
                let shape = &signature.outputs[at].shape;
                let elements: Option<usize> = shape.iter().copied().product();
                if let Some(classes) = elements {
                    check_names(names, classes, &classification.output)?;
                }
                Ok(Self::Scores {
                    output: at,
                    spec: classification.clone(),
                })
            }
            (None, Some(detection)) => Ok(Self::Boxes {
                boxes: output(&detection.boxes)?,
                scores: detection.scores.as_ref().map(output).transpose()?,
                classes: detection
                    .classes
                    .as_ref()
                    .map(|name| find(name, signature.output(name)))
                    .transpose()?,
                spec: Box::new(detection.clone()),
            }),
            (None, None) => Err(PipelineError::invalid("model", "labels nothing")),
        }
    }

    fn outputs(&self) -> Vec<usize> {
        match self {
            Self::Scores { output, .. } => vec![*output],
            Self::Boxes {
                boxes,
                scores,
                classes,
                ..
            } => [Some(*boxes), *scores, *classes]
                .into_iter()
                .flatten()
                .collect(),
        }
    }
}

fn find(name: &str, position: Option<usize>) -> Result<usize, PipelineError> {
    position.ok_or_else(|| PipelineError::graph(name, "is named by the manifest and missing"))
}

fn check_names(names: usize, classes: usize, output: &str) -> Result<(), PipelineError> {
    if names == 0 || names == classes {
        return Ok(());
    }
    let why = format!("tells of {classes} classes, and there are {names} labels");
    Err(PipelineError::graph(output, why))
}

fn bounded(name: &str, shape: &[usize]) -> Result<(), PipelineError> {
    match Tensor::bytes_of(DType::F32, shape)? {
        0..=TENSOR_BYTES_MAX => Ok(()),
        bytes => {
            let why = format!("takes {bytes} bytes, over {TENSOR_BYTES_MAX}");
            Err(PipelineError::graph(name, why))
        }
    }
}

fn states(
    signature: &Signature,
    spec: &LabellingSpec,
    picture: usize,
) -> Result<Vec<StateSpec>, PipelineError> {
    let mut states = Vec::new();
    for state in &spec.state {
        let input = find(&state.input, signature.input(&state.input))?;
        let output = find(&state.output, signature.output(&state.output))?;
        let dtype = signature.inputs[input].dtype;
        bounded(&state.input, &state.shape)?;
        for spec in [&signature.inputs[input], &signature.outputs[output]] {
            if !spec.accepts(dtype, &state.shape) {
                let (have, shape) = (&spec.shape, &state.shape);
                let why = format!("is {} {have:?}, not {dtype} {shape:?}", spec.dtype);
                return Err(PipelineError::graph(&spec.name, why));
            }
        }
        states.push(StateSpec {
            input,
            dtype,
            shape: state.shape.clone(),
            carry: Carry::Alternating { output },
        });
    }
    for (index, input) in signature.inputs.iter().enumerate() {
        let feeds = states.iter().filter(|state| state.input == index).count();
        if feeds + usize::from(index == picture) != 1 {
            let why = "is an input that the manifest names not at all, or twice";
            return Err(PipelineError::graph(&input.name, why));
        }
    }
    Ok(states)
}

/// An output as a table, `is_single` for one number a candidate.
fn table<'a>(
    spec: &DetectionSpec,
    name: &str,
    tensor: &Tensor,
    values: &'a [f32],
    is_single: bool,
) -> Result<Table<'a>, PipelineError> {
    use mote_api::CandidateLayout::{Columns, Rows};
    let shape = tensor.shape();
    let (candidates, numbers) = match (shape, spec.layout, is_single) {
        (&[1, candidates], _, true) => (candidates, 1),
        (&[1, candidates, numbers], Rows, _) | (&[1, numbers, candidates], Columns, _) => {
            (candidates, numbers)
        }
        _ => {
            let why = format!("is {shape:?}, not [1, candidates, numbers] or the like");
            return Err(PipelineError::graph(name, why));
        }
    };
    Ok(Table {
        values,
        candidates,
        numbers,
        layout: spec.layout,
    })
}

/// Classes of candidates; `None` for what is no class. There are `names` classes, or any number where that is 0.
fn class_numbers(tensor: &Tensor, names: usize) -> Result<Vec<Option<u32>>, PipelineError> {
    let classes: Vec<Option<u32>> = match tensor.dtype() {
        DType::I64 => {
            let values = tensor.read::<i64>()?;
            values.iter().map(|&v| u32::try_from(v).ok()).collect()
        }
        DType::I32 => {
            let values = tensor.read::<i32>()?;
            values.iter().map(|&v| u32::try_from(v).ok()).collect()
        }
        _ => {
            let values = tensor.read::<f32>()?;
            let class = |&v: &f32| (0.0..CLASSES_END).contains(&v).then_some(v as u32);
            values.iter().map(class).collect()
        }
    };
    let is_known = |class: &u32| names == 0 || (*class as usize) < names;
    Ok(classes
        .into_iter()
        .map(|class| class.filter(is_known))
        .collect())
}
