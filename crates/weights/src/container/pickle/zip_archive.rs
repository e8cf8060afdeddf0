//! The container of PyTorch 1.6 and later: a zip archive with `<name>/data.pkl` and one uncompressed entry
//! `<name>/data/<key>` for each storage.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{BufReader, Read, Seek};

use zip::{CompressionMethod, ZipArchive};

use super::error::PickleProblem;
use super::reader::PickleReader;
use super::value::Arena;
use super::{Content, StoredBytes, machine};

/// More entries than the largest checkpoint has tensors.
const MAX_ENTRIES: usize = 200_000;

pub(super) fn read<R: Read + Seek>(file: R) -> Result<Content, PickleProblem> {
    let broken = |error| PickleProblem::Container(format!("it is not a whole zip archive: {error}"));
    let mut archive = ZipArchive::new(file).map_err(broken)?;
    if archive.len() > MAX_ENTRIES {
        return Err(PickleProblem::TooMany { limit: MAX_ENTRIES });
    }
    let names: Vec<String> = archive
        .file_names()
        .filter_map(|name| name.ok().map(Cow::into_owned))
        .collect();
    let pickle = names
        .iter()
        .find(|name| *name == "data.pkl" || name.ends_with("/data.pkl"));
    let Some(pickle) = pickle else {
        let detail = "it is a zip archive without `data.pkl`, so nothing that `torch.save` writes";
        return Err(PickleProblem::Container(detail.to_owned()));
    };
    let prefix = pickle.strip_suffix("data.pkl").unwrap_or_default();
    if names
        .iter()
        .any(|name| name.strip_prefix(prefix) == Some("constants.pkl"))
    {
        let detail = "it is a TorchScript archive, which holds a program; save its `state_dict()`";
        return Err(PickleProblem::Container(detail.to_owned()));
    }
    let mut storages = BTreeMap::new();
    for name in &names {
        match name.strip_prefix(prefix) {
            Some("byteorder") => check_byte_order(archive.by_name(name).map_err(broken)?)?,
            Some(inner) => {
                if let Some(key) = inner.strip_prefix("data/") {
                    let stored = stored_bytes(&mut archive, name).map_err(broken)?;
                    storages.insert(key.to_owned(), stored);
                }
            }
            None => {}
        }
    }
    let mut arena = Arena::default();
    let entry = archive.by_name(pickle).map_err(broken)?;
    let root = machine::load(&mut PickleReader::new(BufReader::new(entry)), &mut arena)?;
    Ok(Content {
        arena,
        root,
        storages: storages
            .into_iter()
            .filter_map(|(key, stored)| Some((key, stored?)))
            .collect(),
    })
}

/// Where an entry's bytes lie; None for one that is compressed, which PyTorch never writes.
fn stored_bytes<R: Read + Seek>(
    archive: &mut ZipArchive<R>,
    name: &str,
) -> zip::result::ZipResult<Option<StoredBytes>> {
    let entry = archive.by_name(name)?;
    let stored = entry.compression() == CompressionMethod::Stored;
    Ok(entry.data_start().filter(|_| stored).map(|start| StoredBytes {
        start,
        length: entry.size(),
    }))
}

fn check_byte_order(entry: impl Read) -> Result<(), PickleProblem> {
    let mut text = String::new();
    entry.take(16).read_to_string(&mut text)?;
    if text.trim() == "little" {
        Ok(())
    } else {
        let detail = format!(
            "its numbers are in the byte order `{}`; only `little` is read",
            text.escape_debug()
        );
        Err(PickleProblem::Container(detail))
    }
}
