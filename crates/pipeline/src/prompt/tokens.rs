//! A prompt in tokens, and its chunks of 75 as a text encoder takes them: pieces and their weights of `syntax`, embeddings of
//! `triggers`.

use pentimento_models::ClipTokenizer;

use super::syntax::{self, Piece, TooHeavy};
use super::triggers::{Part, Triggers};
use crate::PipelineError;

/// As far back as a comma is looked for, where a chunk is full: A1111's `comma_padding_backtrack`.
const COMMA_REACH: usize = 20;

/// What an embedding is to a prompt: how many places it takes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Embeddings<'a> {
    pub(crate) triggers: Option<&'a Triggers>,
    /// Vectors of each embedding, by its number.
    pub(crate) vectors: &'a [usize],
}

/// One place of a text encoder's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// Of the vocabulary.
    Known(u32),
    /// A vector of an embedding, by the numbers of both.
    Vector(usize, usize),
}

/// As many tokens as the tokenizer's length: begin, up to 75 of the prompt, end, padding.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chunk {
    pub(crate) tokens: Vec<Token>,
    /// What the states of each token are multiplied by.
    pub(crate) weights: Vec<f32>,
}

/// A prompt in tokens of one vocabulary.
#[derive(Clone, Debug)]
pub(crate) struct PromptTokens(Vec<Run>);

#[derive(Clone, Debug)]
enum Run {
    Text {
        ids: Vec<u32>,
        weight: f32,
    },
    /// Its vectors are never torn apart.
    Embedding {
        number: usize,
        vectors: usize,
        weight: f32,
    },
    Break,
}

/// A prompt's chunk while it is filled.
#[derive(Debug)]
struct Filling<'a> {
    tokenizer: &'a ClipTokenizer,
    capacity: usize,
    tokens: Vec<Token>,
    weights: Vec<f32>,
    last_comma: Option<usize>,
    full: Vec<Chunk>,
}

impl PromptTokens {
    /// Reads a prompt. `field` is what an error calls it.
    pub(crate) fn read(
        field: &'static str,
        text: &str,
        tokenizer: &ClipTokenizer,
        embeddings: Embeddings<'_>,
    ) -> Result<Self, PipelineError> {
        let too_heavy = |TooHeavy(weight)| PipelineError::PromptWeight {
            field,
            weight,
            most: syntax::MOST_WEIGHT,
        };
        let mut runs = Vec::new();
        for piece in syntax::pieces(text).map_err(too_heavy)? {
            let Piece::Text { text, weight } = piece else {
                runs.push(Run::Break);
                continue;
            };
            let parts = match embeddings.triggers {
                Some(triggers) => triggers.split(&text),
                None => vec![Part::Text(&text)],
            };
            for part in parts {
                runs.push(match part {
                    Part::Text(text) => Run::Text {
                        ids: tokenizer.tokens(text)?,
                        weight,
                    },
                    Part::Embedding(number) => Run::Embedding {
                        number,
                        vectors: embeddings.vectors.get(number).copied().unwrap_or(0),
                        weight,
                    },
                });
            }
        }
        Ok(Self(runs))
    }

    /// The tokens, and the places that a `BREAK` leaves empty before it.
    pub(crate) fn count(&self, tokenizer: &ClipTokenizer) -> usize {
        let capacity = capacity(tokenizer);
        let (mut closed, mut open) = (0_usize, 0_usize);
        for run in &self.0 {
            match run {
                Run::Text { ids, .. } => open += ids.len(),
                Run::Embedding { vectors, .. } => open += vectors,
                // A chunk with nothing in it takes as much as a full one.
                Run::Break => closed += std::mem::take(&mut open).max(1).next_multiple_of(capacity),
            }
        }
        closed + open
    }

    /// The chunks: at least one, and nothing is cut off. A text without weights that fits into one gives exactly what
    /// [`ClipTokenizer::encode`] does.
    pub(crate) fn chunks(&self, tokenizer: &ClipTokenizer) -> Result<Vec<Chunk>, PipelineError> {
        let comma = tokenizer.tokens(",")?.first().copied();
        let mut filling = Filling::new(tokenizer);
        for run in &self.0 {
            match run {
                Run::Text { ids, weight } => ids.iter().for_each(|id| filling.word(*id, *weight, comma)),
                Run::Embedding {
                    number,
                    vectors,
                    weight,
                } => filling.embedding(*number, *vectors, *weight),
                Run::Break => filling.next(),
            }
        }
        Ok(filling.finish())
    }
}

impl Chunk {
    /// The chunk of an empty text.
    pub(crate) fn empty(tokenizer: &ClipTokenizer) -> Self {
        Self::framed(tokenizer, Vec::new(), Vec::new())
    }

    /// Whether no weight changes anything.
    pub(crate) fn is_plain(&self) -> bool {
        self.weights
            .iter()
            .all(|weight| weight.to_bits() == 1.0_f32.to_bits())
    }

    /// Begin, the tokens, end, padding.
    fn framed(tokenizer: &ClipTokenizer, mut tokens: Vec<Token>, mut weights: Vec<f32>) -> Self {
        let [begin, end, pad] = [tokenizer.begin(), tokenizer.end(), tokenizer.pad()].map(Token::Known);
        tokens.insert(0, begin);
        tokens.push(end);
        tokens.resize(tokenizer.length(), pad);
        weights.insert(0, 1.0);
        weights.resize(tokenizer.length(), 1.0);
        Self { tokens, weights }
    }
}

impl<'a> Filling<'a> {
    fn new(tokenizer: &'a ClipTokenizer) -> Self {
        Self {
            tokenizer,
            capacity: capacity(tokenizer),
            tokens: Vec::new(),
            weights: Vec::new(),
            last_comma: None,
            full: Vec::new(),
        }
    }

    /// What was said after the last comma stays together where that is not much, as in A1111.
    fn word(&mut self, id: u32, weight: f32, comma: Option<u32>) {
        if self.tokens.len() == self.capacity {
            let near = self.last_comma.filter(|at| self.capacity - at <= COMMA_REACH);
            let kept = match near {
                Some(at) if Some(id) != comma => at + 1,
                _ => self.capacity,
            };
            let (tokens, weights) = (self.tokens.split_off(kept), self.weights.split_off(kept));
            self.next();
            (self.tokens, self.weights) = (tokens, weights);
        }
        if Some(id) == comma {
            self.last_comma = Some(self.tokens.len());
        }
        self.tokens.push(Token::Known(id));
        self.weights.push(weight);
    }

    fn embedding(&mut self, number: usize, vectors: usize, weight: f32) {
        if self.tokens.len() + vectors > self.capacity {
            self.next();
        }
        // One that is longer than a chunk was refused when it was read.
        let rows = 0..vectors.min(self.capacity);
        self.weights.resize(self.tokens.len() + rows.len(), weight);
        self.tokens.extend(rows.map(|row| Token::Vector(number, row)));
    }

    fn next(&mut self) {
        let (tokens, weights) = (
            std::mem::take(&mut self.tokens),
            std::mem::take(&mut self.weights),
        );
        self.full.push(Chunk::framed(self.tokenizer, tokens, weights));
        self.last_comma = None;
    }

    fn finish(mut self) -> Vec<Chunk> {
        if !self.tokens.is_empty() || self.full.is_empty() {
            self.next();
        }
        self.full
    }
}

/// Tokens of a prompt in one chunk: 75.
fn capacity(tokenizer: &ClipTokenizer) -> usize {
    tokenizer.length() - 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::TOKENIZER;

    /// The chunks' own tokens: an id, or `<embedding>.<row>`; a weight behind it where it is not 1.
    fn chunks(text: &str, embeddings: Embeddings<'_>) -> Vec<Vec<String>> {
        let tokens = PromptTokens::read("prompt", text, &TOKENIZER, embeddings).unwrap();
        let shown = |(token, weight): (&Token, &f32)| {
            let token = match token {
                Token::Known(id) => id.to_string(),
                Token::Vector(number, row) => format!("{number}.{row}"),
            };
            if weight.to_bits() == 1.0_f32.to_bits() {
                token
            } else {
                format!("{token}@{weight}")
            }
        };
        let inside = |chunk: Chunk| {
            assert_eq!((chunk.tokens.len(), chunk.weights.len()), (77, 77));
            assert_eq!(chunk.tokens[0], Token::Known(TOKENIZER.begin()));
            let end = Token::Known(TOKENIZER.end());
            let end = chunk.tokens.iter().rposition(|token| *token != end).unwrap_or(0) + 1;
            chunk.tokens[1..end]
                .iter()
                .zip(&chunk.weights[1..end])
                .map(shown)
                .collect()
        };
        tokens
            .chunks(&TOKENIZER)
            .unwrap()
            .into_iter()
            .map(inside)
            .collect()
    }

    fn count(text: &str) -> usize {
        let tokens = PromptTokens::read("prompt", text, &TOKENIZER, Embeddings::default());
        tokens.unwrap().count(&TOKENIZER)
    }

    fn lengths(text: &str) -> Vec<usize> {
        chunks(text, Embeddings::default()).iter().map(Vec::len).collect()
    }

    #[test]
    fn plain_text_that_fits_is_what_the_tokenizer_encodes() {
        for text in ["", "a photo of a cat", "a 16:9 picture, don't", r"a \(b\) C:\d"] {
            let tokens = PromptTokens::read("prompt", text, &TOKENIZER, Embeddings::default()).unwrap();
            let chunks = tokens.chunks(&TOKENIZER).unwrap();
            let plain = text.replace(r"\(", "(").replace(r"\)", ")");
            let expected: Vec<Token> = TOKENIZER
                .encode(&plain)
                .unwrap()
                .into_iter()
                .map(Token::Known)
                .collect();
            assert_eq!(chunks.len(), 1);
            assert_eq!(chunks[0].tokens, expected, "{text}");
            assert!(chunks[0].is_plain());
        }
        assert_eq!(
            PromptTokens::read("prompt", "", &TOKENIZER, Embeddings::default())
                .unwrap()
                .chunks(&TOKENIZER)
                .unwrap(),
            [Chunk::empty(&TOKENIZER)]
        );
    }

    #[test]
    fn chunks_end_where_they_are_full_and_at_breaks() {
        let boats = |count: usize| "boat ".repeat(count);
        for (text, expected, counted) in [
            (boats(75), vec![75], 75),
            (boats(76), vec![75, 1], 76),
            (format!("{}BREAK", boats(75)), vec![75], 75),
            (format!("{}BREAK boat", boats(75)), vec![75, 1], 76),
            ("boat BREAK boat".to_owned(), vec![1, 1], 76),
            ("BREAK boat".to_owned(), vec![0, 1], 76),
            ("boat BREAK BREAK".to_owned(), vec![1, 0], 150),
            // What follows a comma that is near moves on with the comma left behind.
            (format!("{}, {}", boats(60), boats(20)), vec![61, 20], 81),
            (format!("{}, {}", boats(54), boats(30)), vec![75, 10], 85),
            (format!("{}, {}", boats(55), boats(30)), vec![56, 30], 86),
            (format!("{}, boat", boats(75)), vec![75, 2], 77),
        ] {
            assert_eq!((lengths(&text), count(&text)), (expected, counted), "{text}");
        }
    }

    #[test]
    fn embeddings_stand_for_their_vectors_and_stay_whole() {
        let triggers = Triggers::new([("easynegative", 0), ("<x>", 1)]);
        let embeddings = Embeddings {
            triggers: Some(&triggers),
            vectors: &[3, 40],
        };
        let [boat] = TOKENIZER.tokens("boat").unwrap()[..] else {
            panic!("boat is one token")
        };
        let found = chunks("boat (EasyNegative:1.5)boat", embeddings);
        assert_eq!(
            found,
            [vec![
                boat.to_string(),
                "0.0@1.5".to_owned(),
                "0.1@1.5".to_owned(),
                "0.2@1.5".to_owned(),
                boat.to_string(),
            ]]
        );
        let found = chunks("<x><x>", embeddings);
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [40, 40]);
        assert_eq!((found[1][0].as_str(), found[1][39].as_str()), ("1.0", "1.39"));
        let tokens = PromptTokens::read("prompt", "<x> boat", &TOKENIZER, embeddings).unwrap();
        assert_eq!(tokens.count(&TOKENIZER), 41);
    }

    #[test]
    fn a_weight_that_is_refused_names_its_field() {
        let refused = PromptTokens::read("negative_prompt", "(a:5000)", &TOKENIZER, Embeddings::default());
        assert_eq!(
            refused.unwrap_err().to_string(),
            "negative_prompt has a weight of 5000, and at most 1000 is taken; a bracket that is a letter is written \\("
        );
    }
}
