//! Embeddings: texts in, a vector for each out.
//!
//! All texts are tokenized first, so that nothing is computed for a request that cannot be carried
//! out. Then texts of like length are computed together, padded at the end and masked; one run is one
//! step. Where the graph has no mask, as with imported decoders, each text is a run.
//!
//! A text's vector does not depend on those beside it but for rounding, unless the graph quantises its
//! activations by the whole batch: for such a model the manifest says `texts_per_run = 1`.

mod batch;
mod compute;
mod graph;
mod job;
mod model;
mod vector;

pub(crate) use compute::compute;
pub(crate) use graph::EmbeddingGraph;
pub use job::{EmbeddingJob, EmbeddingStats, EmbeddingStep, Embeddings};
pub use model::{EmbeddingKind, EmbeddingModel, EmbeddingRequest};
