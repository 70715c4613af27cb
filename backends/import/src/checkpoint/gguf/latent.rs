//! Latent attention (DeepSeek) in GGUF: its sizes, and its two ways to store what makes keys and
//! values of the latent.

use std::cell::RefCell;

use super::{Family, Keys};
use crate::{
    checkpoint::{CheckpointError, Latent, TensorStore, WIDTH_MAX},
    gguf::Gguf,
};

const QUERY_DOWN: &str = "blk.0.attn_q_a.weight";
const WHOLE: &str = ".attn_kv_b.weight";
const KEYS: &str = ".attn_k_b.weight";
const VALUES: &str = ".attn_v_b.weight";

/// The latent attention of a model of `family`, when that has it.
pub(super) fn latent(
    gguf: &Gguf,
    family: &Family,
    keys: &Keys<'_>,
) -> Result<Option<Latent>, CheckpointError> {
    if !family.latent {
        return Ok(None);
    }
    // Newer files tell the sizes of the latent where the older ones tell those of heads.
    let either = |new: &str, old: &str| match keys.size(new, WIDTH_MAX)? {
        Some(size) => Ok(size),
        None => keys.needed(old, WIDTH_MAX),
    };
    let key_dim = either("attention.key_length_mla", "attention.key_length")?;
    let value_dim = either("attention.value_length_mla", "attention.value_length")?;
    let rope_dim = keys.needed("rope.dimension_count", WIDTH_MAX)?;
    if rope_dim >= key_dim {
        return Err(keys.out_of_range("rope.dimension_count", rope_dim as f64));
    }
    // Values lie in a cache as wide as that of keys.
    if value_dim > key_dim {
        return Err(keys.out_of_range("attention.value_length", value_dim as f64));
    }
    let has_query_latent = gguf.tensor(QUERY_DOWN).is_ok();
    Ok(Some(Latent {
        query_rank: match has_query_latent {
            true => Some(keys.needed("attention.q_lora_rank", WIDTH_MAX)?),
            false => None,
        },
        kv_rank: keys.needed("attention.kv_lora_rank", WIDTH_MAX)?,
        nope_dim: key_dim - rope_dim,
        rope_dim,
        value_dim,
    }))
}

/// A file whose split `attn_k_b` (each head's rows and columns exchanged) and `attn_v_b` are
/// read as the `attn_kv_b` that they were made of.
pub(super) struct Joined<'a> {
    gguf: &'a Gguf,
    latent: Latent,
    heads: usize,
    /// What is in the file, with the joined instead of the split.
    names: Vec<String>,
    /// The keys of one head, in the order of rows, and whose they are.
    head: RefCell<Option<(String, usize, Vec<f32>)>>,
}

impl<'a> Joined<'a> {
    pub fn new(gguf: &'a Gguf, (latent, heads): (Latent, usize)) -> Self {
        let has = |name: &str| gguf.tensor(name).is_ok();
        let mut names = Vec::new();
        for tensor in gguf.tensors() {
            let name = &tensor.name;
            let split = |part: &str| name.strip_suffix(part);
            match (split(KEYS), split(VALUES)) {
                (Some(layer), _) if has(&format!("{layer}{VALUES}")) => {
                    let whole = format!("{layer}{WHOLE}");
                    // Some files have both forms.
                    if !has(&whole) {
                        names.push(whole);
                    }
                }
                (_, Some(layer)) if has(&format!("{layer}{KEYS}")) => {}
                _ => names.push(name.clone()),
            }
        }
        Self {
            gguf,
            latent,
            heads,
            names,
            head: RefCell::default(),
        }
    }

    /// The layer whose two parts make up `name`, when the file does not have `name` itself.
    fn layer<'b>(&self, name: &'b str) -> Option<&'b str> {
        let layer = name.strip_suffix(WHOLE)?;
        self.gguf.tensor(name).is_err().then_some(layer)
    }

    /// Row `row` of `head`'s keys in `layer`.
    fn key_row(
        &self,
        layer: &str,
        (head, row): (usize, usize),
        out: &mut [f32],
    ) -> Result<(), CheckpointError> {
        let mut kept = self.head.borrow_mut();
        let is_kept = |(of, which, _): &(String, usize, _)| of == layer && *which == head;
        if !kept.as_ref().is_some_and(is_kept) {
            *kept = None;
            let (rank, width) = (self.latent.kv_rank, self.latent.nope_dim);
            let mut stored = vec![0.0; rank * width];
            let name = format!("{layer}{KEYS}");
            self.gguf.tensor_rows(&name, head * rank, &mut stored)?;
            let by_row = (0..width).flat_map(|row| (0..rank).map(move |at| at * width + row));
            let turned = by_row.map(|index| stored[index]).collect();
            *kept = Some((layer.to_owned(), head, turned));
        }
        if let Some((.., values)) = kept.as_ref() {
            out.copy_from_slice(&values[row * out.len()..][..out.len()]);
        }
        Ok(())
    }
}

impl TensorStore for Joined<'_> {
    fn tensor_shape(&self, name: &str) -> Result<(usize, usize), CheckpointError> {
        let Some(layer) = self.layer(name) else {
            return self.gguf.tensor_shape(name);
        };
        let Latent {
            kv_rank,
            nope_dim,
            value_dim,
            ..
        } = self.latent;
        for (part, expected) in [
            (KEYS, (self.heads * kv_rank, nope_dim)),
            (VALUES, (self.heads * value_dim, kv_rank)),
        ] {
            let tensor = format!("{layer}{part}");
            let found = self.gguf.tensor_shape(&tensor)?;
            if found != expected {
                return Err(CheckpointError::WrongShape {
                    tensor,
                    expected,
                    found,
                });
            }
        }
        Ok((self.heads * (nope_dim + value_dim), kv_rank))
    }

    fn tensor_rows(
        &self,
        name: &str,
        first: usize,
        out: &mut [f32],
    ) -> Result<(), CheckpointError> {
        let Some(layer) = self.layer(name) else {
            return self.gguf.tensor_rows(name, first, out);
        };
        let (nope, value) = (self.latent.nope_dim, self.latent.value_dim);
        for (offset, out) in out.chunks_exact_mut(self.latent.kv_rank).enumerate() {
            let (head, within) = (
                (first + offset) / (nope + value),
                (first + offset) % (nope + value),
            );
            match within.checked_sub(nope) {
                None => self.key_row(layer, (head, within), out)?,
                Some(row) => {
                    let name = format!("{layer}{VALUES}");
                    self.gguf.tensor_rows(&name, head * value + row, out)?;
                }
            }
        }
        Ok(())
    }

    fn tensor_names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }
}
