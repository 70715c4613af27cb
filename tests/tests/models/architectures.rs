//! Every architecture that is imported, through the daemon: the tokens are those of transformers.

use crate::language::answer;
use anyhow::{Context, Result, ensure};
use mote_client::{FinishReason, Generate, Prompt};
use mote_tests::binary;
use mote_tests::daemon::{Daemon, Setup};
use mote_tests::prepared;
use std::path::Path;
use std::process::Command;

/// `</s>`, after which the daemon ends the answer and transformers went on.
const END_TOKEN: u32 = 2;

/// What transformers read and wrote, from `golden.safetensors`.
struct Golden {
    prompt: Vec<u32>,
    tokens: Vec<u32>,
}

impl Golden {
    fn read(folder: &Path) -> Result<Self> {
        let bytes = std::fs::read(folder.join("golden.safetensors"))?;
        let (size, rest) = bytes.split_first_chunk().context("a header's size")?;
        let (header, data) = rest.split_at(usize::try_from(u64::from_le_bytes(*size))?);
        let header: serde_json::Value = serde_json::from_slice(header)?;
        let read = |name: &str| -> Result<Vec<u32>> {
            let at = |end: usize| {
                header[name]["data_offsets"][end]
                    .as_u64()
                    .context("an offset")
            };
            let words = &data[usize::try_from(at(0)?)?..usize::try_from(at(1)?)?];
            let (words, _) = words.as_chunks();
            let ids = words
                .iter()
                .map(|word| u32::try_from(i64::from_le_bytes(*word)));
            Ok(ids.collect::<Result<_, _>>()?)
        };
        Ok(Self {
            prompt: read("prompt")?,
            tokens: read("tokens")?,
        })
    }

    /// The prompt as the tiny checkpoints' tokenizer spells it.
    fn text(&self) -> String {
        let word = |&id: &u32| match id {
            0 => "<pad>".to_owned(),
            1 => "<s>".to_owned(),
            END_TOKEN => "</s>".to_owned(),
            id => format!("w{id}"),
        };
        self.prompt.iter().map(word).collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn each_architecture_answers_with_the_tokens_of_transformers() -> Result<()> {
    let checkpoints = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/architectures");
    let store = tempfile::tempdir()?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(checkpoints)? {
        let folder = entry?.path();
        if !folder.is_dir() {
            continue;
        }
        let name = folder.file_name().and_then(|name| name.to_str());
        let name = name.context("a plain name")?.to_owned();
        let imported = Command::new(binary("mote")?)
            .args(["--quiet", "import", "--bits", "32", "--name", &name])
            .arg(&folder)
            .env("MOTE_STORE", store.path())
            .env("MOTE_SOCKET", store.path().join("nobody.sock"))
            .output()?;
        ensure!(imported.status.success(), "{name}: {imported:?}");
        names.push((name, Golden::read(&folder)?));
    }
    ensure!(names.len() >= 11, "there are only {}", names.len());
    let daemon = Daemon::start(&Setup {
        stores: vec![store.path().into()],
        runtimes: vec![prepared("MOTE_RUNTIMES")?],
        choose: Some("ranked"),
        ..Setup::default()
    })?;
    let client = daemon.client()?;
    for (name, golden) in names {
        let request = Generate {
            tokens_max: Some(u32::try_from(golden.tokens.len())?),
            ..Generate::new(&name, Prompt::Plain(golden.text()))
        };
        let answer = answer(&client, request)?;
        let ends = golden.tokens.iter().position(|&id| id == END_TOKEN);
        let wanted = &golden.tokens[..ends.unwrap_or(golden.tokens.len())];
        ensure!(
            answer.ids == wanted,
            "{name}: {:?} is not {wanted:?}",
            answer.ids
        );
        let finish = match ends {
            Some(_) => FinishReason::EndOfAnswer,
            None => FinishReason::TokensMax,
        };
        ensure!(
            answer.done.finish == finish,
            "{name}: {:?}",
            answer.done.finish
        );
    }
    Ok(())
}
