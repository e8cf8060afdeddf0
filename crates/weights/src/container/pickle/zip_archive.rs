//! The container of PyTorch 1.6 and later: a zip archive with `<name>/data.pkl` and one uncompressed entry
//! `<name>/data/<key>` for each storage.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{BufReader, Read, Seek, SeekFrom};

use zip::{CompressionMethod, ZipArchive};

use super::error::PickleProblem;
use super::reader::PickleReader;
use super::value::Arena;
use super::{Content, StoredBytes, machine};

/// More entries than the largest checkpoint has tensors.
const MAX_ENTRIES: usize = 200_000;

pub(super) fn read<R: Read + Seek>(file: R) -> Result<Content, PickleProblem> {
    let broken = |error| PickleProblem::Container(format!("it is not a whole zip archive: {error}"));
    let mut file = file;
    if claimed_entries(&mut file)?.is_some_and(|claimed| claimed > MAX_ENTRIES as u64) {
        return Err(PickleProblem::TooMany { limit: MAX_ENTRIES });
    }
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

/// How many entries the end of the archive claims, for which its reader makes room. None where no end is found, which the
/// reader will say.
fn claimed_entries<R: Read + Seek>(file: &mut R) -> Result<Option<u64>, PickleProblem> {
    /// An end with the longest comment.
    const END: u64 = 22 + 0xffff;
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(END)))?;
    let mut tail = Vec::new();
    file.take(END).read_to_end(&mut tail)?;
    let last = |signature: &[u8; 4]| tail.windows(4).rposition(|window| window == signature);
    let Some(end) = last(b"PK\x05\x06") else {
        return Ok(None);
    };
    let short = tail.get(end + 10..).and_then(|rest| rest.first_chunk());
    let short = short.map(|count| u64::from(u16::from_le_bytes(*count)));
    // Where the short number does not suffice, an end of 64 bits lies before, found by a locator.
    let locator = last(b"PK\x06\x07").and_then(|at| tail.get(at + 8..)?.first_chunk());
    let Some(locator) = locator else {
        return Ok(short);
    };
    file.seek(SeekFrom::Start(u64::from_le_bytes(*locator)))?;
    let mut long = Vec::new();
    file.take(40).read_to_end(&mut long)?;
    let long = long.get(32..).and_then(|rest| rest.first_chunk());
    Ok(long.map(|count| u64::from_le_bytes(*count)).max(short))
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
