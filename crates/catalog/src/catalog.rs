//! All models that a request can name, and the one rule by which a name finds its entry.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use pentimento_types::{ModelId, read_regular};

use crate::nearest::nearest;
use crate::parse::{Located, parse};
use crate::settle::settle;
use crate::{BaseModel, CatalogError, EntryFault, ModelEntry, ModelKind, Source};

/// The endings that callers write or leave out at will.
const EXTENSIONS: &[&str] = &[".safetensors", ".ckpt", ".pt"];
/// The most bytes of a `models.toml`, enough for tens of thousands of entries.
const LARGEST_FILE: u64 = 16 << 20;
/// How much of a caller's wrong name is repeated in an error.
const LONGEST_SHOWN: usize = 80;

/// The checked content of one `models.toml`.
///
/// Names and aliases of one kind are unique even without their endings, so a name has at most one meaning, and the
/// order "exactly, then without ending, then by alias" can never pick the wrong entry.
#[derive(Clone, Debug)]
pub struct Catalog {
    entries: Vec<Arc<ModelEntry>>,
    by_stem: HashMap<(ModelKind, String), usize>,
}

impl Catalog {
    /// Reads and checks a `models.toml`. Whether the files of its `path` sources exist is not looked at here;
    /// see [`ModelEntry::availability`].
    ///
    /// # Errors
    /// [`CatalogError::Unreadable`], or [`CatalogError::Invalid`] with every fault found.
    pub fn load(path: &Path) -> Result<Self, CatalogError> {
        let unreadable = |source| CatalogError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let bytes = read_regular(path, LARGEST_FILE).map_err(|fault| unreadable(fault.into()))?;
        let text = String::from_utf8(bytes).map_err(|error| unreadable(std::io::Error::other(error)))?;
        Self::from_text(&text, path)
    }

    /// The same from text; `path` names the file in messages, and its folder is where relative sources start.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`].
    pub fn from_text(text: &str, path: &Path) -> Result<Self, CatalogError> {
        let folder = path.parent().unwrap_or(Path::new(""));
        parse(text, folder)
            .and_then(Self::from_located)
            .map_err(|faults| CatalogError::Invalid {
                path: path.to_owned(),
                faults,
            })
    }

    /// What the server offers without any file: the demo model that is compiled in.
    #[must_use]
    pub fn embedded_only() -> Self {
        let source = Source::Embedded("demo".to_owned());
        let demo = ModelEntry {
            base: Some(BaseModel::Sd15),
            role: Some(ModelEntry::ROLE_LCM.to_owned()),
            ..ModelEntry::new("demo", ModelKind::Checkpoint, source)
        };
        let by_stem = HashMap::from([((ModelKind::Checkpoint, "demo".to_owned()), 0)]);
        Self {
            entries: vec![Arc::new(demo)],
            by_stem,
        }
    }

    /// All entries, in the order of the file.
    #[must_use]
    pub fn entries(&self) -> &[Arc<ModelEntry>] {
        &self.entries
    }

    /// The entry that a caller's name means. Compares text only; nothing is looked up on disk.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`] with the nearest names of that kind.
    pub fn resolve(&self, name: &ModelId, kind: ModelKind) -> Result<Arc<ModelEntry>, CatalogError> {
        let key = (kind, stem(name.as_str()).to_owned());
        if let Some(index) = self.by_stem.get(&key) {
            return Ok(Arc::clone(&self.entries[*index]));
        }
        let names = self
            .entries
            .iter()
            .filter(|entry| entry.kind == kind)
            .flat_map(|entry| std::iter::once(&entry.name).chain(&entry.aliases))
            .map(String::as_str);
        Err(CatalogError::NotFound {
            kind,
            name: shown(name.as_str()),
            nearest: nearest(stem(name.as_str()), names),
        })
    }

    fn from_located(mut located: Vec<Located>) -> Result<Self, Vec<EntryFault>> {
        let mut by_stem: HashMap<(ModelKind, String), usize> = HashMap::new();
        let mut faults = Vec::new();
        for (index, Located { entry, line }) in located.iter().enumerate() {
            for name in std::iter::once(&entry.name).chain(&entry.aliases) {
                let key = (entry.kind, stem(name).to_owned());
                match by_stem.get(&key) {
                    None => {
                        by_stem.insert(key, index);
                    }
                    // An entry may list its own name with another ending.
                    Some(other) if *other == index => {}
                    Some(other) => faults.push(EntryFault {
                        line: *line,
                        entry: Some(entry.name.clone()),
                        problem: format!(
                            "the {} name `{name}` is already taken by `{}` on line {} (endings do not count); \
                             give one of the two another name",
                            entry.kind, located[*other].entry.name, located[*other].line
                        ),
                    }),
                }
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        settle(&mut located, |kind, name| {
            by_stem.get(&(kind, stem(name).to_owned())).copied()
        })?;
        let entries = located
            .into_iter()
            .map(|located| Arc::new(located.entry))
            .collect();
        Ok(Self { entries, by_stem })
    }
}

/// A name without one of the known endings.
fn stem(name: &str) -> &str {
    EXTENSIONS
        .iter()
        .find_map(|ending| {
            let cut = name.len().checked_sub(ending.len())?;
            let (stem, found) = name.split_at_checked(cut)?;
            (!stem.is_empty() && found.eq_ignore_ascii_case(ending)).then_some(stem)
        })
        .unwrap_or(name)
}

/// A caller's text made safe to repeat: short, and without characters that move a cursor.
fn shown(name: &str) -> String {
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut text: String = name.chars().take(LONGEST_SHOWN).map(clean).collect();
    if name.chars().nth(LONGEST_SHOWN).is_some() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests;
