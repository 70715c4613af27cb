//! Reads a model file and finds what this engine cannot do before anything is compiled.

use crate::PROVIDER;
use crate::guard::guard;
use mote_api::{BackendError, LoadError};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use tract_onnx::Onnx;
use tract_onnx::pb;
use tract_onnx::prelude::{Framework, InferenceModel};

/// Larger model files are refused; protobuf itself ends at 2 GiB. External data is extra.
pub const ONNX_BYTES_MAX: u64 = 2 << 30;

/// A model that has been read but not compiled.
pub(crate) struct Parsed {
    pub model: InferenceModel,
    pub proto: pb::ModelProto,
}

/// Reads the file, with these of its open dimensions fixed.
pub(crate) fn read(file: &Path, dimensions: &BTreeMap<String, usize>) -> Result<Parsed, LoadError> {
    let read = |cause| LoadError::Read {
        file: file.into(),
        cause,
    };
    let opened = std::fs::File::open(file).map_err(read)?;
    let bytes = opened.metadata().map_err(read)?.len();
    let malformed = |cause| LoadError::Malformed {
        file: file.into(),
        cause,
    };
    if bytes > ONNX_BYTES_MAX {
        let why = format!("{bytes} bytes, more than {ONNX_BYTES_MAX}");
        return Err(malformed(BackendError::new("read model", why)));
    }
    let onnx = tract_onnx::onnx();
    let mut bounded = opened.take(ONNX_BYTES_MAX);
    let proto = guard("decode model", || onnx.proto_model_for_read(&mut bounded));
    let mut proto = proto.map_err(malformed)?;
    fix(&mut proto, dimensions);
    let operators = unknown_operators(&onnx, &proto);
    if !operators.is_empty() {
        return Err(LoadError::UnsupportedOperators {
            file: file.into(),
            provider: PROVIDER.into(),
            operators,
        });
    }
    // External data may only lie in this folder or below; tract refuses other paths.
    let folder = file.parent().and_then(Path::to_str);
    parse(&onnx, proto, folder).map_err(malformed)
}

/// Writes sizes in place of the names of open dimensions. Nodes keep what was inferred of their
/// shapes before, which would contradict; it is inferred anew.
fn fix(proto: &mut pb::ModelProto, dimensions: &BTreeMap<String, usize>) {
    use pb::tensor_shape_proto::dimension::Value;
    use pb::type_proto::Value::TensorType;
    let Some(graph) = proto.graph.as_mut().filter(|_| !dimensions.is_empty()) else {
        return;
    };
    graph.value_info.clear();
    let ports = graph.input.iter_mut().chain(&mut graph.output);
    for port in ports {
        let Some(TensorType(tensor)) = port.r#type.as_mut().and_then(|it| it.value.as_mut()) else {
            continue;
        };
        for dim in tensor.shape.iter_mut().flat_map(|shape| &mut shape.dim) {
            let Some(Value::DimParam(name)) = &dim.value else {
                continue;
            };
            if let Some(&size) = dimensions.get(name) {
                let size = i64::try_from(size).unwrap_or(i64::MAX);
                dim.value = Some(Value::DimValue(size));
            }
        }
    }
}

/// Translates a decoded model; weights that lie in other files are read from `folder`.
pub(crate) fn parse(
    onnx: &Onnx,
    mut proto: pb::ModelProto,
    folder: Option<&str>,
) -> Result<Parsed, BackendError> {
    let parsed = guard("translate model", || onnx.parse(&proto, folder))?;
    if !parsed.unresolved_inputs.is_empty() {
        let names = parsed.unresolved_inputs.join(", ");
        let why = format!("nothing produces {names}");
        return Err(BackendError::new("translate model", why));
    }
    // The weights live on in the translated model; only the outer declarations are still needed.
    if let Some(graph) = &mut proto.graph {
        graph.initializer.clear();
        graph.node.clear();
    }
    Ok(Parsed {
        model: parsed.model,
        proto,
    })
}

/// Operators without an implementation, each named once, with their domain where it is not ONNX's.
fn unknown_operators(onnx: &Onnx, proto: &pb::ModelProto) -> Vec<String> {
    let mut unknown = BTreeSet::new();
    // Protobuf's own nesting limit bounds the depth of graphs in graphs.
    let mut graphs: Vec<&pb::GraphProto> = proto.graph.iter().collect();
    while let Some(graph) = graphs.pop() {
        for node in &graph.node {
            if !onnx.op_register.0.contains_key(&node.op_type) {
                unknown.insert(match node.domain.as_str() {
                    "" | "ai.onnx" => node.op_type.clone(),
                    domain => format!("{domain}.{}", node.op_type),
                });
            }
            for attribute in &node.attribute {
                graphs.extend(attribute.g.iter().chain(&attribute.graphs));
            }
        }
    }
    unknown.into_iter().collect()
}
