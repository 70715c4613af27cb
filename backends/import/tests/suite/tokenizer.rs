//! The rebuilt tokenizer.

use mote_import::{ImportOptions, import};
use tempfile::tempdir;
use tokenizers::Tokenizer;

use super::tiny::{Checkpoint, tokens};

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
