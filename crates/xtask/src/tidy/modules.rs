//! Which file of a crate uses names of which other file, read from its paths.
//!
//! A file uses another when a path in its code, in a `use` or not, leads to an item that is written there. Handing a name
//! on with `pub use` is no use of it, and a path to a re-exported name leads to where the item is written. What a file
//! takes from the modules around it does not count: a folder is one thing, and its `mod.rs` may hold what its files share.
//! Nor does test code: a test may look at everything.

use std::collections::{BTreeMap, BTreeSet};

use super::scan::{Token, tokens, without_tests};
use crate::tree::Tree;

/// A module's path from the crate's root: empty for the root itself.
type ModulePath = Vec<String>;

/// One file: what it defines, what it brings in, and every path in it.
#[derive(Debug, Default)]
struct Module {
    file: String,
    defined: BTreeSet<String>,
    imports: Vec<Import>,
    paths: Vec<UsedPath>,
}

#[derive(Clone, Debug)]
struct Import {
    path: Vec<String>,
    /// `*` for everything.
    name: String,
    /// Whether the file does more with it than to hand it on.
    used: bool,
    inline: Vec<String>,
}

#[derive(Debug)]
struct UsedPath {
    path: Vec<String>,
    /// Modules written inside the file, around this place.
    inline: Vec<String>,
}

/// The modules of one crate.
#[derive(Debug)]
pub(super) struct Modules(BTreeMap<ModulePath, Module>);

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Module(ModulePath),
    /// An item, by the module in which it is written.
    Item(ModulePath),
}

impl Modules {
    /// Those of the crate in a folder below `crates/`, without the ones that only tests compile.
    pub(super) fn of_crate(tree: &Tree, folder: &str) -> Self {
        let source = format!("crates/{folder}/src/");
        let mut all = BTreeMap::new();
        for file in tree.with_extension("rs") {
            let Some(inside) = file.path.strip_prefix(&source) else {
                continue;
            };
            let all_tokens = tokens(file.text().unwrap_or_default());
            let kept = without_tests(&all_tokens);
            all.insert(
                module_path(inside),
                (Module::read(file.path.clone(), &kept), declared(&kept)),
            );
        }
        let compiled: Vec<ModulePath> = all
            .keys()
            .filter(|path| {
                (0..path.len()).all(|depth| {
                    all.get(&path[..depth])
                        .is_none_or(|(_, declared)| declared.contains(&path[depth]))
                })
            })
            .cloned()
            .collect();
        let modules = compiled
            .into_iter()
            .filter_map(|path| all.remove(&path).map(|(module, _)| (path, module)))
            .collect();
        Self(modules)
    }

    /// For each file the files that it uses; a file that uses none is left out.
    pub(super) fn uses(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (here, module) in &self.0 {
            let imports = module
                .imports
                .iter()
                .filter(|import| import.used)
                .map(|import| (&import.path, &import.inline));
            let paths = module.paths.iter().map(|used| (&used.path, &used.inline));
            for (path, inline) in imports.chain(paths) {
                let from: ModulePath = here.iter().chain(inline).cloned().collect();
                if let Some(Target::Item(there)) = self.resolve(&from, path, 0)
                    && !here.starts_with(&there)
                    && let Some(other) = self.0.get(&there)
                {
                    edges.entry(&module.file).or_default().insert(&other.file);
                }
            }
        }
        edges
    }

    /// Follows a path from a module; nothing when it leads out of the crate.
    fn resolve(&self, from: &[String], path: &[String], depth: usize) -> Option<Target> {
        let (first, mut rest) = path.split_first()?;
        let mut target = match first.as_str() {
            "crate" => Target::Module(Vec::new()),
            "self" => Target::Module(from.to_vec()),
            "super" => Target::Module(from.get(..from.len().checked_sub(1)?)?.to_vec()),
            name => self.lookup(from, name, depth)?,
        };
        while let (Target::Module(module), Some((next, after))) = (&target, rest.split_first()) {
            rest = after;
            target = match next.as_str() {
                "super" => Target::Module(module.get(..module.len().checked_sub(1)?)?.to_vec()),
                "self" => Target::Module(module.clone()),
                // Everything of a module: at least what is written in it.
                "*" => Target::Item(self.file_of(module)?),
                // A name that is not seen to be written is made by a macro there.
                name => match self.lookup(module, name, depth) {
                    Some(found) => found,
                    None if self.brings_in(module, name) => return None,
                    None => Target::Item(self.file_of(module)?),
                },
            };
        }
        Some(target)
    }

    /// A name as seen inside a module.
    fn lookup(&self, module: &[String], name: &str, depth: usize) -> Option<Target> {
        // Re-exports may lead in a circle too.
        if depth > 16 {
            return None;
        }
        let child: ModulePath = module.iter().cloned().chain([name.to_owned()]).collect();
        if self.0.contains_key(&child) {
            return Some(Target::Module(child));
        }
        let file = self.file_of(module)?;
        let here = self.0.get(&file)?;
        if here.defined.contains(name) {
            return Some(Target::Item(file));
        }
        let from = |import: &Import| -> ModulePath { file.iter().chain(&import.inline).cloned().collect() };
        if let Some(import) = here
            .imports
            .iter()
            .find(|import| import.name == name && import.path.first().is_none_or(|first| first != name))
        {
            return self.resolve(&from(import), &import.path, depth + 1);
        }
        here.imports
            .iter()
            .filter(|import| import.name == "*")
            .find_map(|import| {
                let (_, path) = import.path.split_last()?;
                match self.resolve(&from(import), path, depth + 1)? {
                    Target::Module(there) if there != module => self.lookup(&there, name, depth + 1),
                    Target::Module(_) | Target::Item(_) => None,
                }
            })
    }

    /// Whether a module has the name from elsewhere.
    fn brings_in(&self, module: &[String], name: &str) -> bool {
        self.file_of(module)
            .and_then(|file| self.0.get(&file))
            .is_some_and(|here| here.imports.iter().any(|import| import.name == name))
    }

    /// The module that has a file of its own: this one, or the one around it.
    fn file_of(&self, module: &[String]) -> Option<ModulePath> {
        (0..=module.len())
            .rev()
            .map(|length| &module[..length])
            .find(|path| self.0.contains_key(*path))
            .map(<[String]>::to_vec)
    }
}

/// `a/b.rs` and `a/b/mod.rs` are `a::b`; `lib.rs` and `main.rs` are the root.
fn module_path(inside: &str) -> ModulePath {
    let mut parts: Vec<String> = inside
        .trim_end_matches(".rs")
        .split('/')
        .map(str::to_owned)
        .collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

/// The names behind `mod` that end with a semicolon.
fn declared(tokens: &[Token<'_>]) -> BTreeSet<String> {
    tokens
        .windows(3)
        .filter(|three| three[0].text == "mod" && three[2].text == ";")
        .map(|three| three[1].text.to_owned())
        .collect()
}

impl Module {
    fn read(file: String, tokens: &[Token<'_>]) -> Self {
        const ITEMS: [&str; 9] = [
            "fn",
            "struct",
            "enum",
            "trait",
            "type",
            "const",
            "static",
            "union",
            "macro_rules",
        ];
        let mut module = Self {
            file,
            ..Self::default()
        };
        // Modules written inside the file: their name, and the depth of braces that ends them.
        let mut inline: Vec<(String, usize)> = Vec::new();
        let mut depth = 0_usize;
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            let text = |ahead: usize| tokens.get(at + ahead).map_or("", |token| token.text);
            let around = || inline.iter().map(|(name, _)| name.clone()).collect();
            match token.text {
                "{" => depth += 1,
                "}" => {
                    depth = depth.saturating_sub(1);
                    inline.retain(|(_, outside)| *outside < depth);
                }
                "mod" if text(2) == "{" => inline.push((text(1).to_owned(), depth)),
                "use" if !matches!(text(1), "<" | ">" | ",") => {
                    let end = (at..tokens.len())
                        .find(|end| tokens[*end].text == ";")
                        .unwrap_or(tokens.len());
                    let handed_on = at > 0 && matches!(tokens[at - 1].text, "pub" | ")");
                    let mut imports = Vec::new();
                    read_tree(&tokens[at + 1..end], &[], &mut imports);
                    for (path, name) in imports {
                        let mentioned = || {
                            tokens[..at]
                                .iter()
                                .chain(&tokens[end..])
                                .any(|token| token.text == name)
                        };
                        module.imports.push(Import {
                            used: !handed_on || mentioned(),
                            inline: around(),
                            path,
                            name,
                        });
                    }
                    at = end;
                    continue;
                }
                word if ITEMS.contains(&word) => {
                    let name = if text(1) == "!" { text(2) } else { text(1) };
                    // What is written at the outside of the file or of an inline module, not inside a function.
                    if inline.last().map_or(0, |(_, outside)| outside + 1) == depth {
                        module.defined.insert(name.to_owned());
                    }
                }
                _ if token.is_word() && text(1) == "::" && (at == 0 || tokens[at - 1].text != "::") => {
                    let mut path = vec![token.text.to_owned()];
                    while text(path.len() * 2 - 1) == "::"
                        && tokens.get(at + path.len() * 2).is_some_and(Token::is_word)
                    {
                        path.push(text(path.len() * 2).to_owned());
                    }
                    module.paths.push(UsedPath {
                        path,
                        inline: around(),
                    });
                }
                _ => {}
            }
            at += 1;
        }
        module
    }
}

/// The paths of one `use`, each with the name under which it is known.
fn read_tree(tokens: &[Token<'_>], before: &[String], found: &mut Vec<(Vec<String>, String)>) {
    let mut path = before.to_vec();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match token.text {
            "{" => {
                for part in split_at_commas(&tokens[at + 1..]) {
                    read_tree(part, &path, found);
                }
                return;
            }
            "as" => {
                let name = tokens.get(at + 1).map_or("_", |token| token.text);
                found.push((path, name.to_owned()));
                return;
            }
            "::" => {}
            word => path.push(word.to_owned()),
        }
        at += 1;
    }
    // `use a::b::{self}` names `b`.
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    if let Some(name) = path
        .last()
        .filter(|_| path.len() > before.len() || !before.is_empty())
    {
        let name = name.clone();
        found.push((path, name));
    }
}

/// The parts of a list in braces, to its closing brace.
fn split_at_commas<'t, 'a>(tokens: &'t [Token<'a>]) -> Vec<&'t [Token<'a>]> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_usize, 0);
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "{" => depth += 1,
            "}" if depth == 0 => {
                parts.push(&tokens[start..at]);
                break;
            }
            "}" => depth -= 1,
            "," if depth == 0 => {
                parts.push(&tokens[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}
