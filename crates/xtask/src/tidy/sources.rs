//! Rules on single source files: their first line, their name, their length, and words that belong elsewhere.

use super::Violation;
use crate::tree::{SourceFile, Tree};

/// Lines that a file aims at; only what is far above is mentioned, because length is a choice.
pub(super) const AIM_LINES: usize = 300;
const MENTIONED_LINES: usize = 450;

/// Kinds of files in which a person writes code.
const CODE: &[&str] = &[
    "rs", "py", "sh", "toml", "yml", "yaml", "js", "mjs", "css", "html",
];

/// Names that say nothing, so that anything ends up in them.
const EMPTY_NAMES: &[&str] = &[
    "utils", "util", "helpers", "helper", "common", "misc", "manager", "stuff", "tools",
];

/// A word, where it may stand, and why only there.
struct Fence {
    word: &'static str,
    /// The part of the repository that the fence is about; empty for all of it.
    within: &'static str,
    allowed: &'static [&'static str],
    reason: &'static str,
}

// The words are put together here so that this file does not hold them.
const FENCES: &[Fence] = &[
    Fence {
        word: concat!("feature = \"", "cuda\""),
        within: "",
        allowed: &["crates/gpu/", "crates/engine/src/device.rs"],
        reason: "everything else must type-check and behave the same without a GPU",
    },
    Fence {
        word: concat!("(unsafe", "_code"),
        within: "",
        allowed: &[
            "crates/kernels/",
            "crates/gpu/",
            // An attribute that names a symbol, and a call of the allocator without arguments.
            "crates/cli/src/allocator.rs",
            "crates/cli/src/purge.rs",
        ],
        reason: "unsafe code lives in kernels, in gpu and at the allocator",
    },
    Fence {
        word: "pentimento_kernels",
        within: "crates/models/src/",
        allowed: &[
            "crates/models/src/layers/",
            // What fails in a layer is the source of what fails in a network.
            "crates/models/src/error.rs",
        ],
        reason: "a network is made of `models::layers`, where a layer can be patched by name or built for a device",
    },
    Fence {
        word: "candle_",
        within: "crates/models/src/",
        allowed: &[
            // The small networks around, which are always on the CPU.
            "crates/models/src/keras_file.rs",
            "crates/models/src/mobilenet_v2/",
            "crates/models/src/gpt2/",
            "crates/models/src/upscalers/",
        ],
        reason: "candle's tensors are those of main memory, and a network's may be on another device",
    },
];

fn is_code(file: &SourceFile) -> bool {
    CODE.contains(&file.extension()) || file.path == ".ci/run"
}

/// A reader should learn from line one whether this is the right file.
pub(super) fn module_docs(tree: &Tree) -> Vec<Violation> {
    tree.with_extension("rs")
        .filter(|file| !file.bytes.starts_with(b"//!"))
        .map(|file| Violation::at(&file.path, "begin with `//!` and what the file is for"))
        .collect()
}

/// A note without an issue is never found again.
pub(super) fn open_ends_name_an_issue(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|file| is_code(file)) {
        for (index, line) in file.text().unwrap_or_default().lines().enumerate() {
            if [concat!("TO", "DO"), concat!("FIX", "ME")]
                .iter()
                .any(|word| has_bare_word(line, word))
            {
                let at = format!("{}:{}", file.path, index + 1);
                found.push(Violation::at(
                    &at,
                    concat!("write it as `TO", "DO(#123)` with the issue's number"),
                ));
            }
        }
    }
    found
}

/// Whether the line has the word without `(#number)` behind it.
fn has_bare_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let part_of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + word.len()..).unwrap_or_default();
        let stands_alone =
            !before.is_some_and(part_of_a_name) && !after.chars().next().is_some_and(part_of_a_name);
        stands_alone && !has_issue_number(after)
    })
}

fn has_issue_number(after: &str) -> bool {
    after
        .strip_prefix("(#")
        .and_then(|rest| rest.split_once(')'))
        .is_some_and(|(number, _)| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
}

/// A file is named after its main type or its use case.
pub(super) fn telling_names(tree: &Tree) -> Vec<Violation> {
    let says_nothing = |file: &&SourceFile| {
        let stem = |part: &str| part.split('.').next().unwrap_or_default().to_ascii_lowercase();
        file.path
            .split('/')
            .any(|part| EMPTY_NAMES.contains(&stem(part).as_str()))
    };
    tree.files
        .iter()
        .filter(|file| is_code(file))
        .filter(says_nothing)
        .map(|file| Violation::at(&file.path, "name it after what is inside"))
        .collect()
}

/// Words that may stand in a few places only.
pub(super) fn fenced_words(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in tree.with_extension("rs") {
        for fence in FENCES {
            let applies = file.path.starts_with(fence.within)
                && !fence.allowed.iter().any(|place| file.path.starts_with(place));
            if applies && file.text().is_some_and(|text| text.contains(fence.word)) {
                found.push(Violation::at(
                    &file.path,
                    format!("`{}`: {}", fence.word, fence.reason),
                ));
            }
        }
    }
    found
}

/// The Rust files far above the aim, longest first.
pub(super) fn long_files(tree: &Tree) -> Vec<(String, usize)> {
    let mut long: Vec<(String, usize)> = tree
        .with_extension("rs")
        .map(|file| {
            (
                file.path.clone(),
                file.bytes.iter().filter(|byte| **byte == b'\n').count(),
            )
        })
        .filter(|(_, lines)| *lines > MENTIONED_LINES)
        .collect();
    long.sort_by_key(|(_, lines)| std::cmp::Reverse(*lines));
    long
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(path: &str, text: &str) -> Tree {
        Tree::of_files(&[(path, text)])
    }

    #[test]
    fn a_file_without_its_purpose_is_found() {
        assert_eq!(module_docs(&tree("a/b.rs", "use x;\n//! late\n")).len(), 1);
        assert_eq!(module_docs(&tree("a/b.rs", "//! What for.\n")), []);
        assert_eq!(module_docs(&tree("a/b.py", "import x\n")), []);
    }

    #[test]
    fn an_open_end_needs_a_number() {
        let word = concat!("TO", "DO");
        for bad in [
            format!("// {word}: later"),
            format!("# {word}(me)"),
            format!("{word}(#)"),
        ] {
            assert_eq!(open_ends_name_an_issue(&tree("a.rs", &bad)).len(), 1, "{bad}");
        }
        for good in [
            format!("// {word}(#12): later"),
            format!("let MY_{word}S = 1;"),
            "todo!".to_owned(),
        ] {
            assert_eq!(open_ends_name_an_issue(&tree("a.rs", &good)), [], "{good}");
        }
        assert_eq!(open_ends_name_an_issue(&tree("a.md", word)), []);
    }

    #[test]
    fn names_that_say_nothing_are_found() {
        for bad in [
            "crates/a/src/utils.rs",
            "crates/a/src/helpers/x.rs",
            "scripts/common.py",
        ] {
            assert_eq!(telling_names(&tree(bad, "")).len(), 1, "{bad}");
        }
        assert_eq!(telling_names(&tree("crates/a/src/common_sense.rs", "")), []);
    }

    #[test]
    fn fenced_words_are_found_outside_their_fence() {
        let text = concat!("#[cfg(feature = \"", "cuda\")]");
        assert_eq!(fenced_words(&tree("crates/api/src/a.rs", text)).len(), 1);
        assert_eq!(fenced_words(&tree("crates/engine/src/device.rs", text)), []);
        let text = concat!("#![expect(unsafe", "_code, reason = \"\")]");
        assert_eq!(fenced_words(&tree("crates/weights/src/lib.rs", text)).len(), 1);
        let text = "use pentimento_kernels::Linear;";
        assert_eq!(
            fenced_words(&tree("crates/models/src/unet/mod.rs", text)).len(),
            1
        );
        for fine in [
            "crates/models/src/layers/linear.rs",
            "crates/models/tests/a.rs",
            "crates/cli/src/config.rs",
        ] {
            assert_eq!(fenced_words(&tree(fine, text)), [], "{fine}");
        }
    }

    #[test]
    fn long_files_are_mentioned_longest_first() {
        let mut tree = tree("a.rs", &"x\n".repeat(500));
        tree.files.push(SourceFile {
            path: "b.rs".to_owned(),
            bytes: "x\n".repeat(600).into(),
        });
        assert_eq!(
            long_files(&tree),
            [("b.rs".to_owned(), 600), ("a.rs".to_owned(), 500)]
        );
    }
}
