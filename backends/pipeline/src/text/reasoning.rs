//! Reasoning apart from the answer: what comes between two tags before it.

use super::request::Reasoning;
use mote_api::{ReasoningTags, TextSpec};
use tokenizers::Tokenizer;

/// Where a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It may begin with the opening tag, after white space.
    Before,
    Reasoning,
    Answer,
}

/// Text of one or both kinds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Split {
    pub reasoning: String,
    pub answer: String,
}

impl Split {
    pub fn answer(answer: String) -> Self {
        Self {
            reasoning: String::new(),
            answer,
        }
    }
}

/// Splits text that comes in pieces at the tags. Neither these are passed on, nor white space that
/// follows them.
struct Splitter {
    tags: ReasoningTags,
    phase: Phase,
    /// Text that may be the beginning of a tag.
    held: String,
    /// Whether a tag was the last that came.
    after_tag: bool,
}

/// What is known of an answer's reasoning.
pub(crate) struct Reasoner {
    splitter: Splitter,
    open: Tag,
    close: Tag,
    /// Whether the answer must have a form, so that only a whole tag may come before it.
    constrained: bool,
    tokens_max: Option<usize>,
    /// Tokens so far that may turn out to be the opening tag.
    before: usize,
    /// Tokens between the tags.
    inside: usize,
    /// Tokens of the closing tag that were forced.
    forced: usize,
    tokens: usize,
}

/// A tag as tokens.
struct Tag {
    ids: Vec<u32>,
    /// Whether it is one token that has no text when it is decoded.
    is_silent: bool,
}

impl Tag {
    fn new(tokenizer: &Tokenizer, text: &str) -> Self {
        let whole = tokenizer.token_to_id(text);
        let is_silent = |id| {
            let added = tokenizer.get_added_tokens_decoder();
            added.get(&id).is_some_and(|token| token.special)
        };
        match whole {
            Some(id) => Self {
                ids: vec![id],
                is_silent: is_silent(id),
            },
            None => Self {
                ids: tokenizer
                    .encode_fast(text, false)
                    .map(|encoding| encoding.get_ids().to_vec())
                    .unwrap_or_default(),
                is_silent: false,
            },
        }
    }

    fn whole(&self) -> Option<u32> {
        match self.ids[..] {
            [id] => Some(id),
            _ => None,
        }
    }
}

impl Reasoner {
    /// For an answer after a prompt that ends with `prompt_tail`: the template may have opened the
    /// tag already, or closed it.
    pub fn new(
        tokenizer: &Tokenizer,
        spec: &TextSpec,
        asked: Reasoning,
        prompt_tail: &str,
        constrained: bool,
    ) -> Self {
        let tags = spec.reasoning.clone().unwrap_or_default();
        let (open, close) = (
            Tag::new(tokenizer, &tags.open),
            Tag::new(tokenizer, &tags.close),
        );
        let tail = prompt_tail.trim_end();
        let phase = if tail.ends_with(&tags.open) {
            Phase::Reasoning
        } else if tail.ends_with(&tags.close) || (constrained && open.whole().is_none()) {
            Phase::Answer
        } else {
            Phase::Before
        };
        Self {
            splitter: Splitter {
                tags,
                phase,
                held: String::new(),
                after_tag: phase == Phase::Reasoning,
            },
            open,
            close,
            constrained,
            tokens_max: asked.tokens_max,
            before: 0,
            inside: 0,
            forced: 0,
            tokens: 0,
        }
    }

    /// Tokens of reasoning, those of the tags included that are in the answer.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Whether the next token belongs to the reasoning.
    pub fn is_inside(&self) -> bool {
        self.splitter.phase == Phase::Reasoning
    }

    /// A token that opens the reasoning here, though no answer could begin with it.
    pub fn opening(&self) -> Option<u32> {
        let may_open = self.splitter.phase == Phase::Before;
        self.open.whole().filter(|_| may_open)
    }

    /// Whether this token, if it comes next, is of the answer.
    pub fn is_answer(&self, id: u32) -> bool {
        !self.is_inside() && self.opening() != Some(id)
    }

    /// The token that must come next, when the reasoning has had its share.
    pub fn next_forced(&self) -> Option<u32> {
        let spent = self.tokens_max.is_some_and(|max| self.inside >= max);
        let next = self.close.ids.get(self.forced);
        next.copied().filter(|_| spent && self.is_inside())
    }

    /// Takes the next token and the text that became certain with it. Gives the text that is
    /// certain by kind, and whether the token is of the reasoning.
    pub fn push(&mut self, id: u32, mut piece: String) -> (Split, bool) {
        let phase = self.splitter.phase;
        let is_forced = self.next_forced().is_some();
        for (tag, text) in [
            (&self.open, &self.splitter.tags.open),
            (&self.close, &self.splitter.tags.close),
        ] {
            if tag.is_silent && tag.whole() == Some(id) {
                piece.push_str(text);
            }
        }
        let mut split = self.splitter.push(&piece);
        if self.constrained {
            self.settle(phase, &mut split);
        }
        let is_reasoning = match (phase, self.splitter.phase) {
            (Phase::Before, Phase::Before) => {
                self.before += 1;
                false
            }
            (Phase::Before, Phase::Answer) => !split.reasoning.is_empty(),
            (Phase::Answer, _) => false,
            _ => true,
        };
        if is_reasoning {
            self.tokens += 1 + std::mem::take(&mut self.before);
        }
        if is_forced {
            self.forced += 1;
        } else if phase == Phase::Reasoning {
            self.inside += 1;
        }
        (split, is_reasoning)
    }

    /// Under a constraint the answer is what its grammar has seen: it has seen a first token that
    /// does not open the reasoning, and nothing of the token that closes it.
    fn settle(&mut self, phase: Phase, split: &mut Split) {
        match (phase, self.splitter.phase) {
            (Phase::Before, Phase::Before) => {
                self.splitter.phase = Phase::Answer;
                split.answer += &std::mem::take(&mut self.splitter.held);
            }
            (Phase::Reasoning, Phase::Answer) => split.answer.clear(),
            _ => {}
        }
        self.splitter.after_tag &= self.splitter.phase == Phase::Reasoning;
    }

    /// The text of what is left, when no more tokens come.
    pub fn finish(&mut self, piece: &str) -> Split {
        let mut split = self.splitter.push(piece);
        let held = std::mem::take(&mut self.splitter.held);
        match self.splitter.phase {
            Phase::Reasoning => split.reasoning += &held,
            Phase::Before | Phase::Answer => split.answer += &held,
        }
        split
    }
}

impl Splitter {
    fn push(&mut self, piece: &str) -> Split {
        let mut text = std::mem::take(&mut self.held);
        text.push_str(piece);
        let mut split = Split::default();
        loop {
            if self.after_tag {
                text.drain(..text.len() - text.trim_start().len());
                self.after_tag = text.is_empty();
            }
            let (tag, next) = match self.phase {
                Phase::Before => (&self.tags.open, Phase::Reasoning),
                Phase::Reasoning => (&self.tags.close, Phase::Answer),
                Phase::Answer => {
                    split.answer += &text;
                    return split;
                }
            };
            let at = match self.phase {
                Phase::Before => {
                    let start = text.len() - text.trim_start().len();
                    text[start..].starts_with(tag.as_str()).then_some(start)
                }
                _ => text.find(tag.as_str()),
            };
            if let Some(at) = at {
                if self.phase == Phase::Reasoning {
                    split.reasoning += &text[..at];
                }
                text.drain(..at + tag.len());
                self.phase = next;
                self.after_tag = true;
                continue;
            }
            if self.phase == Phase::Before && !tag.starts_with(text.trim_start()) {
                self.phase = Phase::Answer;
                continue;
            }
            let pass = match self.phase {
                Phase::Reasoning => text.len() - unfinished(&text, tag),
                _ => 0,
            };
            self.held = text.split_off(pass);
            split.reasoning += &text;
            return split;
        }
    }
}

/// Bytes at the end of `text` that `tag` begins with.
fn unfinished(text: &str, tag: &str) -> usize {
    let lengths = (1..tag.len().min(text.len() + 1)).rev();
    let mut fitting = lengths.filter(|&bytes| text.as_bytes().ends_with(&tag.as_bytes()[..bytes]));
    fitting.next().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(pieces: &[&str], phase: Phase) -> (String, String) {
        let mut splitter = Splitter {
            tags: ReasoningTags::default(),
            phase,
            held: String::new(),
            after_tag: phase == Phase::Reasoning,
        };
        let mut whole = Split::default();
        for piece in pieces {
            let split = splitter.push(piece);
            whole.reasoning += &split.reasoning;
            whole.answer += &split.answer;
        }
        match splitter.phase {
            Phase::Reasoning => whole.reasoning += &splitter.held,
            _ => whole.answer += &splitter.held,
        }
        (whole.reasoning, whole.answer)
    }

    #[test]
    fn texts_are_split_at_their_tags() {
        let cases = [
            ("<think>\na < b</think>\n\nYes", "a < b", "Yes"),
            ("\n <think></think>Yes", "", "Yes"),
            ("Yes <think>no</think>", "", "Yes <think>no</think>"),
            ("<thin air", "", "<thin air"),
            ("<think>never </thin", "never </thin", ""),
            ("<think>a</think>b</think>", "a", "b</think>"),
            (" ", "", " "),
        ];
        for (text, reasoning, answer) in cases {
            let want = (reasoning.to_owned(), answer.to_owned());
            assert_eq!(split(&[text], Phase::Before), want, "{text:?}");
        }
        let opened = split(&["\nso</think> it is"], Phase::Reasoning);
        assert_eq!(opened, ("so".to_owned(), "it is".to_owned()));
    }

    proptest! {
        #[test]
        fn any_cut_gives_what_the_whole_text_gives(
            text in "[ \n]?(<think>)?[<a/ ]{0,4}(</think>)?[ \n<é]{0,3}",
            cuts in prop::collection::vec(0usize..40, 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts
                .into_iter()
                .filter(|&cut| cut <= text.len() && text.is_char_boundary(cut))
                .collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&str> = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect();
            for phase in [Phase::Before, Phase::Reasoning, Phase::Answer] {
                prop_assert_eq!(split(&pieces, phase), split(&[&text], phase));
            }
        }
    }
}
