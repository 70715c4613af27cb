//! How text is cut before byte-level BPE, by llama.cpp's names for the ways.

use tokenizers::{
    NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior,
    normalizers::unicode::NFC,
    pre_tokenizers::{
        byte_level::ByteLevel,
        digits::Digits,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

/// Qwen's expression; digits stay alone.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Llama 3's expression; up to three digits stay together.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// DeepSeek-V3's expressions; numbers and Han and Kana letters first.
const DEEPSEEK_V3: [&str; 3] = [
    r"\p{N}{1,3}",
    r"[\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+",
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
];
/// The expressions of DeepSeek's models before that: line breaks, letters of scripts with two
/// cases, marks, trailing spaces, letters of scripts without cases, numbers.
const DEEPSEEK: [&str; 6] = [
    r"[\r\n]",
    r"\s?[A-Za-z\x{b5}\x{c0}-\x{d6}\x{d8}-\x{f6}\x{f8}-\x{1ba}\x{1bc}-\x{1bf}\x{1c4}-\x{293}\x{295}-\x{2af}\x{370}-\x{373}\x{376}\x{377}\x{37b}-\x{37d}\x{37f}\x{386}\x{388}-\x{38a}\x{38c}\x{38e}-\x{3a1}\x{3a3}-\x{3f5}\x{3f7}-\x{481}\x{48a}-\x{52f}\x{531}-\x{556}\x{10a0}-\x{10c5}\x{13a0}-\x{13f5}\x{13f8}-\x{13fd}\x{1c90}-\x{1cba}\x{1cbd}-\x{1cbf}\x{1d00}-\x{1d2b}\x{1d6b}-\x{1d77}\x{1d79}-\x{1d9a}\x{1e00}-\x{1f15}\x{1f18}-\x{1f1d}\x{1f20}-\x{1f45}\x{1f48}-\x{1f4d}\x{1f50}-\x{1f57}\x{1f59}\x{1f5b}\x{1f5d}\x{1f5f}-\x{1f7d}\x{1f80}-\x{1fb4}\x{1fb6}-\x{1fbc}\x{1fbe}\x{1fc2}-\x{1fc4}\x{1fc6}-\x{1fcc}\x{1fd0}-\x{1fd3}\x{1fd6}-\x{1fdb}\x{1fe0}-\x{1fec}\x{1ff2}-\x{1ff4}\x{1ff6}-\x{1ffc}\x{2102}\x{2107}\x{210a}-\x{2113}\x{2115}\x{2119}-\x{211d}\x{2124}\x{2126}\x{2128}\x{212a}-\x{212d}\x{212f}-\x{2134}\x{2139}\x{213c}-\x{213f}\x{2145}-\x{2149}\x{214e}\x{2183}\x{2184}\x{2c00}-\x{2c7b}\x{2c7e}-\x{2ce4}\x{2ceb}-\x{2cee}\x{2cf2}\x{2cf3}\x{a640}-\x{a66d}\x{a680}-\x{a69b}\x{a722}-\x{a76f}\x{a771}-\x{a787}\x{a78b}-\x{a78e}\x{ab70}-\x{abbf}\x{fb00}-\x{fb06}\x{fb13}-\x{fb17}\x{ff21}-\x{ff3a}\x{ff41}-\x{ff5a}\x{10400}-\x{1044f}\x{104b0}-\x{104d3}\x{104d8}-\x{104fb}\x{10c80}-\x{10cb2}\x{10cc0}-\x{10cf2}\x{118a0}-\x{118df}\x{1e900}-\x{1e943}]+",
    r"\s?[!-/:-~\x{ff01}-\x{ff0f}\x{ff1a}-\x{ff5e}\x{2018}-\x{201f}\x{3000}-\x{3002}]+",
    r"\s+$",
    r"[\x{4e00}-\x{9fa5}\x{0800}-\x{4e00}\x{ac00}-\x{d7ff}]+",
    r"\p{N}+",
];

/// A way to cut text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    pieces: Pieces,
    /// Whether text is composed first.
    composes: bool,
    /// Whether a piece that is a token as it is needs no merges.
    pub whole_tokens: bool,
    /// Whether sequences begin with a token of their own unless the metadata say otherwise.
    pub begins: bool,
}

#[derive(Debug, Clone, Copy)]
enum Pieces {
    /// As GPT-2.
    Gpt2,
    /// As GPT-2, with each digit apart.
    Digits,
    /// By expressions, each within what those before it left.
    Expressions(&'static [&'static str]),
}

const GPT2: Cut = Cut {
    pieces: Pieces::Gpt2,
    composes: false,
    whole_tokens: false,
    begins: false,
};
const DIGITS: Cut = Cut {
    pieces: Pieces::Digits,
    ..GPT2
};

const CUTS: [(&str, Cut); 9] = [
    ("smollm", DIGITS),
    ("starcoder", DIGITS),
    ("refact", DIGITS),
    ("gpt-2", GPT2),
    (
        "olmo",
        Cut {
            composes: true,
            ..GPT2
        },
    ),
    (
        "qwen2",
        Cut {
            pieces: Pieces::Expressions(&[QWEN2]),
            composes: true,
            ..GPT2
        },
    ),
    (
        "deepseek-llm",
        Cut {
            pieces: Pieces::Expressions(&DEEPSEEK),
            ..GPT2
        },
    ),
    (
        "deepseek-v3",
        Cut {
            pieces: Pieces::Expressions(&DEEPSEEK_V3),
            ..GPT2
        },
    ),
    (
        "llama-bpe",
        Cut {
            pieces: Pieces::Expressions(&[LLAMA3]),
            whole_tokens: true,
            begins: true,
            ..GPT2
        },
    ),
];

impl Cut {
    /// The way called `name`.
    pub fn named(name: &str) -> Option<Self> {
        let mut cuts = CUTS.into_iter();
        cuts.find_map(|(known, cut)| (known == name).then_some(cut))
    }

    pub fn normalizer(self) -> Option<NormalizerWrapper> {
        self.composes.then_some(NormalizerWrapper::NFC(NFC))
    }

    pub fn pre_tokenizer(self) -> Result<PreTokenizerWrapper, tokenizers::Error> {
        let bytes =
            |cuts_too| PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, cuts_too));
        let parts = match self.pieces {
            Pieces::Gpt2 => return Ok(bytes(true)),
            Pieces::Digits => vec![PreTokenizerWrapper::Digits(Digits::new(true)), bytes(true)],
            Pieces::Expressions(expressions) => {
                let mut parts = Vec::new();
                for expression in expressions {
                    let pattern = SplitPattern::Regex((*expression).to_owned());
                    let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)?;
                    parts.push(PreTokenizerWrapper::Split(split));
                }
                parts.push(bytes(false));
                parts
            }
        };
        Ok(PreTokenizerWrapper::Sequence(Sequence::new(parts)))
    }
}
