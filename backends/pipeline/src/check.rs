//! The check input of a model: made from what its inputs and its manifest say, the same on every
//! machine and for every backend, to compare and to time ways to run it.

use crate::PipelineError;
use crate::cancel::CancelFlag;
use crate::clip::{input_shape, picture_shape};
use crate::embed::{EmbeddingGraph, compute};
use crate::stream::constant_tensor;
use crate::text::{Bank, TextGraph};
use mote_api::{
    CheckInput, ConstantInput, DType, EmbeddingSpec, InputHint, Manifest, Model, PictureLayout,
    Samples, Session, Signature, Tensor, TensorSpec, TextSpec, ValueRange,
};
use std::sync::Arc;

/// Bytes of all inputs together; a larger check input says nothing more.
const INPUT_BYTES_MAX: usize = 256 << 20;
/// Tokens that are read at once, then tokens that follow one by one.
const PROMPT_TOKENS: usize = 32;
const ANSWER_TOKENS: usize = 8;
/// Side of a frame of a clip, at least.
const FRAME_PIXELS: usize = 256;
/// Side of a frame that is restored, at least: such models compute far more for each pixel.
const RESTORED_PIXELS: usize = 64;
/// Side of a picture whose size the model leaves open.
const PICTURE_PIXELS: usize = 224;
/// Values of integers that may be indices, exclusive: hardly any table has fewer rows.
const INDICES: f64 = 2.;

/// A model with its check input.
pub struct Check(Work);

enum Work {
    Tensors {
        session: Box<dyn Session>,
        signature: Signature,
    },
    Text {
        bank: Box<Bank>,
        ids: Vec<u32>,
        /// After the prompt, and after each token that follows.
        logits: Vec<Vec<f32>>,
    },
    Embedding {
        session: Box<dyn Session>,
        graph: Box<EmbeddingGraph>,
        spec: Box<EmbeddingSpec>,
        ids: Vec<u32>,
        vector: Vec<f32>,
    },
}

impl Check {
    /// Makes a session and binds the input.
    ///
    /// # Errors
    /// When the input would be too large, the manifest does not fit the model, or the library fails.
    pub fn prepare(manifest: &Manifest, model: &Arc<dyn Model>) -> Result<Self, PipelineError> {
        Ok(Self(match (&manifest.text, &manifest.embedding) {
            (Some(spec), _) => text(spec, model)?,
            (None, Some(spec)) => embedding(spec, model)?,
            (None, None) => tensors(manifest, model)?,
        }))
    }

    /// Computes once, from the beginning.
    ///
    /// # Errors
    /// When the library fails, or refuses the input.
    pub fn run(&mut self) -> Result<(), PipelineError> {
        match &mut self.0 {
            Work::Tensors { session, .. } => drop(session.run()?),
            Work::Text { bank, ids, logits } => {
                let cancel = CancelFlag::default();
                let prompt = ids.len() - logits.len() + 1;
                bank.rows[0].cut(0);
                bank.compute(&cancel, 0, &ids[..prompt], 1)?;
                bank.logits(0, 0, &mut logits[0])?;
                for (at, logits) in (prompt..ids.len()).zip(&mut logits[1..]) {
                    bank.compute(&cancel, 0, &ids[at..=at], 1)?;
                    bank.logits(0, 0, logits)?;
                }
            }
            Work::Embedding {
                session,
                graph,
                spec,
                ids,
                vector,
            } => {
                let cancel = CancelFlag::default();
                let (vectors, _) = compute(session.as_mut(), (graph, spec), &cancel, &[ids])?;
                *vector = vectors.concat();
            }
        }
        Ok(())
    }

    /// Samples of what the last run computed.
    ///
    /// # Errors
    /// Before the first run, and when outputs cannot be read.
    pub fn samples(&self) -> Result<Samples, PipelineError> {
        let named = match &self.0 {
            Work::Tensors { session, signature } => {
                let outputs = signature.outputs.iter().enumerate();
                let read = |(index, spec): (usize, &TensorSpec)| {
                    Ok((spec.name.clone(), session.output(index)?))
                };
                outputs
                    .map(read)
                    .collect::<Result<Vec<_>, PipelineError>>()?
            }
            Work::Text { logits, .. } => {
                let of_step = |(step, logits): (usize, &Vec<f32>)| {
                    let tensor = Tensor::from_slice(&[logits.len()], logits)?;
                    Ok((format!("logits {step}"), tensor))
                };
                let steps = logits.iter().enumerate().map(of_step);
                steps.collect::<Result<Vec<_>, PipelineError>>()?
            }
            Work::Embedding { vector, .. } => {
                let tensor = Tensor::from_slice(&[vector.len()], vector)?;
                vec![("embedding".to_owned(), tensor)]
            }
        };
        let named = named.iter().map(|(name, tensor)| (name.as_str(), tensor));
        Ok(Samples::of(named)?)
    }
}

fn text(spec: &TextSpec, model: &Arc<dyn Model>) -> Result<Work, PipelineError> {
    let graph = Arc::new(TextGraph::new(model.signature(), spec)?);
    let bank = Box::new(Bank::new(model.as_ref(), &graph, spec.vocab, 1)?);
    let prompt = PROMPT_TOKENS.min(spec.context_tokens.div_ceil(2));
    let answer = ANSWER_TOKENS.min(spec.context_tokens - prompt);
    let mut numbers = Numbers::seeded("input_ids");
    let draw = |_| (numbers.next() * spec.vocab as f64) as u32;
    Ok(Work::Text {
        bank,
        ids: (0..prompt + answer).map(draw).collect(),
        logits: vec![Vec::new(); answer + 1],
    })
}

fn embedding(spec: &EmbeddingSpec, model: &Arc<dyn Model>) -> Result<Work, PipelineError> {
    let mut numbers = Numbers::seeded("input_ids");
    let draw = |_| (numbers.next() * spec.vocab as f64) as u32;
    let tokens = PROMPT_TOKENS.min(spec.context_tokens);
    Ok(Work::Embedding {
        graph: Box::new(EmbeddingGraph::new(model.signature(), spec)?),
        session: model.session()?,
        spec: Box::new(spec.clone()),
        ids: (0..tokens).map(draw).collect(),
        vector: Vec::new(),
    })
}

fn tensors(manifest: &Manifest, model: &Arc<dyn Model>) -> Result<Work, PipelineError> {
    let signature = model.signature().clone();
    let mut session = model.session()?;
    let mut room = INPUT_BYTES_MAX;
    for (index, spec) in signature.inputs.iter().enumerate() {
        let shape = shape(manifest, spec);
        let bytes = Tensor::bytes_of(spec.dtype, &shape)?;
        room = room.checked_sub(bytes).ok_or_else(|| {
            let why = format!("would take {bytes} bytes of the {INPUT_BYTES_MAX} for a check");
            PipelineError::graph(&spec.name, why)
        })?;
        session.bind_input(index, &input(manifest, spec, &shape)?)?;
    }
    Ok(Work::Tensors { session, signature })
}

fn said<'a>(manifest: &'a Manifest, name: &str) -> Option<&'a CheckInput> {
    let mut inputs = manifest.check.iter().flat_map(|check| &check.inputs);
    inputs.find(|input| input.name == name)
}

fn hint<'a>(manifest: &'a Manifest, name: &str) -> Option<&'a InputHint> {
    manifest.inputs.iter().find(|hint| hint.name == name)
}

/// Open dimensions as the manifest has them, or else as its task suggests, or else 1.
fn shape(manifest: &Manifest, spec: &TensorSpec) -> Vec<usize> {
    let declared = said(manifest, &spec.name).map(|input| input.shape.as_slice());
    let states = manifest.stream.iter().flat_map(|stream| &stream.state);
    let state = states.filter(|state| state.input == spec.name);
    let constants = manifest.stream.iter().flat_map(|stream| &stream.constant);
    let constant = constants.filter(|constant| constant.input == spec.name);
    let labelling = manifest.labelling.iter().flat_map(|spec| &spec.state);
    let state = state.chain(labelling.filter(|state| state.input == spec.name));
    let frames = frames_shape(manifest, &spec.name);
    let labelled = manifest
        .labelling
        .as_ref()
        .filter(|it| it.input == spec.name);
    // What is no picture is refused when it is used.
    let labelled = labelled.and_then(|it| picture_shape(spec, it, hint(manifest, &spec.name)).ok());
    let known = declared.into_iter().filter(|shape| !shape.is_empty());
    let known = known.chain(labelled.as_deref()).chain(frames.as_deref());
    let known = known.chain(state.map(|state| state.shape.as_slice()));
    let known = known.chain(constant.map(|constant| constant.shape.as_slice()));
    let known = known
        .into_iter()
        .find(|shape| shape.len() == spec.shape.len());
    let suggested = |at: usize| match (&manifest.clip, hint(manifest, &spec.name)) {
        (Some(clip), _) if at >= 2 && [&clip.first, &clip.second].contains(&&spec.name) => {
            FRAME_PIXELS.next_multiple_of(clip.pad_multiple.max(1))
        }
        (_, Some(hint)) => match (hint.layout, at) {
            (PictureLayout::Nchw | PictureLayout::Ncthw, 1)
            | (PictureLayout::Ntchw, 2)
            | (PictureLayout::Nhwc, 3)
            | (PictureLayout::Nthwc, 4) => 3,
            (_, 0) => 1,
            _ => PICTURE_PIXELS,
        },
        _ => 1,
    };
    let dims = spec.shape.iter().enumerate();
    dims.map(|(at, dim)| dim.unwrap_or_else(|| known.map_or_else(|| suggested(at), |it| it[at])))
        .collect()
}

/// Shape of a restorer's frames or of one of its states.
fn frames_shape(manifest: &Manifest, name: &str) -> Option<Vec<usize>> {
    let spec = manifest.restoration.as_ref()?;
    let side = RESTORED_PIXELS.next_multiple_of(spec.pad_multiple.max(1));
    if spec.frames == name {
        return Some(input_shape(spec, side, side));
    }
    let state = spec.state.iter().find(|state| state.input == name)?;
    Some(state.shape(side, side).to_vec())
}

/// Whether an input is a state, zero at first.
fn is_state(manifest: &Manifest, name: &str) -> bool {
    let stream = manifest.stream.iter().flat_map(|spec| &spec.state);
    let labelling = manifest.labelling.iter().flat_map(|spec| &spec.state);
    let restoration = manifest.restoration.iter().flat_map(|spec| &spec.state);
    let mut tensors = stream.chain(labelling).map(|state| &state.input);
    tensors.any(|input| input == name) || restoration.into_iter().any(|state| state.input == name)
}

fn input(manifest: &Manifest, spec: &TensorSpec, shape: &[usize]) -> Result<Tensor, PipelineError> {
    if is_state(manifest, &spec.name) {
        return Ok(Tensor::zeroed(spec.dtype, shape)?);
    }
    if let Some(stream) = &manifest.stream {
        let mut constants = stream.constant.iter();
        if let Some(constant) = constants.find(|constant| constant.input == spec.name) {
            return constant_tensor(constant);
        }
    }
    let (least, most) = range(manifest, spec);
    let mut numbers = Numbers::seeded(&spec.name);
    let whole = !matches!(
        spec.dtype,
        DType::F32 | DType::F16 | DType::Bf16 | DType::F64
    );
    let elements = shape.iter().product();
    let draw = |_| {
        let value = least + numbers.next() * (most - least);
        if whole { value.floor() } else { value }
    };
    constant_tensor(&ConstantInput {
        input: spec.name.clone(),
        dtype: spec.dtype,
        shape: shape.to_vec(),
        values: (0..elements).map(draw).collect(),
    })
}

/// Least value, and the end of the values; integers lie below it.
fn range(manifest: &Manifest, spec: &TensorSpec) -> (f64, f64) {
    let (least, most) = match spec.dtype {
        DType::U8 => (0., 256.),
        DType::I8 => (-128., 128.),
        DType::U16 | DType::I16 => (0., 1024.),
        DType::I32 | DType::U32 | DType::I64 | DType::U64 | DType::Bool => (0., INDICES),
        DType::F32 | DType::F16 | DType::Bf16 | DType::F64 => measures(manifest, &spec.name),
    };
    match said(manifest, &spec.name) {
        Some(said) => (said.min.unwrap_or(least), said.max.unwrap_or(most)),
        None => (least, most),
    }
}

fn measures(manifest: &Manifest, name: &str) -> (f64, f64) {
    if let Some(clip) = &manifest.clip {
        return match *name == clip.timestep {
            true => (0.5, 0.5),
            false => (0., 1.),
        };
    }
    if let Some(restoration) = &manifest.restoration {
        return match restoration.range {
            ValueRange::Unit => (0., 1.),
            ValueRange::Signed => (-1., 1.),
            ValueRange::Byte => (0., 255.),
        };
    }
    match hint(manifest, name) {
        None if manifest.labelling.is_some() => (0., 1.),
        Some(hint) => {
            let of = |pixel: f32| f64::from((pixel * hint.scale - hint.mean[0]) / hint.std[0]);
            (of(0.), of(255.))
        }
        None => (-1., 1.),
    }
}

/// Numbers in 0..1 that follow from a name: Steele, Lea and Flood's SplitMix64, seeded by FNV-1a.
struct Numbers(u64);

impl Numbers {
    fn seeded(name: &str) -> Self {
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(name.bytes().fold(0xcbf2_9ce4_8422_2325, step))
    }

    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(dtype: DType, shape: &[Option<usize>]) -> TensorSpec {
        TensorSpec {
            name: "x".into(),
            dtype,
            shape: shape.to_vec(),
        }
    }

    fn manifest(more: &str) -> Manifest {
        let text = format!(
            "format = 1\nname = \"m\"\ntask = \"tensor\"\n{more}\n[[variant]]\nname = \"v\"\n\
             backend = \"tract\"\nfile = \"m.onnx\"\nprecision = \"f32\"\n"
        );
        Manifest::parse(&text, std::path::Path::new("mote.toml")).expect("a good manifest")
    }

    #[test]
    fn open_dimensions_come_from_the_manifest_and_else_are_small() {
        let open = spec(DType::F32, &[None, Some(3), None, None]);
        assert_eq!(shape(&manifest(""), &open), [1, 3, 1, 1]);
        let said = manifest("[[check.input]]\nname = \"x\"\nshape = [2, 9, 5, 7]\n");
        assert_eq!(shape(&said, &open), [2, 3, 5, 7]);
        let picture = "[[input]]\nname = \"x\"\nlayout = \"nchw\"\nscale = 1.0\n\
            mean = [0.0, 0.0, 0.0]\nstd = [1.0, 1.0, 1.0]\n";
        let side = PICTURE_PIXELS;
        assert_eq!(shape(&manifest(picture), &open), [1, 3, side, side]);
    }

    #[test]
    fn frames_to_label_have_the_size_and_number_that_the_manifest_says() {
        let labelling = "[labelling]\nkind = \"classification\"\ninput = \"x\"\nwidth = 32\n\
            height = 24\nwindow = WINDOW\n[labelling.classification]\noutput = \"y\"\n";
        let one = manifest(&labelling.replace("WINDOW", "1"));
        let open = spec(DType::F32, &[None, None, None, None]);
        assert_eq!(shape(&one, &open), [1, 3, 24, 32]);
        let said = labelling.replace("WINDOW", "1");
        let said = format!("{said}[[check.input]]\nname = \"x\"\nshape = [1, 3, 8, 9]\n");
        assert_eq!(shape(&manifest(&said), &open), [1, 3, 8, 9]);
        let hint = "[[input]]\nname = \"x\"\nlayout = \"nthwc\"\nscale = 1.0\n\
            mean = [0.0, 0.0, 0.0]\nstd = [1.0, 1.0, 1.0]\n";
        let window = manifest(&format!("{hint}{}", labelling.replace("WINDOW", "8")));
        let open = spec(DType::F32, &[None, None, None, None, Some(3)]);
        assert_eq!(shape(&window, &open), [1, 8, 24, 32, 3]);
    }

    #[test]
    fn frames_to_restore_and_their_states_have_the_sizes_that_go_together() {
        let more = "[restoration]\nkind = \"recurrent\"\nframes = \"x\"\noutput = \"y\"\nscale = 4\n\
            before = 1\nafter = 1\npad_multiple = 48\nrange = \"byte\"\n[[restoration.state]]\n\
            input = \"s\"\noutput = \"y\"\nchannels = 3\nscale = 4\n";
        let manifest = manifest(more);
        let frames = spec(DType::F32, &[Some(1), None, None, None]);
        assert_eq!(shape(&manifest, &frames), [1, 9, 96, 96]);
        let values = input(&manifest, &frames, &[1, 9, 4, 4]).expect("a tensor");
        let values = values.read::<f32>().expect("f32");
        assert!(values.iter().any(|value| *value > 200.) && values.iter().all(|v| *v >= 0.));
        let state = TensorSpec {
            name: "s".into(),
            ..spec(DType::F32, &[None, None, None, None])
        };
        assert_eq!(shape(&manifest, &state), [1, 3, 384, 384]);
        let values = input(&manifest, &state, &[1, 3, 2, 2]).expect("a tensor");
        assert_eq!(values.read::<f32>().expect("f32"), [0.; 12]);
    }

    #[test]
    fn values_are_the_same_each_time_and_within_their_range() {
        let floats = spec(DType::F32, &[Some(1000)]);
        let make = |manifest: &Manifest, spec: &TensorSpec| {
            input(manifest, spec, &[1000]).expect("a tensor")
        };
        let plain = manifest("");
        let values = make(&plain, &floats).read::<f32>().expect("f32");
        assert_eq!(values, make(&plain, &floats).read::<f32>().expect("f32"));
        assert!(values.iter().all(|value| (-1. ..=1.).contains(value)));
        assert!(values.iter().any(|value| *value < -0.9) && values.iter().any(|v| *v > 0.9));
        let indices = make(&plain, &spec(DType::I64, &[Some(1000)]));
        assert!(
            indices
                .read::<i64>()
                .expect("i64")
                .iter()
                .all(|at| (0..2).contains(at))
        );
        let said = manifest("[[check.input]]\nname = \"x\"\nmin = 5.0\nmax = 6.0\n");
        let said = make(&said, &floats).read::<f32>().expect("f32");
        assert!(said.iter().all(|value| (5. ..=6.).contains(value)));
    }
}
