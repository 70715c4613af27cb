//! `mote-worker`: loads one inference runtime and one model, on the broker's behalf.

fn main() -> std::process::ExitCode {
    mote_worker::main_with(mote_worker::registry::open)
}
