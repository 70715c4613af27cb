//! Matrix products with stored weights.

use mote_kernels::TILE_ROWS;

use crate::{
    ImportError,
    checkpoint::Rows,
    onnx::{FloatWidth, GraphWriter, Node, proto::DataType},
    quantise::{BLOCK, Bits, Storage},
};

/// Level 4 computes on 8-bit activations, the fastest path of the kernels; measured to
/// decode a quarter faster than level 0.
pub(super) const ACCURACY_LEVEL: usize = 4;

/// How quantised matrices lie in the file, which says what can run the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// As the kernels of this project read them, in place, for its own operators (`org.moted`). Only
    /// Mote runs them, on the CPU.
    #[default]
    Kernels,
    /// For ONNX Runtime's own operators, which prepare copies when they load.
    Stock,
}

/// What a matrix is stored as.
pub(super) enum Kind {
    Floats(FloatWidth),
    Codes(Bits),
}

impl Storage {
    /// What a matrix is stored as.
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Int8 => Kind::Codes(Bits::Eight),
            Self::Int4 => Kind::Codes(Bits::Four),
            Self::F16 => Kind::Floats(FloatWidth::Half),
            Self::F32 => Kind::Floats(FloatWidth::Single),
        }
    }
}

/// Adds `input × weightᵀ` under `name` and returns its output.
pub(super) fn linear(
    graph: &mut GraphWriter<'_, '_>,
    name: &str,
    input: &str,
    (weight, storage): (&dyn Rows, Storage),
) -> Result<String, ImportError> {
    let node = linear_node(graph, name, input, (weight, storage))?;
    Ok(graph.node(node))
}

/// Like [`linear`], but leaves the node to the caller, who names its output.
pub(super) fn linear_node(
    graph: &mut GraphWriter<'_, '_>,
    name: &str,
    input: &str,
    (weight, storage): (&dyn Rows, Storage),
) -> Result<Node, ImportError> {
    let tensor = format!("{name}.weight");
    match storage.kind() {
        Kind::Floats(width) => {
            graph.transposed(&tensor, (weight, width))?;
            let tensor = as_singles(graph, tensor, width);
            Ok(Node::standard("MatMul", name).inputs(&[input, &tensor]))
        }
        Kind::Codes(bits) if is_tiled(graph, weight) => {
            let tensor = store_tiles(graph, &tensor, weight, bits)?;
            Ok(tiled("TiledMatMul", name, [input, &tensor], (weight, bits)))
        }
        Kind::Codes(bits) => {
            store_matmul_weight(graph, &tensor, weight, bits)?;
            let shape = (weight.rows(), weight.columns());
            Ok(matmul_n_bits(name, [input, &tensor], shape, bits))
        }
    }
}

/// Whether `weight` is laid out for our own kernels.
pub(super) fn is_tiled(graph: &GraphWriter<'_, '_>, weight: &dyn Rows) -> bool {
    graph.layout == Layout::Kernels
        && weight.rows().is_multiple_of(TILE_ROWS)
        && weight.columns().is_multiple_of(BLOCK)
}

/// Stores `weight` for our own kernels; returns the tensor's name.
pub(super) fn store_tiles(
    graph: &mut GraphWriter<'_, '_>,
    tensor: &str,
    weight: &dyn Rows,
    bits: Bits,
) -> Result<String, ImportError> {
    let tensor = format!("{tensor}.tiles");
    graph.matrix_tiled(&tensor, (weight, bits), 1)?;
    Ok(tensor)
}

/// A node of our own over one matrix that is laid out for our kernels.
pub(super) fn tiled(
    op_type: &str,
    name: &str,
    inputs: [&str; 2],
    (weight, bits): (&dyn Rows, Bits),
) -> Node {
    Node::own(op_type, name)
        .inputs(&inputs)
        .int("bits", bits.count())
        .int("columns", weight.columns())
}

/// Adds `input × weightᵀ + bias` under `name` and returns its output.
pub(super) fn linear_biased(
    graph: &mut GraphWriter<'_, '_>,
    name: &str,
    input: &str,
    (weight, storage, bias): (&dyn Rows, Storage, Option<Vec<f32>>),
) -> Result<String, ImportError> {
    let product = linear(graph, name, input, (weight, storage))?;
    let Some(bias) = bias else {
        return Ok(product);
    };
    let tensor = format!("{name}.bias");
    graph.constant_f32(&tensor, &[bias.len()], &bias)?;
    Ok(graph.node(Node::standard("Add", &format!("{name}.biased")).inputs(&[&product, &tensor])))
}

/// The stored floats `tensor` as f32. The runtime makes them once, when it loads the model.
pub(super) fn as_singles(
    graph: &mut GraphWriter<'_, '_>,
    tensor: String,
    width: FloatWidth,
) -> String {
    match width {
        FloatWidth::Single => tensor,
        FloatWidth::Half => graph.node(
            Node::standard("Cast", &format!("{tensor}.single"))
                .inputs(&[&tensor])
                .signed("to", i32::from(DataType::Float).into()),
        ),
    }
}

/// Stores `weight` quantised, in the shape that `MatMulNBits` takes.
pub(super) fn store_matmul_weight(
    graph: &mut GraphWriter<'_, '_>,
    tensor: &str,
    weight: &dyn Rows,
    bits: Bits,
) -> Result<(), ImportError> {
    let blocks = blocks_per_row(tensor, weight)?;
    let rows = weight.rows();
    graph.matrix_quantised(
        tensor,
        weight,
        bits,
        [&[rows, blocks, BLOCK * bits.count() / 8], &[rows, blocks]],
    )
}

/// A product with the stored weight `tensor` of `shape` (rows, columns).
pub(super) fn matmul_n_bits(
    name: &str,
    [input, tensor]: [&str; 2],
    (rows, columns): (usize, usize),
    bits: Bits,
) -> Node {
    Node::contrib("MatMulNBits", name)
        .inputs(&[
            input,
            &format!("{tensor}.codes"),
            &format!("{tensor}.scales"),
        ])
        .int("K", columns)
        .int("N", rows)
        .int("bits", bits.count())
        .int("block_size", BLOCK)
        .int("accuracy_level", ACCURACY_LEVEL)
}

/// Blocks per row of a matrix to be quantised.
pub(super) fn blocks_per_row(tensor: &str, weight: &dyn Rows) -> Result<usize, ImportError> {
    if weight.columns().is_multiple_of(BLOCK) {
        Ok(weight.columns() / BLOCK)
    } else {
        Err(ImportError::RowNotBlocks {
            tensor: tensor.to_owned(),
            columns: weight.columns(),
        })
    }
}
