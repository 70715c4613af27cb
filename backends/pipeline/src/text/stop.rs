//! Stop strings in text that comes in pieces.

/// Passes text on until a stop string is complete, and holds back what may yet become one.
///
/// The stop string that is complete first ends the text; of those complete at the same character,
/// the longest. So the result does not depend on how the text was cut into pieces.
pub(crate) struct StopFilter {
    stops: Vec<String>,
    /// Text not passed on yet: an unfinished beginning of a stop string.
    held: String,
}

/// What [`StopFilter::push`] came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Filtered {
    /// Text to pass on; there may be more.
    Pass(String),
    /// Text to pass on; a stop string came after it.
    Stop(String),
}

impl StopFilter {
    /// Stop strings must not be empty.
    pub fn new(stops: Vec<String>) -> Self {
        Self {
            stops,
            held: String::new(),
        }
    }

    /// Takes the next piece.
    pub fn push(&mut self, piece: &str) -> Filtered {
        let mut text = std::mem::take(&mut self.held);
        text.push_str(piece);
        if let Some(start) = self.first_stop(&text) {
            text.truncate(start);
            return Filtered::Stop(text);
        }
        let pass = text.len() - self.unfinished(&text);
        self.held = text.split_off(pass);
        Filtered::Pass(text)
    }

    /// What was held back, when no more text comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    fn first_stop(&self, text: &str) -> Option<usize> {
        self.stops
            .iter()
            .filter_map(|stop| {
                text.find(stop.as_str())
                    .map(|start| (start + stop.len(), start))
            })
            .min()
            .map(|(_, start)| start)
    }

    /// Bytes at the end of `text` that some stop string begins with.
    fn unfinished(&self, text: &str) -> usize {
        let longest = |stop: &String| {
            (1..stop.len().min(text.len() + 1))
                .rev()
                .find(|&bytes| text.as_bytes().ends_with(&stop.as_bytes()[..bytes]))
        };
        self.stops.iter().filter_map(longest).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The answer up to the stop, found in the whole text at once.
    fn reference(stops: &[String], text: &str) -> (String, bool) {
        for end in text.char_indices().map(|(i, c)| i + c.len_utf8()) {
            let starts = stops.iter().filter(|s| text[..end].ends_with(s.as_str()));
            if let Some(start) = starts.map(|stop| end - stop.len()).min() {
                return (text[..start].to_owned(), true);
            }
        }
        (text.to_owned(), false)
    }

    proptest! {
        #[test]
        fn any_cut_gives_what_the_whole_text_gives(
            pieces in prop::collection::vec("[abé]{0,4}", 0..12),
            stops in prop::collection::vec("[abé]{1,4}", 0..4),
        ) {
            let (want, stopped) = reference(&stops, &pieces.concat());
            let mut filter = StopFilter::new(stops.clone());
            let mut have = String::new();
            let mut hit = false;
            for piece in &pieces {
                match filter.push(piece) {
                    Filtered::Pass(text) => have.push_str(&text),
                    Filtered::Stop(text) => {
                        have.push_str(&text);
                        hit = true;
                        break;
                    }
                }
                prop_assert!(want.starts_with(&have), "passed on {have:?} of {want:?}");
            }
            if !hit {
                have.push_str(&filter.finish());
            }
            prop_assert_eq!((have, hit), (want, stopped));
        }
    }

    #[test]
    fn only_what_may_become_a_stop_is_held_back() {
        let mut filter = StopFilter::new(vec!["</answer>".into()]);
        assert_eq!(filter.push("a < b </ans"), Filtered::Pass("a < b ".into()));
        assert_eq!(filter.push("wers"), Filtered::Pass("</answers".into()));
        assert_eq!(filter.push("</answer> more"), Filtered::Stop("".into()));
    }
}
