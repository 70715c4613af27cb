//! Behaviour of the importer through its public door, on tiny checkpoints made here.

mod architectures;
mod as_gguf;
mod atomic;
mod cache;
mod correction;
mod deepseek_gguf;
mod eight_bit_floats;
mod embedding;
mod folder;
mod gguf_file;
mod hostile;
mod onnx_folder;
mod others;
mod recipe;
mod sentence_piece;
mod tiny;
mod tokenizer;
