//! Hostile headers cannot make the reader allocate: alone in its process, so that the
//! high-water mark of address space is its own.

use std::fs;

use mote_import::{gguf::Gguf, safetensors::SafetensorsFolder};
use tempfile::tempdir;

/// Far below what any of the claims would take.
const GROWTH_BYTES_MAX: u64 = 8 << 20;

fn peak_virtual_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("the system has /proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB"));
    let kibibytes: u64 = kibibytes
        .and_then(|number| number.trim().parse().ok())
        .expect("VmPeak is a number of kB");
    kibibytes * 1024
}

/// A header with one metadata entry of type `kind` and content `bytes`.
fn header(tensors: u64, kind: u32, bytes: &[u8]) -> Vec<u8> {
    let mut header = b"GGUF\x03\0\0\0".to_vec();
    header.extend(tensors.to_le_bytes());
    header.extend(1u64.to_le_bytes());
    header.extend(1u64.to_le_bytes());
    header.push(b'k');
    header.extend(kind.to_le_bytes());
    header.extend(bytes);
    header
}

/// Files whose header or tensors claim to be larger than the file.
fn safetensors_claims() -> [Vec<u8>; 3] {
    let file = |header_bytes: u64, header: &str| {
        let mut file = header_bytes.to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file
    };
    let huge =
        r#"{"a": {"dtype": "F32", "shape": [1000000000000], "data_offsets": [0, 4000000000000]}}"#;
    [
        file(32 << 20, "{}"),
        file(u64::MAX - 7, "{}"),
        file(huge.len() as u64, huge),
    ]
}

#[test]
fn claims_beyond_the_file_cost_no_memory() {
    let folder = tempdir().expect("temporary folders can be made");
    let path = folder.path().join("hostile.gguf");
    let array = |kind: u32, count: u64| [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat();
    let claims = [
        header(65_000, 4, &[0; 4]),
        header(0, 8, &(1u64 << 20).to_le_bytes()),
        header(0, 8, &u64::MAX.to_le_bytes()),
        header(0, 9, &array(8, 1 << 21)),
        header(0, 9, &array(11, 1 << 21)),
        header(0, 9, &array(12, u64::MAX)),
    ];
    fs::write(&path, header(0, 4, &[0; 4])).expect("temporary folders are writable");
    assert!(Gguf::open(&path).is_ok(), "the honest header is accepted");
    let before = peak_virtual_bytes();
    for claim in claims {
        fs::write(&path, claim).expect("temporary folders are writable");
        assert!(Gguf::open(&path).is_err());
    }
    let weights = folder.path().join("model.safetensors");
    for claim in safetensors_claims() {
        fs::write(&weights, claim).expect("temporary folders are writable");
        assert!(SafetensorsFolder::open(folder.path()).is_err());
    }
    let growth = peak_virtual_bytes() - before;
    assert!(growth < GROWTH_BYTES_MAX, "grew by {growth} bytes");
}
