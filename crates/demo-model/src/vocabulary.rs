//! CLIP's vocabulary, derived from its merges: the 256 byte letters, the same at a word's end, one token per merge, and two
//! special tokens, numbered in this order.

use std::fmt::Write as _;

/// `vocab.json` of the given `merges.txt`.
pub(crate) fn json_of(merges: &str) -> String {
    let letters = || byte_letters().map(String::from);
    let ends = || byte_letters().map(|letter| format!("{letter}</w>"));
    let joined = merges
        .lines()
        .filter(|line| !line.starts_with("#version"))
        .filter_map(|line| {
            let (left, right) = line.split_once(' ')?;
            Some(format!("{left}{right}"))
        });
    let special = ["<|startoftext|>", "<|endoftext|>"].map(String::from);

    let mut json = String::from("{");
    for (id, token) in letters().chain(ends()).chain(joined).chain(special).enumerate() {
        let comma = if id == 0 { "" } else { "," };
        // Tokens hold no control characters: bytes that are not printable have letters of their own.
        let token = token.replace('\\', r"\\").replace('"', "\\\"");
        // Writing to a string cannot fail.
        let _ = write!(json, r#"{comma}"{token}":{id}"#);
    }
    json.push('}');
    json
}

/// The letter that stands for each byte, printable bytes first, as byte-level BPE orders them.
fn byte_letters() -> impl Iterator<Item = char> {
    let printable = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ');
    let others = (0..68).filter_map(|n| char::from_u32(256 + n));
    printable.chain(others)
}
