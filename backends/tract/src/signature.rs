//! What goes in and comes out, from the file's declarations and from what tract inferred.

use crate::convert::dtype;
use crate::parse::Parsed;
use mote_api::{BackendError, DType, LoadError, Signature, TensorSpec};
use std::path::Path;
use tract_onnx::pb;
use tract_onnx::prelude::{DatumType, TypedModel};
use tract_onnx::tract_hir::infer::Factoid;
use tract_onnx::tract_hir::internal::DimLike;

type Dims = Vec<Option<usize>>;

/// The inputs, in the model's order; dimensions that are not fixed are `None`.
pub(crate) fn inputs(parsed: &Parsed, file: &Path) -> Result<Vec<TensorSpec>, LoadError> {
    let model = &parsed.model;
    let mut specs = Vec::new();
    for outlet in &model.inputs {
        let node = model.node(outlet.node);
        let fact = &node.outputs[outlet.slot].fact;
        let served = served(&node.name, fact.datum_type.concretize())?;
        let rank = fact.shape.rank().concretize();
        let rank = rank.ok_or_else(|| without_rank(file, "input", &node.name))?;
        let dims = fact.shape.dims().take(usize::try_from(rank).unwrap_or(0));
        specs.push(TensorSpec {
            name: node.name.clone(),
            dtype: served,
            shape: dims
                .map(|dim| dim.concretize().and_then(|dim| dim.to_usize().ok()))
                .collect(),
        });
    }
    Ok(specs)
}

/// The signature of a compiled model. `any_shape` says that `typed` holds for all input shapes,
/// so that its inferred dimensions do; otherwise only its ranks and types do, and dimensions are
/// those that the file declares.
pub(crate) fn complete(
    inputs: Vec<TensorSpec>,
    parsed: &Parsed,
    typed: &TypedModel,
    any_shape: bool,
) -> Result<Signature, LoadError> {
    let declared = parsed.proto.graph.iter().flat_map(|graph| &graph.output);
    let mut outputs = Vec::new();
    for (outlet, declared) in typed.outputs.iter().zip(declared) {
        let fact = &typed.node(outlet.node).outputs[outlet.slot].fact;
        let dtype = served(&declared.name, Some(fact.datum_type))?;
        let inferred: Dims = fact.shape.iter().map(|dim| dim.to_usize().ok()).collect();
        let shape = if any_shape {
            inferred
        } else {
            declared_dims(declared)
                .filter(|dims| dims.len() == inferred.len())
                .unwrap_or_else(|| vec![None; inferred.len()])
        };
        outputs.push(TensorSpec {
            name: declared.name.clone(),
            dtype,
            shape,
        });
    }
    Ok(Signature { inputs, outputs })
}

fn served(name: &str, datum_type: Option<DatumType>) -> Result<DType, LoadError> {
    datum_type
        .and_then(dtype)
        .ok_or_else(|| LoadError::UnservedType {
            name: name.into(),
            dtype: datum_type.map_or("unknown".into(), |datum_type| format!("{datum_type:?}")),
        })
}

fn without_rank(file: &Path, what: &str, name: &str) -> LoadError {
    LoadError::Malformed {
        file: file.into(),
        cause: BackendError::new(
            "read signature",
            format!("{what} {name:?} declares no shape"),
        ),
    }
}

fn declared_dims(value: &pb::ValueInfoProto) -> Option<Dims> {
    use pb::tensor_shape_proto::dimension::Value::DimValue;
    let pb::type_proto::Value::TensorType(tensor) = value.r#type.as_ref()?.value.as_ref()?;
    let dims = tensor.shape.as_ref()?.dim.iter();
    Some(
        dims.map(|dim| match dim.value {
            Some(DimValue(value)) => usize::try_from(value).ok(),
            _ => None,
        })
        .collect(),
    )
}
