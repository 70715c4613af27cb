//! Texts in, vectors out.

use crate::call::{Out, call, give};
use crate::client::{MoteClient, client};
use crate::codes::*;
use crate::door::{Given, Text};
use crate::error::MoteError;
use crate::failure::Failure;
use crate::options::{no_flags, options, unknown, unless_zero};
use crate::receipt::MoteReceipt;
use crate::result::MoteResult;
use crate::structs::EmbedArgs;
use mote_client::{DType, Embed, EmbedKind, OwnedData, OwnedTensor, Vectors};

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_embed(
    given: Option<&MoteClient>,
    args: Given<'_, EmbedArgs<'_>>,
    result: Out<'_, MoteResult>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || {
        give(result, "result", || {
            let client = client(given)?;
            let made = client.embed(request(args.required("args")?)?)?.wait()?;
            let receipt = MoteReceipt::new(made.done.receipt);
            Ok(MoteResult::new(outputs(made.vectors), &[]).of_run(receipt))
        })
    })
}

fn request(args: EmbedArgs<'_>) -> Result<Embed, Failure> {
    no_flags(args.flags, "flags")?;
    let model = args.model.required("model")?;
    let given = args.texts.take(args.text_count, "texts")?;
    let text = |(index, text): (usize, &Text<'_>)| {
        Ok(text.required(format_args!("texts[{index}]"))?.to_owned())
    };
    let texts: Result<_, Failure> = given.iter().enumerate().map(text).collect();
    Ok(Embed {
        kind: match args.kind {
            MOTE_EMBED_PLAIN => EmbedKind::Plain,
            MOTE_EMBED_QUERY => EmbedKind::Query,
            MOTE_EMBED_DOCUMENT => EmbedKind::Document,
            other => return Err(Failure::invalid("kind", unknown(other))),
        },
        dimensions: unless_zero(args.dimensions),
        truncate: args.truncate != 0,
        options: options(args.options)?,
        ..Embed::new(model, texts?)
    })
}

/// The vectors, and what is told of each text, as outputs.
fn outputs(vectors: Vectors) -> Vec<OwnedTensor> {
    let texts = vectors.len() as u64;
    let output = |name: &str, dtype, shape: &[u64], bytes| OwnedTensor {
        name: name.into(),
        dtype,
        shape: shape.into(),
        data: OwnedData::Bytes(bytes),
    };
    let tokens = vectors.tokens.iter().flat_map(|count| count.to_ne_bytes());
    let tokens = output("tokens", DType::U32, &[texts], tokens.collect());
    let was_cut = |index| vectors.truncated.binary_search(&index).is_ok();
    let cut = (0..vectors.len() as u32).map(|index| u8::from(was_cut(index)));
    let cut = output("truncated", DType::Bool, &[texts], cut.collect());
    let shape = [texts, vectors.dimensions() as u64];
    let values = vectors
        .values()
        .iter()
        .flat_map(|value| value.to_ne_bytes());
    let values = output("embeddings", DType::F32, &shape, values.collect());
    vec![values, tokens, cut]
}
