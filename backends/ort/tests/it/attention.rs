//! `CachedAttention`, our own operator, beside ONNX Runtime's `GroupQueryAttention`, and refused where
//! what comes does not fit.

use crate::load_bytes;
use crate::onnx::{Attribute, Dim, Dim::Named, FLOAT, FLOAT16, Graph, INT32};
use half::f16;
use mote_api::{DType, Element, Model, OutputTarget, Session, Tensor};
use std::sync::Arc;

const CONTEXT: usize = 80;
const OURS: (&str, &str) = ("org.moted", "CachedAttention");
const THEIRS: (&str, &str) = ("com.microsoft", "GroupQueryAttention");

/// What a node is about.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    half: usize,
    window: i64,
    interleaved: bool,
    is_packed: bool,
    /// Types of keys and values in the cache.
    kept: [u64; 2],
}

const SIZES: Sizes = Sizes {
    heads: 6,
    kv_heads: 2,
    head_dim: 32,
    half: 16,
    window: -1,
    interleaved: false,
    is_packed: true,
    kept: [FLOAT; 2],
};

/// Floats from −1 to 1 that look random and are the same each time.
fn floats(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

impl Sizes {
    /// Names of the inputs, and how wide those that are projected are.
    fn inputs(&self) -> Vec<(&'static str, usize)> {
        let [wide, narrow] = [self.heads, self.kv_heads].map(|heads| heads * self.head_dim);
        match self.is_packed {
            true => vec![("query", wide + 2 * narrow)],
            false => vec![("query", wide), ("key", narrow), ("value", narrow)],
        }
    }

    fn graph(&self, (domain, operator): (&str, &str), attributes: &[(&str, Attribute)]) -> Graph {
        let (key, value) = match self.is_packed {
            true => ("", ""),
            false => ("key", "value"),
        };
        let from = [
            "query",
            key,
            value,
            "past_key",
            "past_value",
            "last",
            "total",
            "cos",
            "sin",
        ];
        let to = ["y", "present_key", "present_value"];
        let angles: Vec<f32> = (0..CONTEXT * self.half)
            .map(|index| (index / self.half) as f32 / (1 + index % self.half) as f32)
            .collect();
        let table = [CONTEXT as u64, self.half as u64];
        let cos: Vec<f32> = angles.iter().map(|angle| angle.cos()).collect();
        let sin: Vec<f32> = angles.iter().map(|angle| angle.sin()).collect();
        let row = [Named("rows"), Named("length"), Named("width")];
        let cache: [Dim; 4] = ["rows", "heads", "positions", "dim"].map(Named);
        let [keys, values] = self.kept;
        let mut graph = Graph::new()
            .node_in(domain, operator, (&from, &to), attributes)
            .constant("cos", &table, &cos)
            .constant("sin", &table, &sin);
        for (name, _) in self.inputs() {
            graph = graph.input(name, FLOAT, &row);
        }
        graph
            .input("past_key", keys, &cache)
            .input("past_value", values, &cache)
            .input("last", INT32, &[Named("rows")])
            .input("total", INT32, &[Dim::Is(1)])
            .output("y", FLOAT, &row)
            .output("present_key", keys, &cache)
            .output("present_value", values, &cache)
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![
            ("num_heads", Attribute::Int(self.heads as i64)),
            ("kv_num_heads", Attribute::Int(self.kv_heads as i64)),
            ("scale", Attribute::Float(0.3)),
            ("local_window_size", Attribute::Int(self.window)),
            (
                "rotary_interleaved",
                Attribute::Int(self.interleaved.into()),
            ),
        ]
    }

    fn model(&self, of: (&str, &str)) -> Arc<dyn Model> {
        let mut attributes = self.attributes();
        if of == THEIRS {
            attributes.push(("do_rotary", Attribute::Int(1)));
        }
        load_bytes(&self.graph(of, &attributes).encode()).expect("a good model")
    }
}

/// Conversations on a model, each in a row, over caches that are written in place.
struct Rows {
    sizes: Sizes,
    session: Box<dyn Session>,
    caches: [Tensor; 2],
    totals: Vec<usize>,
}

impl Rows {
    fn new(sizes: Sizes, of: (&str, &str), count: usize) -> Self {
        let shape = [count, sizes.kv_heads, CONTEXT, sizes.head_dim];
        let cache = |kept| {
            let dtype = if kept == FLOAT {
                DType::F32
            } else {
                DType::F16
            };
            Tensor::zeroed(dtype, &shape).expect("small")
        };
        Self {
            sizes,
            session: sizes.model(of).session().expect("a session"),
            caches: sizes.kept.map(cache),
            totals: vec![0; count],
        }
    }

    fn bind<T: Element>(
        &mut self,
        index: usize,
        shape: &[usize],
        values: &[T],
    ) -> Result<(), String> {
        let tensor = Tensor::from_slice(shape, values).expect("small");
        let bound = self.session.bind_input(index, &tensor);
        bound.map_err(|error| error.to_string())
    }

    /// So many more positions in each row.
    fn run(&mut self, length: usize, seed: u32) -> Result<Vec<f32>, String> {
        self.totals.iter_mut().for_each(|total| *total += length);
        let last: Vec<i32> = self.totals.iter().map(|&total| total as i32 - 1).collect();
        let most = last.iter().max().expect("a row") + 1;
        self.run_to(length, seed, &last, most)
    }

    fn run_to(
        &mut self,
        length: usize,
        seed: u32,
        last: &[i32],
        total: i32,
    ) -> Result<Vec<f32>, String> {
        let rows = self.totals.len();
        let inputs = self.sizes.inputs();
        for (index, (_, width)) in inputs.iter().enumerate() {
            let values = floats(seed + index as u32, rows * length * width);
            self.bind(index, &[rows, length, *width], &values)?;
        }
        let next = inputs.len();
        for (index, cache) in self.caches.clone().iter().enumerate() {
            let bound = self.session.bind_input(next + index, cache);
            bound.map_err(|error| error.to_string())?;
            let target = OutputTarget::Into(cache.clone());
            self.session
                .bind_output(1 + index, target)
                .map_err(|error| error.to_string())?;
        }
        self.bind(next + 2, &[last.len()], last)?;
        self.bind(next + 3, &[1], &[total])?;
        self.session.run().map_err(|error| format!("{error:?}"))?;
        let output = self.session.output(0).expect("computed");
        assert_eq!(
            output.shape(),
            [rows, length, self.sizes.heads * self.sizes.head_dim]
        );
        Ok(output.read().expect("f32"))
    }
}

fn assert_near(ours: &[f32], theirs: &[f32], what: &str) {
    assert_eq!(ours.len(), theirs.len());
    let most = ours
        .iter()
        .zip(theirs)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(most < 1e-5, "{what}: {most}");
}

#[test]
fn it_gives_what_the_library_gives_and_writes_its_cache_in_place() {
    let split = Sizes {
        is_packed: false,
        ..SIZES
    };
    for sizes in [
        SIZES,
        split,
        Sizes { window: 7, ..SIZES },
        Sizes {
            interleaved: true,
            ..split
        },
        Sizes { half: 8, ..SIZES },
        Sizes {
            heads: 2,
            head_dim: 64,
            half: 32,
            ..SIZES
        },
    ] {
        let mut both = [OURS, THEIRS].map(|of| Rows::new(sizes, of, 1));
        for (at, length) in [9, 1, 40, 1, 1, 20].into_iter().enumerate() {
            let [ours, theirs] =
                [0, 1].map(|which| both[which].run(length, 100 * at as u32).expect("runs"));
            assert_near(&ours, &theirs, &format!("{sizes:?}, run {at}"));
            let used: usize = both[0].totals[0];
            for which in [0, 1] {
                let [ours, theirs] =
                    [0, 1].map(|of| both[of].caches[which].read::<f32>().expect("f32"));
                let heads = std::iter::zip(
                    ours.chunks(CONTEXT * sizes.head_dim),
                    theirs.chunks(CONTEXT * sizes.head_dim),
                );
                for (ours, theirs) in heads {
                    let used = used * sizes.head_dim;
                    assert_near(&ours[..used], &theirs[..used], "the cache");
                    assert!(ours[used..].iter().all(|&number| number == 0.0));
                }
            }
        }
    }
}

#[test]
fn a_cache_of_halves_holds_the_nearest_ones() {
    let narrow = Sizes {
        kept: [FLOAT16; 2],
        ..SIZES
    };
    let mut both = [SIZES, narrow].map(|sizes| Rows::new(sizes, OURS, 1));
    for (at, length) in [9, 1, 40, 1].into_iter().enumerate() {
        let [wide, narrow] =
            [0, 1].map(|which| both[which].run(length, 100 * at as u32).expect("runs"));
        assert!(wide != narrow);
        let near = |(wide, narrow): (&f32, &f32)| (wide - narrow).abs() < 2e-3;
        assert!(wide.iter().zip(&narrow).all(near), "run {at}");
        for which in [0, 1] {
            let wide = both[0].caches[which].read::<f32>().expect("f32");
            let narrow = both[1].caches[which].read::<f16>().expect("f16");
            assert!(wide.into_iter().map(f16::from_f32).eq(narrow));
        }
    }
    // Keys and values of one kind each.
    let mixed = Sizes {
        kept: [FLOAT16, FLOAT],
        ..SIZES
    };
    let graph = mixed.graph(OURS, &mixed.attributes());
    let error = load_bytes(&graph.encode())
        .map(|_| ())
        .expect_err("must be refused");
    assert!(
        format!("{error:?}").contains("CachedAttention"),
        "{error:?}"
    );
}

#[test]
fn rows_of_different_lengths_go_together() {
    let mut both = [OURS, THEIRS].map(|of| Rows::new(SIZES, of, 3));
    for rows in &mut both {
        let filled = floats(5, rows.caches[0].elements());
        rows.caches
            .iter()
            .for_each(|cache| cache.write(&filled).expect("writable"));
        rows.totals = vec![3, 60, 17];
    }
    for at in 0..3 {
        let [ours, theirs] = [0, 1].map(|which| both[which].run(1, 50 + at).expect("runs"));
        assert_near(&ours, &theirs, "rows");
    }
}

#[test]
fn a_cache_that_is_elsewhere_is_copied() {
    let mut rows = Rows::new(SIZES, OURS, 1);
    let in_place = rows.run(5, 1).expect("runs");
    let mut other = Rows::new(SIZES, OURS, 1);
    let written = other.caches.clone();
    other.run(5, 1).expect("runs");
    let kept = written[0].read::<f32>().expect("f32");
    // The same positions again, with outputs that the library allocates.
    let mut session = SIZES.model(OURS).session().expect("a session");
    let width = SIZES.inputs()[0].1;
    let query = Tensor::from_slice(&[1, 5, width], &floats(1, 5 * width)).expect("small");
    let empty = Tensor::from_slice(written[0].shape(), &vec![0.0f32; kept.len()]).expect("small");
    session.bind_input(0, &query).expect("fits");
    session.bind_input(1, &empty).expect("fits");
    session.bind_input(2, &empty).expect("fits");
    session
        .bind_input(3, &Tensor::from_slice(&[1], &[4i32]).expect("small"))
        .expect("fits");
    session
        .bind_input(4, &Tensor::from_slice(&[1], &[5i32]).expect("small"))
        .expect("fits");
    session.run().expect("runs");
    assert!(
        session
            .output(0)
            .expect("computed")
            .read::<f32>()
            .expect("f32")
            == in_place
    );
    assert!(
        session
            .output(1)
            .expect("computed")
            .read::<f32>()
            .expect("f32")
            == kept
    );
    assert!(
        empty
            .read::<f32>()
            .expect("f32")
            .iter()
            .all(|&number| number == 0.0)
    );
}

#[test]
fn what_does_not_fit_is_refused_when_it_comes() {
    let mut rows = Rows::new(SIZES, OURS, 2);
    rows.run(3, 1).expect("runs");
    let before = rows.caches[0].read::<f32>().expect("f32");
    for last in [
        [1, 5],
        [5, CONTEXT as i32],
        [-1, 5],
        [i32::MIN, 5],
        [i32::MAX, 5],
    ] {
        let error = rows.run_to(3, 2, &last, 6).expect_err("must be refused");
        assert!(error.contains("has no place"), "{last:?}: {error}");
    }
    let error = rows.run_to(3, 2, &[5], 6).expect_err("must be refused");
    assert!(error.contains("each of the rows"), "{error}");
    assert!(rows.caches[0].read::<f32>().expect("f32") == before);
    // Both caches in one place.
    rows.caches[1] = rows.caches[0].clone();
    let error = rows.run(1, 3).expect_err("must be refused");
    assert!(error.contains("same memory"), "{error}");
    // Heads of another width than there is a kernel for.
    let odd = Sizes {
        head_dim: 24,
        half: 12,
        ..SIZES
    };
    let error = Rows::new(odd, OURS, 1)
        .run(1, 1)
        .expect_err("must be refused");
    assert!(error.contains("no attention"), "{error}");
    // Queries that are not as wide as heads are.
    let mut rows = Rows::new(SIZES, OURS, 1);
    rows.sizes.heads = 4;
    let error = rows.run(1, 1).expect_err("must be refused");
    assert!(error.contains("queries"), "{error}");
}

#[test]
fn attributes_that_say_nothing_sensible_are_refused() {
    for (name, value) in [
        ("num_heads", Attribute::Int(0)),
        ("num_heads", Attribute::Float(2.0)),
        ("kv_num_heads", Attribute::Int(-2)),
        ("scale", Attribute::Int(1)),
        ("local_window_size", Attribute::Int(0)),
        ("local_window_size", Attribute::Int(-7)),
        ("rotary_interleaved", Attribute::Int(2)),
    ] {
        let mut attributes = SIZES.attributes();
        attributes.retain(|(other, _)| *other != name);
        attributes.push((name, value));
        let loaded = load_bytes(&SIZES.graph(OURS, &attributes).encode());
        let error = loaded.map(|_| ()).expect_err("must be refused");
        let error = format!("{error:?}");
        assert!(error.contains(name), "{name}: {error}");
    }
}
