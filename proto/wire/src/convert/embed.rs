//! Texts in, vectors out.

use super::{FdSource, Parsed, Place, invalid, limited, name, options, tensor, unless_zero};
use crate::limits::{EMBED_TEXT_BYTES_MAX, EMBED_TEXTS_MAX, PROMPT_BYTES_MAX};
use crate::pb;
use crate::types::{DType, Embed, EmbedKind, Embeddings};
use std::os::fd::OwnedFd;

pub(super) fn parse(embed: pb::Embed) -> Parsed<Embed> {
    let kind = match embed.kind() {
        pb::EmbedKind::Unspecified if embed.kind != 0 => {
            return Err(invalid("kind", "it is unknown"));
        }
        pb::EmbedKind::Unspecified => EmbedKind::Plain,
        pb::EmbedKind::Query => EmbedKind::Query,
        pb::EmbedKind::Document => EmbedKind::Document,
    };
    check_texts(&embed.texts)?;
    Ok(Embed {
        model: name("model", embed.model)?,
        texts: embed.texts,
        kind,
        dimensions: unless_zero(embed.dimensions),
        truncate: embed.truncate,
        options: options::parse(embed.options)?,
    })
}

fn check_texts(texts: &[String]) -> Parsed<()> {
    if texts.is_empty() {
        return Err(invalid("texts", "there are none"));
    }
    limited("texts", texts.len(), EMBED_TEXTS_MAX)?;
    for (index, text) in texts.iter().enumerate() {
        let field = format_args!("texts[{index}]");
        if text.is_empty() {
            return Err(invalid(field, "it is empty"));
        }
        let what = format_args!("bytes of {field}");
        limited(what, text.len(), EMBED_TEXT_BYTES_MAX)?;
        if text.contains('\0') {
            return Err(invalid(field, "it holds a NUL"));
        }
    }
    let bytes = texts.iter().map(String::len).sum();
    limited("bytes of texts", bytes, PROMPT_BYTES_MAX)
}

pub(super) fn write(embed: Embed) -> pb::Embed {
    let kind = match embed.kind {
        EmbedKind::Plain => pb::EmbedKind::Unspecified,
        EmbedKind::Query => pb::EmbedKind::Query,
        EmbedKind::Document => pb::EmbedKind::Document,
    };
    pb::Embed {
        model: embed.model,
        texts: embed.texts,
        kind: kind.into(),
        dimensions: embed.dimensions.unwrap_or_default(),
        truncate: embed.truncate,
        options: options::write(embed.options),
    }
}

pub(super) fn parse_result(result: pb::Embeddings, fds: &mut FdSource) -> Parsed<Embeddings> {
    let vectors = tensor::parse_output(result.vectors, "vectors", fds)?;
    let at = Place {
        list: "vectors",
        index: 0,
    };
    if vectors.dtype != DType::F32 {
        return Err(invalid(at.field("dtype"), "it is not f32"));
    }
    let texts = match vectors.shape[..] {
        [texts, _] if texts == result.tokens.len() as u64 => texts,
        _ => return Err(invalid(at.field("shape"), "it is not [texts, dimensions]")),
    };
    let cut = &result.truncated;
    if !cut.is_sorted_by(|a, b| a < b) || cut.last().is_some_and(|&last| u64::from(last) >= texts) {
        return Err(invalid("truncated", "it names no text, or one twice"));
    }
    Ok(Embeddings {
        vectors,
        tokens: result.tokens,
        truncated: result.truncated,
    })
}

pub(super) fn write_result(result: Embeddings, fds: &mut Vec<OwnedFd>) -> pb::Embeddings {
    pb::Embeddings {
        vectors: Some(tensor::write(result.vectors, fds)),
        tokens: result.tokens,
        truncated: result.truncated,
    }
}
