//! Where token merging is used (Bolya and Hoffman, "Token Merging for Fast Stable Diffusion", 2023): in which images of
//! the recipes that ask for it.

use crate::{Recipe, Size};

/// From how many tokens of the UNet's outermost level on tokens are merged: for smaller pictures it does not pay, as
/// measured in `docs/adr/0005-token-merging.md`.
///
/// It is a number and nothing that a machine finds out for itself, because merging changes the picture, and a picture
/// depends on its request only.
pub const MERGED_FROM: u64 = 48 * 48;

/// Pixels on a side of a token, in every checkpoint of Stable Diffusion.
const TOKEN: u32 = 8;

impl Recipe {
    /// Whether the tokens of a picture of this size are merged: asked for, and the picture is large enough.
    #[must_use]
    pub const fn merges_tokens(&self, size: Size) -> bool {
        let tokens = size.padded_to(TOKEN).pixels() / (TOKEN as u64 * TOKEN as u64);
        self.token_merging && tokens >= MERGED_FROM
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(token_merging: bool) -> Recipe {
        Recipe {
            token_merging,
            ..Recipe::sample()
        }
    }

    #[test]
    fn only_what_was_asked_for_and_is_large_enough_is_merged() {
        // A line of so many tokens, each begun with its first pixel.
        let line = |tokens: u64| Size {
            width: u32::try_from(tokens).unwrap() * TOKEN - (TOKEN - 1),
            height: 1,
        };
        assert!(recipe(true).merges_tokens(line(MERGED_FROM)));
        assert!(!recipe(true).merges_tokens(line(MERGED_FROM - 1)));
        assert!(!recipe(false).merges_tokens(line(MERGED_FROM)));
    }
}
