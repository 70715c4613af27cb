//! How one side of a picture is scaled: which pixels make a pixel, and how much each counts.

use mote_api::{Filter, Fit};

/// One side of a picture, scaled. Each pixel of the result is made of neighbours of the source.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    /// Per pixel, the first neighbour and where its weights begin; and the end of the last ones.
    firsts: Vec<(u32, u32)>,
    weights: Vec<f32>,
    /// Whether every pixel is its own source.
    is_identity: bool,
}

impl Axis {
    /// From `source` to `target` pixels, neither 0.
    pub fn new(filter: Filter, source: usize, target: usize) -> Self {
        let mut axis = Self {
            firsts: Vec::with_capacity(target + 1),
            weights: Vec::new(),
            is_identity: source == target,
        };
        for pixel in 0..target {
            if filter == Filter::Area && target < source {
                axis.cover(pixel, source, target);
            } else {
                axis.between(pixel, source, target);
            }
        }
        axis.firsts.push((0, axis.weights.len() as u32));
        axis
    }

    /// The mean over what the pixel covers.
    fn cover(&mut self, pixel: usize, source: usize, target: usize) {
        let (start, end) = (pixel * source, (pixel + 1) * source);
        let (first, last) = (start / target, (end - 1) / target);
        self.firsts.push((first as u32, self.weights.len() as u32));
        for neighbour in first..=last {
            let covered = end.min((neighbour + 1) * target) - start.max(neighbour * target);
            self.weights.push((covered as f64 / source as f64) as f32);
        }
    }

    /// Between the centres of the two nearest pixels.
    fn between(&mut self, pixel: usize, source: usize, target: usize) {
        let centre = (pixel as f64 + 0.5) * source as f64 / target as f64 - 0.5;
        let (before, after) = (centre.floor(), centre.floor() + 1.0);
        let weight = (centre - before) as f32;
        let at = self.weights.len() as u32;
        let last = source - 1;
        if before < 0.0 || weight == 0.0 || after > last as f64 {
            self.firsts
                .push(((before.max(0.0) as usize).min(last) as u32, at));
            self.weights.push(1.0);
        } else {
            self.firsts.push((before as u32, at));
            self.weights.extend([1.0 - weight, weight]);
        }
    }

    /// Pixels of the result.
    pub fn len(&self) -> usize {
        self.firsts.len() - 1
    }

    pub fn is_identity(&self) -> bool {
        self.is_identity
    }

    /// The first neighbour of a pixel, and what it and those behind it count.
    pub fn neighbours(&self, pixel: usize) -> (usize, &[f32]) {
        let (first, start) = self.firsts[pixel];
        let (_, end) = self.firsts[pixel + 1];
        (first as usize, &self.weights[start as usize..end as usize])
    }

    /// Which pixels of the source count at all, ascending; and the same axis over these alone. `None` when
    /// all do.
    pub fn compact(&self, source: usize) -> Option<(Vec<u32>, Self)> {
        let mut used = vec![false; source];
        for pixel in 0..self.len() {
            let (first, weights) = self.neighbours(pixel);
            used[first..first + weights.len()].fill(true);
        }
        if used.iter().all(|&used| used) {
            return None;
        }
        let kept: Vec<u32> = (0..source as u32).filter(|&at| used[at as usize]).collect();
        let mut place = vec![0; source];
        for (index, &at) in kept.iter().enumerate() {
            place[at as usize] = index as u32;
        }
        let mut axis = self.clone();
        let pixels = axis.len();
        for (first, _) in &mut axis.firsts[..pixels] {
            *first = place[*first as usize];
        }
        Some((kept, axis))
    }
}

/// Where a picture lies in an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FittedRect {
    /// Pixels left of it.
    pub x: usize,
    /// Pixels above it.
    pub y: usize,
    /// Its width there.
    pub width: usize,
    /// Its height there.
    pub height: usize,
}

impl FittedRect {
    /// Where a picture of `width` × `height` lies in an input of `into_width` × `into_height`, none of them
    /// 0.
    pub fn new(
        fit: Fit,
        (width, height): (usize, usize),
        (into_width, into_height): (usize, usize),
    ) -> Self {
        let (mut fitted_width, mut fitted_height) = (into_width, into_height);
        if fit == Fit::Letterbox {
            let rounded =
                |by: usize, of: usize, side: usize| ((2 * by * of + side) / (2 * side)).max(1);
            if width * into_height >= height * into_width {
                fitted_height = rounded(height, into_width, width).min(into_height);
            } else {
                fitted_width = rounded(width, into_height, height).min(into_width);
            }
        }
        Self {
            x: (into_width - fitted_width) / 2,
            y: (into_height - fitted_height) / 2,
            width: fitted_width,
            height: fitted_height,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(axis: &Axis) -> Vec<(usize, Vec<f32>)> {
        let pixels = 0..axis.len();
        let of = pixels.map(|pixel| axis.neighbours(pixel));
        of.map(|(first, weights)| (first, weights.to_vec()))
            .collect()
    }

    #[test]
    fn pixels_are_made_of_what_they_cover_or_of_their_two_neighbours() {
        let halves = all(&Axis::new(Filter::Area, 4, 2));
        assert_eq!(halves, [(0, vec![0.5, 0.5]), (2, vec![0.5, 0.5])]);
        let thirds = all(&Axis::new(Filter::Area, 3, 2));
        let (two, one) = (2.0 / 3.0, 1.0 / 3.0);
        assert_eq!(thirds, [(0, vec![two, one]), (1, vec![one, two])]);
        let grown = [
            (0, vec![1.0]),
            (0, vec![0.75, 0.25]),
            (0, vec![0.25, 0.75]),
            (1, vec![1.0]),
        ];
        assert_eq!(all(&Axis::new(Filter::Bilinear, 2, 4)), grown);
        assert_eq!(all(&Axis::new(Filter::Area, 2, 4)), grown);
        assert!(Axis::new(Filter::Area, 5, 5).is_identity());
    }

    #[test]
    fn a_picture_keeps_its_proportions_in_the_middle() {
        let rect = |x, y, width, height| FittedRect {
            x,
            y,
            width,
            height,
        };
        let boxed = |from, into| FittedRect::new(Fit::Letterbox, from, into);
        assert_eq!(boxed((1280, 720), (256, 256)), rect(0, 56, 256, 144));
        assert_eq!(boxed((720, 1280), (256, 256)), rect(56, 0, 144, 256));
        assert_eq!(boxed((16_384, 1), (8, 8)), rect(0, 3, 8, 1));
        let stretched = FittedRect::new(Fit::Stretch, (1280, 720), (256, 256));
        assert_eq!(stretched, rect(0, 0, 256, 256));
    }

    proptest! {
        #[test]
        fn weights_sum_to_one_and_neighbours_exist(
            source in 1usize..200, target in 1usize..200, is_area: bool,
        ) {
            let filter = if is_area { Filter::Area } else { Filter::Bilinear };
            let axis = Axis::new(filter, source, target);
            prop_assert_eq!(axis.len(), target);
            for (first, weights) in all(&axis) {
                prop_assert!(first + weights.len() <= source);
                prop_assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                prop_assert!(weights.iter().all(|&weight| weight > 0.0));
            }
            if let Some((kept, compact)) = axis.compact(source) {
                for (pixel, (first, weights)) in all(&axis).into_iter().enumerate() {
                    let (place, same) = compact.neighbours(pixel);
                    prop_assert_eq!(same, weights);
                    for at in 0..same.len() {
                        prop_assert_eq!(kept[place + at] as usize, first + at);
                    }
                }
            }
        }

        #[test]
        fn a_picture_stays_inside(
            from in (1usize..5000, 1usize..5000), into in (1usize..5000, 1usize..5000),
        ) {
            let rect = FittedRect::new(Fit::Letterbox, from, into);
            prop_assert!(rect.width >= 1 && rect.height >= 1);
            prop_assert!(rect.x + rect.width <= into.0 && rect.y + rect.height <= into.1);
            prop_assert!(rect.width == into.0 || rect.height == into.1);
        }
    }
}
