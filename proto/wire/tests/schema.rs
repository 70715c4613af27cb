//! The descriptor set that other languages build their classes from is that of the schema.
//!
//! `MOTE_BLESS=1` writes it anew.

use std::fs;

#[test]
fn the_committed_descriptor_set_is_that_of_the_schema() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../python/mote/schema_v1.binpb"
    );
    let now = include_bytes!(concat!(env!("OUT_DIR"), "/schema_v1.binpb"));
    if std::env::var_os("MOTE_BLESS").is_some() {
        fs::write(path, now).expect("the file can be written");
    }
    let committed = fs::read(path).expect("the file is committed");
    assert!(
        committed == now,
        "schema/mote.v1.proto has changed: run this test with MOTE_BLESS=1"
    );
}
