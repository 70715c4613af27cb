//! One run over some texts.

use super::graph::{EmbeddingGraph, Part, Port};
use super::vector;
use crate::PipelineError;
use crate::cancel::CancelFlag;
use mote_api::{DType, EmbeddingSpec, Pooling, RunError, RunReport, Session, Tensor};

/// Computes the vectors of `texts`, f32 `[spec.dimensions]` each, before they are cut or normed. Texts
/// are at least one, none is empty, and all fit the context.
///
/// # Errors
/// [`PipelineError::Cancelled`], or what failed.
pub(crate) fn compute(
    session: &mut dyn Session,
    (graph, spec): (&EmbeddingGraph, &EmbeddingSpec),
    cancel: &CancelFlag,
    texts: &[&[u32]],
) -> Result<(Vec<Vec<f32>>, RunReport), PipelineError> {
    let longest = texts.iter().map(|text| text.len()).max().unwrap_or(1);
    let size = (
        graph.rows.unwrap_or(texts.len()),
        graph.columns.unwrap_or(longest),
    );
    for port in &graph.inputs {
        let tensor = input(*port, size, (texts, spec.pad_token_id))?;
        session.bind_input(port.index, &tensor)?;
    }
    let report = cancel.run(session)?;
    let output = session.output(graph.output)?;
    let width = spec.dimensions;
    let fits = match (spec.pooling, output.shape()) {
        (Pooling::Graph, shape) => shape == [size.0, width],
        (_, shape) => shape == [size.0, size.1, width],
    };
    if !fits {
        let why = format!("came out as {:?}", output.shape());
        return Err(PipelineError::graph("of embedding", why));
    }
    let vectors = texts.iter().enumerate().map(|(row, text)| {
        let shape = &output.shape()[1..];
        let elements: usize = shape.iter().product();
        let offset = output.offset() + row * elements * output.dtype().bytes();
        let buffer = output.buffer().clone();
        let row = Tensor::new(output.dtype(), shape, buffer, offset)?;
        vector::pool(&row, spec.pooling, text.len(), width)
    });
    Ok((vectors.collect::<Result<_, PipelineError>>()?, report))
}

/// What an input holds for `texts`. Rows that no text is left for are like the first.
fn input(
    port: Port,
    (rows, columns): (usize, usize),
    (texts, pad): (&[&[u32]], u32),
) -> Result<Tensor, RunError> {
    let rows = (0..rows).map(|row| texts.get(row).unwrap_or(&texts[0]));
    let padded = |of: fn(usize, u32) -> i64, pad: i64| {
        let row = |text: &&[u32]| {
            let tokens: Vec<i64> = text.iter().enumerate().map(|(i, &id)| of(i, id)).collect();
            let padding = std::iter::repeat_n(pad, columns - tokens.len());
            tokens.into_iter().chain(padding)
        };
        rows.clone().flat_map(row).collect::<Vec<i64>>()
    };
    let (shape, values) = match port.part {
        Part::Ids => (
            vec![rows.len(), columns],
            padded(|_, id| id.into(), pad.into()),
        ),
        Part::Mask => (vec![rows.len(), columns], padded(|_, _| 1, 0)),
        Part::Types => (vec![rows.len(), columns], padded(|_, _| 0, 0)),
        Part::Positions => (vec![rows.len(), columns], padded(|at, _| at as i64, 0)),
        Part::LastPlaces => {
            let last = rows.clone().map(|text| text.len() as i64 - 1);
            (vec![rows.len()], last.collect())
        }
        Part::Total => (vec![1], vec![columns as i64]),
    };
    // Tokens and places are below the vocabulary's size and the context's, which fit 32 bits.
    Ok(match port.dtype {
        DType::I32 => {
            let values: Vec<i32> = values.into_iter().map(|value| value as i32).collect();
            Tensor::from_slice(&shape, &values)?
        }
        _ => Tensor::from_slice(&shape, &values)?,
    })
}
