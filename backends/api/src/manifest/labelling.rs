//! The section of a model that labels frames or finds things in them.

use super::{InputHint, StateTensor};
use serde::{Deserialize, Serialize};

/// Frames that one run is given.
const WINDOW_MAX: usize = 256;
/// Sides of what the model is given.
const PICTURE_PIXELS_MAX: usize = 4096;
/// Labels of a frame, and boxes in it.
const RESULTS_MAX: usize = 1024;

/// What a model that labels frames needs said. Pictures become its input as the `[[input]]` of that name
/// says (layout, scale, mean, deviation and nothing else), and else as f32 `[1, 3, height, width]` in 0..=1; a window
/// of several frames has one of the layouts `ntchw`, `ncthw` and `nthwc`. Names of classes come from
/// the file that the manifest's `labels` names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabellingSpec {
    /// What comes out.
    pub kind: LabellingKind,
    /// Input of the frame or frames.
    pub input: String,
    /// Width of the input; needed where the model leaves it open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// Height of the input; needed where the model leaves it open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<usize>,
    /// How a frame is brought to that size.
    #[serde(default)]
    pub fit: FrameFit,
    /// Order of the colours.
    #[serde(default)]
    pub colours: ColourOrder,
    /// Frames that a run is given; 1 when absent. A clip that is shorter, or whose end leaves less, is
    /// filled up with its last frame.
    #[serde(default = "one")]
    pub window: usize,
    /// Frames from the beginning of one window to that of the next; as many as a window has when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<usize>,
    /// Tensors that go from one run to the next; zero at the start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub state: Vec<StateTensor>,
    /// Share of the last result in the next, 0..1, for scores that jump less from frame to frame; 0 when
    /// absent.
    #[serde(default)]
    pub smoothing: f32,
    /// For [`LabellingKind::Classification`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<ClassificationSpec>,
    /// For [`LabellingKind::Detection`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detection: Option<DetectionSpec>,
}

/// What a model that labels frames gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabellingKind {
    /// A score for each class.
    Classification,
    /// Boxes with scores.
    Detection,
}

/// How a frame is brought to the size that the model takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FrameFit {
    /// Its proportions are kept; grey (114 of 255) fills what is left, the same on both sides.
    #[default]
    Letterbox,
    /// Its proportions are kept; it lies at the upper left, and black fills the rest.
    Corner,
    /// Its proportions are kept; what does not fit is cut off, the same on both sides.
    Crop,
    /// Both sides are scaled on their own.
    Stretch,
}

/// Order of the colours in a model's input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum ColourOrder {
    #[default]
    Rgb,
    Bgr,
}

/// What is made of a model's numbers to get scores in 0..1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// Nothing: they are scores.
    #[default]
    None,
    /// The logistic function of each.
    Sigmoid,
    /// The softmax over all classes.
    Softmax,
}

/// What a classifier's output means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassificationSpec {
    /// Output with a number for each class: f32 `[1, classes]`, or any shape with so many elements.
    pub output: String,
    /// What makes scores of them.
    #[serde(default)]
    pub activation: Activation,
    /// Labels that are given of a frame at most, those with the best scores; 5 when absent.
    #[serde(default = "top")]
    pub top: usize,
    /// Least score of a label that is given; 0 when absent.
    #[serde(default)]
    pub score_min: f32,
}

/// What a detector's outputs mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectionSpec {
    /// f32 output with boxes and, unless [`Self::scores`] names another, scores of classes.
    pub boxes: String,
    /// How its candidates lie.
    #[serde(default)]
    pub layout: CandidateLayout,
    /// f32 output `[1, candidates, classes]` or `[1, classes, candidates]`, as [`Self::layout`] has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scores: Option<String>,
    /// Output with the class of each candidate, f32 or integers `[1, candidates]`; scores are then of
    /// this class alone, `[1, candidates]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<String>,
    /// What four numbers say of a box.
    pub format: BoxFormat,
    /// What they count.
    #[serde(default)]
    pub coordinates: BoxCoordinates,
    /// Whether a number between box and scores says how likely there is anything, by which scores are
    /// multiplied.
    #[serde(default)]
    pub objectness: bool,
    /// What makes scores of the model's numbers (and of the objectness).
    #[serde(default)]
    pub activation: Activation,
    /// Least score of a box that is given; 0.25 when absent.
    #[serde(default = "score")]
    pub score_min: f32,
    /// How much of their common area two boxes of one class may share (intersection over union) before
    /// the one with the lower score is dropped; 0.45 when absent, 1 to drop none.
    #[serde(default = "overlap")]
    pub overlap_max: f32,
    /// Whether boxes of different classes drop each other, too.
    #[serde(default)]
    pub across_classes: bool,
    /// Boxes that are given of a frame at most, those with the best scores; 300 when absent.
    #[serde(default = "boxes")]
    pub boxes_max: usize,
}

/// How candidates lie in a detector's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CandidateLayout {
    /// `[1, numbers, candidates]`, as YOLOv8 has them.
    #[default]
    Columns,
    /// `[1, candidates, numbers]`, as YOLOv5 has them.
    Rows,
}

/// What four numbers say of a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BoxFormat {
    /// Left, top, right, bottom.
    Xyxy,
    /// Left, top, width, height.
    Xywh,
    /// Middle, middle, width, height.
    Cxcywh,
}

/// What a box's numbers count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BoxCoordinates {
    /// Pixels of the model's input.
    #[default]
    Pixels,
    /// Parts of its width and height.
    Normalised,
}

fn one() -> usize {
    1
}

fn top() -> usize {
    5
}

fn score() -> f32 {
    0.25
}

fn overlap() -> f32 {
    0.45
}

fn boxes() -> usize {
    300
}

impl LabellingSpec {
    /// Frames from the beginning of one window to that of the next.
    pub fn stride(&self) -> usize {
        self.stride.unwrap_or(self.window)
    }

    /// Takes a request's word for how many labels or boxes a frame has at most, and for their least score.
    pub fn limit(&mut self, results_max: Option<usize>, score_min: Option<f32>) {
        let most = results_max.map(|most| most.clamp(1, RESULTS_MAX));
        if let Some(classification) = &mut self.classification {
            classification.top = most.unwrap_or(classification.top);
            classification.score_min = score_min.unwrap_or(classification.score_min);
        }
        if let Some(detection) = &mut self.detection {
            detection.boxes_max = most.unwrap_or(detection.boxes_max);
            detection.score_min = score_min.unwrap_or(detection.score_min);
        }
    }

    /// Checks sizes and what belongs to which kind; else the field and why.
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        let refuse = |field: &str, why: String| Err((format!("labelling.{field}"), why));
        for (field, size, most) in [
            ("window", Some(self.window), WINDOW_MAX),
            ("stride", self.stride, self.window),
            ("width", self.width, PICTURE_PIXELS_MAX),
            ("height", self.height, PICTURE_PIXELS_MAX),
            (
                "classification.top",
                self.classification.as_ref().map(|it| it.top),
                RESULTS_MAX,
            ),
            (
                "detection.boxes_max",
                self.detection.as_ref().map(|it| it.boxes_max),
                RESULTS_MAX,
            ),
        ] {
            if size.is_some_and(|size| !(1..=most).contains(&size)) {
                return refuse(field, format!("is not in 1..={most}"));
            }
        }
        let (has, want, other) = match self.kind {
            LabellingKind::Classification => (
                self.classification.is_some(),
                "classification",
                self.detection.as_ref().map(|_| "detection"),
            ),
            LabellingKind::Detection => (
                self.detection.is_some(),
                "detection",
                self.classification.as_ref().map(|_| "classification"),
            ),
        };
        if !has {
            return refuse(want, "is missing".into());
        }
        if let Some(other) = other {
            return refuse(other, "belongs to the other kind".into());
        }
        if self.kind == LabellingKind::Detection && self.window != 1 {
            return refuse("window", "is 1 for detection".into());
        }
        if !(0.0..1.0).contains(&self.smoothing) {
            return refuse("smoothing", format!("{} is not in 0..1", self.smoothing));
        }
        self.check_scores()
    }

    /// Refuses what an `[[input]]` says of the picture and this section says itself.
    pub(super) fn check_input(&self, hint: &InputHint) -> Result<(), (String, String)> {
        let usual = InputHint::plain(&hint.name, hint.layout);
        for (field, is_said) in [
            ("order", hint.order != usual.order),
            ("fit", hint.fit != usual.fit),
            ("filter", hint.filter != usual.filter),
            ("pad", hint.pad != usual.pad),
        ] {
            if is_said && hint.name == self.input {
                let why = "belongs to [labelling]".to_owned();
                return Err((format!("input[{}].{field}", hint.name), why));
            }
        }
        Ok(())
    }

    fn check_scores(&self) -> Result<(), (String, String)> {
        let refuse = |field: &str, why: String| Err((format!("labelling.{field}"), why));
        let classification = self.classification.as_ref();
        let detection = self.detection.as_ref();
        for (field, share) in [
            (
                "classification.score_min",
                classification.map(|it| it.score_min),
            ),
            ("detection.score_min", detection.map(|it| it.score_min)),
            ("detection.overlap_max", detection.map(|it| it.overlap_max)),
        ] {
            if share.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
                return refuse(field, "is not in 0..=1".into());
            }
        }
        if let Some(detection) = detection {
            if detection.classes.is_some() && detection.scores.is_none() {
                return refuse("detection.classes", "needs scores beside it".into());
            }
            if detection.objectness && detection.classes.is_some() {
                return refuse(
                    "detection.objectness",
                    "goes with scores of all classes".into(),
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Manifest;
    use std::path::Path;

    const HEAD: &str = "format = 1\nname = \"m\"\ntask = \"clip-labelling\"\n[[variant]]\n\
        name = \"a\"\nbackend = \"onnxruntime\"\nfile = \"m.onnx\"\nprecision = \"f32\"\n";
    const DETECTOR: &str = "[labelling]\nkind = \"detection\"\ninput = \"images\"\n\
        smoothing = 0.5\n[labelling.detection]\nboxes = \"output0\"\nformat = \"cxcywh\"\n";
    const CLASSIFIER: &str = "[labelling]\nkind = \"classification\"\ninput = \"x\"\nwindow = 8\n\
        stride = 4\n[labelling.classification]\noutput = \"y\"\nactivation = \"softmax\"\n";

    fn parse(section: &str) -> Result<LabellingSpec, String> {
        let text = format!("{HEAD}{section}");
        let manifest = Manifest::parse(&text, Path::new("mote.toml"));
        let manifest = manifest.map_err(|error| error.to_string())?;
        Ok(manifest.labelling.expect("a section"))
    }

    #[test]
    fn what_the_section_says_of_pictures_is_not_said_of_the_input() {
        let input = "[[input]]\nname = \"x\"\nlayout = \"ntchw\"\nscale = 1.0\n\
            mean = [0.0, 0.0, 0.0]\nstd = [1.0, 1.0, 1.0]\n";
        parse(&format!("{input}{CLASSIFIER}")).expect("good");
        for (field, said) in [
            ("order", "\"bgr\""),
            ("fit", "\"letterbox\""),
            ("filter", "\"area\""),
            ("pad", "[0, 0, 1]"),
        ] {
            let said = format!("{input}{field} = {said}\n{CLASSIFIER}");
            let message = parse(&said).expect_err(field);
            let want = format!("input[x].{field}: belongs to [labelling]");
            assert!(message.contains(&want), "{message}");
            parse(&said.replace("name = \"x\"", "name = \"other\"")).expect("another input");
        }
    }

    #[test]
    fn a_labeller_says_what_its_numbers_mean() {
        let detector = parse(DETECTOR).expect("good");
        let detection = detector.detection.expect("a section");
        assert_eq!(detection.layout, CandidateLayout::Columns);
        assert_eq!((detection.score_min, detection.boxes_max), (0.25, 300));
        let classifier = parse(CLASSIFIER).expect("good");
        assert_eq!((classifier.stride(), classifier.window), (4, 8));
        let most = DETECTOR.replace("format", "boxes_max = 1024\nformat");
        parse(&most).expect("as many as an answer holds");
        for (base, from, to, field) in [
            (CLASSIFIER, "window = 8", "window = 0", "labelling.window"),
            (CLASSIFIER, "window = 8", "window = 257", "labelling.window"),
            (CLASSIFIER, "stride = 4", "stride = 9", "labelling.stride"),
            (CLASSIFIER, "stride = 4", "width = 9999", "labelling.width"),
            (
                CLASSIFIER,
                "\"classification\"",
                "\"detection\"",
                "labelling.detection",
            ),
            (
                DETECTOR,
                "smoothing = 0.5",
                "smoothing = 1.0",
                "labelling.smoothing",
            ),
            (
                DETECTOR,
                "smoothing = 0.5",
                "smoothing = nan",
                "labelling.smoothing",
            ),
            (
                DETECTOR,
                "smoothing = 0.5",
                "window = 2",
                "labelling.window",
            ),
            (
                DETECTOR,
                "format",
                "score_min = 2.0\nformat",
                "labelling.detection.score_min",
            ),
            (
                DETECTOR,
                "format",
                "overlap_max = -1.0\nformat",
                "labelling.detection.overlap_max",
            ),
            (
                DETECTOR,
                "format",
                "boxes_max = 0\nformat",
                "labelling.detection.boxes_max",
            ),
            (
                DETECTOR,
                "format",
                "classes = \"c\"\nformat",
                "labelling.detection.classes",
            ),
            (
                DETECTOR,
                "format",
                "boxes_max = 1025\nformat",
                "labelling.detection.boxes_max",
            ),
            (DETECTOR, "cxcywh", "polar", "not a model manifest"),
            (DETECTOR, "[labelling]", "[other]", "not a model manifest"),
        ] {
            let message = parse(&base.replace(from, to)).expect_err(to);
            assert!(message.contains(field), "{to}: {message}");
        }
        let both = format!(
            "{CLASSIFIER}{}",
            &DETECTOR[DETECTOR.find("[labelling.d").expect("it")..]
        );
        let message = parse(&both).expect_err("both kinds");
        assert!(
            message.contains("labelling.detection: belongs"),
            "{message}"
        );
        let missing = parse("").expect_err("has no section");
        assert!(missing.contains("labelling: is missing"), "{missing}");
    }
}
