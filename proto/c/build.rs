//! Gives the shared library its name for the dynamic linker. The number changes when a program
//! that was built against an older `mote.h` would no longer run.

const SONAME: &str = "libmote.so.1";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,{SONAME}");
}
