//! The ONNX folder: graph, weights, manifest.

use std::{collections::HashMap, fs, path::PathBuf};

use mote_import::{
    CacheStorage, Carve, Digest, ImportOptions, ImportReport, Layout, Licence, Precision, Storage,
    Target, import,
    onnx::proto::{DataLocation, DataType, ModelProto, NodeProto},
};
use prost::Message;
use tempfile::{TempDir, tempdir};

use super::tiny::{
    Checkpoint, EXPERT, EXPERTS, HEAD_DIM, HIDDEN, LAYERS, NEURONS, RecipeParts, SEED, SHARED,
    tokens,
};

/// An imported model, parsed back.
struct Imported {
    checkpoint: Checkpoint,
    recipe: RecipeParts,
    report: ImportReport,
    model: ModelProto,
    data: Vec<u8>,
    target: PathBuf,
    _folder: TempDir,
}

impl Imported {
    /// With experts as ONNX Runtime's own operators take them.
    fn new(storage: Storage, experts_per_token: Option<usize>) -> Self {
        let stock = Precision {
            layout: Layout::Stock,
            ..Precision::uniform(storage)
        };
        Self::with(stock, experts_per_token)
    }

    fn with(precision: Precision, experts_per_token: Option<usize>) -> Self {
        eprintln!("seed {SEED}");
        let folder = tempdir().expect("temporary folders can be made");
        let checkpoint = Checkpoint::new();
        let recipe = RecipeParts::new(&checkpoint.file.bytes());
        let target = folder.path().join("tiny");
        let mut options = ImportOptions::new(checkpoint.file.write(&folder), &target, "tiny");
        options.licence = Licence {
            id: "Apache-2.0".to_owned(),
            text: "a licence".to_owned(),
        };
        options.context_tokens = Some(256);
        options.target = Target::Mote(precision);
        options.carve = experts_per_token.map(|count| Carve {
            recipe: recipe.bytes().into(),
            experts_per_token: Some(count),
        });
        let report = import(&options, &mut |_| ()).expect("the import succeeds");
        let model = fs::read(target.join("model.onnx")).expect("the model exists");
        Self {
            model: ModelProto::decode(model.as_slice()).expect("the model parses"),
            data: fs::read(target.join("model.onnx.data")).expect("the data file exists"),
            checkpoint,
            recipe,
            report,
            target,
            _folder: folder,
        }
    }

    fn nodes(&self) -> &[NodeProto] {
        &self.model.graph.as_ref().expect("there is a graph").node
    }

    fn node(&self, op_type: &str) -> &NodeProto {
        let mut found = self.nodes().iter().filter(|node| node.op_type() == op_type);
        found.next().unwrap_or_else(|| panic!("no {op_type}"))
    }

    /// Shape and bytes of a constant.
    fn constant(&self, name: &str) -> (Vec<i64>, &[u8]) {
        let graph = self.model.graph.as_ref().expect("there is a graph");
        let tensor = graph
            .initializer
            .iter()
            .find(|tensor| tensor.name() == name)
            .unwrap_or_else(|| panic!("no constant {name}"));
        if tensor.data_location() == DataLocation::Default {
            return (tensor.dims.clone(), tensor.raw_data());
        }
        let entries: HashMap<&str, &str> = tensor
            .external_data
            .iter()
            .map(|entry| (entry.key(), entry.value()))
            .collect();
        assert_eq!(entries["location"], "model.onnx.data");
        let number = |key: &str| entries[key].parse::<usize>().expect("numbers are numbers");
        assert_eq!(number("offset") % 4096, 0, "{name} begins on a page");
        (
            tensor.dims.clone(),
            &self.data[number("offset")..][..number("length")],
        )
    }

    fn floats(&self, name: &str) -> (Vec<i64>, Vec<f32>) {
        let (dims, bytes) = self.constant(name);
        let values = bytes
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        (dims, values.collect())
    }

    /// Rows of an 8-bit matrix, dequantised.
    fn dequantised(&self, name: &str, columns: usize) -> Vec<Vec<f32>> {
        let (_, codes) = self.constant(&format!("{name}.codes"));
        let (_, scales) = self.floats(&format!("{name}.scales"));
        assert_eq!(codes.len(), scales.len() * 32);
        let values: Vec<f32> = codes
            .iter()
            .enumerate()
            .map(|(index, &code)| (f32::from(code) - 128.0) * scales[index / 32])
            .collect();
        values.chunks_exact(columns).map(<[f32]>::to_vec).collect()
    }
}

/// Weights are within [-1, 1] times `scale`, so half a code of 8 bits is below this.
fn assert_close(found: &[f32], expected: &[f32], scale: f32) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found - expected).abs() <= scale * 0.005,
            "{found} is not {expected}"
        );
    }
}

fn attribute(node: &NodeProto, name: &str) -> (Option<i64>, Option<f32>) {
    let attribute = node
        .attribute
        .iter()
        .find(|attribute| attribute.name() == name)
        .unwrap_or_else(|| panic!("{} has no {name}", node.op_type()));
    (attribute.i, attribute.f)
}

#[test]
fn inputs_and_outputs_are_the_agreed_ones() {
    let imported = Imported::new(Storage::Int8, None);
    let graph = imported.model.graph.as_ref().expect("there is a graph");
    let names = |values: &[mote_import::onnx::proto::ValueInfoProto]| -> Vec<String> {
        values.iter().map(|value| value.name().to_owned()).collect()
    };
    let mut inputs = vec![
        "input_ids".to_owned(),
        "seqlens_k".to_owned(),
        "total_sequence_length".to_owned(),
        "num_logits_to_keep".to_owned(),
    ];
    let mut outputs = vec!["logits".to_owned()];
    for layer in 0..LAYERS {
        for part in ["key", "value"] {
            inputs.push(format!("past_key_values.{layer}.{part}"));
            outputs.push(format!("present.{layer}.{part}"));
        }
    }
    assert_eq!(names(&graph.input), inputs);
    assert_eq!(names(&graph.output), outputs);
    let kind = |index: usize| {
        let tensor = graph.input[index].r#type.as_ref();
        tensor
            .and_then(|kind| kind.tensor_type.as_ref())
            .map(|tensor| tensor.elem_type())
    };
    assert_eq!(kind(0), Some(DataType::Int64));
    assert_eq!(kind(1), Some(DataType::Int32));
    assert_eq!(kind(3), Some(DataType::Int64));
    assert_eq!(kind(4), Some(DataType::Float));
    assert_eq!(imported.model.ir_version(), 10);
    let opsets: Vec<(&str, i64)> = imported
        .model
        .opset_import
        .iter()
        .map(|opset| (opset.domain(), opset.version()))
        .collect();
    assert_eq!(opsets, [("", 21), ("com.microsoft", 1)]);
}

#[test]
fn attention_weights_are_packed_and_rotary_halves_are_apart() {
    let imported = Imported::new(Storage::Int8, None);
    let packed = imported.dequantised("layers.1.attention.qkv.weight", HIDDEN);
    let parts = [
        ("blk.1.attn_q.weight", 0, 64, true),
        ("blk.1.attn_k.weight", 64, 32, true),
        ("blk.1.attn_v.weight", 96, 32, false),
    ];
    for (name, start, count, rotary) in parts {
        for row in 0..count {
            let (head, within) = (row / HEAD_DIM, row % HEAD_DIM);
            // The file has pair i of a head in rows 2i and 2i + 1.
            let stored = head * HEAD_DIM + 2 * (within % 16) + within / 16;
            let expected = imported
                .checkpoint
                .row(name, if rotary { stored } else { row });
            assert_close(&packed[start + row], expected, 1.0);
        }
    }
    let node = imported.node("GroupQueryAttention");
    assert_eq!(attribute(node, "num_heads").0, Some(2));
    assert_eq!(attribute(node, "kv_num_heads").0, Some(1));
    assert_eq!(attribute(node, "do_rotary").0, Some(1));
    assert_eq!(attribute(node, "scale").1, Some(1.0 / 32f32.sqrt()));
}

#[test]
fn attention_beside_matrices_in_our_layout_is_our_own_operator() {
    let imported = Imported::with(Precision::uniform(Storage::Int8), None);
    let node = imported.node("CachedAttention");
    assert_eq!(node.domain(), "org.moted");
    assert_eq!(attribute(node, "num_heads").0, Some(2));
    assert_eq!(attribute(node, "kv_num_heads").0, Some(1));
    assert_eq!(attribute(node, "local_window_size").0, Some(-1));
    assert_eq!(attribute(node, "rotary_interleaved").0, Some(0));
    assert_eq!(attribute(node, "scale").1, Some(1.0 / 32f32.sqrt()));
    // Its kernel keeps no codes, and graphs without a code of ours run anywhere.
    let codes = Precision {
        cache: Some(CacheStorage::Int8),
        ..Precision::uniform(Storage::Int8)
    };
    for other in [codes, Precision::uniform(Storage::F32)] {
        Imported::with(other, None).node("GroupQueryAttention");
    }
}

#[test]
fn rotary_tables_cover_the_context() {
    let imported = Imported::new(Storage::Int8, None);
    let (dims, cos) = imported.floats("rotary.cos");
    let (_, sin) = imported.floats("rotary.sin");
    assert_eq!(dims, [256, 16]);
    assert_eq!((cos[0], sin[0]), (1.0, 0.0));
    let angle = 3.0 * 100_000f64.powf(-2.0 / 32.0);
    let index = 3 * 16 + 1;
    assert!((f64::from(cos[index]) - angle.cos()).abs() < 1e-6);
    assert!((f64::from(sin[index]) - angle.sin()).abs() < 1e-6);
}

#[test]
fn embedding_and_head_share_one_tensor() {
    let imported = Imported::new(Storage::Int8, None);
    let rows = imported.dequantised("embedding.weight", HIDDEN);
    assert_eq!(rows.len(), tokens().len());
    for (id, row) in rows.iter().enumerate() {
        assert_close(row, imported.checkpoint.row("token_embd.weight", id), 8.0);
    }
    let head = imported.nodes().last().expect("there are nodes");
    assert_eq!(head.output, ["logits"]);
    assert_eq!(head.input[1], "embedding.weight.codes");
    let lookup = imported.node("GatherBlockQuantized");
    assert_eq!(lookup.input[2], "embedding.weight.scales");
}

#[test]
fn a_dense_block_packs_gate_and_up() {
    let imported = Imported::new(Storage::Int8, None);
    let packed = imported.dequantised("layers.0.mlp.gate_up.weight", HIDDEN);
    let down = imported.dequantised("layers.0.mlp.down.weight", NEURONS);
    for row in 0..NEURONS {
        let checkpoint = &imported.checkpoint;
        assert_close(
            &packed[row],
            checkpoint.row("blk.0.ffn_gate.weight", row),
            1.0,
        );
        let up = checkpoint.row("blk.0.ffn_up.weight", row);
        assert_close(&packed[NEURONS + row], up, 1.0);
    }
    for (row, found) in down.iter().enumerate() {
        assert_close(
            found,
            imported.checkpoint.row("blk.0.ffn_down.weight", row),
            1.0,
        );
    }
    assert!(imported.nodes().iter().all(|node| node.op_type() != "QMoE"));
    assert_eq!(attribute(imported.node("QuickGelu"), "alpha").1, Some(1.0));
}

#[test]
fn a_carved_block_holds_the_neurons_its_recipe_names() {
    for count in [1, EXPERTS] {
        let imported = Imported::new(Storage::Int8, Some(count));
        let checkpoint = &imported.checkpoint;
        let order: Vec<usize> = imported.recipe.permutations[1]
            .iter()
            .map(|&neuron| usize::from(neuron))
            .collect();
        let gate_up = imported.dequantised("layers.1.moe.gate_up", HIDDEN);
        let down = imported.dequantised("layers.1.moe.down", EXPERT);
        for (routed, &neuron) in order[SHARED..].iter().enumerate() {
            let gate = checkpoint.row("blk.1.ffn_gate.weight", neuron);
            let up = checkpoint.row("blk.1.ffn_up.weight", neuron);
            assert_close(&gate_up[2 * routed], gate, 1.0);
            assert_close(&gate_up[2 * routed + 1], up, 1.0);
            let (expert, column) = (routed / EXPERT, routed % EXPERT);
            for row in 0..HIDDEN {
                let dense = checkpoint.row("blk.1.ffn_down.weight", row)[neuron];
                let found = down[expert * HIDDEN + row][column];
                assert_close(&[found], &[dense * count as f32], count as f32);
            }
        }
        let shared = imported.dequantised("layers.1.moe.shared.gate_up.weight", HIDDEN);
        let shared_down = imported.dequantised("layers.1.moe.shared.down.weight", SHARED);
        for (position, &neuron) in order[..SHARED].iter().enumerate() {
            let gate = checkpoint.row("blk.1.ffn_gate.weight", neuron);
            assert_close(&shared[position], gate, 1.0);
            let dense = checkpoint.row("blk.1.ffn_down.weight", 5)[neuron];
            assert_close(&[shared_down[5][position]], &[dense], 1.0);
        }
        let (dims, router) = imported.floats("layers.1.moe.router.weight");
        assert_eq!(dims, [HIDDEN as i64, EXPERTS as i64]);
        let expected = imported.recipe.routers[1][HIDDEN + 9] * 0.5;
        assert_eq!(router[9 * EXPERTS + 1], expected);
        assert_moe_attributes(imported.node("QMoE"), count);
    }
}

fn assert_moe_attributes(node: &NodeProto, experts_per_token: usize) {
    for (name, value) in [
        ("k", experts_per_token as i64),
        ("normalize_routing_weights", 1),
        ("swiglu_fusion", 1),
        ("expert_weight_bits", 8),
        ("block_size", 32),
    ] {
        assert_eq!(attribute(node, name).0, Some(value), "{name}");
    }
    for (name, value) in [
        ("activation_alpha", 1.0),
        ("activation_beta", 0.0),
        ("swiglu_limit", f32::INFINITY),
    ] {
        assert_eq!(attribute(node, name).1, Some(value), "{name}");
    }
}

#[test]
fn four_bit_weights_take_half_the_bytes() {
    let eight = Imported::new(Storage::Int8, Some(1));
    let four = Imported::new(Storage::Int4, Some(1));
    for name in [
        "embedding.weight.codes",
        "layers.0.attention.qkv.weight.codes",
        "layers.0.moe.gate_up.codes",
    ] {
        let (eight, four) = (eight.constant(name), four.constant(name));
        assert_eq!(eight.1.len(), 2 * four.1.len(), "{name}");
        assert_eq!(eight.0.last(), four.0.last().map(|dim| dim * 2).as_ref());
    }
}

/// Rows of a matrix as our own kernels read it, dequantised; `mote_kernels` says how it lies.
fn untiled(bytes: &[u8], columns: usize, bits: usize) -> Vec<Vec<f32>> {
    let codes_bytes = 16 * 32 * bits / 8;
    let blocks = columns / 32;
    let record = 2 * (codes_bytes + 32);
    let tile = blocks.div_ceil(2) * record;
    let value = |row: usize, column: usize| {
        let (block, within) = (column / 32, column % 32);
        let start = row / 16 * tile + block / 2 * record;
        let codes = &bytes[start + block % 2 * codes_bytes..];
        let at = |chunk: usize| codes[(chunk * 16 + row % 16) * 4 + within % 4];
        let code = match (bits, within / 4) {
            (8, chunk) => f32::from(at(chunk).cast_signed()),
            (_, chunk @ 0..4) => f32::from(at(chunk) & 15) - 8.0,
            (_, chunk) => f32::from(at(chunk - 4) >> 4) - 8.0,
        };
        let scale = &bytes[start + 2 * codes_bytes + (block % 2 * 16 + row % 16) * 2..];
        code * half::f16::from_le_bytes([scale[0], scale[1]]).to_f32()
    };
    let row = |row| (0..columns).map(|column| value(row, column)).collect();
    (0..bytes.len() / tile * 16).map(row).collect()
}

#[test]
fn our_own_operator_gets_the_same_weights_in_another_order() {
    let stock = Imported::new(Storage::Int8, Some(1));
    let ours = Imported::with(Precision::uniform(Storage::Int8), Some(1));
    assert!(
        stock
            .nodes()
            .iter()
            .all(|node| node.domain() != "org.moted")
    );
    let node = ours.node("MoeFeedForward");
    assert_eq!(node.domain(), "org.moted");
    assert_eq!(
        node.input[1..5],
        ["router.weight", "gate_up.tiles", "down.tiles", ""].map(|name| if name.is_empty() {
            String::new()
        } else {
            format!("layers.0.moe.{name}")
        })
    );
    for (name, value) in [
        ("k", 1),
        ("expert_bits", 8),
        ("shared_bits", 8),
        ("normalised", 1),
        ("sigmoid", 0),
    ] {
        assert_eq!(attribute(node, name).0, Some(value), "{name}");
    }

    let expected = stock.dequantised("layers.1.moe.gate_up", HIDDEN);
    let (dims, bytes) = ours.constant("layers.1.moe.gate_up.tiles");
    assert_eq!(dims[..2], [EXPERTS as i64, 2 * EXPERT as i64 / 16]);
    for (row, found) in untiled(bytes, HIDDEN, 8).iter().enumerate() {
        // Sixteen rows of gate, sixteen of up; there, row by row.
        let (pair, part, neuron) = (row / 32, row / 16 % 2, row % 16);
        assert_eq!(
            *found,
            expected[(pair * 16 + neuron) * 2 + part],
            "row {row}"
        );
    }
    let (_, bytes) = ours.constant("layers.1.moe.down.tiles");
    assert_eq!(
        untiled(bytes, EXPERT, 8),
        stock.dequantised("layers.1.moe.down", EXPERT)
    );
    let (_, bytes) = ours.constant("layers.1.moe.shared.down.tiles");
    assert_eq!(
        untiled(bytes, SHARED, 8),
        stock.dequantised("layers.1.moe.shared.down.weight", SHARED)
    );
}

#[test]
fn our_own_operators_four_bits_are_those_of_the_others() {
    let stock = Imported::new(Storage::Int4, Some(1));
    let ours = Imported::with(Precision::uniform(Storage::Int4), Some(1));
    let (_, codes) = stock.constant("layers.0.moe.down.codes");
    let (_, scales) = stock.floats("layers.0.moe.down.scales");
    let expected: Vec<f32> = codes
        .iter()
        .flat_map(|pair| [pair & 15, pair >> 4])
        .enumerate()
        .map(|(index, code)| (f32::from(code) - 8.0) * scales[index / 32])
        .collect();
    let (_, bytes) = ours.constant("layers.0.moe.down.tiles");
    assert_eq!(untiled(bytes, EXPERT, 4).concat(), expected);
}

#[test]
fn the_float_variant_keeps_every_weight() {
    let imported = Imported::new(Storage::F32, Some(1));
    let (dims, values) = imported.floats("layers.0.attention.output.weight");
    assert_eq!(dims, [64, 64]);
    let row = imported.checkpoint.row("blk.0.attn_output.weight", 7);
    for (column, weight) in row.iter().enumerate() {
        assert_eq!(values[column * 64 + 7], *weight);
    }
    let (dims, _) = imported.floats("layers.0.moe.gate_up");
    assert_eq!(dims, [EXPERTS as i64, 2 * EXPERT as i64, HIDDEN as i64]);
    assert_eq!(imported.node("MoE").input[2], "layers.0.moe.gate_up");
}

#[test]
fn only_the_positions_that_are_kept_reach_the_last_norm() {
    let imported = Imported::new(Storage::Int8, None);
    let nodes = imported.nodes();
    let last_norm = &nodes[nodes.len() - 2];
    let slices: Vec<&NodeProto> = nodes
        .iter()
        .filter(|node| last_norm.input.contains(&node.output[0]))
        .collect();
    assert_eq!(slices.len(), 2);
    let start = imported.node("Neg");
    assert_eq!(start.input, ["num_logits_to_keep"]);
    for slice in slices {
        assert_eq!(slice.op_type(), "Slice");
        assert_eq!(slice.input[1], start.output[0]);
        let (_, axis) = imported.constant(&slice.input[3]);
        assert_eq!(axis, 1i64.to_le_bytes());
    }
}

#[test]
fn the_manifest_tells_what_is_in_the_folder() {
    let imported = Imported::new(Storage::Int8, Some(1));
    let manifest = fs::read_to_string(imported.target.join("mote.toml")).expect("it exists");
    let manifest: toml::Table = manifest.parse().expect("it parses");
    assert_eq!(manifest["format"].as_integer(), Some(1));
    assert_eq!(manifest["task"].as_str(), Some("text-generation"));
    assert_eq!(manifest["licence"].as_str(), Some("Apache-2.0"));
    let source = manifest["source"].as_str().expect("the source is text");
    assert!(source.contains(&imported.report.source.to_string()));
    assert!(source.ends_with("1 of 2 experts per token"), "{source}");
    let description = manifest["description"].as_str().expect("it is text");
    assert!(
        description.ends_with("Mixture of Experts, 1 of 2 per token"),
        "{description}"
    );
    let variant = &manifest["variant"][0];
    assert_eq!(variant["name"].as_str(), Some("onnxruntime-int8"));
    assert_eq!(
        variant["weights_bytes"].as_integer(),
        Some(imported.data.len() as i64)
    );
    let text = &manifest["text"];
    assert_eq!(text["eos_token_ids"], toml::Value::from(vec![2]));
    assert_eq!(text["context_tokens"].as_integer(), Some(256));
    assert_eq!(text["moe"]["shared_neurons"].as_integer(), Some(64));
    let files = manifest["files"].as_table().expect("files are a table");
    let on_disk = fs::read_dir(&imported.target)
        .expect("it can be listed")
        .count();
    assert_eq!(files.len() + 1, on_disk);
    for (name, digest) in files {
        let content = fs::read(imported.target.join(name)).expect("it exists");
        assert_eq!(
            digest.as_str(),
            Some(Digest::of(&content).to_string().as_str())
        );
    }
    assert_eq!(imported.report.files.len(), on_disk);
}

#[test]
fn a_dense_manifest_has_no_moe() {
    let imported = Imported::new(Storage::Int8, None);
    let manifest = fs::read_to_string(imported.target.join("mote.toml")).expect("it exists");
    let manifest: toml::Table = manifest.parse().expect("it parses");
    assert!(manifest["text"].get("moe").is_none());
    let config = fs::read(imported.target.join("config.json")).expect("it exists");
    let config: serde_json::Value = serde_json::from_slice(&config).expect("it parses");
    assert_eq!(config["architectures"][0], "LlamaForCausalLM");
    assert_eq!(config["rope_theta"], 100_000.0);
}
