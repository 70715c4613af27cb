//! Latents: layouts, scales and the coordinates of tokens.

use super::layout::{Class, Geometry, Layout};

/// Latents `[c, f, h, w]` as rows of tokens `[tokens, c * patch]`: tokens by time, row and column, a
/// token's values by channel first.
pub(super) fn pack(video: &[f32], geometry: &Geometry) -> Vec<f32> {
    let mut packed = vec![0.0; video.len()];
    for_each_pair(geometry, |from, to| packed[to] = video[from]);
    packed
}

/// The opposite of [`pack`].
pub(super) fn unpack(tokens: &[f32], geometry: &Geometry) -> Vec<f32> {
    let mut video = vec![0.0; tokens.len()];
    for_each_pair(geometry, |to, from| video[to] = tokens[from]);
    video
}

/// Calls with each place in `[c, f, h, w]` and its place in rows of tokens.
fn for_each_pair(geometry: &Geometry, mut call: impl FnMut(usize, usize)) {
    let [frames, height, width] = geometry.latent;
    let [pt, ph, pw] = geometry.patch;
    let [_, rows, columns] = geometry.grid();
    let token_width = geometry.token_width();
    let mut place = 0;
    for c in 0..geometry.channels {
        for f in 0..frames {
            for y in 0..height {
                for x in 0..width {
                    let token = ((f / pt) * rows + y / ph) * columns + x / pw;
                    let within = ((c * pt + f % pt) * ph + y % ph) * pw + x % pw;
                    call(place, token * token_width + within);
                    place += 1;
                }
            }
        }
    }
}

/// From what the encoder gives to what the denoiser works on, `[c, f, h, w]`. diffusers leaves the
/// factor out here.
pub(super) fn normalise(video: &mut [f32], layout: &Layout) {
    let per_channel = video.len() / layout.channels;
    for (c, plane) in video.chunks_exact_mut(per_channel.max(1)).enumerate() {
        let (mean, std) = (layout.mean[c], layout.std[c]);
        plane.iter_mut().for_each(|v| *v = (*v - mean) / std);
    }
}

/// From what the denoiser works on to what the decoder takes, `[c, f, h, w]`.
pub(super) fn denormalise(video: &mut [f32], layout: &Layout) {
    let per_channel = video.len() / layout.channels;
    for (c, plane) in video.chunks_exact_mut(per_channel.max(1)).enumerate() {
        let (mean, std) = (layout.mean[c], layout.std[c] / layout.scaling);
        plane.iter_mut().for_each(|v| *v = *v * std + mean);
    }
}

/// Copies one latent frame of `from` `[c, f, h, w]` to a frame of `to` `[c, g, h, w]`.
pub(super) fn copy_frame(
    (from, from_geometry, from_frame): (&[f32], &Geometry, usize),
    (to, to_geometry, to_frame): (&mut [f32], &Geometry, usize),
) {
    let plane = from_geometry.latent[1] * from_geometry.latent[2];
    for c in 0..from_geometry.channels {
        let source = (c * from_geometry.latent[0] + from_frame) * plane;
        let target = (c * to_geometry.latent[0] + to_frame) * plane;
        to[target..target + plane].copy_from_slice(&from[source..source + plane]);
    }
}

/// Frames `range` of `video` `[c, f, h, w]`.
pub(super) fn frames(
    video: &[f32],
    geometry: &Geometry,
    range: std::ops::Range<usize>,
) -> Vec<f32> {
    let cut = geometry.with_latent_frames(range.len());
    let mut made = vec![0.0; cut.elements()];
    for (to, from) in range.enumerate() {
        copy_frame((video, geometry, from), (&mut made, &cut, to));
    }
    made
}

/// Where tokens are, `[3, tokens]`: seconds, rows and columns of pixels; for LTX-2 `[3, tokens, 2]`, where each
/// begins and ends. `still_at`: the tokens are those of one picture at this frame of the clip.
///
/// `LTXConditionPipeline` counts a latent frame from the first frame that it stands for, as LTX-2 does; the
/// other pipelines of diffusers from so many frames per latent.
pub(super) fn coordinates(
    layout: &Layout,
    geometry: &Geometry,
    frame_rate: u32,
    still_at: Option<usize>,
) -> [Vec<f32>; 3] {
    let [frames, rows, columns] = geometry.grid();
    let per_latent = layout.frames_per_latent;
    let is_ltx2 = layout.class.is_ltx2();
    let seconds = |f: usize| {
        let at = f * geometry.patch[0] * per_latent;
        let frame = match (still_at, layout.class) {
            (Some(frame), _) => frame,
            (None, Class::LtxCondition | Class::Ltx2 | Class::Ltx2ImageToVideo) => {
                (at + 1).saturating_sub(per_latent)
            }
            (None, _) => at,
        };
        frame as f32 / frame_rate as f32
    };
    let pixels =
        |at: usize, axis: usize| (at * geometry.patch[axis] * layout.pixels_per_latent) as f32;
    let mut axes = [const { Vec::new() }; 3];
    for f in 0..frames {
        for y in 0..rows {
            for x in 0..columns {
                for end in 0..=usize::from(is_ltx2) {
                    axes[0].push(seconds(f + end));
                    axes[1].push(pixels(y + end, 1));
                    axes[2].push(pixels(x + end, 2));
                }
            }
        }
    }
    axes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(channels: usize, latent: [usize; 3], patch: [usize; 3]) -> Geometry {
        Geometry {
            frames: 0,
            height: 0,
            width: 0,
            channels,
            latent,
            patch,
        }
    }

    #[test]
    fn tokens_hold_a_patch_of_every_channel() {
        let flat = geometry(2, [1, 2, 2], [1, 1, 1]);
        let video: Vec<f32> = (0..8).map(|v| v as f32).collect();
        assert_eq!(pack(&video, &flat), [0., 4., 1., 5., 2., 6., 3., 7.]);
        let patched = geometry(1, [2, 2, 4], [2, 2, 2]);
        let video: Vec<f32> = (0..16).map(|v| v as f32).collect();
        let packed = pack(&video, &patched);
        assert_eq!(packed[..8], [0., 1., 4., 5., 8., 9., 12., 13.]);
        for shape in [flat, patched, geometry(3, [4, 6, 8], [2, 3, 4])] {
            let video: Vec<f32> = (0..shape.elements()).map(|v| v as f32).collect();
            assert_eq!(unpack(&pack(&video, &shape), &shape), video);
        }
    }

    #[test]
    fn frames_are_cut_from_all_channels() {
        let shape = geometry(2, [3, 1, 2], [1, 1, 1]);
        let video: Vec<f32> = (0..12).map(|v| v as f32).collect();
        assert_eq!(
            frames(&video, &shape, 1..3),
            [2., 3., 4., 5., 8., 9., 10., 11.]
        );
    }
}
