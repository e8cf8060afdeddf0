//! Reads the text of `models.toml` into entries, and reports every fault with its line, the model's name and the way out.

mod entry_reader;
mod extras;
mod values;

use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use self::entry_reader::EntryReader;
use crate::{EntryFault, ModelEntry};

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
                let line = lines.of(&model.span());
                let entry = reader.read(table, folder);
                entries.extend(entry.map(|entry| Located { entry, line }));
            } else {
                reader.fault(&model.span(), "write a [[model]] table here".to_owned());
            }
            faults.append(&mut reader.into_faults());
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
