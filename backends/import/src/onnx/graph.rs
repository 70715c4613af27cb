//! Builds a graph in memory while its large tensors stream to the data file.

use super::{
    CONTRIB_DOMAIN, ExternalData, INLINE_BYTES_MAX, IR_VERSION, OPSET_VERSION, OWN_DOMAIN,
    proto::{
        AttributeProto, AttributeType, DataType, Dimension, DimensionProto, GraphProto, ModelProto,
        NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto,
        ValueInfoProto,
    },
};
use crate::{
    ImportError, Layout,
    checkpoint::{Rows, read_all},
    folder::StagedFile,
    progress::Monitor,
    quantise::{Bits, all_numbers, quantise, quantise_signed},
};
use mote_kernels::{TILE_ROWS, pack_tile, tile_bytes};

/// Largest piece of a matrix that is converted at once, in elements.
const BLOCK_ELEMENTS_MAX: usize = 1 << 18;

/// How floats are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FloatWidth {
    Half,
    Single,
}

impl FloatWidth {
    fn data_type(self) -> DataType {
        match self {
            Self::Half => DataType::Float16,
            Self::Single => DataType::Float,
        }
    }
}

/// A node under construction.
pub(crate) struct Node(NodeProto);

impl Node {
    /// A node of the standard operator set.
    pub fn standard(op_type: &str, name: &str) -> Self {
        Self(NodeProto {
            op_type: Some(op_type.to_owned()),
            name: Some(name.to_owned()),
            ..NodeProto::default()
        })
    }

    /// A node of ONNX Runtime's own operator set.
    pub fn contrib(op_type: &str, name: &str) -> Self {
        let mut node = Self::standard(op_type, name);
        node.0.domain = Some(CONTRIB_DOMAIN.to_owned());
        node
    }

    /// A node of our own operator set.
    pub fn own(op_type: &str, name: &str) -> Self {
        let mut node = Self::standard(op_type, name);
        node.0.domain = Some(OWN_DOMAIN.to_owned());
        node
    }

    pub fn inputs(mut self, names: &[&str]) -> Self {
        self.0.input = names.iter().map(|&name| name.to_owned()).collect();
        self
    }

    pub fn outputs(mut self, names: &[&str]) -> Self {
        self.0.output = names.iter().map(|&name| name.to_owned()).collect();
        self
    }

    pub fn int(self, name: &str, value: usize) -> Self {
        self.signed(name, value as i64)
    }

    pub fn signed(mut self, name: &str, value: i64) -> Self {
        self.0.attribute.push(AttributeProto {
            i: Some(value),
            ..attribute(name, AttributeType::Int)
        });
        self
    }

    pub fn float(mut self, name: &str, value: f32) -> Self {
        self.0.attribute.push(AttributeProto {
            f: Some(value),
            ..attribute(name, AttributeType::Float)
        });
        self
    }

    pub fn text(mut self, name: &str, value: &str) -> Self {
        self.0.attribute.push(AttributeProto {
            s: Some(value.as_bytes().to_vec()),
            ..attribute(name, AttributeType::String)
        });
        self
    }
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(kind.into()),
        ..AttributeProto::default()
    }
}

/// A dimension of a graph input or output.
pub(crate) enum Shape<'a> {
    Fixed(usize),
    Named(&'a str),
}

/// A graph under construction.
pub(crate) struct GraphWriter<'a, 'b> {
    graph: GraphProto,
    data: ExternalData,
    /// How quantised matrices lie.
    pub layout: Layout,
    /// Progress and cancellation.
    pub monitor: &'a mut Monitor<'b>,
}

impl<'a, 'b> GraphWriter<'a, 'b> {
    pub fn new(name: &str, data: ExternalData, monitor: &'a mut Monitor<'b>) -> Self {
        Self {
            graph: GraphProto {
                name: Some(name.to_owned()),
                ..GraphProto::default()
            },
            data,
            layout: Layout::default(),
            monitor,
        }
    }

    /// Adds `node` and returns the name of its first output. A node without outputs gets
    /// one, called `{name}.out`.
    pub fn node(&mut self, node: Node) -> String {
        let Node(mut node) = node;
        if node.output.is_empty() {
            node.output = vec![format!("{}.out", node.name())];
        }
        let output = node.output[0].clone();
        self.graph.node.push(node);
        output
    }

    pub fn input(&mut self, name: &str, kind: DataType, shape: &[Shape<'_>]) {
        self.graph.input.push(value_info(name, kind, shape));
    }

    pub fn output(&mut self, name: &str, kind: DataType, shape: &[Shape<'_>]) {
        self.graph.output.push(value_info(name, kind, shape));
    }

    /// Adds a small constant of integers.
    pub fn constant_i64(&mut self, name: &str, values: &[i64]) {
        self.graph.initializer.push(TensorProto {
            dims: vec![values.len() as i64],
            data_type: Some(DataType::Int64.into()),
            name: Some(name.to_owned()),
            raw_data: Some(
                values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect(),
            ),
            ..TensorProto::default()
        });
    }

    /// Adds a constant of floats.
    pub fn constant_f32(
        &mut self,
        name: &str,
        dims: &[usize],
        values: &[f32],
    ) -> Result<(), ImportError> {
        let tensor = if size_of_val(values) < INLINE_BYTES_MAX {
            TensorProto {
                dims: dims.iter().map(|&dim| dim as i64).collect(),
                data_type: Some(DataType::Float.into()),
                name: Some(name.to_owned()),
                raw_data: Some(
                    values
                        .iter()
                        .flat_map(|value| value.to_le_bytes())
                        .collect(),
                ),
                ..TensorProto::default()
            }
        } else {
            let offset = self.data.begin()?;
            self.data.write_f32(values)?;
            self.data.end(offset, name, DataType::Float, dims)
        };
        self.graph.initializer.push(tensor);
        Ok(())
    }

    /// Adds a vector of a checkpoint (a matrix of one row) as a constant of one dimension.
    pub fn vector(&mut self, name: &str, rows: &dyn Rows) -> Result<(), ImportError> {
        let values = read_all(rows)?;
        self.monitor.advance(values.len())?;
        self.constant_f32(name, &[values.len()], &values)
    }

    /// Adds a constant of one float.
    pub fn scalar_f32(&mut self, name: &str, value: f32) -> Result<(), ImportError> {
        self.constant_f32(name, &[], &[value])
    }

    /// Streams `rows` to the data file as floats with shape `dims`.
    pub fn matrix(
        &mut self,
        name: &str,
        dims: &[usize],
        (rows, width): (&dyn Rows, FloatWidth),
    ) -> Result<(), ImportError> {
        let offset = self.data.begin()?;
        let Self { data, monitor, .. } = self;
        for_each_block(rows, monitor, |values| write(data, name, (values, width)))?;
        let tensor = self.data.end(offset, name, width.data_type(), dims);
        self.graph.initializer.push(tensor);
        Ok(())
    }

    /// Adds `rows` transposed, as f32 of shape `[columns, rows]`. Holds two copies in memory.
    pub fn transposed_f32(&mut self, name: &str, rows: &dyn Rows) -> Result<(), ImportError> {
        let transposed = self.transposed_values(rows)?;
        self.constant_f32(name, &[rows.columns(), rows.rows()], &transposed)
    }

    /// Like [`transposed_f32`](Self::transposed_f32), always in the data file.
    pub fn transposed(
        &mut self,
        name: &str,
        (rows, width): (&dyn Rows, FloatWidth),
    ) -> Result<(), ImportError> {
        let transposed = self.transposed_values(rows)?;
        let offset = self.data.begin()?;
        write(&mut self.data, name, (&transposed, width))?;
        let dims = [rows.columns(), rows.rows()];
        let tensor = self.data.end(offset, name, width.data_type(), &dims);
        self.graph.initializer.push(tensor);
        Ok(())
    }

    fn transposed_values(&mut self, rows: &dyn Rows) -> Result<Vec<f32>, ImportError> {
        let values = read_all(rows)?;
        self.monitor.advance(values.len())?;
        let (height, width) = (rows.rows(), rows.columns());
        Ok((0..width)
            .flat_map(|column| (0..height).map(move |row| row * width + column))
            .map(|index| values[index])
            .collect())
    }

    /// Streams `rows` quantised: `{name}.codes` with shape `codes` and `{name}.scales` with
    /// shape `scales`.
    pub fn matrix_quantised(
        &mut self,
        name: &str,
        rows: &dyn Rows,
        bits: Bits,
        [codes_dims, scales_dims]: [&[usize]; 2],
    ) -> Result<(), ImportError> {
        let offset = self.data.begin()?;
        let (mut codes, mut scales) = (Vec::new(), Vec::new());
        let Self { data, monitor, .. } = self;
        for_each_block(rows, monitor, |values| {
            all_numbers(name, values)?;
            codes.clear();
            quantise(bits, values, (&mut codes, &mut scales));
            data.write(&codes)
        })?;
        if !scales.iter().all(|scale| scale.is_finite()) {
            return Err(ImportError::ScaleOverflow {
                tensor: name.to_owned(),
            });
        }
        let codes_name = format!("{name}.codes");
        let tensor = self
            .data
            .end(offset, &codes_name, DataType::Uint8, codes_dims);
        self.graph.initializer.push(tensor);
        self.constant_f32(&format!("{name}.scales"), scales_dims, &scales)
    }

    /// Streams `rows` of `experts` equal matrices quantised, laid out for our own kernels: u8
    /// `[experts, tiles, bytes of a tile]`. Each matrix is whole tiles high.
    pub fn matrix_tiled(
        &mut self,
        name: &str,
        (rows, bits): (&dyn Rows, Bits),
        experts: usize,
    ) -> Result<(), ImportError> {
        let offset = self.data.begin()?;
        let unfit = |source| ImportError::Layout {
            tensor: name.to_owned(),
            source,
        };
        let (mut codes, mut scales, mut tiles) = (Vec::new(), Vec::new(), Vec::new());
        let Self { data, monitor, .. } = self;
        for_each_block_of(TILE_ROWS, rows, monitor, |values| {
            all_numbers(name, values)?;
            tiles.clear();
            for values in values.chunks(TILE_ROWS * rows.columns()) {
                codes.clear();
                scales.clear();
                quantise_signed(bits, values, (&mut codes, &mut scales));
                if !scales.iter().all(|scale| scale.is_finite()) {
                    return Err(ImportError::ScaleOverflow {
                        tensor: name.to_owned(),
                    });
                }
                pack_tile(bits, (&codes, &scales), &mut tiles).map_err(unfit)?;
            }
            data.write(&tiles)
        })?;
        let bytes = tile_bytes(bits, rows.columns()).map_err(unfit)?;
        let dims = [experts, rows.rows() / experts / TILE_ROWS, bytes];
        let tensor = self.data.end(offset, name, DataType::Uint8, &dims);
        self.graph.initializer.push(tensor);
        Ok(())
    }

    /// Ends the graph: the model, and the data file its tensors are in.
    pub fn finish(self) -> (ModelProto, StagedFile) {
        let opset = |domain: &str, version| OperatorSetIdProto {
            domain: Some(domain.to_owned()),
            version: Some(version),
        };
        let mut opset_import = vec![opset("", OPSET_VERSION), opset(CONTRIB_DOMAIN, 1)];
        // A runtime that does not know the domain need not hear of it.
        if self
            .graph
            .node
            .iter()
            .any(|node| node.domain() == OWN_DOMAIN)
        {
            opset_import.push(opset(OWN_DOMAIN, 1));
        }
        let model = ModelProto {
            ir_version: Some(IR_VERSION),
            producer_name: Some(env!("CARGO_PKG_NAME").to_owned()),
            producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            graph: Some(self.graph),
            opset_import,
        };
        (model, self.data.finish())
    }
}

/// Appends `values` to the tensor `name`.
fn write(
    data: &mut ExternalData,
    name: &str,
    (values, width): (&[f32], FloatWidth),
) -> Result<(), ImportError> {
    let finite = match width {
        FloatWidth::Half => data.write_f16(values)?,
        FloatWidth::Single => {
            data.write_f32(values)?;
            true
        }
    };
    if finite {
        Ok(())
    } else {
        Err(ImportError::HalfOverflow {
            tensor: name.to_owned(),
        })
    }
}

fn value_info(name: &str, kind: DataType, shape: &[Shape<'_>]) -> ValueInfoProto {
    let dim = shape
        .iter()
        .map(|dimension| DimensionProto {
            value: Some(match dimension {
                Shape::Fixed(size) => Dimension::Size(*size as i64),
                Shape::Named(name) => Dimension::Name((*name).to_owned()),
            }),
        })
        .collect();
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            tensor_type: Some(TensorTypeProto {
                elem_type: Some(kind.into()),
                shape: Some(TensorShapeProto { dim }),
            }),
        }),
    }
}

/// Reads `rows` block by block, in order, reporting each block to `monitor`.
pub(crate) fn for_each_block(
    rows: &dyn Rows,
    monitor: &mut Monitor<'_>,
    take: impl FnMut(&[f32]) -> Result<(), ImportError>,
) -> Result<(), ImportError> {
    for_each_block_of(1, rows, monitor, take)
}

/// Like [`for_each_block`], but each block is a multiple of `unit` rows high, the last perhaps not.
fn for_each_block_of(
    unit: usize,
    rows: &dyn Rows,
    monitor: &mut Monitor<'_>,
    mut take: impl FnMut(&[f32]) -> Result<(), ImportError>,
) -> Result<(), ImportError> {
    let units = BLOCK_ELEMENTS_MAX / rows.columns().max(1) / unit;
    let rows_per_block = units.max(1) * unit;
    let mut block = vec![0.0; rows_per_block.min(rows.rows()) * rows.columns()];
    let mut first = 0;
    while first < rows.rows() {
        let count = rows_per_block.min(rows.rows() - first);
        let values = &mut block[..count * rows.columns()];
        rows.read(first, values)?;
        take(values)?;
        monitor.advance(values.len())?;
        first += count;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{checkpoint::CheckpointError, folder::StageFolder};
    use std::sync::atomic::AtomicBool;

    /// A tile of ones, but for one weight.
    struct Weights(f32);

    impl Rows for Weights {
        fn rows(&self) -> usize {
            TILE_ROWS
        }

        fn columns(&self) -> usize {
            32
        }

        fn read(&self, _: usize, out: &mut [f32]) -> Result<(), CheckpointError> {
            out.fill(1.0);
            out[40] = self.0;
            Ok(())
        }
    }

    #[test]
    fn weights_that_are_no_numbers_are_not_quantised() {
        let folder = tempfile::tempdir().expect("temporary folders can be made");
        let stage = StageFolder::create(&folder.path().join("model")).expect("writable");
        let (cancel, mut report) = (AtomicBool::new(false), |_| ());
        let mut monitor = Monitor::new(&cancel, &mut report);
        let data = ExternalData::new(stage.file("data").expect("writable"));
        let mut graph = GraphWriter::new("graph", data, &mut monitor);
        for bits in [Bits::Four, Bits::Eight] {
            let dims: [&[usize]; 2] = [&[TILE_ROWS, 1, 4 * bits.count()], &[TILE_ROWS, 1]];
            let mut both = |weight: f32| {
                let rows = Weights(weight);
                [
                    graph.matrix_quantised("w", &rows, bits, dims),
                    graph.matrix_tiled("w", (&rows, bits), 1),
                ]
            };
            let low = f32::from_bits(0x7fc0_0080);
            for weight in [f32::NAN, low, f32::INFINITY, f32::NEG_INFINITY] {
                for result in both(weight) {
                    assert!(
                        matches!(&result, Err(ImportError::NoNumbers { tensor }) if tensor == "w"),
                        "{weight}: {result:?}"
                    );
                }
            }
            for result in both(1e30) {
                assert!(
                    matches!(&result, Err(ImportError::ScaleOverflow { .. })),
                    "{result:?}"
                );
            }
            assert!(both(2.0).iter().all(Result::is_ok));
        }
    }
}
