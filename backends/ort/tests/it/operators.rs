//! The operators of our own: as what they compute with computes alone, and refused where
//! a file does not fit.

use crate::onnx::{Attribute, Dim::Is, Dim::Named, FLOAT, Graph, INT64, UINT8};
use crate::{ModelFile, backend, load_bytes};
use mote_api::{Backend, Model, RunError, Session, Tensor, Threads};
use mote_kernels::{
    Alone, BLOCK, Bits, Expert, Kernels, MoeFfn, Product, Routing, Score, Scratch, Shared,
    TILE_ROWS, Weights, pack_tile,
};
use std::sync::Arc;

const HIDDEN: usize = 96;
const EXPERTS: usize = 4;
const NEURONS: usize = 32;
const SHARED: usize = 160;
const INPUTS: [&str; 8] = [
    "x",
    "router",
    "gate_up",
    "down",
    "",
    "shared_gate_up",
    "shared_down",
    "switch",
];
const K: (&str, Attribute) = ("k", Attribute::Int(2));
const EXPERT_BITS: (&str, Attribute) = ("expert_bits", Attribute::Int(4));
const SHARED_BITS: (&str, Attribute) = ("shared_bits", Attribute::Int(8));
const SIGMOID: (&str, Attribute) = ("sigmoid", Attribute::Int(0));
const NORMALISED: (&str, Attribute) = ("normalised", Attribute::Int(1));
const ATTRIBUTES: [(&str, Attribute); 5] = [K, EXPERT_BITS, SHARED_BITS, SIGMOID, NORMALISED];

/// Floats from −1 to 1 that look random and are the same each time.
fn floats(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn matrix(seed: u32, bits: Bits, [rows, columns]: [usize; 2]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for tile in 0..rows / TILE_ROWS {
        let values = floats(seed + tile as u32, TILE_ROWS * columns);
        let codes: Vec<i8> = values.iter().map(|value| (value * 7.5) as i8).collect();
        let scales = vec![0.0625; TILE_ROWS * columns / BLOCK];
        pack_tile(bits, (&codes, &scales), &mut bytes).expect("whole tiles");
    }
    bytes
}

/// Weights of a block with a shared expert behind a switch.
struct Parts {
    router: Vec<f32>,
    switch: Vec<f32>,
    experts: [Vec<u8>; 2],
    shared: [Vec<u8>; 2],
}

fn parts() -> Parts {
    let pair = |seed, bits, count, neurons| {
        [
            matrix(seed, bits, [count * 2 * neurons, HIDDEN]),
            matrix(seed + 100, bits, [count * HIDDEN, neurons]),
        ]
    };
    Parts {
        router: floats(1, HIDDEN * EXPERTS),
        switch: floats(2, HIDDEN),
        experts: pair(3, Bits::Four, EXPERTS, NEURONS),
        shared: pair(5, Bits::Eight, 1, SHARED),
    }
}

/// The sizes `[matrices, tiles, bytes of a tile]` of `bytes`.
fn tiles(matrices: usize, rows: usize, bytes: &[u8]) -> [u64; 3] {
    let tiles = rows / TILE_ROWS;
    [matrices, tiles, bytes.len() / matrices / tiles].map(|size| size as u64)
}

impl Parts {
    /// The graph, with the names of inputs and attributes given.
    fn graph(&self, inputs: &[&str], attributes: &[(&str, Attribute)]) -> Graph {
        let [gate_up, down] = &self.experts;
        let [shared_gate_up, shared_down] = &self.shared;
        Graph::new()
            .node_of_ours("MoeFeedForward", inputs, &["y"], attributes)
            .constant("router", &[HIDDEN as u64, EXPERTS as u64], &self.router)
            .constant("switch", &[HIDDEN as u64], &self.switch)
            .bytes("gate_up", &tiles(EXPERTS, 2 * NEURONS, gate_up), gate_up)
            .bytes("down", &tiles(EXPERTS, HIDDEN, down), down)
            .bytes(
                "shared_gate_up",
                &tiles(1, 2 * SHARED, shared_gate_up),
                shared_gate_up,
            )
            .bytes("shared_down", &tiles(1, HIDDEN, shared_down), shared_down)
            .input(
                "x",
                FLOAT,
                &[Named("batch"), Named("tokens"), Named("width")],
            )
            .output(
                "y",
                FLOAT,
                &[Named("batch"), Named("tokens"), Named("width")],
            )
    }

    fn expected(&self, input: &[f32]) -> Vec<f32> {
        let expert = |bits, neurons, gate_up, down| Expert {
            bits,
            neurons,
            gate_up,
            down,
        };
        let weights = Weights {
            hidden: HIDDEN,
            count: EXPERTS,
            router: &self.router,
            bias: None,
            experts: expert(Bits::Four, NEURONS, &self.experts[0], &self.experts[1]),
            shared: Some(Shared {
                expert: expert(Bits::Eight, SHARED, &self.shared[0], &self.shared[1]),
                switch: Some(&self.switch),
            }),
        };
        let routing = Routing {
            chosen: 2,
            score: Score::Softmax,
            normalised: true,
            groups: None,
        };
        let block = MoeFfn::new(weights, routing).expect("sizes fit");
        let mut output = vec![0.0; input.len()];
        let portable = Kernels::all().pop().expect("one runs everywhere");
        block.compute(
            portable,
            (input, &mut output),
            &mut Scratch::default(),
            &Alone,
        );
        output
    }
}

fn run(model: &Arc<dyn Model>, shape: [usize; 3], input: &[f32]) -> Result<Vec<f32>, String> {
    let mut session = model.session().expect("a session");
    let input = Tensor::from_slice(&shape, input).expect("small");
    session.bind_input(0, &input).expect("fits");
    session.run().map_err(|error| format!("{error:?}"))?;
    let output = session.output(0).expect("computed");
    assert_eq!(output.shape(), shape);
    Ok(output.read().expect("f32"))
}

#[test]
fn a_block_is_computed_in_place_on_any_number_of_threads() {
    let parts = parts();
    let bytes = parts.graph(&INPUTS, &ATTRIBUTES).encode();
    let file = ModelFile::new(&bytes);
    for count in [1, 2, 3] {
        let threads = Threads { count, spin: false };
        let request = mote_api::LoadRequest {
            threads,
            ..file.request()
        };
        let model = backend().load(&request).expect("a good model");
        assert_eq!(model.placement().nodes_on("CPUExecutionProvider"), 1);
        for shape in [
            [1, 1, HIDDEN],
            [2, 3, HIDDEN],
            [1, 0, HIDDEN],
            [1, 300, HIDDEN],
        ] {
            let input = floats(9, shape.iter().product());
            let output = run(&model, shape, &input).expect("computes");
            assert!(
                output == parts.expected(&input),
                "{shape:?} on {count} threads"
            );
        }
    }
}

#[test]
fn an_input_of_another_width_is_refused() {
    let bytes = parts().graph(&INPUTS, &ATTRIBUTES).encode();
    let model = load_bytes(&bytes).expect("a good model");
    for width in [0, 1, 32, 65, 128] {
        let error = run(&model, [1, 2, width], &vec![0.5; 2 * width]).expect_err("must be refused");
        assert!(error.contains("wide"), "{error}");
    }
}

/// Loads, and returns why not.
fn refusal(graph: Graph) -> String {
    let error = load_bytes(&graph.encode()).err().expect("must be refused");
    format!("{error:?}")
}

#[test]
fn attributes_that_say_nothing_sensible_are_refused() {
    let parts = parts();
    for (index, value, why) in [
        (0, 0, "k is no size"),
        (0, -1, "k is no size"),
        (0, 5, "can be chosen"),
        (0, i64::MAX, "can be chosen"),
        (1, 5, "neither 4 nor 8"),
        (1, 8, "another layout"),
        (2, 4, "another layout"),
        (3, 2, "neither 0 nor 1"),
        (4, -1, "neither 0 nor 1"),
    ] {
        let mut attributes = ATTRIBUTES;
        attributes[index].1 = Attribute::Int(value);
        let error = refusal(parts.graph(&INPUTS, &attributes));
        assert!(error.contains(why), "{}: {error}", attributes[index].0);
    }
    for missing in 0..ATTRIBUTES.len() {
        let mut attributes = ATTRIBUTES.to_vec();
        attributes.remove(missing);
        refusal(parts.graph(&INPUTS, &attributes));
    }
    let groups = ["groups", "groups_chosen", "groups_judged_by"];
    for values in [
        [3, 1, 1],
        [2, 3, 1],
        [2, 1, 3],
        [4, 1, 1],
        [0, 1, 1],
        [i64::MAX, 1, 1],
    ] {
        let mut attributes = ATTRIBUTES.to_vec();
        attributes.extend(groups.into_iter().zip(values.map(Attribute::Int)));
        refusal(parts.graph(&INPUTS, &attributes));
    }
    for name in [groups[1], groups[2]] {
        let mut attributes = ATTRIBUTES.to_vec();
        attributes.push((name, Attribute::Int(1)));
        let error = refusal(parts.graph(&INPUTS, &attributes));
        assert!(error.contains("comes with groups"), "{name}: {error}");
    }
}

#[test]
fn a_switch_of_nothing_is_refused() {
    let inputs = ["x", "router", "gate_up", "down", "", "", "", "switch"];
    let attributes = [K, EXPERT_BITS, SIGMOID, NORMALISED];
    let error = refusal(parts().graph(&inputs, &attributes));
    assert!(error.contains("comes with a shared expert"), "{error}");
}

#[test]
fn weights_whose_sizes_are_others_of_as_many_bytes_are_refused() {
    let parts = parts();
    let [gate_up, down] = &parts.experts;
    let [shared_gate_up, shared_down] = &parts.shared;
    let [first, second] = [
        tiles(EXPERTS, 2 * NEURONS, gate_up),
        tiles(EXPERTS, HIDDEN, down),
    ];
    let [third, fourth] = [
        tiles(1, 2 * SHARED, shared_gate_up),
        tiles(1, HIDDEN, shared_down),
    ];
    for (place, sizes, bytes) in [
        (2, first, gate_up),
        (3, second, down),
        (5, third, shared_gate_up),
        (6, fourth, shared_down),
    ] {
        let with = |sizes: &[u64]| {
            let mut inputs = INPUTS;
            inputs[place] = "again";
            parts
                .graph(&inputs, &ATTRIBUTES)
                .bytes("again", sizes, bytes)
        };
        load_bytes(&with(&sizes).encode()).expect("the right sizes are taken");
        let [count, tiles, bytes] = sizes;
        let error = refusal(with(&[count * 2, tiles, bytes / 2]));
        assert!(error.contains("has other sizes"), "{error}");
        refusal(with(&[count, tiles * 2, bytes / 2]));
        refusal(with(&[count, tiles * bytes]));
    }
    let mut inputs = INPUTS;
    inputs[7] = "again";
    let graph = parts.graph(&inputs, &ATTRIBUTES);
    let error = refusal(graph.constant("again", &[2, HIDDEN as u64 / 2], &parts.switch));
    assert!(error.contains("has not one dimension"), "{error}");
}

#[test]
fn weights_of_other_sizes_are_refused() {
    let good = parts();
    let change: [fn(&mut Parts); 4] = [
        |parts| parts.experts[0].truncate(4 * 4 * 64),
        |parts| parts.experts[1].truncate(4 * 4 * 16),
        |parts| parts.shared.swap(0, 1),
        |parts| parts.experts[1].extend_from_slice(&[0; 4 * 4]),
    ];
    for change in change {
        let mut parts = parts();
        change(&mut parts);
        refusal(parts.graph(&INPUTS, &ATTRIBUTES));
    }
    // Any tensor of the right type in the place of any other.
    for (place, others) in [
        (1, ["switch", "switch"]),
        (2, ["down", "shared_gate_up"]),
        (3, ["gate_up", "shared_down"]),
        (4, ["router", "switch"]),
        (5, ["gate_up", "shared_down"]),
        (6, ["down", "shared_gate_up"]),
        (7, ["router", "router"]),
    ] {
        for other in others {
            let mut inputs = INPUTS;
            inputs[place] = other;
            refusal(good.graph(&inputs, &ATTRIBUTES));
        }
    }
    for shared in [5, 6] {
        let mut inputs = INPUTS;
        inputs[shared] = "";
        refusal(good.graph(&inputs, &ATTRIBUTES));
    }
}

#[test]
fn weights_that_come_with_each_run_are_refused() {
    let inputs = ["x", "router", "late", "down"];
    let attributes = [K, EXPERT_BITS, SIGMOID, NORMALISED];
    let size = |size: usize| Is(size as u64);
    let late = [size(EXPERTS), size(2 * NEURONS / TILE_ROWS), size(1152)];
    refusal(
        parts()
            .graph(&inputs, &attributes)
            .input("late", UINT8, &late),
    );

    let inputs = ["x", "router", "gate_up", "down", "late"];
    let graph = parts().graph(&inputs, &attributes);
    let graph = graph.input("late", FLOAT, &[size(EXPERTS)]);
    let model = load_bytes(&graph.encode()).expect("the bias is not known before a run");
    let mut session = model.session().expect("a session");
    let bind = |session: &mut Box<dyn Session>, index, shape: &[usize], count| {
        let tensor = Tensor::from_slice(shape, &vec![0.5f32; count]).expect("small");
        session.bind_input(index, &tensor).expect("fits");
    };
    bind(&mut session, 0, &[1, 1, HIDDEN], HIDDEN);
    bind(&mut session, 1, &[EXPERTS], EXPERTS);
    let error = session.run().expect_err("must be refused");
    assert!(
        format!("{error:?}").contains("bias is no constant"),
        "{error:?}"
    );
}

#[test]
fn a_tensor_that_begins_amid_a_number_does_not_harm() {
    let parts = parts();
    let mut inputs = INPUTS;
    inputs[1] = "misplaced";
    let graph = parts.graph(&inputs, &ATTRIBUTES);
    let dims = [HIDDEN as u64, EXPERTS as u64];
    let file = ModelFile::new(&graph.external_at("misplaced", &dims, ("data", 2)).encode());
    let bytes: Vec<u8> = parts
        .router
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    std::fs::write(
        file.folder.path().join("data"),
        [&[0, 0], bytes.as_slice()].concat(),
    )
    .expect("written");
    let input = floats(9, HIDDEN);
    match backend().load(&file.request()) {
        Ok(model) => {
            let output = run(&model, [1, 1, HIDDEN], &input).expect("computes");
            assert!(output == parts.expected(&input));
        }
        Err(error) => assert!(format!("{error:?}").contains("aligned"), "{error:?}"),
    }
}

#[test]
fn a_product_with_a_tiled_matrix_is_computed_in_place() {
    let weight = matrix(11, Bits::Four, [32, HIDDEN]);
    let sizes = tiles(1, 32, &weight);
    let graph = |inputs: &[&str], attributes: &[(&str, Attribute)], sizes: &[u64]| {
        Graph::new()
            .node_of_ours("TiledMatMul", inputs, &["y"], attributes)
            .bytes("weight", sizes, &weight)
            .input(
                "x",
                FLOAT,
                &[Named("batch"), Named("tokens"), Named("width")],
            )
            .output(
                "y",
                FLOAT,
                &[Named("batch"), Named("tokens"), Named("rows")],
            )
    };
    let four = ("bits", Attribute::Int(4));
    let columns = |columns| ("columns", Attribute::Int(columns));
    let attributes = [four, columns(HIDDEN as i64)];
    let model = load_bytes(&graph(&["x", "weight"], &attributes, &sizes).encode());
    let model = model.expect("a good model");
    let product = Product::new(Bits::Four, [32, HIDDEN], &weight).expect("sizes fit");
    for rows in [0, 1, 7, 300] {
        let input = floats(12, rows * HIDDEN);
        let mut expected = vec![0.0; rows * 32];
        let portable = Kernels::all().pop().expect("one runs everywhere");
        let scratch = &mut Scratch::default();
        product.compute(portable, (&input, &mut expected), scratch, &Alone);
        let mut session = model.session().expect("a session");
        let tensor = Tensor::from_slice(&[1, rows, HIDDEN], &input).expect("small");
        session.bind_input(0, &tensor).expect("fits");
        session.run().expect("computes");
        let output = session.output(0).expect("computed");
        assert_eq!(output.shape(), [1, rows, 32]);
        assert!(
            output.read::<f32>().expect("f32") == expected,
            "{rows} rows"
        );
    }
    let error = run(&model, [1, 1, 64], &[0.5; 64]).expect_err("must be refused");
    assert!(error.contains("wide"), "{error}");

    let inputs = ["x", "weight"];
    for attributes in [
        [four, columns(64)],
        [four, columns(0)],
        [four, columns(-32)],
        [four, columns(i64::MAX)],
        [("bits", Attribute::Int(8)), attributes[1]],
        [("bits", Attribute::Int(3)), attributes[1]],
    ] {
        refusal(graph(&inputs, &attributes, &sizes));
    }
    let [one, high, bytes] = sizes;
    for sizes in [
        vec![high, one, bytes],
        vec![high, bytes],
        vec![1, 1, high * bytes],
    ] {
        refusal(graph(&inputs, &attributes, &sizes));
    }
    refusal(graph(&["x", "late"], &attributes, &sizes).input(
        "late",
        UINT8,
        &[Is(1), Is(2), Is(bytes)],
    ));
}

#[test]
fn rows_of_a_tiled_matrix_are_looked_up() {
    let weight = matrix(11, Bits::Eight, [32, HIDDEN]);
    let columns = ("columns", Attribute::Int(HIDDEN as i64));
    let attributes = [("bits", Attribute::Int(8)), columns];
    let graph = Graph::new()
        .node_of_ours("TiledGather", &["ids", "weight"], &["y"], &attributes)
        .bytes("weight", &tiles(1, 32, &weight), &weight)
        .input("ids", INT64, &[Named("batch"), Named("tokens")])
        .output(
            "y",
            FLOAT,
            &[Named("batch"), Named("tokens"), Is(HIDDEN as u64)],
        );
    let model = load_bytes(&graph.encode()).expect("a good model");
    let product = Product::new(Bits::Eight, [32, HIDDEN], &weight).expect("sizes fit");
    let look_up = |ids: &[i64]| {
        let mut session = model.session().expect("a session");
        let tensor = Tensor::from_slice(&[1, ids.len()], ids).expect("small");
        session.bind_input(0, &tensor).expect("fits");
        session.run()?;
        let output = session.output(0)?;
        assert_eq!(output.shape(), [1, ids.len(), HIDDEN]);
        Ok::<_, RunError>(output.read::<f32>().expect("f32"))
    };
    for ids in [vec![], vec![31], vec![0, 17, 0, 16]] {
        let mut expected = vec![0.0; ids.len() * HIDDEN];
        for (id, row) in ids.iter().zip(expected.chunks_mut(HIDDEN)) {
            product.row(*id as usize, row);
        }
        assert!(look_up(&ids).expect("computes") == expected, "{ids:?}");
    }
    for id in [32, -1, i64::MAX, i64::MIN] {
        let error = look_up(&[0, id]).expect_err("must be refused");
        assert!(format!("{error:?}").contains("not there"), "{error:?}");
    }
}
