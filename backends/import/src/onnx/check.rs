//! Checks a written model against its data file.

use prost::Message;
use thiserror::Error;

use super::{
    DATA_ALIGNMENT_BYTES,
    proto::{DataLocation, ModelProto, TensorProto},
};

/// What is wrong with a written model.
#[derive(Debug, Error)]
pub enum CheckError {
    /// The model file is not well-formed.
    #[error("the model does not parse")]
    Parse(#[source] prost::DecodeError),
    /// The model has no graph.
    #[error("the model has no graph")]
    NoGraph,
    /// A tensor's description lacks its file, offset, length or type.
    #[error("tensor {tensor:?} is not fully described")]
    Undescribed {
        /// The tensor.
        tensor: String,
    },
    /// A tensor's bytes do not fill its shape, are not aligned, overlap others, or lie
    /// outside the data file.
    #[error("tensor {tensor:?} is misplaced in the data file")]
    Misplaced {
        /// The tensor.
        tensor: String,
    },
    /// A node reads a value that nothing before it makes.
    #[error("node {node:?} reads {value:?}, which does not exist")]
    Unconnected {
        /// The node.
        node: String,
        /// The value.
        value: String,
    },
}

/// Checks that `model` parses, that its tensors fill `data_file` of `data_bytes` without
/// overlap, and that every node's inputs exist.
pub(crate) fn check_model(
    model: &[u8],
    data_file: &str,
    data_bytes: u64,
) -> Result<(), CheckError> {
    let model = ModelProto::decode(model).map_err(CheckError::Parse)?;
    let graph = model.graph.ok_or(CheckError::NoGraph)?;
    let mut end = 0;
    for tensor in &graph.initializer {
        if tensor.data_location() == DataLocation::External {
            end = check_tensor(tensor, data_file, (end, data_bytes))?;
        }
    }
    let mut known: std::collections::HashSet<&str> = graph
        .input
        .iter()
        .map(|input| input.name())
        .chain(graph.initializer.iter().map(|tensor| tensor.name()))
        .chain([""])
        .collect();
    for node in &graph.node {
        if let Some(value) = node
            .input
            .iter()
            .find(|value| !known.contains(value.as_str()))
        {
            return Err(CheckError::Unconnected {
                node: node.name().to_owned(),
                value: value.clone(),
            });
        }
        known.extend(node.output.iter().map(String::as_str));
    }
    match graph
        .output
        .iter()
        .find(|output| !known.contains(output.name()))
    {
        None => Ok(()),
        Some(output) => Err(CheckError::Unconnected {
            node: "graph outputs".to_owned(),
            value: output.name().to_owned(),
        }),
    }
}

/// Returns where `tensor` ends; it must begin at or after `free`.
fn check_tensor(
    tensor: &TensorProto,
    data_file: &str,
    (free, data_bytes): (u64, u64),
) -> Result<u64, CheckError> {
    let entry = |key: &str| {
        tensor
            .external_data
            .iter()
            .find(|entry| entry.key() == key)
            .map(|entry| entry.value())
    };
    let number = |key| entry(key).and_then(|value| value.parse::<u64>().ok());
    let (Some(file), Some(offset), Some(length)) =
        (entry("location"), number("offset"), number("length"))
    else {
        return Err(CheckError::Undescribed {
            tensor: tensor.name().to_owned(),
        });
    };
    let elements = tensor
        .dims
        .iter()
        .try_fold(tensor.data_type().bytes() as u64, |product, &dim| {
            product.checked_mul(u64::try_from(dim).ok()?)
        });
    let end = offset.saturating_add(length);
    if file == data_file
        && elements == Some(length)
        && offset >= free
        && offset.is_multiple_of(DATA_ALIGNMENT_BYTES)
        && end <= data_bytes
    {
        Ok(end)
    } else {
        Err(CheckError::Misplaced {
            tensor: tensor.name().to_owned(),
        })
    }
}
