//! A1111's writing of weights: a text becomes pieces, each with the weight that all brackets around it make.
//!
//! `(word)` is 1.1 times as strong, `[word]` 1.1 times weaker, `(word:1.3)` 1.3 times as strong, and nested ones multiply;
//! `\(` is a plain letter, and `BREAK` begins a new chunk. As `modules/prompt_parser.py` of AUTOMATIC1111's web UI reads it,
//! `parse_prompt_attention`, with two differences: a lone backslash stays a letter, as it is for diffusers, and `BREAK` is
//! read inside brackets, too. Time and memory grow with the text, whatever its brackets.

use std::iter::Peekable;
use std::str::CharIndices;

/// The strongest weight that is taken, either way. Beyond it nothing but noise would come out, and at some point no number.
pub(crate) const MOST_WEIGHT: f32 = 1000.0;

/// A pair of plain round brackets.
const ROUND: f64 = 1.1;
/// A pair of square brackets.
const SQUARE: f64 = 1.0 / 1.1;

/// A part of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Piece {
    /// Words of one weight. No two of the same weight follow each other.
    Text {
        /// Without the brackets and backslashes of the writing.
        text: String,
        /// 1 where nothing is said.
        weight: f32,
    },
    /// What follows begins a new chunk.
    Break,
}

/// A weight beyond [`MOST_WEIGHT`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TooHeavy(pub(crate) f64);

/// What the text is written with, in order.
#[derive(Debug)]
enum Mark {
    /// A part of the letters.
    Letters {
        start: usize,
        end: usize,
    },
    Open(Bracket, f64),
    Close(Bracket),
    Break,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bracket {
    Round,
    Square,
}

/// The pieces of a text; none for an empty one.
///
/// # Errors
/// [`TooHeavy`].
pub(crate) fn pieces(text: &str) -> Result<Vec<Piece>, TooHeavy> {
    Reader::new(text).read().into_pieces()
}

/// A text on its way to marks.
struct Reader<'a> {
    text: &'a str,
    rest: Peekable<CharIndices<'a>>,
    /// All letters that are no part of the writing.
    letters: String,
    marks: Vec<Mark>,
    /// The marks of brackets that are open.
    open_round: Vec<usize>,
    open_square: Vec<usize>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            rest: text.char_indices().peekable(),
            letters: String::with_capacity(text.len()),
            marks: Vec::new(),
            open_round: Vec::new(),
            open_square: Vec::new(),
        }
    }

    fn read(mut self) -> Self {
        while let Some((at, letter)) = self.rest.next() {
            match letter {
                '\\' => self.escape(),
                '(' => self.open(Bracket::Round),
                '[' => self.open(Bracket::Square),
                ')' => self.close(Bracket::Round, ROUND, letter),
                ']' => self.close(Bracket::Square, SQUARE, letter),
                ':' => self.colon(at),
                _ => self.words(at),
            }
        }
        // Brackets that nobody closes reach to the end.
        self
    }

    /// A letter that would mean something without the backslash before it.
    fn escape(&mut self) {
        let next = self.rest.next_if(|(_, next)| "()[]\\".contains(*next));
        self.push(next.map_or('\\', |(_, letter)| letter));
    }

    fn open(&mut self, bracket: Bracket) {
        let (open, weight) = match bracket {
            Bracket::Round => (&mut self.open_round, ROUND),
            Bracket::Square => (&mut self.open_square, SQUARE),
        };
        open.push(self.marks.len());
        self.marks.push(Mark::Open(bracket, weight));
    }

    /// The end of what stands in brackets, or a plain letter where none is open.
    fn close(&mut self, bracket: Bracket, weight: f64, letter: char) {
        let open = match bracket {
            Bracket::Round => &mut self.open_round,
            Bracket::Square => &mut self.open_square,
        };
        let Some(opened) = open.pop() else {
            return self.push(letter);
        };
        self.marks[opened] = Mark::Open(bracket, weight);
        self.marks.push(Mark::Close(bracket));
    }

    /// `:1.3)` at the end of round brackets, or a plain letter.
    fn colon(&mut self, at: usize) {
        let weight = weight_at(&self.text[at + 1..]).filter(|_| !self.open_round.is_empty());
        let Some((weight, length)) = weight else {
            return self.push(':');
        };
        let end = at + 1 + length;
        while self.rest.next_if(|(place, _)| *place < end).is_some() {}
        self.close(Bracket::Round, weight, ')');
    }

    /// Everything up to the next letter that may mean something.
    fn words(&mut self, start: usize) {
        while self
            .rest
            .next_if(|(_, next)| !"\\()[]:".contains(*next))
            .is_some()
        {}
        let end = self.rest.peek().map_or(self.text.len(), |(at, _)| *at);
        let mut words = &self.text[start..end];
        while let Some((before, after)) = split_at_break(words) {
            self.push_all(before.trim_end());
            self.marks.push(Mark::Break);
            words = after.trim_start();
        }
        self.push_all(words);
    }

    fn push(&mut self, letter: char) {
        self.push_all(letter.encode_utf8(&mut [0; 4]));
    }

    fn push_all(&mut self, letters: &str) {
        if letters.is_empty() {
            return;
        }
        let start = self.letters.len();
        self.letters.push_str(letters);
        let end = self.letters.len();
        match self.marks.last_mut() {
            Some(Mark::Letters { end: last, .. }) => *last = end,
            _ => self.marks.push(Mark::Letters { start, end }),
        }
    }

    fn into_pieces(self) -> Result<Vec<Piece>, TooHeavy> {
        // The products of the brackets that are open. Round and square ones may overlap, but each kind is nested in itself.
        let mut products = [vec![1.0], vec![1.0]];
        let mut pieces: Vec<Piece> = Vec::new();
        for mark in self.marks {
            match mark {
                Mark::Open(bracket, weight) => {
                    let open = &mut products[bracket as usize];
                    open.push(top(open) * weight);
                }
                Mark::Close(bracket) => {
                    products[bracket as usize].pop();
                }
                Mark::Break => pieces.push(Piece::Break),
                Mark::Letters { start, end } => {
                    let letters = &self.letters[start..end];
                    let weight = taken(products.iter().map(|open| top(open)).product())?;
                    match pieces.last_mut() {
                        Some(Piece::Text { text, weight: last }) if last.to_bits() == weight.to_bits() => {
                            text.push_str(letters);
                        }
                        _ => pieces.push(Piece::Text {
                            text: letters.to_owned(),
                            weight,
                        }),
                    }
                }
            }
        }
        Ok(pieces)
    }
}

fn top(products: &[f64]) -> f64 {
    products.last().copied().unwrap_or(1.0)
}

#[expect(clippy::cast_possible_truncation, reason = "the states are f32")]
fn taken(weight: f64) -> Result<f32, TooHeavy> {
    // Not a number is beyond everything.
    if weight.abs() <= f64::from(MOST_WEIGHT) {
        Ok(weight as f32)
    } else {
        Err(TooHeavy(weight))
    }
}

/// The number of `1.3)`, and the bytes up to the bracket and with it.
fn weight_at(text: &str) -> Option<(f64, usize)> {
    let number = text.trim_start();
    let sign = usize::from(number.starts_with(['+', '-']));
    let digits = number[sign..].find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, rest) = number.split_at(sign + digits);
    let after = rest.trim_start().strip_prefix(')')?;
    Some((number.parse().ok()?, text.len() - after.len()))
}

/// What stands before and after the first `BREAK` that is a word of its own.
fn split_at_break(words: &str) -> Option<(&str, &str)> {
    const BREAK: &str = "BREAK";
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    let alone = |at: &usize| {
        let (before, after) = (&words[..*at], &words[at + BREAK.len()..]);
        !before.ends_with(in_word) && !after.starts_with(in_word)
    };
    let at = words.match_indices(BREAK).map(|(at, _)| at).find(alone)?;
    Some((&words[..at], &words[at + BREAK.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `text@weight`, and `|` for a break.
    fn read(text: &str) -> Vec<String> {
        let shown = |piece: &Piece| match piece {
            Piece::Text { text, weight } => format!("{text}@{weight:.4}"),
            Piece::Break => "|".to_owned(),
        };
        pieces(text).unwrap().iter().map(shown).collect()
    }

    #[test]
    fn brackets_weigh_as_in_a1111() {
        for (text, expected) in [
            ("normal text", &["normal text@1.0000"][..]),
            (
                "an (important) word",
                &["an @1.0000", "important@1.1000", " word@1.0000"],
            ),
            ("(unbalanced", &["unbalanced@1.1000"]),
            (r"\(literal\]", &["(literal]@1.0000"]),
            ("(unnecessary)(parens)", &["unnecessaryparens@1.1000"]),
            (
                "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
                &[
                    "a @1.0000",
                    "house@1.5730",
                    " @1.1000",
                    "on@1.0000",
                    " a @1.1000",
                    "hill@0.5500",
                    ", sun, @1.1000",
                    "sky@1.4641",
                    ".@1.1000",
                ],
            ),
            ("[a] b", &["a@0.9091", " b@1.0000"]),
            ("(a[b)c]", &["a@1.1000", "b@1.0000", "c@0.9091"]),
            ("(word : -1.5 )", &["word @-1.5000"]),
            ("(word:+.5)", &["word@0.5000"]),
            ("x) y] (z", &["x) y] @1.0000", "z@1.1000"]),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_weight_is_text() {
        for (text, expected) in [
            ("", &[][..]),
            ("()", &[]),
            ("a 16:9 picture", &["a 16:9 picture@1.0000"]),
            ("at 12:30) there", &["at 12:30) there@1.0000"]),
            ("(time: noon)", &["time: noon@1.1000"]),
            ("(word:)", &["word:@1.1000"]),
            ("(word:1.2.3)", &["word:1.2.3@1.1000"]),
            ("(word:.)", &["word:.@1.1000"]),
            ("(word:1e3)", &["word:1e3@1.1000"]),
            ("(word:1.2", &["word:1.2@1.1000"]),
            (r"C:\path \\ \", &[r"C:\path \ \@1.0000"]),
            ("smile :) (b)", &["smile :) @1.0000", "b@1.1000"]),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn the_word_in_capitals_breaks() {
        for (text, expected) in [
            ("a BREAK b", &["a@1.0000", "|", "b@1.0000"][..]),
            ("BREAK", &["|"]),
            ("a,BREAK,b", &["a,@1.0000", "|", ",b@1.0000"]),
            ("a\nBREAK  BREAK b", &["a@1.0000", "|", "|", "b@1.0000"]),
            ("(a BREAK b:1.5)", &["a@1.5000", "|", "b@1.5000"]),
            (
                "break BREAKFAST NO_BREAK ÄBREAK",
                &["break BREAKFAST NO_BREAK ÄBREAK@1.0000"],
            ),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn a_weight_that_is_no_use_is_refused() {
        assert_eq!(read("(a:1000)"), ["a@1000.0000"]);
        assert!(pieces("(a:-1000.5)").is_err());
        assert!(pieces(&format!("(a:{})", "9".repeat(400))).is_err());
        assert!(pieces(&"(".repeat(100_000)).unwrap().is_empty());
        assert!(pieces(&format!("{}a", "(".repeat(100_000))).is_err());
        // Infinity times zero is no number.
        let text = format!(
            "(({}a{}:{})",
            "[".repeat(10_000),
            "]".repeat(10_000),
            "9".repeat(400)
        );
        assert!(pieces(&text).is_err());
    }

    #[test]
    fn hostile_texts_take_linear_time() {
        // A quadratic reader would need minutes here; the test's own time limit catches it.
        const MANY: usize = 200_000;
        for text in [
            format!("{}a{}", "(".repeat(MANY), ")".repeat(MANY)),
            format!("{}a{}", "([".repeat(MANY), "])".repeat(MANY)),
            "(a)".repeat(MANY),
            "(a:".repeat(MANY),
            ": 1".repeat(MANY),
            format!("{}:{}", "(".repeat(500), "1".repeat(MANY)),
            "\\".repeat(MANY),
            "[a](b:0)".repeat(MANY),
            "BREAKBREAK ".repeat(MANY),
            format!("(:{})", " ".repeat(MANY)),
        ] {
            let _ = pieces(&text);
        }
    }
}
