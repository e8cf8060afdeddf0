//! Finds the key in a JSON body while it is still arriving, so that most callers are known long before its end.
//!
//! This is a look ahead and no parser: what it finds is checked once more when the whole body has been read. Only a
//! plain text counts, a member `"key"` of the outermost object without escapes; whatever else a body may be is left to
//! the parser.

/// Longer texts are no keys.
const MAX_KEY: usize = 512;

/// Where in the body the scan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before the first byte that is not white space.
    Start,
    /// Outside of texts.
    Between,
    /// Inside a text.
    Text,
    /// After a backslash in a text.
    Escape,
    /// Nothing more is looked for.
    Done,
}

/// The state of one scan.
#[derive(Debug)]
pub(super) struct KeyScan {
    place: Place,
    /// How many objects and arrays are open.
    depth: u32,
    /// Whether the next text is the value of a member.
    is_value: bool,
    /// Whether that member is `key`.
    of_key: bool,
    /// The text so far, where it matters.
    text: Vec<u8>,
    /// Whether `text` is the text as it stands in the body.
    plain: bool,
}

impl KeyScan {
    pub(super) const fn new() -> Self {
        Self {
            place: Place::Start,
            depth: 0,
            is_value: false,
            of_key: false,
            text: Vec::new(),
            plain: true,
        }
    }

    /// Looks at the next piece; gives the key once, without the white space around it.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Option<String> {
        for byte in piece {
            match (self.place, byte) {
                (Place::Done, _) => return None,
                (Place::Start, b'{') => {
                    self.depth = 1;
                    self.place = Place::Between;
                }
                (Place::Start, byte) if byte.is_ascii_whitespace() => {}
                (Place::Start, _) => self.place = Place::Done,
                (Place::Between, byte) => self.between(*byte),
                (Place::Escape, _) => self.place = Place::Text,
                (Place::Text, b'\\') => {
                    self.plain = false;
                    self.place = Place::Escape;
                }
                (Place::Text, b'"') => {
                    self.place = Place::Between;
                    if let Some(key) = self.end_of_text() {
                        self.place = Place::Done;
                        return Some(key);
                    }
                }
                (Place::Text, byte) => {
                    if self.depth == 1 && self.plain {
                        self.plain = self.text.len() < MAX_KEY;
                        self.text.push(*byte);
                    }
                }
            }
        }
        None
    }

    fn between(&mut self, byte: u8) {
        match byte {
            b'"' => {
                self.place = Place::Text;
                self.text.clear();
                self.plain = true;
            }
            b'{' | b'[' => self.depth = self.depth.saturating_add(1),
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    self.place = Place::Done;
                }
            }
            b':' if self.depth == 1 => self.is_value = true,
            b',' if self.depth == 1 => {
                self.is_value = false;
                self.of_key = false;
            }
            _ => {}
        }
    }

    fn end_of_text(&mut self) -> Option<String> {
        if self.depth != 1 || !self.plain {
            return None;
        }
        if !self.is_value {
            self.of_key = self.text == b"key";
            return None;
        }
        let key = std::str::from_utf8(&self.text).ok()?.trim();
        (self.of_key && !key.is_empty()).then(|| key.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the pieces are, the result is the same.
    fn found(body: &str) -> Option<String> {
        let whole = KeyScan::new().feed(body.as_bytes());
        let mut scan = KeyScan::new();
        let bytewise = body.as_bytes().chunks(1).find_map(|piece| scan.feed(piece));
        assert_eq!(whole, bytewise, "{body}");
        whole
    }

    #[test]
    fn the_key_is_found_wherever_it_stands() {
        for body in [
            r#"{"key":"sk_1"}"#,
            " \r\n{ \"key\" : \" sk_1 \" , ",
            r#"{"prompt":"key","x":{"key":"no"},"y":["key",{"key":"no"}],"key":"sk_1","z":"#,
            r#"{"prompt":"a \"key\":\"no\" b\\","n":1.5,"t":true,"key":"sk_1""#,
        ] {
            assert_eq!(found(body).as_deref(), Some("sk_1"), "{body}");
        }
    }

    #[test]
    fn nothing_else_is_taken_for_a_key() {
        for body in [
            "",
            r#"{"key":"#,
            r#"{"key":""}"#,
            r#"{"key":7,"x":"y"}"#,
            r#"{"key":null,"x":"y"}"#,
            r#"{"k\u0065y":"escaped"}"#,
            r#"{"key":"esc\u0061ped"}"#,
            r#"{"x":"key","y":"z"}"#,
            r#"{"x":{"key":"inner"}}"#,
            r#"[{"key":"array"}]"#,
            r#"{"x":1}{"key":"second"}"#,
            "--B\r\n\"key\":\"multipart\"",
            "key=form",
        ] {
            assert_eq!(found(body), None, "{body}");
        }
        let long = format!("{{\"key\":\"{}\"}}", "x".repeat(10_000));
        assert_eq!(found(&long), None);
    }
}
