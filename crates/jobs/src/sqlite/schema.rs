//! The file: how it is opened, which version it has, and how an older one becomes ours.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags, TransactionBehavior};

use super::tables::TableError;
use crate::JobsError;

/// What makes an empty file one of version 1, that one of version 2, and so on. Never changed, only added to.
const MIGRATIONS: &[&str] = &[include_str!("migrations/1.sql"), include_str!("migrations/2.sql")];

/// Only the writer locks for long, and there is one; this is for whoever looks at the file with a tool.
const BUSY: Duration = Duration::from_secs(5);

/// The version that this program writes.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// Opens the file for writing, makes it where it is missing, and brings it to our version.
///
/// # Errors
/// [`JobsError::NewerSchema`], with the file as it was; [`JobsError::Backend`].
pub(super) fn open(path: &Path) -> Result<Connection, JobsError> {
    refuse_newer(path)?;
    if fs_err::symlink_metadata(path).is_ok_and(|found| !found.is_file()) {
        // A pipe would be waited for without end.
        return Err(JobsError::Backend {
            what: "open the database of the jobs",
            source: "something that is no file has its name".into(),
        });
    }
    make_private(path).map_err(|source| JobsError::Backend {
        what: "make the database of the jobs",
        source: source.into(),
    })?;
    prepared(path).map_err(|source| JobsError::Backend {
        what: "open the database of the jobs",
        source: source.into(),
    })
}

/// Makes the file where it is missing, and lets its owner alone read it and what is beside it: there are prompts in it, and
/// addresses of webhooks with their secrets. SQLite makes its journal with the mode of the file.
#[cfg(unix)]
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    use fs_err::os::unix::fs::OpenOptionsExt as _;
    let mut options = fs_err::OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    match options.open(path) {
        // That it cannot be written is found by whoever opens it, and told with the rest of it.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
        opened => drop(opened?),
    }
    for ending in ["", "-wal", "-shm", "-wal.damaged", ".damaged", ".damaged-wal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        let name = Path::new(&name);
        let Ok(found) = fs_err::symlink_metadata(name) else {
            continue;
        };
        if found.is_file() && found.permissions().mode() & 0o077 != 0 {
            // Another user's file stays as that user wants it.
            let _ = fs_err::set_permissions(name, std::fs::Permissions::from_mode(0o600));
        }
    }
    Ok(())
}

#[cfg(not(unix))]
fn make_private(_: &Path) -> std::io::Result<()> {
    Ok(())
}

/// The same file, for reading.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    db.busy_timeout(BUSY)?;
    db.pragma_update(None, "trusted_schema", false)?;
    Ok(db)
}

/// Whether the file itself is damaged, and not a row in it.
pub(super) fn is_damaged(db: &Connection) -> bool {
    // One whose head asks for a later SQLite is read and not written.
    if db.is_readonly(MAIN_DB).unwrap_or(false) {
        return true;
    }
    let answer = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0));
    match answer {
        Ok(answer) => answer != "ok",
        Err(error) => is_damage(&error),
    }
}

/// Whether SQLite found what it would never have written. A plain error is one too when a file of ours is opened: its head
/// asks for a format that there is not.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown)
    )
}

/// The same of an error of [`open`].
pub(super) fn is_damage_of(error: &JobsError) -> bool {
    let cause = std::error::Error::source(error);
    cause
        .and_then(|cause| cause.downcast_ref())
        .is_some_and(is_damage)
}

/// Looks without changing anything, so that the newer version finds everything as it left it.
fn refuse_newer(path: &Path) -> Result<(), JobsError> {
    if !path.is_file() {
        return Ok(());
    }
    let version = open_reader(path).and_then(|db| version(&db));
    match version {
        Ok(found) if found > VERSION => Err(JobsError::NewerSchema {
            found,
            known: VERSION,
        }),
        // Whoever opens it finds the same fault, and says what it was doing.
        Ok(_) | Err(_) => Ok(()),
    }
}

fn prepared(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_PRIVATE_CACHE;
    let mut db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY)?;
    db.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    // A commit returns when the disk has it.
    db.pragma_update(None, "synchronous", "full")?;
    db.pragma_update(None, "foreign_keys", true)?;
    // What a damaged or foreign file says of functions is not done.
    db.pragma_update(None, "trusted_schema", false)?;
    db.pragma_update(None, "cell_size_check", true)?;
    // After a burst the journal gives its room back.
    db.pragma_update(None, "journal_size_limit", 16 * 1024 * 1024)?;
    db.set_prepared_statement_cache_capacity(32);
    migrate(&mut db)?;
    Ok(db)
}

fn migrate(db: &mut Connection) -> rusqlite::Result<()> {
    let found = version(db)?;
    for (version, step) in (1_i64..).zip(MIGRATIONS).filter(|(version, _)| *version > found) {
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}

fn version(db: &Connection) -> rusqlite::Result<i64> {
    db.pragma_query_value(None, "user_version", |row| row.get(0))
}

impl From<TableError> for JobsError {
    fn from(source: TableError) -> Self {
        Self::Backend {
            what: "read the jobs",
            source: source.into(),
        }
    }
}
