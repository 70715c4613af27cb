//! SentencePiece vocabularies in GGUF, against what sentencepiece and llama.cpp make of texts
//! (`tests/models/sentencepiece/make.py`).

use std::{fs, path::Path};

use mote_import::{ImportError, ImportOptions, TokenizerError, import};
use serde::Deserialize;
use tempfile::tempdir;
use tokenizers::Tokenizer;

use super::{
    gguf_file::{GgufFile, Meta, Q8_0, Tensor},
    tiny::{self, Checkpoint, HIDDEN},
};

const PREFIX: &str = "tokenizer.ggml.add_space_prefix";
const SCORES: &str = "tokenizer.ggml.scores";
const BEGIN: u32 = 1;

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Golden {
    tokens: Vec<String>,
    scores: Vec<f32>,
    types: Vec<i32>,
    plain: Vec<Case>,
    special: Vec<Case>,
}

impl Golden {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/models/sentencepiece/golden.json");
        let text = fs::read_to_string(path).expect("it is in git");
        serde_json::from_str(&text).expect("it parses")
    }

    /// The checkpoint with this vocabulary and more `settings`.
    fn file(&self, settings: Vec<(&str, Meta<'_>)>) -> GgufFile {
        let skip = [
            "llama.vocab_size",
            "tokenizer.ggml.model",
            "tokenizer.ggml.pre",
            "tokenizer.ggml.tokens",
            "tokenizer.ggml.token_type",
            "tokenizer.ggml.merges",
            "tokenizer.ggml.add_bos_token",
        ];
        let mut file = tiny::metadata(GgufFile::default(), &skip)
            .meta("tokenizer.ggml.model", Meta::Text("llama"))
            .meta("tokenizer.ggml.tokens", Meta::Texts(&self.tokens))
            .meta("tokenizer.ggml.token_type", Meta::I32s(&self.types));
        for (key, value) in settings {
            file = file.meta(key, value);
        }
        file.tensors = Checkpoint::new().file.tensors;
        let mut found = file.tensors.iter_mut();
        let embedding = found.find(|tensor| tensor.name == "token_embd.weight");
        *embedding.expect("there is one") = Tensor {
            name: "token_embd.weight".to_owned(),
            dims: vec![HIDDEN as u64, self.tokens.len() as u64],
            kind: Q8_0,
            data: vec![0; HIDDEN / 32 * 34 * self.tokens.len()],
            offset: None,
        };
        file
    }

    fn tokenizer(&self, settings: Vec<(&str, Meta<'_>)>) -> Tokenizer {
        let folder = tempdir().expect("temporary folders can be made");
        let source = self.with_scores(settings).write(&folder);
        let target = folder.path().join("tiny");
        import(&ImportOptions::new(source, &target, "tiny"), &mut |_| ())
            .expect("the import succeeds");
        Tokenizer::from_file(target.join("tokenizer.json")).expect("it loads")
    }

    fn with_scores(&self, settings: Vec<(&str, Meta<'_>)>) -> GgufFile {
        self.file(settings).meta(SCORES, Meta::F32s(&self.scores))
    }
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let encoding = tokenizer.encode(text, false).expect("it encodes");
    encoding.get_ids().to_vec()
}

#[test]
fn texts_become_the_tokens_of_sentencepiece_and_back() {
    let golden = Golden::read();
    let tokenizer = golden.tokenizer(Vec::new());
    for case in &golden.plain {
        assert_eq!(ids(&tokenizer, &case.text), case.ids, "{:?}", case.text);
        let text = tokenizer.decode(&case.ids, false).expect("it decodes");
        // The mark of a space in a text is a space afterwards, for all of them.
        assert_eq!(text, case.text.replace('\u{2581}', " "));
    }
}

#[test]
fn tokens_of_their_own_are_read_as_llama_cpp_reads_them() {
    let golden = Golden::read();
    let tokenizer = golden.tokenizer(Vec::new());
    for case in &golden.special {
        assert_eq!(ids(&tokenizer, &case.text), case.ids, "{:?}", case.text);
    }
}

#[test]
fn texts_begin_with_a_token_and_a_space_unless_told_otherwise() {
    let golden = Golden::read();
    let begun = |settings| {
        let tokenizer = golden.tokenizer(settings);
        let encoding = tokenizer.encode("the", true).expect("it encodes");
        encoding.get_tokens().to_vec()
    };
    assert_eq!(begun(Vec::new()), ["<s>", "\u{2581}the"]);
    let bare = vec![
        (PREFIX, Meta::Bool(false)),
        ("tokenizer.ggml.add_bos_token", Meta::Bool(false)),
    ];
    let tokens = begun(bare);
    assert_eq!(tokens.concat(), "the");
    assert!(!tokens[0].starts_with('\u{2581}'));
    let tokenizer = golden.tokenizer(vec![(PREFIX, Meta::Bool(false))]);
    let decoded = tokenizer.decode(&ids(&tokenizer, " the"), false);
    assert_eq!(decoded.expect("it decodes"), " the");
    let encoding = tokenizer.encode("the", true).expect("it encodes");
    assert_eq!(encoding.get_ids()[0], BEGIN);
}

fn refusal(file: &GgufFile) -> TokenizerError {
    let folder = tempdir().expect("temporary folders can be made");
    let source = file.write(&folder);
    let options = ImportOptions::new(source, folder.path().join("tiny"), "tiny");
    match import(&options, &mut |_| ()) {
        Err(ImportError::Tokenizer(error)) => error,
        other => panic!("it must be refused for its tokenizer: {other:?}"),
    }
}

#[test]
fn vocabularies_that_are_not_whole_are_refused_by_name() {
    let golden = Golden::read();
    let bare = || golden.file(Vec::new());
    assert!(matches!(
        refusal(&bare()),
        TokenizerError::Metadata(error) if error.to_string().contains(SCORES)
    ));
    let mut scores = golden.scores.clone();
    scores[300] = f32::NAN;
    assert!(matches!(
        refusal(&bare().meta(SCORES, Meta::F32s(&scores))),
        TokenizerError::Score { id: 300 }
    ));
    assert!(matches!(
        refusal(&bare().meta(SCORES, Meta::F32s(&scores[1..]))),
        TokenizerError::Count { key: SCORES, .. }
    ));
    let mut long = Golden::read();
    long.tokens[300] = "a".repeat(100_000);
    assert!(matches!(
        refusal(&long.with_scores(Vec::new())),
        TokenizerError::TokenBytes {
            id: 300,
            bytes: 100_000
        }
    ));
    let mut twice = Golden::read();
    twice.tokens[300].clone_from(&golden.tokens[301]);
    assert!(matches!(
        refusal(&twice.with_scores(Vec::new())),
        TokenizerError::DuplicateToken { id: 301 }
    ));
}

#[test]
fn settings_that_would_change_tokens_are_refused_by_name() {
    let golden = Golden::read();
    let rules = || Meta::Raw(9, [&[0; 4][..], &1u64.to_le_bytes(), &[7]].concat());
    for (key, value) in [
        ("tokenizer.ggml.precompiled_charsmap", rules()),
        ("tokenizer.ggml.remove_extra_whitespaces", Meta::Bool(true)),
        ("tokenizer.ggml.add_eos_token", Meta::Bool(true)),
    ] {
        let refusal = refusal(&golden.with_scores(vec![(key, value)]));
        assert!(
            matches!(refusal, TokenizerError::UnsupportedFeature { key: found } if found == key),
            "{key}: {refusal}"
        );
    }
}
