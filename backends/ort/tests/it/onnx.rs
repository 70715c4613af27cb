//! Writes tiny ONNX models: just enough of the protobuf encoding (protobuf.dev, "Encoding") and
//! of onnx.proto (IR version 10) for the tests.

/// Element types of onnx.proto.
pub const FLOAT: u64 = 1;
pub const UINT8: u64 = 2;
pub const INT32: u64 = 6;
pub const INT64: u64 = 7;
pub const STRING: u64 = 8;
pub const BOOL: u64 = 9;
pub const FLOAT16: u64 = 10;
pub const DOUBLE: u64 = 11;
pub const BFLOAT16: u64 = 16;

const IR_VERSION: u64 = 10;
const OPSET: u64 = 17;
/// The domain of Mote's own operators.
const OURS: &str = "org.moted";
/// `AttributeProto.AttributeType`.
const ATTRIBUTE_FLOAT: u64 = 1;
const ATTRIBUTE_INT: u64 = 2;
const ATTRIBUTE_INTS: u64 = 7;
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

    fn float(mut self, field: u64, value: f32) -> Self {
        self.varint(field << 3 | 5);
        self.0.extend_from_slice(&value.to_le_bytes());
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

/// What a node is told beside its inputs.
#[derive(Clone, Copy)]
pub enum Attribute {
    Float(f32),
    Int(i64),
    Ints(&'static [i64]),
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
        let node = node(operator, from, to);
        let node = match domain.is_empty() {
            true => node,
            false => node.text(7, domain),
        };
        Self(self.0.bytes(1, &node.0))
    }

    /// A node of the default domain with attributes.
    pub fn node_with(
        self,
        operator: &str,
        from: &[&str],
        to: &[&str],
        attributes: &[(&str, Attribute)],
    ) -> Self {
        let with = |node: Message, (name, value): &(&str, Attribute)| {
            node.bytes(5, &attribute(name, value).0)
        };
        let node = attributes.iter().fold(node(operator, from, to), with);
        Self(self.0.bytes(1, &node.0))
    }

    /// A node of Mote's own domain with attributes.
    pub fn node_of_ours(
        self,
        operator: &str,
        from: &[&str],
        to: &[&str],
        attributes: &[(&str, Attribute)],
    ) -> Self {
        self.node_in(OURS, operator, (from, to), attributes)
    }

    /// A node of any domain with attributes.
    pub fn node_in(
        self,
        domain: &str,
        operator: &str,
        (from, to): (&[&str], &[&str]),
        attributes: &[(&str, Attribute)],
    ) -> Self {
        let with = |node: Message, (name, value): &(&str, Attribute)| {
            node.bytes(5, &attribute(name, value).0)
        };
        let node = attributes.iter().fold(node(operator, from, to), with);
        Self(self.0.bytes(1, &node.text(7, domain).0))
    }

    /// A constant of bytes.
    pub fn bytes(self, name: &str, dims: &[u64], bytes: &[u8]) -> Self {
        let tensor = tensor(name, dims, UINT8).bytes(9, bytes);
        Self(self.0.bytes(5, &tensor.0))
    }

    /// A constant whose bytes lie in another file, from `offset` on.
    pub fn external_at(self, name: &str, dims: &[u64], (file, offset): (&str, u64)) -> Self {
        let entry = |key: &str, value: &str| Message::default().text(1, key).text(2, value);
        let tensor = tensor(name, dims, FLOAT)
            .bytes(13, &entry("location", file).0)
            .bytes(13, &entry("offset", &offset.to_string()).0)
            .int(14, EXTERNAL);
        Self(self.0.bytes(5, &tensor.0))
    }

    pub fn constant(self, name: &str, dims: &[u64], values: &[f32]) -> Self {
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let tensor = tensor(name, dims, FLOAT).bytes(9, &raw);
        Self(self.0.bytes(5, &tensor.0))
    }

    /// A constant list of integers.
    pub fn integers(self, name: &str, values: &[i64]) -> Self {
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let tensor = tensor(name, &[values.len() as u64], INT64).bytes(9, &raw);
        Self(self.0.bytes(5, &tensor.0))
    }

    /// A constant whose bytes lie in another file.
    pub fn external(self, name: &str, dims: &[u64], file: &str) -> Self {
        let location = Message::default().text(1, "location").text(2, file);
        let tensor = tensor(name, dims, FLOAT)
            .bytes(13, &location.0)
            .int(14, EXTERNAL);
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
        let model = Message::default()
            .int(1, IR_VERSION)
            .bytes(7, &graph.0)
            .bytes(8, &opset("", OPSET).0)
            .bytes(8, &opset("com.microsoft", 1).0);
        // What is in every model is in the one that is in git, too.
        match graph
            .0
            .windows(OURS.len())
            .any(|bytes| bytes == OURS.as_bytes())
        {
            true => model.bytes(8, &opset(OURS, 1).0).0,
            false => model.0,
        }
    }
}

fn node(operator: &str, from: &[&str], to: &[&str]) -> Message {
    let mut node = Message::default();
    for name in from {
        node = node.text(1, name);
    }
    for name in to {
        node = node.text(2, name);
    }
    node.text(4, operator)
}

fn attribute(name: &str, value: &Attribute) -> Message {
    let named = Message::default().text(1, name);
    match *value {
        Attribute::Float(value) => named.float(2, value).int(20, ATTRIBUTE_FLOAT),
        Attribute::Int(value) => named.int(3, value as u64).int(20, ATTRIBUTE_INT),
        Attribute::Ints(values) => values
            .iter()
            .fold(named, |named, &value| named.int(8, value as u64))
            .int(20, ATTRIBUTE_INTS),
    }
}

fn tensor(name: &str, dims: &[u64], element: u64) -> Message {
    let sized = dims
        .iter()
        .fold(Message::default(), |m, &dim| m.int(1, dim));
    sized.int(2, element).text(8, name)
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
