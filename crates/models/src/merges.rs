//! The merges of a BPE tokenizer, as every `merges.txt` has them.

use crate::ModelError;

/// `#version` line, then one pair of pieces a line. `file` is what errors call it.
pub(crate) fn parse_merges(file: &'static str, bytes: &[u8]) -> Result<Vec<(String, String)>, ModelError> {
    let text = std::str::from_utf8(bytes).map_err(|e| bad(file, &e))?;
    text.lines()
        .filter(|line| !line.starts_with("#version") && !line.is_empty())
        .map(|line| match line.split_once(' ') {
            Some((left, right)) if !left.is_empty() && !right.is_empty() => {
                Ok((left.to_owned(), right.to_owned()))
            }
            _ => Err(bad(
                file,
                &format!(
                    "`{}` is not a pair",
                    line.escape_debug().take(60).collect::<String>()
                ),
            )),
        })
        .collect()
}

/// What is wrong with a tokenizer's file.
pub(crate) fn bad(file: &'static str, detail: &dyn std::fmt::Display) -> ModelError {
    ModelError::TokenizerFile {
        file,
        detail: detail.to_string(),
    }
}
