//! A model that does nothing, on a provider: what comes in goes out. It moves tensors between host and
//! device where the library itself cannot, since providers that are built into it teach their way of
//! copying to sessions only.

use crate::engine::Engine;
use crate::failure::backend_error;
use crate::providers::Provider;
use crate::sys::{self, ValueRef};
use mote_api::{DType, LoadError, LoadRequest, RunError};
use ort::environment::Environment;
use ort::session::RunOptions;

/// `ir_version` and `opset_import` of the model: what the oldest library reads.
const IR_VERSION: u64 = 8;
const OPSET: u64 = 17;

/// Moves tensors of one type and shape.
pub(crate) struct Mover {
    engine: Engine,
    dtype: DType,
    shape: Vec<usize>,
}

impl Mover {
    /// Compiles the model as `request` compiled another.
    pub(crate) fn load(
        environment: &Environment,
        row: &Provider,
        request: &LoadRequest,
        dtype: DType,
        shape: &[usize],
    ) -> Result<Self, LoadError> {
        let request = LoadRequest {
            file: "mover".into(),
            forbid_cpu: true,
            ..request.clone()
        };
        Ok(Self {
            engine: Engine::load_bytes(environment, row, &request, &model(dtype, shape))?,
            dtype,
            shape: shape.to_vec(),
        })
    }

    pub(crate) fn fits(&self, dtype: DType, shape: &[usize]) -> bool {
        self.dtype == dtype && self.shape == shape
    }

    /// Copies one to the other.
    pub(crate) fn copy(&self, from: ValueRef<'_>, to: ValueRef<'_>) -> Result<(), RunError> {
        let failed = |error: ort::Error| {
            RunError::Compute(backend_error("copy from or to the device", &error))
        };
        let options = RunOptions::new().map_err(failed)?;
        let (from, to) = (std::iter::once(from), std::iter::once(Some(to)));
        self.engine.run(&options, from, to).map_err(failed)?;
        Ok(())
    }
}

/// `y = Identity(x)`, as onnx.proto has it.
fn model(dtype: DType, shape: &[usize]) -> Vec<u8> {
    let node = [text(1, "x"), text(2, "y"), text(4, "Identity")].concat();
    let graph = [
        bytes(1, &node),
        text(2, "mover"),
        bytes(11, &value("x", dtype, shape)),
        bytes(12, &value("y", dtype, shape)),
    ];
    let opset = [text(1, ""), int(2, OPSET)].concat();
    let model = [
        int(1, IR_VERSION),
        bytes(7, &graph.concat()),
        bytes(8, &opset),
    ];
    model.concat()
}

/// `ValueInfoProto`.
fn value(name: &str, dtype: DType, shape: &[usize]) -> Vec<u8> {
    let dims = shape.iter().map(|&size| bytes(1, &int(1, size as u64)));
    let shape = dims.collect::<Vec<_>>().concat();
    let tensor = [int(1, sys::element_code(dtype)), bytes(2, &shape)].concat();
    [text(1, name), bytes(2, &bytes(1, &tensor))].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut encoded = Vec::new();
    while value >= 0x80 {
        encoded.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    encoded.push(value as u8);
    encoded
}

fn int(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [
        varint(field << 3 | 2),
        varint(value.len() as u64),
        value.to_vec(),
    ]
    .concat()
}

fn text(field: u64, value: &str) -> Vec<u8> {
    bytes(field, value.as_bytes())
}
