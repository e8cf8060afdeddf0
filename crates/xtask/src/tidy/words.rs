//! Words that the glossary has replaced, and the rule that keeps them from coming back.
//!
//! Each was a private name for something that has a name in the field, or one word in two senses. The list is data: to
//! retire a word, add a line; where people have to write it again, the line goes.

use super::Violation;
use super::scan::{Token, tokens};
use crate::tree::Tree;

/// A name that no Rust file below one of the places may have.
pub(super) struct Retired {
    /// An identifier as a whole, or one of its parts when it begins with `~`: `~wish` is found in `good_wish`.
    pub(super) name: &'static str,
    /// Beginnings of paths.
    pub(super) places: &'static [&'static str],
    /// What is written there now.
    pub(super) instead: &'static str,
}

const fn retired(name: &'static str, places: &'static [&'static str], instead: &'static str) -> Retired {
    Retired {
        name,
        places,
        instead,
    }
}

const EVERYWHERE: &[&str] = &["crates/", "tests/", "benches/"];
const KERNELS: &[&str] = &["crates/kernels/", "crates/models/"];
const MODELS: &[&str] = &["crates/models/"];
const PIPELINE: &[&str] = &["crates/pipeline/"];
const ENGINE: &[&str] = &["crates/engine/"];
const SERVICE: &[&str] = &["crates/service/"];
const API: &[&str] = &["crates/api/"];
const LOADER: &[&str] = &["crates/engine/src/pipeline_loader"];
const OUTBOUND: &[&str] = &["crates/outbound/"];

/// The list.
pub(super) const RETIRED: &[Retired] = &[
    // Everywhere: one word, one sense.
    retired(
        "RgbPicture",
        EVERYWHERE,
        "RgbImage; a picture is what a person looks at",
    ),
    retired("GenerationRequest", EVERYWHERE, "Recipe, Inputs and Delivery"),
    retired("GenerationInput", EVERYWHERE, "ResolvedJob"),
    retired("~knock", EVERYWHERE, "admit"),
    retired("~wish", EVERYWHERE, "call or request"),
    retired("~Wish", EVERYWHERE, "call or request"),
    // Kernels and models.
    retired("Around", KERNELS, "ConvFusion: what is fused into a convolution"),
    retired(
        "Finish",
        KERNELS,
        "Epilogue: what is done to a product before it is stored",
    ),
    retired("Mask", KERNELS, "AttnMask"),
    retired("Plan", KERNELS, "ConvAlgorithm"),
    retired("Given", MODELS, "BlockInputs"),
    retired("Rows", MODELS, "RowMap"),
    retired(
        "Step",
        MODELS,
        "Stride; a step is a transition between noise levels",
    ),
    retired("Merge", KERNELS, "TokenMerge"),
    retired(
        "UNetContext",
        EVERYWHERE,
        "CrossAttnKv: projected keys and values of the text",
    ),
    retired("attend_to", MODELS, "project_kv"),
    // Pipeline.
    retired("clean", PIPELINE, "init_latents"),
    retired("drawn", PIPELINE, "noise, or what was drawn"),
    retired("Mask", PIPELINE, "InpaintMask"),
    // Engine and service.
    retired("SharedSource", ENGINE, "SharedCause"),
    retired("Company", ENGINE, "Sharing"),
    retired("AloneOnce", ENGINE, "SoloOnce"),
    retired("Verdict", SERVICE, "Disposition: what happens to the job next"),
    retired("Stage", SERVICE, "Lifecycle"),
    retired("Miss", SERVICE, "AttemptError"),
    retired(
        "Turn",
        LOADER,
        "ReadingTurn; turns are those of jobs on the device",
    ),
    // Edge.
    retired("Miss", API, "the error's own name"),
    retired("Places", API, "Seats, for connections; places are those of jobs"),
    retired(
        "Shares",
        OUTBOUND,
        "HostLimits; shares are those of the device's time",
    ),
];

/// A name of the list is not in any identifier of the code; comments and texts are free.
pub(super) fn retired_names_stay_away(tree: &Tree) -> Vec<Violation> {
    find(tree, RETIRED)
}

fn find(tree: &Tree, list: &[Retired]) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in tree.with_extension("rs") {
        let here: Vec<&Retired> = list
            .iter()
            .filter(|word| word.places.iter().any(|place| file.path.starts_with(place)))
            .collect();
        let Some(text) = file.text().filter(|_| !here.is_empty()) else {
            continue;
        };
        for token in tokens(text).iter().filter(|token| token.is_word()) {
            for word in here.iter().filter(|word| word.names(token)) {
                found.push(Violation::at(
                    &format!("{}:{}", file.path, token.line),
                    format!("`{}` is retired here; write {}", token.text, word.instead),
                ));
            }
        }
    }
    found
}

impl Retired {
    fn names(&self, token: &Token<'_>) -> bool {
        match self.name.strip_prefix('~') {
            Some(part) => parts(token.text).any(|found| found == part),
            None => token.text == self.name,
        }
    }
}

/// `good_wish` is `good` and `wish`, `WishReader` is `Wish` and `Reader`.
fn parts(identifier: &str) -> impl Iterator<Item = &str> {
    identifier.split('_').flat_map(|snake| {
        let mut starts: Vec<usize> = snake
            .char_indices()
            .filter(|(at, c)| *at == 0 || c.is_uppercase())
            .map(|(at, _)| at)
            .collect();
        starts.push(snake.len());
        starts
            .windows(2)
            .map(|ends| &snake[ends[0]..ends[1]])
            .collect::<Vec<_>>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(path: &str, text: &str) -> Tree {
        Tree::of_files(&[(path, text)])
    }

    const LIST: &[Retired] = &[
        retired("Miss", &["crates/service/"], "AttemptError"),
        retired("~wish", &["crates/", "tests/"], "call"),
        retired("~Wish", &["crates/"], "Call"),
    ];

    #[test]
    fn a_whole_name_is_found_in_its_place_only() {
        let found = find(&tree("crates/service/src/a.rs", "//! A.\nenum Miss {}\n"), LIST);
        let expected = Violation::at(
            "crates/service/src/a.rs:2",
            "`Miss` is retired here; write AttemptError",
        );
        assert_eq!(found, [expected]);
        assert_eq!(find(&tree("crates/engine/src/a.rs", "enum Miss {}"), LIST), []);
        for fine in [
            "fn miss() {}",
            "struct MissRate;",
            "// Miss",
            "const A: &str = \"Miss\";",
        ] {
            assert_eq!(find(&tree("crates/service/src/a.rs", fine), LIST), [], "{fine}");
        }
    }

    #[test]
    fn a_part_is_found_between_underscores_and_capitals() {
        for bad in ["good_wish", "wish", "wish_of", "WishReader", "ApiWish"] {
            assert_eq!(find(&tree("crates/api/src/a.rs", bad), LIST).len(), 1, "{bad}");
        }
        for fine in ["wishes", "Wishbone", "swish"] {
            assert_eq!(find(&tree("crates/api/src/a.rs", fine), LIST), [], "{fine}");
        }
    }

    #[test]
    fn every_line_of_the_list_says_where_and_what_instead() {
        for word in RETIRED {
            assert!(!word.name.is_empty() && !word.places.is_empty() && !word.instead.is_empty());
        }
    }
}
