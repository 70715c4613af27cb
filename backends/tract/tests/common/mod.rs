//! Writes small ONNX models, and loads and runs them through the public door.
#![allow(dead_code, reason = "each file of tests uses its part")]

use mote_api::{Backend, LoadError, LoadRequest, Model, Session, Tensor, Threads};
use mote_tract::TractBackend;
use prost::Message;
use std::sync::Arc;
use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as Dim;

/// A dimension of this size, or free when negative.
fn dimension(size: i64) -> pb::tensor_shape_proto::Dimension {
    pb::tensor_shape_proto::Dimension {
        value: (size >= 0).then_some(Dim::DimValue(size)),
        ..Default::default()
    }
}

pub fn value(name: &str, elem_type: DataType, dims: &[i64]) -> pb::ValueInfoProto {
    let tensor = pb::type_proto::Tensor {
        elem_type: elem_type as i32,
        shape: Some(pb::TensorShapeProto {
            dim: dims.iter().map(|&size| dimension(size)).collect(),
        }),
    };
    pb::ValueInfoProto {
        name: name.into(),
        r#type: Some(pb::TypeProto {
            value: Some(pb::type_proto::Value::TensorType(tensor)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub fn floats(name: &str, dims: &[i64], values: &[f32]) -> pb::TensorProto {
    pb::TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: DataType::Float as i32,
        float_data: values.to_vec(),
        ..Default::default()
    }
}

pub fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> pb::NodeProto {
    let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect();
    pb::NodeProto {
        op_type: op.into(),
        input: names(inputs),
        output: names(outputs),
        ..Default::default()
    }
}

/// A graph from its parts; the rest is boilerplate.
#[derive(Default)]
pub struct Graph {
    pub nodes: Vec<pb::NodeProto>,
    pub weights: Vec<pb::TensorProto>,
    pub inputs: Vec<pb::ValueInfoProto>,
    pub outputs: Vec<pb::ValueInfoProto>,
}

impl Graph {
    pub fn bytes(self) -> Vec<u8> {
        let model = pb::ModelProto {
            ir_version: 8,
            opset_import: vec![pb::OperatorSetIdProto {
                version: 14,
                ..Default::default()
            }],
            graph: Some(pb::GraphProto {
                name: "test".into(),
                node: self.nodes,
                initializer: self.weights,
                input: self.inputs,
                output: self.outputs,
                ..Default::default()
            }),
            ..Default::default()
        };
        model.encode_to_vec()
    }

    pub fn load(self) -> Result<Arc<dyn Model>, LoadError> {
        load(&self.bytes())
    }
}

pub fn load(bytes: &[u8]) -> Result<Arc<dyn Model>, LoadError> {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("m.onnx");
    std::fs::write(&file, bytes).expect("write model");
    TractBackend::new().load(&request(file))
}

pub fn request(file: std::path::PathBuf) -> LoadRequest {
    LoadRequest {
        file,
        provider: String::new(),
        provider_options: Vec::new(),
        threads: Threads::SINGLE,
        forbid_cpu: false,
        ..LoadRequest::default()
    }
}

/// Binds, runs once and reads output 0.
pub fn run(session: &mut dyn Session, inputs: &[Tensor]) -> Vec<f32> {
    for (index, tensor) in inputs.iter().enumerate() {
        session.bind_input(index, tensor).expect("fits");
    }
    session.run().expect("runs");
    let output = session.output(0).expect("has run");
    output.read::<f32>().expect("f32")
}
