//! [`Engine`]: frames through a model, tile by tile.

use super::ports::{Ports, input_shape, output_shape};
use super::tiles::{Share, shares};
use crate::PipelineError;
use crate::cancel::StepCancel;
use crate::clip::Rgb;
use crate::clip::planes::{Part, Planes, Values};
use mote_api::{
    DType, Model, OutputTarget, RestorationSpec, RunReport, Session, Stateful, Tensor, TileLimits,
    Tiling,
};
use std::sync::Arc;

const CHANNELS: usize = 3;

/// Puts the frames of one run after the other through a model, one tile a step. States stay with their tile.
pub(super) struct Engine {
    model: Arc<dyn Model>,
    spec: RestorationSpec,
    ports: Ports,
    values: Values,
    limits: TileLimits,
    canvas: Option<Canvas>,
    work: Option<Work>,
    pub cancel: StepCancel,
    pub report: RunReport,
    pub steps: u64,
}

/// Memory and sessions for frames of one size.
struct Canvas {
    tiling: Tiling,
    rows: Vec<Share>,
    columns: Vec<Share>,
    /// One for each tile where there are states, else one for all.
    sessions: Vec<Stateful>,
    input: Tensor,
    /// What runs write to, or states are copied to.
    output: Tensor,
    given: Vec<f32>,
    made: Vec<f32>,
}

/// Frames on their way.
struct Work {
    given: Vec<Arc<Rgb>>,
    made: Vec<Planes>,
    /// The next tile, row by row.
    tile: usize,
}

impl Engine {
    pub fn open(
        model: &Arc<dyn Model>,
        spec: &RestorationSpec,
        limits: TileLimits,
    ) -> Result<Self, PipelineError> {
        let ports = Ports::find(model.signature(), spec)?;
        let limits = TileLimits {
            fixed: ports.fixed,
            ..limits
        };
        Ok(Self {
            model: Arc::clone(model),
            spec: spec.clone(),
            ports,
            values: Values::new(spec.range, spec.padding),
            limits,
            canvas: None,
            work: None,
            cancel: StepCancel::default(),
            report: RunReport::default(),
            steps: 0,
        })
    }

    /// Makes sessions, states and memory for frames of this size.
    pub fn prepare(&mut self, [height, width]: [usize; 2]) -> Result<(), PipelineError> {
        let refuse = |error: mote_api::TilingError| {
            PipelineError::invalid("frame", format!("cannot be computed: {error}"))
        };
        let tiling = Tiling::plan(&self.spec, [height, width], &self.limits).map_err(refuse)?;
        let [tile_height, tile_width] = tiling.tile;
        let [rows, columns] = shares(&tiling, &self.spec);
        let input = Tensor::zeroed(
            DType::F32,
            &input_shape(&self.spec, tile_height, tile_width),
        )?;
        let output = output_shape(&self.spec, tile_height, tile_width);
        let output = Tensor::zeroed(DType::F32, &output)?;
        let count = match self.spec.state.is_empty() {
            true => 1,
            false => tiling.tiles(),
        };
        let sessions = (0..count).map(|_| self.session(&tiling, &input, &output));
        let sessions = sessions.collect::<Result<_, _>>()?;
        self.canvas = Some(Canvas {
            rows,
            columns,
            sessions,
            given: vec![0.0; input.elements()],
            made: vec![0.0; output.elements()],
            input,
            output,
            tiling,
        });
        Ok(())
    }

    fn session(
        &self,
        tiling: &Tiling,
        input: &Tensor,
        output: &Tensor,
    ) -> Result<Stateful, PipelineError> {
        let mut session = Stateful::new(self.model.session()?);
        for state in self.ports.state_specs(&self.spec, tiling.tile) {
            session.keep(state)?;
        }
        session.bind_input(self.ports.frames, input)?;
        if self.ports.output_state.is_none() {
            session.bind_output(self.ports.output, OutputTarget::Into(output.clone()))?;
        }
        Ok(session)
    }

    /// How frames are cut, once their size is known.
    pub fn tiling(&self) -> Option<&Tiling> {
        self.canvas.as_ref().map(|canvas| &canvas.tiling)
    }

    /// Takes the frames of the next run.
    pub fn begin(&mut self, given: Vec<Arc<Rgb>>) {
        let scale = self.spec.scale;
        let [height, width] = self.tiling().map_or([0; 2], |tiling| tiling.frame);
        let made = Planes::zeroed(width * scale, height * scale);
        self.work = Some(Work {
            given,
            made: vec![made; self.spec.frames_out()],
            tile: 0,
        });
    }

    /// Tiles that are done, and all tiles, while frames are on their way.
    pub fn progress(&self) -> Option<(usize, usize)> {
        let work = self.work.as_ref()?;
        Some((work.tile, self.tiling()?.tiles()))
    }

    /// Runs the next tile. Frames that are complete are given.
    pub fn step(&mut self) -> Result<Option<Vec<Planes>>, PipelineError> {
        let (Some(canvas), Some(work)) = (&mut self.canvas, &mut self.work) else {
            return Ok(None);
        };
        let part = canvas.part(work.tile);
        canvas.give(&self.values, &work.given, part)?;
        let at = work.tile.min(canvas.sessions.len() - 1);
        let session = &mut canvas.sessions[at];
        let report = self.cancel.run(session)?;
        self.report.compute_us += report.compute_us;
        self.report.bytes_copied += report.bytes_copied;
        self.steps += 1;
        match self.ports.output_state {
            None => canvas.output.read_into(&mut canvas.made)?,
            Some(state) => match session.memory(state) {
                Some(memory) => memory.read_into(&mut canvas.made)?,
                None => {
                    session.read(state, &canvas.output)?;
                    canvas.output.read_into(&mut canvas.made)?;
                }
            },
        }
        canvas.compose(&self.values, self.spec.scale, work);
        work.tile += 1;
        if work.tile < canvas.tiling.tiles() {
            return Ok(None);
        }
        Ok(self.work.take().map(|work| work.made))
    }
}

impl Canvas {
    fn part(&self, tile: usize) -> Part {
        let columns = self.tiling.lefts.len();
        let [height, width] = self.tiling.tile;
        Part {
            top: self.tiling.tops[tile / columns],
            left: self.tiling.lefts[tile % columns],
            height,
            width,
        }
    }

    /// Frames lie one behind the other in both layouts.
    fn give(
        &mut self,
        values: &Values,
        frames: &[Arc<Rgb>],
        part: Part,
    ) -> Result<(), PipelineError> {
        let of_frame = CHANNELS * part.height * part.width;
        for (frame, planes) in frames.iter().zip(self.given.chunks_exact_mut(of_frame)) {
            values.fill(frame, part, planes);
        }
        Ok(self.input.write(&self.given)?)
    }

    /// Adds what a tile says to the frames being made.
    fn compose(&self, values: &Values, scale: usize, work: &mut Work) {
        let across = self.columns.len();
        let (row, column) = (
            &self.rows[work.tile / across],
            &self.columns[work.tile % across],
        );
        let [tile_height, tile_width] = self.tiling.tile.map(|side| side * scale);
        let planes = self.made.chunks_exact(tile_height * tile_width);
        for (number, plane) in planes.enumerate() {
            let made = &mut work.made[number / CHANNELS];
            let channel = number % CHANNELS;
            for (at, (y, down)) in row.pixels.clone().zip(&row.weights).enumerate() {
                let from = (row.offset + at) * tile_width + column.offset;
                let to = (channel * made.height + y) * made.width + column.pixels.start;
                let from = &plane[from..from + column.weights.len()];
                let to = &mut made.values[to..to + column.weights.len()];
                for ((to, &from), across) in to.iter_mut().zip(from).zip(&column.weights) {
                    *to += down * across * values.to_unit(from);
                }
            }
        }
    }
}
