//! What is given of a clip, as a control beside the noise (VACE; Jiang et al. 2025).

use super::latents;
use super::layout::Layout;
use super::plan::{SegmentPlan, Start};

/// Latents `[c, f, h, w]` that a control (VACE) is made of.
#[derive(Default)]
pub(super) struct Control {
    /// One frame of what is to be seen.
    pub reference: Option<Vec<f32>>,
    /// As long as the segment, of what is given, the rest grey.
    pub inactive: Vec<f32>,
    /// As long as the segment, of what is to be made over something: nothing but grey.
    pub reactive: Vec<f32>,
}

/// A control as the denoiser takes it, `[v, f, h, w]`: latents of what is given and of what is to be made, and
/// for each pixel of a latent whether it is to be made; references in front, with nothing to be made
/// (`prepare_video_latents` and `prepare_masks` of diffusers' `WanVACEPipeline`).
pub(super) fn control_of(layout: &Layout, plan: &SegmentPlan, control: &Control) -> Vec<f32> {
    let (geometry, all) = (plan.geometry, plan.with_references());
    let references = plan.reference_frames();
    let still = geometry.with_latent_frames(1);
    let nothing = vec![0.0; still.elements()];
    let mut made = Vec::new();
    let of_reference = control.reference.as_ref().unwrap_or(&nothing);
    for (latents, reference) in [
        (&control.inactive, of_reference),
        (&control.reactive, &nothing),
    ] {
        let mut whole = vec![0.0; all.elements()];
        for frame in 0..references {
            latents::copy_frame((reference, &still, 0), (&mut whole, &all, frame));
        }
        for frame in 0..geometry.latent[0] {
            let target = (&mut whole[..], &all, frame + references);
            latents::copy_frame((latents, &geometry, frame), target);
        }
        made.extend(whole);
    }
    let (first, last) = match plan.start {
        Start::Control { first, last, .. } => (first, last),
        _ => (false, false),
    };
    // A latent frame has the mask of the frame in the middle of those that it stands for.
    let frame_of = |latent: usize| (2 * latent + 1) * geometry.frames / (2 * geometry.latent[0]);
    let is_given = |frame: usize| (first && frame == 0) || (last && frame + 1 == geometry.frames);
    let plane = geometry.latent[1] * geometry.latent[2];
    let mut mask = vec![0.0; references * plane];
    for latent in 0..geometry.latent[0] {
        let value = if is_given(frame_of(latent)) { 0.0 } else { 1.0 };
        mask.resize(mask.len() + plane, value);
    }
    made.extend(mask.repeat(layout.mask_channels()));
    made
}

#[cfg(test)]
mod tests {
    use super::super::layout::{Class, Layout};
    use super::*;

    fn layout(frames_per_latent: usize) -> Layout {
        Layout {
            class: Class::WanVace,
            boundary: None,
            expand_timesteps: false,
            channels: 1,
            frames_per_latent,
            pixels_per_latent: 2,
            patch: [1, 1, 1],
            denoiser_channels: None,
            looks_at_two: false,
            mean: vec![0.0],
            std: vec![1.0],
            scaling: 1.0,
            audio: None,
        }
    }

    /// Masks, one for each latent frame, of a clip of so many frames.
    fn masks(frames_per_latent: usize, frames: usize, start: Start) -> Vec<f32> {
        let layout = layout(frames_per_latent);
        let plan = SegmentPlan {
            prompt: String::new(),
            start,
            geometry: layout.geometry(frames, 2, 2),
            frames: 0..frames,
            audio_elements: 0,
            steps: 1,
        };
        let latents = plan.geometry.elements();
        let control = Control {
            reference: Some(vec![7.0]),
            inactive: (0..latents).map(|at| at as f32).collect(),
            reactive: vec![-1.0; latents],
        };
        let made = control_of(&layout, &plan, &control);
        let all = plan.with_references().elements();
        assert_eq!(made.len(), all * (2 + layout.mask_channels()));
        let references = plan.reference_frames();
        assert_eq!(made[..references], vec![7.0; references]);
        assert_eq!(made[references..all], control.inactive);
        assert_eq!(made[all..all + references], vec![0.0; references]);
        assert_eq!(made[all + references..2 * all], control.reactive);
        let masks = &made[2 * all..];
        assert!(
            masks.chunks(all).all(|mask| mask == &masks[..all]),
            "of all pixels"
        );
        masks[..all].to_vec()
    }

    /// As `prepare_masks` of diffusers: the frame in the middle of those that a latent frame stands for decides.
    #[test]
    fn what_is_given_is_masked() {
        let start = |first, last, reference| Start::Control {
            first,
            last,
            reference,
        };
        assert_eq!(masks(1, 3, start(true, false, false)), [0.0, 1.0, 1.0]);
        assert_eq!(masks(1, 3, start(true, true, true)), [0.0, 0.0, 1.0, 0.0]);
        assert_eq!(masks(4, 1, start(true, false, false)), [0.0]);
        assert_eq!(masks(4, 5, start(true, true, false)), [1.0, 1.0]);
        assert_eq!(masks(2, 3, start(true, true, false)), [0.0, 0.0]);
        assert_eq!(masks(4, 5, start(false, false, true)), [0.0, 1.0, 1.0]);
    }
}
