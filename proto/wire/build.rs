//! Compiles the schema without `protoc`, and writes the descriptor set that other languages build
//! their classes from.

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=schema");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);

    let mut public = protox::Compiler::new(["schema"])?;
    public.include_source_info(false).include_imports(true);
    public.open_file("mote.v1.proto")?;
    std::fs::write(
        out.join("schema_v1.binpb"),
        public.encode_file_descriptor_set(),
    )?;

    let schema = protox::compile(["mote.v1.proto", "worker.v1.proto"], ["schema"])?;
    prost_build::Config::new()
        .btree_map(["."])
        .disable_comments(["."])
        .include_file("pb.rs")
        .compile_fds(schema)?;
    Ok(())
}
