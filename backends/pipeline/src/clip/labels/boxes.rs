//! Boxes out of a detector's numbers.

use super::LabelledBox;
use super::picture::{Picture, Place};
use super::scores::activate;
use mote_api::{BoxCoordinates, BoxFormat, CandidateLayout, DetectionSpec};

/// Candidates that are compared with each other at most, those with the best scores.
const CANDIDATES_MAX: usize = 4096;
/// Numbers of a box.
const SIDES: usize = 4;
/// Intersection over union from which on boxes of two frames are taken for the same thing.
const SAME_OVERLAP: f32 = 0.5;

/// One output as a table of candidates.
pub(super) struct Table<'a> {
    pub values: &'a [f32],
    pub candidates: usize,
    pub numbers: usize,
    pub layout: CandidateLayout,
}

impl Table<'_> {
    fn at(&self, candidate: usize, number: usize) -> f32 {
        self.values[match self.layout {
            CandidateLayout::Columns => number * self.candidates + candidate,
            CandidateLayout::Rows => candidate * self.numbers + number,
        }]
    }
}

/// What a detector gave for a frame.
pub(super) struct Detected<'a> {
    /// Boxes, with objectness and scores behind them unless those are apart.
    pub boxes: Table<'a>,
    /// Scores of classes, where they are apart.
    pub scores: Option<Table<'a>>,
    /// The class of each candidate, where its score is of that alone; `None` for what is none.
    pub classes: Option<Vec<Option<u32>>>,
}

/// A box in what the model sees.
struct Candidate {
    class: u32,
    score: f32,
    edges: [f64; SIDES],
}

/// The boxes of a frame of `size` (width, height), the best first: those above the least score and at least in part in
/// the frame, without those that overlap a better one by too much (greedy non-maximum suppression).
pub(super) fn boxes(
    spec: &DetectionSpec,
    detected: &Detected<'_>,
    picture: &Picture,
    size: (usize, usize),
) -> Vec<LabelledBox> {
    let place = picture.place(size.0, size.1);
    let mut candidates: Vec<Candidate> = (0..detected.boxes.candidates)
        .filter_map(|at| {
            let (class, score) = detected.best_of(at, spec)?;
            (score >= spec.score_min).then_some((at, class, score))
        })
        .filter_map(|(at, class, score)| {
            let edges = edges(
                spec,
                std::array::from_fn(|side| detected.boxes.at(at, side)),
                picture,
            )?;
            Some(Candidate {
                class,
                score,
                edges,
            })
        })
        .filter(|candidate| in_frame(candidate, place, size).is_some())
        .collect();
    // The order is the model's among equals, so that results are the same everywhere.
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
    candidates.truncate(CANDIDATES_MAX);
    let mut kept: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        if kept.len() >= spec.boxes_max {
            break;
        }
        let rivals = kept
            .iter()
            .filter(|it| spec.across_classes || it.class == candidate.class);
        let limit = f64::from(spec.overlap_max);
        if !rivals
            .into_iter()
            .any(|rival| shared(&rival.edges, &candidate.edges) > limit)
        {
            kept.push(candidate);
        }
    }
    kept.iter()
        .filter_map(|it| in_frame(it, place, size))
        .collect()
}

impl Detected<'_> {
    /// The best class of a candidate, and its score; the first among equals. `None` without a class or a score.
    fn best_of(&self, at: usize, spec: &DetectionSpec) -> Option<(u32, f32)> {
        let (table, offset) = match &self.scores {
            Some(table) => (table, 0),
            None => (&self.boxes, SIDES),
        };
        let objectness = usize::from(spec.objectness);
        let mut scores: Vec<f32> = (offset + objectness..table.numbers)
            .map(|number| table.at(at, number))
            .collect();
        activate(spec.activation, &mut scores);
        let mut factor = [1.0];
        if spec.objectness {
            factor[0] = table.at(at, offset);
            if spec.activation != mote_api::Activation::None {
                activate(mote_api::Activation::Sigmoid, &mut factor);
            }
        }
        if let Some(classes) = &self.classes {
            let class = (*classes.get(at)?)?;
            return Some((class, *scores.first()?)).filter(|it| it.1.is_finite());
        }
        let mut best: Option<(u32, f32)> = None;
        for (class, score) in (0..).zip(scores.iter().map(|score| score * factor[0])) {
            if score.is_finite() && best.is_none_or(|best| score > best.1) {
                best = Some((class, score));
            }
        }
        best
    }
}

/// Left, top, right and bottom in pixels of what the model sees; `None` for what is no box.
fn edges(spec: &DetectionSpec, numbers: [f32; SIDES], picture: &Picture) -> Option<[f64; SIDES]> {
    let units = match spec.coordinates {
        BoxCoordinates::Pixels => [1.0; 2],
        BoxCoordinates::Normalised => [picture.width as f64, picture.height as f64],
    };
    let [a, b, c, d] = numbers.map(f64::from);
    let (a, b, c, d) = (a * units[0], b * units[1], c * units[0], d * units[1]);
    let edges = match spec.format {
        BoxFormat::Xyxy => [a, b, c, d],
        BoxFormat::Xywh => [a, b, a + c, b + d],
        BoxFormat::Cxcywh => [a - c / 2.0, b - d / 2.0, a + c / 2.0, b + d / 2.0],
    };
    let is_box =
        edges.iter().all(|edge| edge.is_finite()) && edges[0] < edges[2] && edges[1] < edges[3];
    is_box.then_some(edges)
}

/// Intersection over union.
fn shared(a: &[f64; SIDES], b: &[f64; SIDES]) -> f64 {
    let side = |low: usize| (a[low + 2].min(b[low + 2]) - a[low].max(b[low])).max(0.0);
    let area = |it: &[f64; SIDES]| (it[2] - it[0]) * (it[3] - it[1]);
    let both = side(0) * side(1);
    both / (area(a) + area(b) - both)
}

/// A box in pixels of the frame, cut off at its edges; `None` for one that lies outside.
fn in_frame(
    candidate: &Candidate,
    place: Place,
    (width, height): (usize, usize),
) -> Option<LabelledBox> {
    let [x0, y0, x1, y1] = candidate.edges;
    let x = |edge: f64| ((edge - place.left) / place.across).clamp(0.0, width as f64) as f32;
    let y = |edge: f64| ((edge - place.top) / place.down).clamp(0.0, height as f64) as f32;
    let made = LabelledBox {
        x0: x(x0),
        y0: y(y0),
        x1: x(x1),
        y1: y(y1),
        class: candidate.class,
        label: String::new(),
        score: candidate.score,
    };
    (made.x0 < made.x1 && made.y0 < made.y1).then_some(made)
}

/// Moves each box towards that of the last frame which shows the same thing, by `share` of the way.
pub(super) fn smooth(share: f32, last: &[LabelledBox], boxes: &mut [LabelledBox]) {
    let edges = |it: &LabelledBox| [it.x0, it.y0, it.x1, it.y1].map(f64::from);
    let mut free: Vec<&LabelledBox> = last.iter().collect();
    for made in boxes {
        let overlap = |it: &LabelledBox| match it.class == made.class {
            true => shared(&edges(it), &edges(made)) as f32,
            false => 0.0,
        };
        let nearest =
            (0..free.len()).max_by(|&a, &b| overlap(free[a]).total_cmp(&overlap(free[b])));
        let Some(nearest) = nearest.filter(|&at| overlap(free[at]) >= SAME_OVERLAP) else {
            continue;
        };
        let was = free.remove(nearest);
        for (now, was) in [
            (&mut made.x0, was.x0),
            (&mut made.y0, was.y0),
            (&mut made.x1, was.x1),
            (&mut made.y1, was.y1),
            (&mut made.score, was.score),
        ] {
            *now += (was - *now) * share;
        }
    }
}
