//! Behaviour of the importer through its public door, on tiny checkpoints made here.

mod architectures;
mod as_gguf;
mod atomic;
mod correction;
mod folder;
mod gguf_file;
mod hostile;
mod onnx_folder;
mod others;
mod recipe;
mod tiny;
mod tokenizer;
