//! Writes tiny ONNX models: just enough of the protobuf encoding (protobuf.dev, "Encoding") and
//! of onnx.proto (IR version 10) for the tests.

/// Element types of onnx.proto.
pub const FLOAT: u64 = 1;
pub const INT64: u64 = 7;
pub const STRING: u64 = 8;
pub const BOOL: u64 = 9;
pub const DOUBLE: u64 = 11;

const IR_VERSION: u64 = 10;
const OPSET: u64 = 17;
/// `TensorProto.DataLocation.EXTERNAL`.
const EXTERNAL: u64 = 1;

#[derive(Default, Clone)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn int(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn text(self, field: u64, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }
}

/// A dimension: fixed, or a name for what is decided at run time.
#[derive(Clone, Copy)]
pub enum Dim {
    Is(u64),
    Named(&'static str),
}

/// A graph under construction.
#[derive(Default, Clone)]
pub struct Graph(Message);

impl Graph {
    pub fn new() -> Self {
        Self::default()
    }

    /// A node of the default domain.
    pub fn node(self, operator: &str, inputs: &[&str], outputs: &[&str]) -> Self {
        self.node_of("", operator, inputs, outputs)
    }

    pub fn node_of(self, domain: &str, operator: &str, from: &[&str], to: &[&str]) -> Self {
        let mut node = Message::default();
        for name in from {
            node = node.text(1, name);
        }
        for name in to {
            node = node.text(2, name);
        }
        node = node.text(4, operator);
        if !domain.is_empty() {
            node = node.text(7, domain);
        }
        Self(self.0.bytes(1, &node.0))
    }

    pub fn constant(self, name: &str, dims: &[u64], values: &[f32]) -> Self {
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let tensor = tensor(name, dims).bytes(9, &raw);
        Self(self.0.bytes(5, &tensor.0))
    }

    /// A constant whose bytes lie in another file.
    pub fn external(self, name: &str, dims: &[u64], file: &str) -> Self {
        let location = Message::default().text(1, "location").text(2, file);
        let tensor = tensor(name, dims).bytes(13, &location.0).int(14, EXTERNAL);
        Self(self.0.bytes(5, &tensor.0))
    }

    pub fn input(self, name: &str, element: u64, dims: &[Dim]) -> Self {
        let value = value(name, element, Some(dims));
        Self(self.0.bytes(11, &value.0))
    }

    pub fn output(self, name: &str, element: u64, dims: &[Dim]) -> Self {
        let value = value(name, element, Some(dims));
        Self(self.0.bytes(12, &value.0))
    }

    /// An output whose rank is not known before the run.
    pub fn output_of_any_rank(self, name: &str, element: u64) -> Self {
        let value = value(name, element, None);
        Self(self.0.bytes(12, &value.0))
    }

    /// The encoded model.
    pub fn encode(self) -> Vec<u8> {
        let graph = self.0.text(2, "g");
        let opset = |domain: &str, version| Message::default().text(1, domain).int(2, version);
        Message::default()
            .int(1, IR_VERSION)
            .bytes(7, &graph.0)
            .bytes(8, &opset("", OPSET).0)
            .bytes(8, &opset("com.microsoft", 1).0)
            .0
    }
}

fn tensor(name: &str, dims: &[u64]) -> Message {
    let sized = dims
        .iter()
        .fold(Message::default(), |m, &dim| m.int(1, dim));
    sized.int(2, FLOAT).text(8, name)
}

fn value(name: &str, element: u64, dims: Option<&[Dim]>) -> Message {
    let mut tensor_type = Message::default().int(1, element);
    if let Some(dims) = dims {
        let mut shape = Message::default();
        for dim in dims {
            let dim = match *dim {
                Dim::Is(size) => Message::default().int(1, size),
                Dim::Named(name) => Message::default().text(2, name),
            };
            shape = shape.bytes(1, &dim.0);
        }
        tensor_type = tensor_type.bytes(2, &shape.0);
    }
    let kind = Message::default().bytes(1, &tensor_type.0);
    Message::default().text(1, name).bytes(2, &kind.0)
}
