//! What is encoded before a segment begins: its prompts, and pictures as latents and as what an encoder of their
//! own sees in them.

use super::{GenerationJob, GenerationStep, Stage};
use crate::PipelineError;
use crate::clip::Rgb;
use crate::diffusion::plan::{SegmentPlan, Start};
use crate::diffusion::segment::{Pictures, Segment};
use crate::diffusion::{latents, parts, pixels};
use std::collections::VecDeque;
use std::sync::Arc;

/// What is to be encoded, by one graph each.
#[derive(Clone, Copy)]
pub(super) enum Encode {
    Prompt,
    Negative,
    First,
    Last,
    Clip,
    Condition,
    Reference,
    Inactive,
    Reactive,
    LookAtFirst,
    LookAtLast,
}

impl GenerationJob {
    /// What a segment needs, in order.
    pub(super) fn to_encode(&self, plan: &SegmentPlan) -> VecDeque<Encode> {
        let mut wanted = VecDeque::from([Encode::Prompt]);
        if self.planned.negative_prompt.is_some() {
            wanted.push_back(Encode::Negative);
        }
        match plan.start {
            Start::Noise { first, last } => {
                wanted.extend(first.then_some(Encode::First));
                wanted.extend(last.then_some(Encode::Last));
            }
            Start::Condition { .. } => wanted.push_back(Encode::Condition),
            Start::Control {
                first,
                last,
                reference,
            } => {
                wanted.push_back(Encode::Reactive);
                wanted.extend((first || last).then_some(Encode::Inactive));
                wanted.extend(reference.then_some(Encode::Reference));
            }
            Start::Source { .. } | Start::Repeat { .. } => wanted.push_back(Encode::Clip),
        }
        if self.model.looks.is_some() {
            wanted.push_back(Encode::LookAtFirst);
            let two = self.model.layout.looks_at_two;
            wanted.extend(two.then_some(Encode::LookAtLast));
        }
        wanted
    }

    /// Encodes the next of what is left; begins the segment when nothing is.
    pub(super) fn encode(
        &mut self,
        mut segment: Box<Segment>,
        mut pictures: Pictures,
        mut left: VecDeque<Encode>,
    ) -> (Stage, Result<Option<GenerationStep>, PipelineError>) {
        let Some(&next) = left.front() else {
            segment.begin(&self.model, pictures);
            let resumed = self.resumed.take();
            let restored =
                resumed.map_or(Ok(()), |it| segment.restore(it.step, it.sample, it.history));
            return (Stage::Denoise(segment), restored.map(|()| None));
        };
        match self.encode_one(&mut segment, &mut pictures, next) {
            Ok(ran) => {
                left.pop_front();
                let step = ran.then_some(GenerationStep::Encoded);
                (Stage::Encode(segment, pictures, left), Ok(step))
            }
            Err(error) => (Stage::Encode(segment, pictures, left), Err(error)),
        }
    }

    /// Whether a graph ran.
    fn encode_one(
        &mut self,
        segment: &mut Segment,
        pictures: &mut Pictures,
        next: Encode,
    ) -> Result<bool, PipelineError> {
        let plan = segment.plan().clone();
        let frames = plan.geometry.frames;
        match next {
            Encode::Prompt | Encode::Negative => return self.encode_text(segment, next),
            Encode::First => {
                let first = self.first_picture();
                pictures.first = Some(self.latents_of(&plan, &first, 1)?);
            }
            Encode::Last => {
                let last: Vec<_> = self.request.last_image.clone().into_iter().collect();
                pictures.last = Some(self.latents_of(&plan, &last, 1)?);
            }
            Encode::Clip => {
                let repeated = self.last_frame.clone().map(|frame| Arc::from([frame]));
                let source = repeated.or_else(|| self.request.source.clone());
                let source: Arc<[Rgb]> = source.unwrap_or_default();
                pictures.clip = Some(self.latents_of(&plan, &source, frames)?);
            }
            Encode::Condition => pictures.condition = Some(self.condition(&plan)?),
            Encode::Reference => {
                let Some(reference) = &self.request.reference else {
                    return Ok(false);
                };
                let size = (plan.geometry.height, plan.geometry.width);
                let planes = pixels::to_canvas(reference, size);
                pictures.control.reference = Some(self.latents_of_one(&plan, &planes)?);
            }
            Encode::Reactive => {
                let planes = vec![0.0; 3 * frames * plan.geometry.height * plan.geometry.width];
                let reactive = self.encode_planes(&plan, &planes, frames)?;
                pictures.control.inactive.clone_from(&reactive);
                pictures.control.reactive = reactive;
            }
            Encode::Inactive => {
                let planes = self.planes_of_ends(&plan);
                pictures.control.inactive = self.encode_planes(&plan, &planes, frames)?;
            }
            Encode::LookAtFirst => {
                let first = self.first_picture();
                self.look_at(first.first(), pictures)?;
            }
            Encode::LookAtLast => {
                let last = self.request.last_image.clone();
                self.look_at(last.as_ref(), pictures)?;
            }
        }
        Ok(true)
    }

    /// Whether a graph ran: what was made of a text before is kept.
    fn encode_text(&mut self, segment: &mut Segment, which: Encode) -> Result<bool, PipelineError> {
        let text = match which {
            Encode::Negative => self.planned.negative_prompt.clone().unwrap_or_default(),
            _ => segment.plan().prompt.clone(),
        };
        let kept = self.model.prompts.kept(&text);
        let ran = kept.is_none();
        let encoded = match kept {
            Some(encoded) => encoded,
            None => {
                let sound = self.model.sound.as_ref();
                let graphs = (&self.model.text, sound.map(|it| &it.connectors));
                let prompts = &self.model.prompts;
                let (encoded, report) =
                    prompts.encode(graphs, &mut self.prompt_runners, &self.flag, &text)?;
                self.count(report);
                encoded
            }
        };
        match which {
            Encode::Negative => segment.negative = Some(encoded),
            _ => segment.prompt = Some(encoded),
        }
        Ok(ran)
    }

    /// What a segment begins with: the last frame of the one before, or the request's picture.
    fn first_picture(&self) -> Vec<Rgb> {
        let first = self.last_frame.as_ref();
        let first = first.or(self.request.first_image.as_ref());
        first.cloned().into_iter().collect()
    }

    /// Adds what the encoder of pictures sees in one.
    fn look_at(
        &mut self,
        picture: Option<&Rgb>,
        pictures: &mut Pictures,
    ) -> Result<(), PipelineError> {
        let (Some(looks), Some(runner), Some(picture)) =
            (&self.model.looks, &mut self.looks, picture)
        else {
            return Err(PipelineError::part(
                parts::IMAGE_ENCODER,
                "is given no picture",
            ));
        };
        let [height, width] = looks.processor.crop;
        let planes = looks.processor.pixels(picture);
        runner.set(looks.graph.pixels, &[1, 3, height, width], &planes)?;
        let report = runner.run(&self.flag)?;
        let before = pictures.image.as_ref().map(|(_, width)| *width);
        let (vectors, shape) = runner.output(looks.graph.output, &[Some(1), None, before])?;
        if vectors.is_empty() {
            let why = format!("came out as {shape:?}, with nothing in it");
            return Err(PipelineError::graph("image_embeds", why));
        }
        let (all, _) = pictures.image.get_or_insert((Vec::new(), shape[2]));
        all.extend(vectors);
        self.count(report);
        Ok(())
    }

    /// Latents of `frames` frames, the last picture repeated where there are fewer.
    fn latents_of(
        &mut self,
        plan: &SegmentPlan,
        source: &[Rgb],
        frames: usize,
    ) -> Result<Vec<f32>, PipelineError> {
        let (height, width) = (plan.geometry.height, plan.geometry.width);
        let mut planes = vec![0.0; 3 * frames * height * width];
        for frame in 0..frames {
            if let Some(picture) = source.get(frame).or(source.last()) {
                pixels::to_planes(picture, (&mut planes, frames, frame), (height, width));
            }
        }
        match frames {
            1 => self.latents_of_one(plan, &planes),
            _ => self.encode_planes(plan, &planes, frames),
        }
    }

    /// Latents of one frame `[3, 1, height, width]`. Wan's autoencoder computes the first latent frame of the
    /// first frame alone, so that one whose graph fixes a number of frames is given it as often.
    fn latents_of_one(
        &mut self,
        plan: &SegmentPlan,
        planes: &[f32],
    ) -> Result<Vec<f32>, PipelineError> {
        let fixed = self
            .model
            .encoder
            .as_ref()
            .and_then(|encoder| encoder.frames);
        let Some(frames) = fixed.filter(|frames| *frames > 1) else {
            return self.encode_planes(plan, planes, 1);
        };
        let plane = plan.geometry.height * plan.geometry.width;
        let repeated = planes.chunks_exact(plane).map(|plane| plane.repeat(frames));
        let all = self.encode_planes(plan, &repeated.collect::<Vec<_>>().concat(), frames)?;
        let latent_frames = all.len() / plan.geometry.per_frame();
        let geometry = plan.geometry.with_latent_frames(latent_frames);
        Ok(latents::frames(&all, &geometry, 0..1))
    }

    /// Latents of planes `[3, frames, height, width]`, as the denoiser works on them.
    fn encode_planes(
        &mut self,
        plan: &SegmentPlan,
        planes: &[f32],
        frames: usize,
    ) -> Result<Vec<f32>, PipelineError> {
        let (Some(graph), Some(runner)) = (&self.model.encoder, &mut self.encoder) else {
            return Err(PipelineError::part(parts::VAE_ENCODER, "is missing"));
        };
        let geometry = plan.geometry;
        runner.set(
            graph.sample,
            &[1, 3, frames, geometry.height, geometry.width],
            planes,
        )?;
        let report = runner.run(&self.flag)?;
        let latent_frames = (frames - 1) / self.model.layout.frames_per_latent + 1;
        let [_, height, width] = geometry.latent;
        let want = [1, geometry.channels, latent_frames, height, width].map(Some);
        let (mut values, _) = runner.output(graph.output, &want)?;
        latents::normalise(&mut values, &self.model.layout);
        self.count(report);
        Ok(values)
    }

    /// Planes `[3, frames, height, width]`, grey but for the pictures at the ends.
    fn planes_of_ends(&self, plan: &SegmentPlan) -> Vec<f32> {
        let geometry = plan.geometry;
        let (frames, size) = (geometry.frames, (geometry.height, geometry.width));
        let mut planes = vec![0.0; 3 * frames * size.0 * size.1];
        let (has_first, has_last) = match plan.start {
            Start::Condition { last } => (true, last),
            Start::Control { first, last, .. } => (first, last),
            _ => (false, false),
        };
        let first = self.first_picture();
        let last = self.request.last_image.as_ref();
        for (picture, frame) in [
            (first.first().filter(|_| has_first), 0),
            (last.filter(|_| has_last), frames - 1),
        ] {
            if let Some(picture) = picture {
                pixels::to_planes(picture, (&mut planes, frames, frame), size);
            }
        }
        planes
    }

    /// Wan's image to video: for each latent frame which of its frames are given, and the latents of a
    /// clip that is grey but for those, `[frames_per_latent + c, f, h, w]`.
    fn condition(&mut self, plan: &SegmentPlan) -> Result<Vec<f32>, PipelineError> {
        let ends_given = matches!(plan.start, Start::Condition { last: true });
        let planes = self.planes_of_ends(plan);
        let latents = self.encode_planes(plan, &planes, plan.geometry.frames)?;
        let per_latent = self.model.layout.frames_per_latent;
        let [latent_frames, rows, columns] = plan.geometry.latent;
        let plane = rows * columns;
        let mut made = vec![0.0; per_latent * latent_frames * plane];
        for within in 0..per_latent {
            for latent in 0..latent_frames {
                // The first latent frame stands for the first frame alone.
                let is_last = latent + 1 == latent_frames && within + 1 == per_latent;
                if latent == 0 || (is_last && ends_given) {
                    let from = (within * latent_frames + latent) * plane;
                    made[from..from + plane].fill(1.0);
                }
            }
        }
        made.extend(latents);
        Ok(made)
    }
}
