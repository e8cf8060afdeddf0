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

/// Where the old file is kept.
const DAMAGED: &str = ".damaged";
/// The new file, when it is complete and not yet in its place.
const WHOLE: &str = ".whole";

/// Replaces the file by one with what could be read of it, and returns where the old one is now. Nothing may have it open.
pub(super) fn rebuild(path: &Path, now: SystemTime) -> Result<PathBuf, JobsError> {
    let fresh = with_ending(path, ".rebuilt");
    let kept = with_ending(path, DAMAGED);
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
        // From here on the new file is the one, whatever ends the process: see `finish`.
        fs_err::rename(&fresh, with_ending(path, WHOLE))?;
        sync_folder(path)?;
        put_in_place(path)?;
        Ok(())
    };
    rebuilt().map_err(|source| JobsError::Backend {
        what: "rebuild the damaged database of the jobs",
        source,
    })?;
    Ok(kept)
}

/// Does what was left when the process ended at the end of a rebuilding; says where the damaged file is then.
pub(super) fn finish(path: &Path) -> Result<Option<PathBuf>, JobsError> {
    let is_there = fs_err::symlink_metadata(with_ending(path, WHOLE)).is_ok_and(|found| found.is_file());
    if !is_there {
        return Ok(None);
    }
    put_in_place(path).map_err(|source| JobsError::Backend {
        what: "put the rebuilt database of the jobs in its place",
        source: source.into(),
    })?;
    Ok(Some(with_ending(path, DAMAGED)))
}

/// The old journal must not be read into the new file, so it is gone for good before that has its name.
fn put_in_place(path: &Path) -> std::io::Result<()> {
    for ending in BESIDE {
        remove_file(&with_ending(path, ending))?;
    }
    sync_folder(path)?;
    fs_err::rename(with_ending(path, WHOLE), path)?;
    sync_folder(path)
}

/// Names that were given and taken in the file's folder are so after a power cut.
#[cfg(unix)]
fn sync_folder(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(folder) if folder != Path::new("") => fs_err::File::open(folder)?.sync_all(),
        Some(_) | None => fs_err::File::open(".")?.sync_all(),
    }
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> std::io::Result<()> {
    Ok(())
}

/// All rows, but for those in pages that cannot be read, wherever these are.
fn copy_rows(old: &Connection, new: &Connection, now: SystemTime) -> Result<(), TableError> {
    let all = (i64::MIN, i64::MAX);
    let mut from = i64::MIN;
    loop {
        let run = copy_run(old, new, now, (from, i64::MAX), "ASC")?;
        if let Some(first) = run.first.filter(|_| from > i64::MIN) {
            // The step over the damage may have been too long.
            copy_run(old, new, now, (i64::MIN, first), "DESC")?;
        }
        let next = if run.is_whole {
            None
        } else {
            next_readable(old, run.last.unwrap_or(from).max(0))
        };
        match next {
            Some(next) => from = next,
            None => break,
        }
    }
    copy_run(old, new, now, all, "DESC")?;
    Ok(())
}

/// What was read of the rows before something could not be.
struct Run {
    first: Option<i64>,
    last: Option<i64>,
    /// Nothing was in the way.
    is_whole: bool,
}

fn select(order: &str) -> String {
    format!(
        "SELECT {} FROM jobs NOT INDEXED WHERE number > ?1 AND number < ?2 ORDER BY number {order}",
        Found::COLUMNS
    )
}

/// The rows between two numbers. Those that are there already stay.
fn copy_run(
    old: &Connection,
    new: &Connection,
    now: SystemTime,
    (after, before): (i64, i64),
    order: &str,
) -> Result<Run, TableError> {
    let mut run = Run {
        first: None,
        last: None,
        is_whole: false,
    };
    let Ok(mut statement) = old.prepare_cached(&select(order)) else {
        return Ok(run);
    };
    let Ok(mut rows) = statement.query([after, before]) else {
        return Ok(run);
    };
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => {
                run.is_whole = true;
                return Ok(run);
            }
            Err(_) => return Ok(run),
        };
        if let Ok(found) = Found::of(row) {
            run.first.get_or_insert(found.number);
            run.last = Some(found.number);
            take_over(new, &found, now)?;
        }
    }
}

/// A number behind which something can be read again, found by ever longer steps.
fn next_readable(old: &Connection, from: i64) -> Option<i64> {
    let can_read_after = |number: &i64| {
        let found = old.prepare_cached(&select("ASC")).and_then(|mut statement| {
            let mut rows = statement.query([*number, i64::MAX])?;
            rows.next().map(drop)
        });
        found.is_ok()
    };
    let steps = (0..63).map_while(|bits| from.checked_add(1 << bits));
    steps.into_iter().find(can_read_after)
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
