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
    /// By an expression.
    Expression(&'static str),
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

const CUTS: [(&str, Cut); 7] = [
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
            pieces: Pieces::Expression(QWEN2),
            composes: true,
            ..GPT2
        },
    ),
    (
        "llama-bpe",
        Cut {
            pieces: Pieces::Expression(LLAMA3),
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
            Pieces::Expression(expression) => {
                let pattern = SplitPattern::Regex(expression.to_owned());
                let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)?;
                vec![PreTokenizerWrapper::Split(split), bytes(false)]
            }
        };
        Ok(PreTokenizerWrapper::Sequence(Sequence::new(parts)))
    }
}
