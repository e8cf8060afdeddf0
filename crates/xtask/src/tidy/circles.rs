//! The rule that files of one crate do not use each other in a circle, and the circles that stand until they are untied.
//!
//! Two files that need each other are one thing cut in the wrong place: neither can be read, tested or moved alone.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use super::modules::Modules;
use crate::tree::Tree;

/// A circle that stands for now: the crate, and its files below `src`.
pub(super) struct Standing(&'static str, &'static [&'static str]);

/// This list may only get shorter. A circle that is larger than its entry is a violation, and an entry that is larger than
/// its circle is mentioned until somebody shortens it.
pub(super) const STANDING: &[Standing] = &[Standing("engine", &["device_thread/mod.rs", "handle.rs"])];

/// Files of one crate that use each other in a circle, but for those that stand.
pub(super) fn files_use_each_other_one_way(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for package in &tree.packages {
        for circle in circles(tree, &package.folder) {
            let stands = STANDING
                .iter()
                .any(|Standing(name, files)| *name == package.folder && circle.is_within(files));
            if !stands {
                found.push(Violation::at(
                    &format!("crates/{}/src", package.folder),
                    format!(
                        "files use each other in a circle: {}; move what both need into a file that uses neither",
                        circle.shown()
                    ),
                ));
            }
        }
    }
    found
}

/// What of the list is no longer needed.
pub(super) fn untied(tree: &Tree) -> Vec<String> {
    let mut notes = Vec::new();
    for Standing(name, files) in STANDING {
        let circles = circles(tree, name);
        let needed: BTreeSet<&str> = circles
            .iter()
            .flat_map(|circle| circle.files.iter().map(String::as_str))
            .collect();
        let idle: Vec<&str> = files
            .iter()
            .copied()
            .filter(|file| !needed.contains(file))
            .collect();
        if !idle.is_empty() {
            notes.push(format!(
                "crates/{name}/src: {} no longer in a circle; take it out of STANDING in {}",
                idle.join(", "),
                file!()
            ));
        }
    }
    notes
}

/// Files that all reach each other, and the shortest way round from the first of them.
#[derive(Debug, PartialEq, Eq)]
struct Circle {
    files: BTreeSet<String>,
    round: Vec<String>,
}

impl Circle {
    fn is_within(&self, files: &[&str]) -> bool {
        self.files.iter().all(|file| files.contains(&file.as_str()))
    }

    fn shown(&self) -> String {
        let round = self.round.join(" → ");
        let others: Vec<&str> = self
            .files
            .iter()
            .filter(|file| !self.round.contains(file))
            .map(String::as_str)
            .collect();
        if others.is_empty() {
            round
        } else {
            format!("{round} (and through them {})", others.join(", "))
        }
    }
}

fn circles(tree: &Tree, folder: &str) -> Vec<Circle> {
    let modules = Modules::of_crate(tree, folder);
    let source = format!("crates/{folder}/src/");
    let short = |path: &str| path.strip_prefix(&source).unwrap_or(path).to_owned();
    let uses: BTreeMap<String, BTreeSet<String>> = modules
        .uses()
        .into_iter()
        .map(|(file, used)| (short(file), used.into_iter().map(short).collect()))
        .collect();
    let reached: BTreeMap<&str, BTreeSet<&str>> = uses
        .keys()
        .map(|file| (file.as_str(), reach(&uses, file)))
        .collect();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut found = Vec::new();
    for (file, there) in &reached {
        if !there.contains(file) || !seen.insert(file) {
            continue;
        }
        let files: BTreeSet<String> = there
            .iter()
            .filter(|other| reached.get(*other).is_some_and(|back| back.contains(file)))
            .map(|other| (*other).to_owned())
            .collect();
        seen.extend(there.iter().filter(|other| files.contains(**other)));
        let round = shortest_round(&uses, file);
        found.push(Circle { files, round });
    }
    found
}

/// Every file that can be reached from one, itself only by a way round.
fn reach<'a>(uses: &'a BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<&'a str> {
    let mut found: BTreeSet<&str> = BTreeSet::new();
    let mut open: Vec<&str> = vec![from];
    while let Some(file) = open.pop() {
        for next in uses.get(file).into_iter().flatten() {
            if found.insert(next) {
                open.push(next);
            }
        }
    }
    found
}

/// A shortest way from a file back to itself, with both ends named.
fn shortest_round(uses: &BTreeMap<String, BTreeSet<String>>, file: &str) -> Vec<String> {
    let mut ways: Vec<Vec<&str>> = vec![vec![file]];
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in &ways {
            let last = way.last().copied().unwrap_or(file);
            for next in uses.get(last).into_iter().flatten() {
                let mut longer_way = way.clone();
                longer_way.push(next);
                if next == file {
                    return longer_way.into_iter().map(str::to_owned).collect();
                }
                if seen.insert(next) {
                    longer.push(longer_way);
                }
            }
        }
        ways = longer;
    }
    vec![file.to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::SourceFile;

    /// The circles of a crate `a` with these files.
    fn found(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let tree = Tree {
            files: files
                .iter()
                .map(|(path, text)| SourceFile {
                    path: format!("crates/a/src/{path}"),
                    bytes: (*text).into(),
                })
                .collect(),
            packages: Vec::new(),
        };
        circles(&tree, "a")
            .into_iter()
            .map(|circle| circle.round)
            .collect()
    }

    const ROOT: (&str, &str) = ("lib.rs", "mod b; mod c; mod d; pub use c::C;");

    #[test]
    fn two_files_that_name_each_other_are_a_circle() {
        let c = ("c.rs", "pub struct C; fn x() { crate::b::b() }");
        for b in [
            "use crate::c::C; pub fn b() {}",
            "use super::c::{self, C as D}; pub fn b() {}",
            "use super::{c::{C}}; pub fn b() {}",
            "pub fn b() { super::c::C }",
            "use crate::c; pub fn b() { c::C }",
            "use crate::c::*; pub fn b() {}",
            // By the name that the root hands on.
            "use crate::C; pub fn b() {}",
            "mod inside { use super::super::c::C; } pub fn b() {}",
        ] {
            assert_eq!(found(&[ROOT, ("b.rs", b), c]), [["b.rs", "c.rs", "b.rs"]], "{b}");
        }
    }

    #[test]
    fn one_way_is_no_circle() {
        let c = ("c.rs", "use crate::b::b; pub struct C;");
        for b in [
            "pub fn b() {}",
            // Test code, comments and texts.
            "pub fn b() {} #[cfg(test)] mod tests { use crate::c::C; }",
            "pub fn b() {} // crate::c::C",
            "pub fn b() { \"crate::c::C\" }",
            // A name of another crate, and one of the file's own.
            "use std::c::C; pub fn b() {}",
            "enum c { C } pub fn b() { c::C }",
            // Handed on only.
            "pub fn b() {} pub(crate) use crate::c::C;",
        ] {
            assert_eq!(found(&[ROOT, ("b.rs", b), c]), Vec::<Vec<String>>::new(), "{b}");
        }
    }

    #[test]
    fn a_folder_is_one_thing_but_its_parent_reaches_what_its_files_use() {
        let inner = ("b/inner.rs", "use super::Shared; pub fn go() {}");
        let parent = ("b.rs", "mod inner; struct Shared; pub fn b() { inner::go() }");
        assert_eq!(
            found(&[("lib.rs", "mod b;"), inner, parent]),
            Vec::<Vec<String>>::new()
        );
        // A file of the folder that uses a file outside which uses the folder.
        let inner = ("b/inner.rs", "pub fn go() { crate::c::c() }");
        let outside = ("c.rs", "pub fn c() { crate::b::b() }");
        assert_eq!(
            found(&[ROOT, inner, parent, outside]),
            [["b.rs", "b/inner.rs", "c.rs", "b.rs"]]
        );
    }

    #[test]
    fn a_module_of_tests_is_left_out() {
        let root = ("lib.rs", "mod b; #[cfg(test)] mod tests;");
        let files = [
            root,
            ("b.rs", "fn b() {}"),
            ("tests/mod.rs", "mod x; fn t() { x::x() }"),
            ("tests/x.rs", "use super::t; pub fn x() {}"),
        ];
        assert_eq!(found(&files), Vec::<Vec<String>>::new());
    }

    #[test]
    fn a_longer_circle_is_shown_with_what_hangs_on_it() {
        let files = [
            ROOT,
            ("b.rs", "use crate::c::C; pub fn b() {}"),
            ("c.rs", "use crate::b::b; use crate::d::d; pub struct C;"),
            ("d.rs", "use crate::b::b; pub fn d() {}"),
        ];
        let tree_circles = found(&files);
        assert_eq!(tree_circles, [["b.rs", "c.rs", "b.rs"]]);
    }
}
