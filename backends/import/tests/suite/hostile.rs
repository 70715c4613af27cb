//! Malformed and hostile checkpoints are refused with the key or tensor named.

use std::fs;

use mote_import::{
    checkpoint::{CheckpointError, open_gguf},
    gguf::{Gguf, GgufError, Limit, Place},
};
use tempfile::tempdir;

use super::{
    gguf_file::{GgufFile, Meta, Tensor},
    tiny::{self, Checkpoint, SEED},
};

fn open(bytes: &[u8]) -> Result<Gguf, GgufError> {
    let folder = tempdir().expect("temporary folders can be made");
    let path = folder.path().join("hostile.gguf");
    fs::write(&path, bytes).expect("temporary folders are writable");
    Gguf::open(&path)
}

fn refusal(bytes: &[u8]) -> GgufError {
    open(bytes).expect_err("the file must be refused")
}

fn vector(name: &str, values: usize) -> Tensor {
    Tensor::f32(name, &[values as u64], &vec![1.0; values])
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    eprintln!("seed {SEED}");
    let whole = Checkpoint::new().file.bytes();
    assert!(open(&whole).is_ok());
    let in_header = (0..3000).step_by(13);
    let in_data = (3000..whole.len() - 32).step_by(9973);
    for length in in_header.chain(in_data).chain([whole.len() - 33]) {
        let error = refusal(&whole[..length]);
        assert!(
            matches!(
                error,
                GgufError::Truncated { .. } | GgufError::OutsideFile { .. }
            ),
            "cut at {length}: {error}"
        );
    }
}

#[test]
fn flipped_bytes_never_panic() {
    eprintln!("seed {SEED}");
    let whole = Checkpoint::new().file.bytes();
    let mut random = tiny::Random(SEED);
    let folder = tempdir().expect("temporary folders can be made");
    let path = folder.path().join("flipped.gguf");
    let header_bytes = 2400;
    let mut refused = 0;
    for _ in 0..400 {
        let mut bytes = whole.clone();
        for _ in 0..1 + random.next() % 4 {
            let position = random.next() as usize % header_bytes;
            bytes[position] = random.next() as u8;
        }
        fs::write(&path, &bytes).expect("temporary folders are writable");
        refused += usize::from(match Gguf::open(&path) {
            Err(_) => true,
            Ok(gguf) => open_gguf(&gguf).is_err(),
        });
    }
    assert!(
        refused > 200,
        "most damage in the header is noticed: {refused}"
    );
}

#[test]
fn other_files_and_versions_are_refused() {
    assert!(matches!(
        refusal(b"GGML\x03\0\0\0rest"),
        GgufError::Magic { found } if &found == b"GGML"
    ));
    for version in [0, 1, 4, 3 << 24] {
        let file = GgufFile {
            version,
            ..GgufFile::default()
        };
        assert!(matches!(
            refusal(&file.bytes()),
            GgufError::Version { version: found } if found == version
        ));
    }
}

#[test]
fn huge_counts_are_refused_before_anything_is_read() {
    let cases = [
        (Some(u64::MAX), None, Limit::TensorCount),
        (Some(1 << 20), None, Limit::TensorCount),
        (None, Some(u64::MAX), Limit::MetadataCount),
    ];
    for (tensor_count, metadata_count, expected) in cases {
        let file = GgufFile {
            tensor_count,
            metadata_count,
            ..GgufFile::default()
        };
        assert!(matches!(
            refusal(&file.bytes()),
            GgufError::OverLimit { place: Place::Header, limit, .. } if limit == expected
        ));
    }
    let allowed = GgufFile {
        tensor_count: Some(60_000),
        ..GgufFile::default()
    };
    assert!(matches!(
        refusal(&allowed.bytes()),
        GgufError::Truncated { .. }
    ));
}

/// A length or count, and what follows it.
fn claim(prefix: &[u8], claimed: u64) -> Vec<u8> {
    [prefix, &claimed.to_le_bytes(), b"tail"].concat()
}

#[test]
fn metadata_lengths_and_types_are_bounded() {
    let array = |kind: u32, count| claim(&kind.to_le_bytes(), count);
    let key = || Place::Key("k".to_owned());
    let cases: [(u32, Vec<u8>, GgufError); 9] = [
        (8, claim(&[], u64::MAX), over(key(), Limit::StringBytes)),
        (
            8,
            claim(&[], 1 << 19),
            GgufError::Truncated { place: key() },
        ),
        (9, array(8, u64::MAX), over(key(), Limit::ArrayCount)),
        (9, array(8, 1 << 20), GgufError::Truncated { place: key() }),
        (9, array(4, 1 << 20), GgufError::Truncated { place: key() }),
        (9, array(9, 1), GgufError::NestedArray { place: key() }),
        (9, array(77, 1), unknown(key(), 77)),
        (13, vec![0; 8], unknown(key(), 13)),
        (
            7,
            vec![2],
            GgufError::NotBoolean {
                place: key(),
                value: 2,
            },
        ),
    ];
    for (kind, bytes, expected) in cases {
        let file = GgufFile::default().meta("k", Meta::Raw(kind, bytes));
        let mut content = file.bytes();
        // No padding: what is claimed must not be found by accident.
        content.truncate(content.len() - content.iter().rev().take_while(|&&b| b == 0).count());
        content.extend([0; 4]);
        let found = refusal(&content);
        assert_eq!(shape(&found), shape(&expected), "{found}");
    }
}

fn over(place: Place, limit: Limit) -> GgufError {
    GgufError::OverLimit {
        place,
        limit,
        value: 0,
        max: 0,
    }
}

fn unknown(place: Place, kind: u32) -> GgufError {
    GgufError::UnknownValueType { place, kind }
}

/// An error without the figures that the tests above do not fix.
fn shape(error: &GgufError) -> String {
    match error {
        GgufError::OverLimit { place, limit, .. } => format!("over {limit:?} at {place}"),
        other => other.to_string(),
    }
}

#[test]
fn many_small_arrays_share_one_bound() {
    let zeros = |count: u64| {
        let mut bytes = 0u32.to_le_bytes().to_vec();
        bytes.extend(count.to_le_bytes());
        bytes.resize(bytes.len() + count as usize, 0);
        Meta::Raw(9, bytes)
    };
    let mut file = GgufFile::default();
    for index in 0..3 {
        file = file.meta(&format!("k{index}"), zeros(1 << 21));
    }
    assert!(matches!(
        refusal(&file.bytes()),
        GgufError::OverLimit {
            limit: Limit::ArrayCountTotal,
            ..
        }
    ));
}

#[test]
fn texts_must_be_utf8_and_keys_unique() {
    let raw = |bytes: &[u8]| {
        let mut text = (bytes.len() as u64).to_le_bytes().to_vec();
        text.extend(bytes);
        Meta::Raw(8, text)
    };
    let file = GgufFile::default().meta("k", raw(b"\xff\xfe"));
    assert!(matches!(
        refusal(&file.bytes()),
        GgufError::NotUtf8 { place: Place::Key(key) } if key == "k"
    ));
    let twice = GgufFile::default()
        .meta("k", raw(b"a"))
        .meta("k", raw(b"b"));
    assert!(matches!(
        refusal(&twice.bytes()),
        GgufError::DuplicateKey { key } if key == "k"
    ));
}

#[test]
fn tensors_must_be_whole_disjoint_and_in_the_file() {
    let good = vector("a", 16);
    let with = |change: fn(&mut Tensor)| {
        let mut tensor = good.clone();
        change(&mut tensor);
        let file = GgufFile::default().tensor(tensor).tensor(vector("b", 16));
        refusal(&file.bytes())
    };
    let named = |tensor: &str| tensor == "a";
    assert!(matches!(
        with(|tensor| tensor.offset = Some(u64::MAX - 31)),
        GgufError::OutsideFile { tensor, .. } if named(&tensor)
    ));
    assert!(matches!(
        with(|tensor| tensor.offset = Some(1 << 20)),
        GgufError::OutsideFile { tensor, .. } if named(&tensor)
    ));
    assert!(matches!(
        with(|tensor| tensor.offset = Some(4)),
        GgufError::Misaligned { tensor, offset: 4 } if named(&tensor)
    ));
    assert!(matches!(
        with(|tensor| tensor.offset = Some(64)),
        GgufError::Overlap { .. }
    ));
    assert!(matches!(
        with(|tensor| tensor.dims = vec![1 << 20]),
        GgufError::OutsideFile { tensor, .. } if named(&tensor)
    ));
    for dims in [vec![0], vec![], vec![u64::MAX, 2], vec![1 << 30, 1 << 30]] {
        let mut tensor = good.clone();
        tensor.dims = dims.clone();
        assert!(matches!(
            refusal(&GgufFile::default().tensor(tensor).bytes()),
            GgufError::Dimensions { dimensions, .. } if dimensions == dims
        ));
    }
    assert!(matches!(
        with(|tensor| tensor.dims = vec![1; 9]),
        GgufError::OverLimit {
            limit: Limit::DimensionCount,
            ..
        }
    ));
    assert!(matches!(
        with(|tensor| tensor.kind = 99),
        GgufError::UnsupportedType { kind: 99, .. }
    ));
    assert!(matches!(
        with(|tensor| (tensor.kind, tensor.dims) = (8, vec![16])),
        GgufError::Dimensions { .. }
    ));
    assert!(matches!(
        with(|tensor| tensor.name = "b".to_owned()),
        GgufError::DuplicateTensor { tensor } if tensor == "b"
    ));
    assert!(matches!(
        with(|tensor| tensor.name = "x".repeat(300)),
        GgufError::OverLimit {
            limit: Limit::TensorNameBytes,
            ..
        }
    ));
}

#[test]
fn alignment_must_be_a_sane_power_of_two() {
    for bytes in [0, 3, 4, 48, 1 << 20] {
        let file = GgufFile::default().meta("general.alignment", Meta::U32(bytes));
        assert!(matches!(
            refusal(&file.bytes()),
            GgufError::Alignment { bytes: found } if found == u64::from(bytes)
        ));
    }
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    let mut values = vec![1.0; 16];
    values[3] = f32::NAN;
    let file = GgufFile::default().tensor(Tensor::f32("a", &[16], &values));
    let gguf = open(&file.bytes()).expect("the header is sound");
    let tensor = gguf.tensor("a").expect("the tensor exists").clone();
    assert!(matches!(
        gguf.read_rows(&tensor, 0, &mut [0.0; 16]),
        Err(GgufError::NotFinite { tensor }) if tensor == "a"
    ));
    assert!(matches!(
        gguf.read_rows(&tensor, 1, &mut [0.0; 16]),
        Err(GgufError::RowRange { .. })
    ));
}

/// What a checkpoint made from `file` is refused for.
fn checkpoint_refusal(file: &GgufFile) -> CheckpointError {
    let gguf = open(&file.bytes()).expect("the header is sound");
    match open_gguf(&gguf) {
        Err(error) => error,
        Ok(_) => panic!("the checkpoint must be refused"),
    }
}

#[test]
fn checkpoints_that_would_compute_something_else_are_refused() {
    let tensors = Checkpoint::new().file.tensors;
    let with = |skip: &[&str], key: &str, value| {
        let mut file = tiny::metadata(GgufFile::default(), skip).meta(key, value);
        file.tensors.clone_from(&tensors);
        checkpoint_refusal(&file)
    };
    let architecture = "general.architecture";
    assert!(matches!(
        with(&[architecture], architecture, Meta::Text("mamba")),
        CheckpointError::UnsupportedArchitecture { name } if name == "mamba"
    ));
    assert!(matches!(
        with(&[], "llama.expert_count", Meta::U32(8)),
        CheckpointError::Gguf(GgufError::MissingKey { key }) if key == "llama.expert_used_count"
    ));
    assert!(matches!(
        with(&[], "llama.rope.scaling.type", Meta::Text("longrope")),
        CheckpointError::UnsupportedFeature { key } if key == "llama.rope.scaling.type"
    ));
    for (key, value) in [
        ("llama.block_count", 0),
        ("llama.block_count", u32::MAX),
        ("llama.attention.head_count_kv", 3),
        ("llama.vocab_size", 7),
    ] {
        assert!(matches!(
            with(&[key], key, Meta::U32(value)),
            CheckpointError::OutOfRange { key: found, .. } if found == key
        ));
    }
    let key = "llama.feed_forward_length";
    assert!(matches!(
        with(&[key], key, Meta::U32(64)),
        CheckpointError::WrongShape {
            found: (128, 64),
            ..
        }
    ));
    assert!(matches!(
        with(&[key], key, Meta::Text("wide")),
        CheckpointError::Gguf(GgufError::WrongType { key: found, .. }) if found == key
    ));
    assert!(matches!(
        with(&[key], "other", Meta::Bool(true)),
        CheckpointError::Gguf(GgufError::MissingKey { key: found }) if found == key
    ));
}

#[test]
fn missing_and_surplus_tensors_are_named() {
    let whole = Checkpoint::new().file;
    let mut missing = whole.clone();
    missing
        .tensors
        .retain(|tensor| tensor.name != "blk.1.ffn_up.weight");
    assert!(matches!(
        checkpoint_refusal(&missing),
        CheckpointError::Gguf(GgufError::MissingTensor { tensor }) if tensor == "blk.1.ffn_up.weight"
    ));
    let surplus = whole.tensor(vector("blk.0.attn_q.bias", 64));
    assert!(matches!(
        checkpoint_refusal(&surplus),
        CheckpointError::UnknownTensor { tensor, .. } if tensor == "blk.0.attn_q.bias"
    ));
}
