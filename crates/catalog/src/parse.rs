//! Reads the text of `models.toml` into entries, and reports every fault with its line, the model's name and the way out.

use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::{BaseModel, EntryFault, ModelEntry, ModelKind, Source};

const KEYS: &[&str] = &["name", "aliases", "kind", "source", "sha256", "base", "role"];
/// Longer names are refused here, so that a caller's name never needs to be.
const LONGEST_NAME: usize = 256;

/// An entry with the line it starts on, for messages that compare entries.
pub(crate) struct Located {
    pub(crate) entry: ModelEntry,
    pub(crate) line: usize,
}

/// All entries in file order, or every fault that was found.
pub(crate) fn parse(text: &str, folder: &Path) -> Result<Vec<Located>, Vec<EntryFault>> {
    let lines = Lines::new(text);
    let table = DeTable::parse(text).map_err(|error| {
        vec![EntryFault {
            line: error.span().map_or(1, |span| lines.of(&span)),
            entry: None,
            problem: format!("this is not TOML: {}", error.message()),
        }]
    })?;
    let mut faults = Vec::new();
    let mut entries = Vec::new();
    for (key, value) in table.get_ref() {
        if key.get_ref() != "model" {
            faults.push(EntryFault {
                line: lines.of(&key.span()),
                entry: None,
                problem: format!(
                    "`{}` means nothing here; the file holds only [[model]] tables",
                    key.get_ref()
                ),
            });
            continue;
        }
        let DeValue::Array(models) = value.get_ref() else {
            faults.push(EntryFault {
                line: lines.of(&value.span()),
                entry: None,
                problem: "write [[model]] with two brackets, once per model".to_owned(),
            });
            continue;
        };
        for model in models {
            let mut reader = EntryReader::new(&lines, model);
            if let DeValue::Table(table) = model.get_ref() {
                let entry = reader.read(table, folder);
                let line = reader.line;
                entries.extend(entry.map(|entry| Located { entry, line }));
            } else {
                reader.fault(&model.span(), "write a [[model]] table here".to_owned());
            }
            faults.append(&mut reader.faults);
        }
    }
    if faults.is_empty() {
        Ok(entries)
    } else {
        faults.sort_by_key(|fault| fault.line);
        Err(faults)
    }
}

/// Byte offsets to line numbers.
struct Lines {
    starts: Vec<usize>,
}

impl Lines {
    fn new(text: &str) -> Self {
        let breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            starts: std::iter::once(0).chain(breaks).collect(),
        }
    }

    fn of(&self, span: &Range<usize>) -> usize {
        self.starts.partition_point(|start| *start <= span.start)
    }
}

struct EntryReader<'a> {
    lines: &'a Lines,
    line: usize,
    span: Range<usize>,
    name: Option<String>,
    faults: Vec<EntryFault>,
}

impl<'a> EntryReader<'a> {
    fn new(lines: &'a Lines, model: &Spanned<DeValue<'_>>) -> Self {
        Self {
            lines,
            line: lines.of(&model.span()),
            span: model.span(),
            name: None,
            faults: Vec::new(),
        }
    }

    fn fault(&mut self, span: &Range<usize>, problem: String) {
        self.faults.push(EntryFault {
            line: self.lines.of(span),
            entry: self.name.clone(),
            problem,
        });
    }

    fn read(&mut self, table: &DeTable<'_>, folder: &Path) -> Option<ModelEntry> {
        // The name first, so that every other message can say it.
        let name = self.required_text(table, "name");
        self.name = name.as_ref().map(|name| name.0.clone());
        if let Some((name, span)) = &name {
            self.check_name(name, span, "name");
        }
        for key in table.keys() {
            if !KEYS.contains(&&**key.get_ref()) {
                let near = crate::nearest::nearest(key.get_ref(), KEYS.iter().copied());
                let hint = near.first().map_or_else(
                    || format!("the keys are {}", KEYS.join(", ")),
                    |near| format!("did you mean `{near}`?"),
                );
                self.fault(&key.span(), format!("unknown key `{}`; {hint}", key.get_ref()));
            }
        }
        let aliases = self.aliases(table, name.as_ref().map(|name| name.0.as_str()));
        let words: Vec<&str> = ModelKind::ALL.iter().map(|kind| kind.as_str()).collect();
        let kind = self.required_text(table, "kind");
        let kind = self.choice(kind, ("kind", &words), ModelKind::parse);
        let source = self.required_text(table, "source").and_then(|(text, span)| {
            Source::parse(&text, folder)
                .map_err(|problem| self.fault(&span, problem))
                .ok()
        });
        let words: Vec<&str> = BaseModel::ALL.iter().map(|base| base.as_str()).collect();
        let base = self.text(table, "base");
        let base = self.choice(base, ("base", &words), BaseModel::parse);
        let role = self.text(table, "role");
        let role = self.choice(role, ("role", &[ModelEntry::ROLE_LCM]), |word| {
            (word == ModelEntry::ROLE_LCM).then(|| word.to_owned())
        });
        let sha256 = self.sha256(table, source.as_ref());
        Some(ModelEntry {
            pinned: false,
            keep_alive: None,
            name: name?.0,
            aliases,
            kind: kind?,
            source: source?,
            sha256,
            base,
            role,
        })
    }

    /// The text under `key`; a fault when it is of another type.
    fn text(&mut self, table: &DeTable<'_>, key: &str) -> Option<(String, Range<usize>)> {
        let value = table.get(key)?;
        if let DeValue::String(text) = value.get_ref() {
            return Some((text.clone().into_owned(), value.span()));
        }
        self.fault(
            &value.span(),
            format!("`{key}` must be a text in quotation marks"),
        );
        None
    }

    fn required_text(&mut self, table: &DeTable<'_>, key: &str) -> Option<(String, Range<usize>)> {
        if table.get(key).is_none() {
            let span = self.span.clone();
            self.fault(&span, format!("`{key}` is missing; add {key} = \"…\""));
        }
        self.text(table, key)
    }

    fn choice<T>(
        &mut self,
        value: Option<(String, Range<usize>)>,
        (key, words): (&str, &[&str]),
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let (word, span) = value?;
        let found = parse(&word);
        if found.is_none() {
            self.fault(
                &span,
                format!("`{word}` is no {key}; write one of {}", words.join(", ")),
            );
        }
        found
    }

    fn check_name(&mut self, name: &str, span: &Range<usize>, what: &str) {
        let problem = if name.trim() != name || name.is_empty() {
            "must not be empty nor begin or end with a space"
        } else if name.len() > LONGEST_NAME {
            "must not be longer than 256 bytes"
        } else if name.chars().any(char::is_control) {
            "must not contain control characters"
        } else {
            return;
        };
        self.fault(span, format!("a {what} {problem}"));
    }

    fn aliases(&mut self, table: &DeTable<'_>, name: Option<&str>) -> Vec<String> {
        let Some(value) = table.get("aliases") else {
            return Vec::new();
        };
        let wrong = "`aliases` must be a list of texts, like [\"one\", \"two\"]";
        let DeValue::Array(values) = value.get_ref() else {
            self.fault(&value.span(), wrong.to_owned());
            return Vec::new();
        };
        let mut aliases: Vec<String> = Vec::new();
        for value in values {
            let DeValue::String(alias) = value.get_ref() else {
                self.fault(&value.span(), wrong.to_owned());
                continue;
            };
            let alias = alias.clone().into_owned();
            self.check_name(&alias, &value.span(), "alias");
            if aliases.contains(&alias) || name == Some(alias.as_str()) {
                let problem = format!("the alias `{alias}` is there already; remove one of the two");
                self.fault(&value.span(), problem);
                continue;
            }
            aliases.push(alias);
        }
        aliases
    }

    fn sha256(&mut self, table: &DeTable<'_>, source: Option<&Source>) -> Option<String> {
        let value = self.text(table, "sha256");
        let Some((digits, span)) = value else {
            if matches!(source, Some(Source::Https(_))) && table.get("sha256").is_none() {
                let span = table.get("source").map_or(self.span.clone(), Spanned::span);
                let problem = "an https source needs its sha256; add sha256 = \"…\" (64 hexadecimal digits)";
                self.fault(&span, problem.to_owned());
            }
            return None;
        };
        if digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Some(digits.to_ascii_lowercase());
        }
        self.fault(
            &span,
            "`sha256` must be 64 hexadecimal digits, as `sha256sum FILE` prints them".to_owned(),
        );
        None
    }
}
