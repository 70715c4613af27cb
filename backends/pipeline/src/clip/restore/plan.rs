//! Which frames a run is given, and which of those that it gives are kept.

use crate::clip::Rgb;
use crate::clip::planes::Planes;
use mote_api::{RestorationKind, RestorationSpec, WindowGives, WindowJoin};
use std::collections::VecDeque;
use std::sync::Arc;

/// What comes next.
pub(super) enum Next {
    NeedsFrame,
    Run(Vec<Arc<Rgb>>),
    Ended,
}

/// The frames of the input that are still of use. They are numbered from 0.
#[derive(Default)]
struct Kept {
    frames: VecDeque<Arc<Rgb>>,
    /// Number of the first of them.
    first: usize,
    is_ended: bool,
}

impl Kept {
    /// Frames that came so far.
    fn count(&self) -> usize {
        self.first + self.frames.len()
    }

    /// Frame `number`, or the nearest there is.
    fn nearest(&self, number: usize) -> Option<Arc<Rgb>> {
        let last = self.frames.len().checked_sub(1)?;
        let at = number.saturating_sub(self.first).min(last);
        Some(Arc::clone(&self.frames[at]))
    }

    fn drop_before(&mut self, number: usize) {
        while self.first < number && self.frames.pop_front().is_some() {
            self.first += 1;
        }
    }
}

/// One frame after the other, each with those around it; or one window after the other.
pub(super) enum Plan {
    Sliding(Sliding),
    Windows(Windows),
}

impl Plan {
    pub fn new(spec: &RestorationSpec) -> Self {
        let (before, after) = match (spec.kind, spec.gives) {
            (RestorationKind::Recurrent, _) => (spec.before, spec.after),
            (_, WindowGives::Middle) => (spec.window / 2, spec.window / 2),
            (_, WindowGives::All) => return Self::Windows(Windows::new(spec)),
        };
        Self::Sliding(Sliding {
            kept: Kept::default(),
            before,
            after,
            next: 0,
        })
    }

    pub fn push(&mut self, frame: Arc<Rgb>) {
        self.kept().frames.push_back(frame);
    }

    pub fn end(&mut self) {
        self.kept().is_ended = true;
    }

    fn kept(&mut self) -> &mut Kept {
        match self {
            Self::Sliding(plan) => &mut plan.kept,
            Self::Windows(plan) => &mut plan.kept,
        }
    }

    pub fn next(&self) -> Next {
        match self {
            Self::Sliding(plan) => plan.next(),
            Self::Windows(plan) => plan.next(),
        }
    }

    /// Takes what the run gave, and gives the frames that are complete.
    pub fn made(&mut self, frames: Vec<Planes>) -> Vec<Planes> {
        match self {
            Self::Sliding(plan) => {
                plan.next += 1;
                plan.kept.drop_before(plan.next.saturating_sub(plan.before));
                frames
            }
            Self::Windows(plan) => plan.made(frames),
        }
    }
}

/// At the ends of a clip, its first and its last frame stand in for those that are missing.
pub(super) struct Sliding {
    kept: Kept,
    before: usize,
    after: usize,
    /// The frame that the next run makes.
    next: usize,
}

impl Sliding {
    fn next(&self) -> Next {
        if !self.kept.is_ended && self.kept.count() <= self.next + self.after {
            return Next::NeedsFrame;
        }
        if self.kept.count() <= self.next {
            return Next::Ended;
        }
        // The first frame stands in for those before it.
        let earlier = (0..self.before).rev();
        let earlier = earlier.map(|back| self.next.saturating_sub(back + 1));
        let numbers = earlier.chain(self.next..=self.next + self.after);
        Next::Run(
            numbers
                .filter_map(|number| self.kept.nearest(number))
                .collect(),
        )
    }
}

/// Windows of a fixed length that overlap. The last one ends with the clip, so that it may have more in
/// common with the one before; a clip shorter than a window is filled up with its last frame.
pub(super) struct Windows {
    kept: Kept,
    length: usize,
    overlap: usize,
    join: WindowJoin,
    /// Where the next window begins, unless it is the last.
    start: usize,
    /// Frames that are out.
    given: usize,
    /// With [`WindowJoin::Blend`], what the last window made beyond them.
    before: VecDeque<Planes>,
}

impl Windows {
    fn new(spec: &RestorationSpec) -> Self {
        Self {
            kept: Kept::default(),
            length: spec.window,
            overlap: spec.overlap,
            join: spec.join,
            start: 0,
            given: 0,
            before: VecDeque::new(),
        }
    }

    /// Where the next window begins.
    fn begin(&self) -> usize {
        match self.is_last() {
            true => self
                .start
                .min(self.kept.count().saturating_sub(self.length)),
            false => self.start,
        }
    }

    fn is_last(&self) -> bool {
        self.kept.is_ended && self.start + self.length >= self.kept.count()
    }

    fn next(&self) -> Next {
        let count = self.kept.count();
        // Whether a full window is the last is known when there is one more frame, or none.
        if !self.kept.is_ended && count <= self.start + self.length {
            return Next::NeedsFrame;
        }
        if count <= self.given {
            return Next::Ended;
        }
        let begin = self.begin();
        let numbers = begin..begin + self.length;
        Next::Run(
            numbers
                .filter_map(|number| self.kept.nearest(number))
                .collect(),
        )
    }

    fn made(&mut self, frames: Vec<Planes>) -> Vec<Planes> {
        let (begin, is_last, count) = (self.begin(), self.is_last(), self.kept.count());
        let next_start = self.start + self.length - self.overlap;
        let until = match (is_last, self.join) {
            (true, _) => count,
            (false, WindowJoin::Discard) => next_start + self.overlap.div_ceil(2),
            (false, WindowJoin::Blend) => next_start,
        };
        let both = self.before.len();
        let mut out = Vec::new();
        let fresh = frames
            .into_iter()
            .zip(begin..)
            .filter(|(_, number)| *number >= self.given);
        let mut later = VecDeque::new();
        for (at, (mut frame, number)) in fresh.enumerate() {
            if let Some(before) = self.before.pop_front() {
                let share = (at + 1) as f32 / (both + 1) as f32;
                fade(&before, &mut frame, share);
            }
            match number < until {
                true => out.push(frame),
                false => later.push_back(frame),
            }
        }
        if self.join == WindowJoin::Blend && !is_last {
            self.before = later;
        }
        self.given += out.len();
        // There is at least one more frame than this window had, and the last one ends with the clip.
        self.kept.drop_before(self.start + 1);
        self.start = next_start;
        out
    }
}

/// Leaves `share` of a frame, and puts the earlier one beneath.
fn fade(earlier: &Planes, frame: &mut Planes, share: f32) {
    for (later, earlier) in frame.values.iter_mut().zip(&earlier.values) {
        *later = earlier + (*later - earlier) * share;
    }
}
