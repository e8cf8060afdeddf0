//! A file that is damaged as a whole, so that SQLite refuses it or could answer anything: what can be read is taken over
//! into a new one, and the old one is kept beside it.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::Connection;

use super::recovery::take_over;
use super::tables::{Found, TableError};
use super::{outbox_table, schema};
use crate::JobsError;

/// What SQLite keeps beside a file.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

/// What the head of every file of ours says at these places. A bit that flips there would keep SQLite from reading anything.
const HEAD: [(usize, &[u8]); 6] = [
    (0, b"SQLite format 3\0"),
    // Pages of 4096 bytes, a journal of the kind WAL, and three numbers that are always these.
    (16, &[0x10, 0, 2, 2, 0, 64, 32, 32]),
    // Unused pages, which nobody looks for here.
    (32, &[0; 8]),
    // The format of the schema.
    (44, &[0, 0, 0, 4]),
    // No vacuum of any kind, and UTF-8.
    (52, &[0, 0, 0, 0, 0, 0, 0, 1]),
    (64, &[0; 4]),
];

const PAGE: usize = 4096;

/// Replaces the file by one with what could be read of it, and returns where the old one is now. Nothing may have it open.
pub(super) fn rebuild(path: &Path, now: SystemTime) -> Result<PathBuf, JobsError> {
    let fresh = with_ending(path, ".rebuilt");
    let kept = with_ending(path, ".damaged");
    let readable = with_ending(path, ".reading");
    let rebuilt = || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        remove(&fresh)?;
        remove(&kept)?;
        remove(&readable)?;
        for copy in [&kept, &readable] {
            copy_files(path, copy)?;
        }
        mend_head(&readable)?;
        let mut new = schema::open(&fresh)?;
        let transaction = new.transaction()?;
        match schema::open_reader(&readable) {
            Ok(old) => {
                copy_rows(&old, &transaction, now)?;
                outbox_table::copy(&old, &transaction)?;
            }
            // The very first bytes are not those of a database.
            Err(error) if schema::is_damage(&error) => {}
            Err(error) => return Err(error.into()),
        }
        transaction.commit()?;
        // Takes the journal into the file.
        new.close().map_err(|(_, error)| error)?;
        remove(&readable)?;
        // The old journal must not be read into the new file.
        for ending in BESIDE {
            remove_file(&with_ending(path, ending))?;
        }
        fs_err::rename(&fresh, path)?;
        Ok(())
    };
    rebuilt().map_err(|source| JobsError::Backend {
        what: "rebuild the damaged database of the jobs",
        source,
    })?;
    Ok(kept)
}

/// From the first row to the damage, and from the last row to it.
fn copy_rows(old: &Connection, new: &Connection, now: SystemTime) -> Result<(), TableError> {
    for order in ["ASC", "DESC"] {
        let sql = format!(
            "SELECT {} FROM jobs NOT INDEXED ORDER BY number {order}",
            Found::COLUMNS
        );
        let Ok(mut statement) = old.prepare(&sql) else {
            continue;
        };
        let Ok(mut rows) = statement.query([]) else {
            continue;
        };
        while let Ok(Some(row)) = rows.next() {
            if let Ok(found) = Found::of(row) {
                take_over(new, &found, now)?;
            }
        }
    }
    Ok(())
}

/// The file, and its journal where there is one.
fn copy_files(from: &Path, to: &Path) -> std::io::Result<()> {
    for ending in ["", BESIDE[0]] {
        match fs_err::copy(with_ending(from, ending), with_ending(to, ending)) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn mend_head(path: &Path) -> std::io::Result<()> {
    let mut bytes = fs_err::read(path)?;
    let pages = u32::try_from(bytes.len() / PAGE).unwrap_or(u32::MAX);
    if let Some(found) = bytes.get_mut(28..32) {
        found.copy_from_slice(&pages.to_be_bytes());
    }
    for (at, expected) in HEAD {
        if let Some(found) = bytes.get_mut(at..at + expected.len()) {
            found.copy_from_slice(expected);
        }
    }
    fs_err::write(path, bytes)
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// With what is beside it.
fn remove(path: &Path) -> std::io::Result<()> {
    remove_file(path)?;
    BESIDE
        .iter()
        .try_for_each(|ending| remove_file(&with_ending(path, ending)))
}

fn remove_file(path: &Path) -> std::io::Result<()> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
