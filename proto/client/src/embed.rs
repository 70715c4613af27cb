//! Texts in, vectors out.

use crate::call::{Call, Canceller, credit_of};
use crate::client::Client;
use crate::error::ClientError;
use crate::tensor::OwnedTensor;
use mote_wire::types::{Done, Embed, Embeddings, Progress, Reply, Request};

/// A vector for each text, in the order of the texts.
#[derive(Clone, PartialEq)]
pub struct Vectors {
    dimensions: usize,
    values: Vec<f32>,
    /// Tokens of each text that were computed, those of its prefix and special ones included.
    pub tokens: Vec<u32>,
    /// Places of the texts that were cut, ascending.
    pub truncated: Vec<u32>,
}

impl std::fmt::Debug for Vectors {
    /// Outputs never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vectors")
            .field("len", &self.len())
            .field("dimensions", &self.dimensions)
            .finish_non_exhaustive()
    }
}

impl Vectors {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are none. There never are, as a request has texts.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Elements of each.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// All elements, vector by vector.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All elements, to be kept.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }

    /// The vector of the text at `index`; empty when there is no such text.
    pub fn get(&self, index: usize) -> &[f32] {
        let from = index.saturating_mul(self.dimensions);
        let to = from.saturating_add(self.dimensions);
        self.values.get(from..to).unwrap_or_default()
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &[f32]> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// How alike two texts are: the cosine of the angle between their vectors, -1 to 1; 0 where one
    /// of them has no length.
    pub fn cosine(&self, one: usize, other: usize) -> f32 {
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            let products = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b));
            products.sum()
        };
        let (one, other) = (self.get(one), self.get(other));
        let lengths = (dot(one, one) * dot(other, other)).sqrt();
        if lengths > 0.0 {
            (dot(one, other) / lengths) as f32
        } else {
            0.0
        }
    }

    fn read(embeddings: Embeddings) -> Result<Self, ClientError> {
        let broken = || ClientError::other_answer("embed");
        let tensor = OwnedTensor::read(embeddings.vectors)?;
        let dimensions = tensor
            .shape
            .get(1)
            .and_then(|&size| usize::try_from(size).ok());
        let bytes = tensor.bytes().ok_or_else(broken)?;
        let values = bytes
            .as_chunks()
            .0
            .iter()
            .map(|&word| f32::from_ne_bytes(word));
        Ok(Self {
            dimensions: dimensions.ok_or_else(broken)?,
            values: values.collect(),
            tokens: embeddings.tokens,
            truncated: embeddings.truncated,
        })
    }
}

/// What happens while texts are embedded.
#[derive(Clone, Debug, PartialEq)]
pub enum EmbeddingEvent {
    /// The request is in the queue.
    Accepted {
        /// Requests ahead of it.
        queue_position: u32,
    },
    /// How far it is, in texts.
    Progress(Progress),
    /// The vectors of all texts.
    Vectors(Vectors),
    /// Nothing comes after this.
    Done(Box<Done>),
}

/// The vectors, and what computed them.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbedResult {
    /// A vector for each text.
    pub vectors: Vectors,
    /// What computed them.
    pub done: Box<Done>,
}

/// Texts while they are embedded: an iterator over events. An error is the last one. Dropped before
/// the end, the work is cancelled.
#[derive(Debug)]
pub struct Embedding {
    call: Call,
}

impl Client {
    /// Begins to embed texts.
    pub fn embed(&self, mut request: Embed) -> Result<Embedding, ClientError> {
        let credit = credit_of(&request.options);
        request.options.credit = credit;
        let call = Call::open(&self.link, Request::Embed(Box::new(request)), credit)?;
        Ok(Embedding { call })
    }
}

impl Embedding {
    /// What cancels it from elsewhere.
    pub fn canceller(&self) -> Canceller {
        self.call.canceller()
    }

    /// Waits for the end.
    pub fn wait(self) -> Result<EmbedResult, ClientError> {
        let mut made = None;
        for event in self {
            match event? {
                EmbeddingEvent::Accepted { .. } | EmbeddingEvent::Progress(_) => {}
                EmbeddingEvent::Vectors(vectors) => made = Some(vectors),
                EmbeddingEvent::Done(done) => {
                    let vectors = made.ok_or_else(|| ClientError::other_answer("embed"))?;
                    return Ok(EmbedResult { vectors, done });
                }
            }
        }
        Err(ClientError::other_answer("embed"))
    }
}

impl Iterator for Embedding {
    type Item = Result<EmbeddingEvent, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        let answer = match self.call.next()? {
            Ok(answer) => answer,
            Err(error) => return Some(Err(error)),
        };
        let event = match answer {
            Reply::Accepted { queue_position } => Ok(EmbeddingEvent::Accepted { queue_position }),
            Reply::Progress(progress) => Ok(EmbeddingEvent::Progress(progress)),
            Reply::Embeddings(made) => Vectors::read(made).map(EmbeddingEvent::Vectors),
            Reply::Done(done) => Ok(EmbeddingEvent::Done(done)),
            _ => Err(ClientError::other_answer("embed")),
        };
        if event.is_err() {
            self.call.abandon();
        }
        Some(event)
    }
}
