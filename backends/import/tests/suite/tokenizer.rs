//! The rebuilt tokenizer.

use mote_import::{ImportOptions, import};
use tempfile::tempdir;
use tokenizers::Tokenizer;

use super::{
    gguf_file::{GgufFile, Meta, Q8_0, Tensor},
    tiny::{self, Checkpoint, HIDDEN, tokens},
};

#[test]
fn special_tokens_digits_and_merges_follow_the_checkpoint() {
    let folder = tempdir().expect("temporary folders can be made");
    let source = Checkpoint::new().file.write(&folder);
    let target = folder.path().join("tiny");
    import(&ImportOptions::new(source, &target, "tiny"), &mut |_| ()).expect("the import succeeds");
    let tokenizer = Tokenizer::from_file(target.join("tokenizer.json")).expect("it loads");
    let ids = |text: &str| -> Vec<String> {
        let encoding = tokenizer.encode(text, false).expect("it encodes");
        encoding.get_tokens().to_vec()
    };
    assert_eq!(
        ids("<|im_start|>abcab<|im_end|>"),
        ["<|im_start|>", "abc", "ab", "<|im_end|>"]
    );
    // Digits stay apart although a merge would join them.
    assert_eq!(ids("ab 12"), ["ab", "Ġ", "1", "2"]);
    let id = |token: &str| {
        let position = tokens().iter().position(|known| known == token);
        position.expect("the token exists") as u32
    };
    let all = [
        id("<|im_start|>"),
        id("abc"),
        id("Ġ"),
        id("7"),
        id("<|im_end|>"),
    ];
    assert_eq!(tokenizer.decode(&all, true).expect("it decodes"), "abc 7");
    assert_eq!(
        tokenizer.decode(&all, false).expect("it decodes"),
        "<|im_start|>abc 7<|im_end|>"
    );
    let config = std::fs::read_to_string(target.join("tokenizer_config.json"));
    let config: serde_json::Value =
        serde_json::from_str(&config.expect("it exists")).expect("it parses");
    assert_eq!(config["bos_token"], "<|im_start|>");
    assert_eq!(config["eos_token"], "<|im_end|>");
    let template = std::fs::read_to_string(target.join("chat_template.jinja"));
    assert!(
        template
            .expect("it exists")
            .starts_with("{% for m in messages %}")
    );
}

/// The tokenizer rebuilt from byte-level `vocabulary` and merges, cut in the way `pre`.
fn rebuilt(pre: &str, vocabulary: &[String], merges: &[&str]) -> Tokenizer {
    let merges: Vec<String> = merges.iter().map(|&merge| merge.to_owned()).collect();
    let kinds = vec![1; vocabulary.len()];
    let skip = [
        "llama.vocab_size",
        "tokenizer.ggml.pre",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.token_type",
        "tokenizer.ggml.merges",
        "tokenizer.ggml.add_bos_token",
    ];
    let mut file = tiny::metadata(GgufFile::default(), &skip)
        .meta("tokenizer.ggml.pre", Meta::Text(pre))
        .meta("tokenizer.ggml.tokens", Meta::Texts(vocabulary))
        .meta("tokenizer.ggml.token_type", Meta::I32s(&kinds))
        .meta("tokenizer.ggml.merges", Meta::Texts(&merges));
    file.tensors = Checkpoint::new().file.tensors;
    let embedding = file
        .tensors
        .iter_mut()
        .find(|tensor| tensor.name == "token_embd.weight");
    *embedding.expect("there is one") = Tensor {
        name: "token_embd.weight".to_owned(),
        dims: vec![HIDDEN as u64, vocabulary.len() as u64],
        kind: Q8_0,
        data: vec![0; HIDDEN / 32 * 34 * vocabulary.len()],
        offset: None,
    };
    let folder = tempdir().expect("temporary folders can be made");
    let target = folder.path().join("tiny");
    let source = file.write(&folder);
    import(&ImportOptions::new(source, &target, "tiny"), &mut |_| ()).expect("the import succeeds");
    Tokenizer::from_file(target.join("tokenizer.json")).expect("it loads")
}

#[test]
fn text_is_cut_as_each_family_cuts_it() {
    // A merge joins what is not cut apart: digits, line breaks, an apostrophe and its letter.
    let merges = [
        "1 2", "12 3", "123 4", "! Ċ", "Ċ Ċ", "' S", "a b", "Ġ ab", "ĠĠ ab",
    ];
    let joined = merges.map(|merge| merge.replace(' ', ""));
    let single = "<>1234Ċ'SabĠ!Ã©eÌģ".chars().map(String::from);
    let vocabulary: Vec<String> = single.chain(joined).chain(["ĠĠ".to_owned()]).collect();
    let text = "ab 1234'S!\n\n e\u{301}";
    for (pre, expected) in [
        ("gpt-2", "ab|Ġ|1234|'|S|!|ĊĊ|Ġ|e|Ì|ģ"),
        ("olmo", "ab|Ġ|1234|'|S|!|ĊĊ|Ġ|Ã|©"),
        ("smollm", "ab|Ġ|1|2|3|4|'|S|!|ĊĊ|Ġ|e|Ì|ģ"),
        ("qwen2", "ab|Ġ|1|2|3|4|'S|!Ċ|Ċ|Ġ|Ã|©"),
        ("llama-bpe", "ab|Ġ|123|4|'S|!Ċ|Ċ|Ġ|e|Ì|ģ"),
        ("deepseek-llm", "ab|Ġ|1234|'|S|!|Ċ|Ċ|Ġ|e|Ì|ģ"),
        ("deepseek-v3", "ab|Ġ|123|4|'S|!Ċ|Ċ|Ġ|e|Ì|ģ"),
    ] {
        let tokenizer = rebuilt(pre, &vocabulary, &merges);
        let encoding = tokenizer.encode(text, false).expect("it encodes");
        assert_eq!(encoding.get_tokens().join("|"), expected, "{pre}");
        let decoded = tokenizer.decode(encoding.get_ids(), false);
        let composed = text.replace("e\u{301}", "\u{e9}");
        let whole = if expected.ends_with('©') {
            composed
        } else {
            text.to_owned()
        };
        assert_eq!(decoded.expect("it decodes"), whole, "{pre}");
        // Only Llama 3 begins a text with a token of its own, here the one with number 1.
        let begun = tokenizer.encode(text, true).expect("it encodes");
        let begins = begun.get_ids().len() > encoding.get_ids().len();
        assert_eq!(begins, pre == "llama-bpe", "{pre}");
        assert!(!begins || begun.get_ids()[0] == 1, "{pre}");
    }
}

/// As llama.cpp cuts them, which was asked about this vocabulary.
#[test]
fn letters_of_scripts_without_cases_stay_apart_where_they_should() {
    let merges = ["¬ a", "a .", "a b", "Ġ ab"];
    let joined = merges.map(|merge| merge.replace(' ', ""));
    let single = "ab.Ġæľ¬".chars().map(String::from);
    let vocabulary: Vec<String> = single.chain(joined).collect();
    for (pre, expected) in [
        ("llama-bpe", "æ|ľ|¬a|.|Ġ|Ġab"),
        ("deepseek-llm", "æ|ľ|¬|a|.|Ġ|Ġab"),
        ("deepseek-v3", "æ|ľ|¬|a|.|Ġ|Ġab"),
    ] {
        let tokenizer = rebuilt(pre, &vocabulary, &merges);
        let encoding = tokenizer.encode("\u{672c}a.  ab", false);
        let encoding = encoding.expect("it encodes");
        assert_eq!(encoding.get_tokens().join("|"), expected, "{pre}");
    }
}
