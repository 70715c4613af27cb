//! Proves that the engine computes: a matrix product with known numbers, from ONNX to result.

use crate::model::TractModel;
use crate::parse;
use mote_api::{Absence, Model, Tensor, Threads};
use std::path::Path;
use tract_onnx::pb;

/// `y = x · w + b`, exact in f32.
const X: [f32; 6] = [1., 2., 3., 4., 5., 6.];
const W: [f32; 6] = [1., -1., 2., 0.5, -3., 4.];
const B: [f32; 2] = [10., 20.];
const Y: [f32; 4] = [6., 32., 6., 42.5];

/// Runs the test model.
pub(crate) fn self_test() -> Result<(), Absence> {
    let failed = |why: String| Absence::ProbeFailed { why };
    let parsed = parse::parse(&tract_onnx::onnx(), test_model(), None);
    let parsed = parsed.map_err(|error| failed(error.to_string()))?;
    let model = TractModel::compile(parsed, Path::new("self-test"), Threads::SINGLE);
    let model = model.map_err(|error| failed(error.to_string()))?;
    let got = run(&model).map_err(|error| failed(error.to_string()))?;
    let error = got.iter().zip(Y).map(|(a, b)| (a - b).abs());
    let error = error.fold(0.0, f32::max);
    if got.len() == Y.len() && error == 0.0 {
        Ok(())
    } else {
        Err(Absence::WrongNumbers {
            error: error.to_string(),
            tolerance: "0".into(),
        })
    }
}

fn run(model: &dyn Model) -> Result<Vec<f32>, Box<dyn std::error::Error>> {
    let mut session = model.session()?;
    session.bind_input(0, &Tensor::from_slice(&[2, 3], &X)?)?;
    session.run()?;
    Ok(session.output(0)?.read::<f32>()?)
}

fn test_model() -> pb::ModelProto {
    let value = |name: &str, dims: &[i64]| pb::ValueInfoProto {
        name: name.into(),
        r#type: Some(pb::TypeProto {
            value: Some(pb::type_proto::Value::TensorType(pb::type_proto::Tensor {
                elem_type: pb::tensor_proto::DataType::Float as i32,
                shape: Some(pb::TensorShapeProto {
                    dim: dims.iter().map(|&dim| dimension(dim)).collect(),
                }),
            })),
            ..Default::default()
        }),
        ..Default::default()
    };
    let weights = |name: &str, dims: &[i64], values: &[f32]| pb::TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: pb::tensor_proto::DataType::Float as i32,
        float_data: values.to_vec(),
        ..Default::default()
    };
    let node = |op: &str, inputs: [&str; 2], output: &str| pb::NodeProto {
        op_type: op.into(),
        input: inputs.map(String::from).to_vec(),
        output: vec![output.into()],
        ..Default::default()
    };
    pb::ModelProto {
        ir_version: 8,
        opset_import: vec![pb::OperatorSetIdProto {
            version: 13,
            ..Default::default()
        }],
        graph: Some(pb::GraphProto {
            name: "self-test".into(),
            node: vec![
                node("MatMul", ["x", "w"], "p"),
                node("Add", ["p", "b"], "y"),
            ],
            initializer: vec![weights("w", &[3, 2], &W), weights("b", &[2], &B)],
            input: vec![value("x", &[2, 3])],
            output: vec![value("y", &[2, 2])],
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn dimension(value: i64) -> pb::tensor_shape_proto::Dimension {
    pb::tensor_shape_proto::Dimension {
        value: Some(pb::tensor_shape_proto::dimension::Value::DimValue(value)),
        ..Default::default()
    }
}
