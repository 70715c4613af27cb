//! `mote embed`: texts in, vectors out.

use crate::args::{Embed, EmbedKindArg};
use crate::arrays::{self, Array};
use crate::output::{PendingFile, keep_all};
use crate::receipt::receipt_text;
use crate::ui::Ui;
use crate::work::options;
use crate::{input, interrupt};
use anyhow::{Context, Result, bail, ensure};
use mote_client::{Client, EmbedResult, EmbeddingEvent, Vectors};
use mote_wire::limits::{EMBED_TEXTS_MAX, PROMPT_BYTES_MAX};
use mote_wire::types::{DType, EmbedKind, Receipt, Stage};
use serde::Serialize;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;

/// Bytes of all lines that are read.
const INPUT_BYTES_MAX: usize = 256 << 20;
/// Texts of one call at most: their vectors are held until all are there.
const TEXTS_MAX: usize = 1 << 17;
/// Texts that are compared with each other.
const COMPARED_MAX: usize = 8;
/// Numbers of a vector that are shown.
const NUMBERS_SHOWN: usize = 6;
/// Characters of a text that are shown.
const TEXT_SHOWN: usize = 40;

/// All texts, embedded.
#[derive(Serialize)]
struct Embedded {
    model: String,
    dimensions: usize,
    texts: Vec<EmbeddedText>,
    /// One for each request that it took.
    receipts: Vec<Receipt>,
}

#[derive(Serialize)]
struct EmbeddedText {
    /// Those that were computed.
    tokens: u32,
    /// Whether it was cut to the model's context.
    truncated: bool,
    /// Left out when vectors are written to a file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vector: Vec<f32>,
}

/// How vectors are written.
#[derive(Clone, Copy)]
enum Format {
    Npy,
    Raw,
}

/// Makes vectors of texts.
pub fn embed(client: &Client, args: &Embed, ui: &Ui) -> Result<()> {
    let format = args.out.as_deref().map(format_of).transpose()?;
    let pending = args.out.as_deref();
    let pending = pending.map(|path| PendingFile::create(path, args.force));
    let pending = pending.transpose()?;
    let texts = texts(args)?;
    check_shown(args, texts.len(), ui)?;
    let results = run(client, args, &texts, ui)?;
    if let (Some(format), Some(pending)) = (format, pending) {
        write(&pending, format, &results)?;
        keep_all(vec![pending])?;
    }
    if args.receipt && !ui.json {
        for result in &results {
            ui.note(receipt_text(&result.done.receipt));
        }
    }
    let embedded = embedded(args, &results);
    let cut = embedded.texts.iter().filter(|text| text.truncated).count();
    if cut > 0 {
        ui.note(format!(
            "{cut} of the texts were cut to the model's context"
        ));
    }
    ui.result(&embedded, text(args, &texts, &results))
}

fn format_of(path: &Path) -> Result<Format> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("npy") => Ok(Format::Npy),
        Some("f32" | "bin") => Ok(Format::Raw),
        _ => bail!(
            "vectors are written as .npy, or as .f32 without a header; {} is neither",
            path.display()
        ),
    }
}

/// The texts: arguments, or the lines of a file or of standard input.
fn texts(args: &Embed) -> Result<Vec<String>> {
    let from_stdin = args.file.as_deref() == Some(Path::new("-"))
        || (args.file.is_none() && (args.texts.is_empty() || args.texts == ["-"]));
    match &args.file {
        _ if from_stdin => {
            let name = "standard input";
            lines(&input::text(std::io::stdin(), name, INPUT_BYTES_MAX)?, name)
        }
        Some(file) => {
            let text = input::text_of(file, INPUT_BYTES_MAX)?;
            lines(&text, &file.display().to_string())
        }
        None => Ok(args.texts.clone()),
    }
}

fn lines(all: &str, name: &str) -> Result<Vec<String>> {
    let count = all.lines().count();
    ensure!(
        count <= TEXTS_MAX,
        "{name} has {count} lines, more than {TEXTS_MAX}: split it"
    );
    let lines: Vec<String> = all.lines().map(str::to_owned).collect();
    ensure!(!lines.is_empty(), "{name} has no lines");
    // Left out, it would shift the vectors behind it.
    if let Some(empty) = lines.iter().position(|line| line.trim().is_empty()) {
        bail!("line {} of {name} is empty", empty + 1);
    }
    Ok(lines)
}

/// Which texts go into one request.
fn requests(texts: &[String]) -> Vec<Range<usize>> {
    let mut requests: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (index, text) in texts.iter().enumerate() {
        bytes += text.len();
        match requests.last_mut() {
            Some(last) if last.len() < EMBED_TEXTS_MAX && bytes <= PROMPT_BYTES_MAX => {
                last.end = index + 1;
            }
            _ => {
                requests.push(index..index + 1);
                bytes = text.len();
            }
        }
    }
    requests
}

/// Refuses, before anything is computed, what could not be shown.
fn check_shown(args: &Embed, texts: usize, ui: &Ui) -> Result<()> {
    let is_shown = args.out.is_some() || ui.json || texts <= COMPARED_MAX;
    ensure!(
        is_shown,
        "vectors of {texts} texts are too many to show: write them with --out FILE.npy, or print \
         them with --json"
    );
    Ok(())
}

/// One request after the other; Ctrl-C cancels.
fn run(client: &Client, args: &Embed, texts: &[String], ui: &Ui) -> Result<Vec<EmbedResult>> {
    let bar = ui.count_bar("load", texts.len() as u64);
    let mut results = Vec::new();
    for range in requests(texts) {
        let first = range.start as u64;
        let request = mote_client::Embed {
            kind: match args.kind {
                None => EmbedKind::Plain,
                Some(EmbedKindArg::Query) => EmbedKind::Query,
                Some(EmbedKindArg::Document) => EmbedKind::Document,
            },
            dimensions: args.dimensions,
            truncate: args.truncate,
            options: options(&args.work),
            ..mote_client::Embed::new(&args.model, texts[range].to_vec())
        };
        let embedding = client.embed(request)?;
        let _watch = interrupt::Watch::start(embedding.canceller())?;
        let mut made = None;
        for event in embedding {
            match event.map_err(interrupt::or_interrupted)? {
                EmbeddingEvent::Progress(progress) => match progress.stage {
                    Stage::Embed => {
                        bar.set_prefix("embed");
                        bar.set_position(first + progress.done);
                    }
                    Stage::Compiling => bar.set_prefix("compile"),
                    Stage::Trying => bar.set_prefix("try ways to run it"),
                    _ => bar.set_prefix("load"),
                },
                EmbeddingEvent::Vectors(vectors) => made = Some(vectors),
                EmbeddingEvent::Done(done) => {
                    let vectors = made.take().context("the daemon ended without vectors")?;
                    // The model is asked for by name each time.
                    let first = results.first();
                    ensure!(
                        first.is_none_or(|it: &EmbedResult| {
                            it.done.receipt.model_digest == done.receipt.model_digest
                        }),
                        "the model was replaced while it made vectors"
                    );
                    results.push(EmbedResult { vectors, done });
                }
                EmbeddingEvent::Accepted { .. } => {}
            }
        }
    }
    bar.finish_and_clear();
    Ok(results)
}

fn write(pending: &PendingFile, format: Format, results: &[EmbedResult]) -> Result<()> {
    let values = results.iter().flat_map(|result| result.vectors.values());
    let array = Array {
        dtype: DType::F32,
        shape: vec![count(results) as u64, dimensions(results) as u64],
        bytes: values.flat_map(|value| value.to_le_bytes()).collect(),
    };
    let mut file = BufWriter::new(pending.file());
    let written = match format {
        Format::Npy => arrays::write_npy_to(&mut file, &array),
        Format::Raw => file.write_all(&array.bytes).map_err(Into::into),
    };
    written
        .and_then(|()| Ok(file.flush()?))
        .context("cannot write the vectors")
}

fn count(results: &[EmbedResult]) -> usize {
    results.iter().map(|result| result.vectors.len()).sum()
}

fn dimensions(results: &[EmbedResult]) -> usize {
    results
        .first()
        .map_or(0, |result| result.vectors.dimensions())
}

fn embedded(args: &Embed, results: &[EmbedResult]) -> Embedded {
    let of_vector = |vectors: &Vectors, index: usize| EmbeddedText {
        tokens: vectors.tokens[index],
        truncated: vectors.truncated.contains(&(index as u32)),
        vector: match args.out {
            None => vectors.get(index).to_vec(),
            Some(_) => Vec::new(),
        },
    };
    let texts = results.iter().flat_map(|EmbedResult { vectors, .. }| {
        (0..vectors.len()).map(move |index| of_vector(vectors, index))
    });
    Embedded {
        model: args.model.clone(),
        dimensions: dimensions(results),
        texts: texts.collect(),
        receipts: results.iter().map(|it| it.done.receipt.clone()).collect(),
    }
}

/// For people: how alike a few texts are, or the beginning of one vector.
fn text(args: &Embed, texts: &[String], results: &[EmbedResult]) -> String {
    let (count, dimensions) = (count(results), dimensions(results));
    let size = match count {
        1 => format!("a vector of {dimensions} numbers"),
        _ => format!("{count} vectors of {dimensions} numbers"),
    };
    if let Some(out) = &args.out {
        return format!("{size} in {}", out.display());
    }
    match results {
        [one] if count == 1 => format!("{size}: {}", numbers(one.vectors.get(0))),
        [one] if count <= COMPARED_MAX => {
            format!(
                "{size}; cosines of the angles between them:\n{}",
                table(texts, &one.vectors)
            )
        }
        _ => format!("{size}; write them with --out FILE.npy, or print them with --json"),
    }
}

fn numbers(vector: &[f32]) -> String {
    let shown = vector.iter().take(NUMBERS_SHOWN);
    let mut shown: Vec<String> = shown.map(|value| format!("{value:.4}")).collect();
    if vector.len() > NUMBERS_SHOWN {
        shown.push("…".into());
    }
    shown.join(" ")
}

fn table(texts: &[String], vectors: &Vectors) -> String {
    let all = 0..vectors.len();
    let head = all.clone().map(|column| format!("{:>7}", column + 1));
    let mut lines = vec![format!("   {}", head.collect::<String>())];
    for row in all.clone() {
        let cosines = all
            .clone()
            .map(|column| format!("{:>7.3}", vectors.cosine(row, column)));
        let cosines: String = cosines.collect();
        lines.push(format!("{:>3}{cosines}  {}", row + 1, short(&texts[row])));
    }
    lines.join("\n")
}

fn short(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.chars().count() > TEXT_SHOWN {
        true => line.chars().take(TEXT_SHOWN - 1).chain(['…']).collect(),
        false => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_texts_and_none_is_lost() {
        let read = |text: &str| lines(text, "here").map_err(|error| error.to_string());
        assert_eq!(read("one\r\ntwo\n"), Ok(vec!["one".into(), "two".into()]));
        assert_eq!(read("one\n \ntwo"), Err("line 2 of here is empty".into()));
        assert_eq!(read(""), Err("here has no lines".into()));
        let bytes: &[u8] = &[0xff, 0xfe];
        assert!(input::text(bytes, "here", INPUT_BYTES_MAX).is_err());
    }

    #[test]
    fn requests_keep_to_the_limits_of_the_wire() {
        let texts = |count: usize, bytes: usize| vec!["t".repeat(bytes); count];
        assert_eq!(requests(&texts(3, 5)), vec![Range { start: 0, end: 3 }]);
        assert_eq!(requests(&texts(1025, 5)), [0..1024, 1024..1025]);
        assert_eq!(requests(&texts(3, PROMPT_BYTES_MAX / 2)), [0..2, 2..3]);
        // The daemon says what is wrong with it.
        assert_eq!(requests(&texts(2, PROMPT_BYTES_MAX + 1)), [0..1, 1..2]);
        assert!(requests(&[]).is_empty());
    }

    #[test]
    fn long_texts_are_shown_by_their_beginning() {
        assert_eq!(short(" a\tb  c "), "a b c");
        let long = short(&"世".repeat(50));
        assert_eq!((long.chars().count(), long.ends_with('…')), (40, true));
        assert_eq!(numbers(&[0.25; 2]), "0.2500 0.2500");
        assert_eq!(numbers(&[0.25; 7]).matches("0.25").count(), 6);
    }
}
