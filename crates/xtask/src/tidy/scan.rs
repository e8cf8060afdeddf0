//! Rust source as tokens: enough to find names and paths, with comments, texts and test code left out.
//!
//! It is no parser. It never fails: what it does not understand it passes over, because a rule that stops on new syntax
//! would hold up people who did nothing wrong.

/// An identifier, `::`, or one other character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) text: &'a str,
    /// From 1.
    pub(super) line: usize,
}

impl Token<'_> {
    /// Whether it is a word: an identifier or a keyword.
    pub(super) fn is_word(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

/// All tokens of a file, without comments, texts, numbers and lifetimes.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let length = length_of_next(rest, first);
        let (this, after) = rest.split_at(length);
        let is_word = first.is_alphabetic() || first == '_';
        if (is_word && !this.contains(['"', '\''])) || is_punctuation(this) {
            // `r#type` is the word `type`.
            let text = this.strip_prefix("r#").unwrap_or(this);
            found.push(Token { text, line });
        }
        line += this.bytes().filter(|byte| *byte == b'\n').count();
        rest = after;
    }
    found
}

fn is_punctuation(text: &str) -> bool {
    text == "::" || (text.len() == 1 && text.bytes().all(|byte| byte.is_ascii_punctuation()))
}

/// Bytes of the comment, text, word, number or character at the beginning.
fn length_of_next(rest: &str, first: char) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    if rest.starts_with("::") {
        return 2;
    }
    if first == '"' {
        return quoted(rest, 0);
    }
    if first == '\'' {
        return character_or_lifetime(rest);
    }
    if first.is_alphanumeric() || first == '_' {
        let word = word_length(rest);
        return match &rest[..word] {
            "r" | "br" | "cr" => raw_text(rest, word).unwrap_or_else(|| raw_word(rest, word)),
            "b" | "c" if rest[word..].starts_with('"') => quoted(rest, word),
            "b" if rest[word..].starts_with('\'') => word + character_or_lifetime(&rest[word..]),
            _ => word,
        };
    }
    first.len_utf8()
}

fn word_length(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len())
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        if here.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// A text whose quote stands at `start`, to behind its end.
fn quoted(rest: &str, start: usize) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(start + 1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// `r"…"` or `r#"…"#`, whose prefix has `prefix` bytes.
fn raw_text(rest: &str, prefix: usize) -> Option<usize> {
    let after = &rest[prefix..];
    let hashes = after.bytes().take_while(|byte| *byte == b'#').count();
    let body = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = body.find(&end).map_or(body.len(), |at| at + end.len());
    Some(prefix + hashes + 1 + length)
}

fn raw_word(rest: &str, prefix: usize) -> usize {
    match rest[prefix..].strip_prefix('#') {
        Some(word) => prefix + 1 + word_length(word),
        None => prefix,
    }
}

/// `'x'`, `'\n'`, or `'lifetime`.
fn character_or_lifetime(rest: &str) -> usize {
    let mut characters = rest.char_indices().skip(1);
    let Some((_, first)) = characters.next() else {
        return rest.len();
    };
    if first == '\\' {
        // Behind the escaped character, which may be a quote.
        let end = rest.get(3..).and_then(|after| after.find('\''));
        return end.map_or(rest.len(), |at| at + 4);
    }
    match characters.next() {
        Some((at, '\'')) => at + 1,
        _ => 1 + word_length(&rest[1..]),
    }
}

/// The tokens that are compiled into the program: without every item that stands below `#[cfg(test)]`.
pub(super) fn without_tests<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    const GATE: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let here = &tokens[at..];
        let gated = here.len() > GATE.len() && here.iter().zip(GATE).all(|(token, word)| token.text == word);
        if gated {
            at += GATE.len() + item_length(&here[GATE.len()..]);
        } else {
            kept.push(tokens[at]);
            at += 1;
        }
    }
    kept
}

/// Tokens up to the end of the item at the beginning: its `;`, its closing brace, or for a field its comma.
fn item_length(tokens: &[Token<'_>]) -> usize {
    let mut depth = 0_usize;
    let mut is_use = false;
    let is_field = {
        let words: Vec<&str> = tokens.iter().map(|token| token.text).take(6).collect();
        matches!(
            words.as_slice(),
            [_, ":", ..] | ["pub", _, ":", ..] | ["pub", "(", _, ")", _, ":", ..]
        )
    };
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "use" if depth == 0 => is_use = true,
            "(" | "[" | "{" => depth += 1,
            // The end of what the field stands in.
            ")" | "]" | "}" if depth == 0 => return at,
            ")" | "]" => depth -= 1,
            "}" => {
                depth -= 1;
                if depth == 0 && !is_use && !is_field {
                    return at + 1;
                }
            }
            ";" if depth == 0 => return at + 1,
            "," if depth == 0 && is_field => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        tokens(text).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_texts_numbers_and_lifetimes_are_left_out() {
        let text = "a /* b /* c */ d */ // e\n'f' '\\'' '\\u{1}' 'g: \"h \\\" i\" r#\"j \" k\"# b\"l\" br\"m\" r#n 12_u8 ö";
        assert_eq!(words(text), ["a", ":", "n", "ö"]);
        assert_eq!(
            words("crate::a::{b, c}"),
            ["crate", "::", "a", "::", "{", "b", ",", "c", "}"]
        );
    }

    #[test]
    fn lines_are_counted_through_texts_and_comments() {
        let found = tokens("a\n\"\n\n\" /*\n*/ b");
        let lines: Vec<usize> = found.iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 5]);
    }

    #[test]
    fn what_has_no_end_ends_with_the_file() {
        for text in ["\"a", "/* a", "r#\"a", "'", "'\\", "b'", "r#"] {
            assert!(!words(text).contains(&"a"), "{text}");
        }
    }

    #[test]
    fn test_code_is_left_out_and_the_rest_kept() {
        let kept = |text| {
            let all = tokens(text);
            let kept = without_tests(&all);
            kept.into_iter()
                .filter(Token::is_word)
                .map(|token| token.text)
                .collect::<Vec<_>>()
        };
        assert_eq!(kept("#[cfg(test)] mod tests { fn x() { } } after"), ["after"]);
        assert_eq!(kept("#[cfg(test)] mod tests; after"), ["after"]);
        assert_eq!(kept("#[cfg(test)] use a::{b, c}; after"), ["after"]);
        assert_eq!(
            kept("#[cfg(test)] #[expect(x)] fn f<A, B>(a: [u8; 3]) {} after"),
            ["after"]
        );
        assert_eq!(
            kept("struct S { #[cfg(test)] pub(crate) a: X<u8>, b: Y }"),
            ["struct", "S", "b", "Y"]
        );
        assert_eq!(
            kept("struct S { #[cfg(test)] a: X } after"),
            ["struct", "S", "after"]
        );
        assert_eq!(kept("#[cfg(feature)] mod a;"), ["cfg", "feature", "mod", "a"]);
    }
}
