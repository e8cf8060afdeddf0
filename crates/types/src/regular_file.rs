//! Opens files that somebody else named: regular files only, and no more bytes of them than are wanted.
//!
//! A pipe waits for a writer that may never come, a device may have no end, and both can stand under any name.

use std::io::{self, Read as _};
use std::path::Path;

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    /// It is something else, such as a pipe.
    #[error("{what} instead of a file")]
    NotRegular {
        /// What it is, with its article.
        what: &'static str,
    },
    /// It has more bytes than such a file needs.
    #[error("the file is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// The system refused.
    #[error("the file cannot be read")]
    Io(#[from] io::Error),
}

impl FileFault {
    /// Whether there is nothing of this name.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

impl From<FileFault> for io::Error {
    fn from(fault: FileFault) -> Self {
        match fault {
            FileFault::Io(error) => error,
            other @ (FileFault::NotRegular { .. } | FileFault::TooLarge { .. }) => Self::other(other),
        }
    }
}

/// Opens a regular file for reading, following links, and never waits for the other end of a pipe.
///
/// What the name leads to is looked at first, since opening some devices does something, and once more on the open file,
/// since by then the name may lead elsewhere.
///
/// # Errors
/// [`FileFault::NotRegular`] and [`FileFault::Io`].
pub fn open_regular(path: &Path) -> Result<fs_err::File, FileFault> {
    check(&fs_err::metadata(path)?.file_type())?;
    let mut options = fs_err::OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use fs_err::os::unix::fs::OpenOptionsExt as _;
        options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    }
    let file = options.open(path)?;
    check(&file.metadata()?.file_type())?;
    Ok(file)
}

/// All bytes of a regular file that has at most `limit` of them.
///
/// # Errors
/// Every [`FileFault`].
pub fn read_regular(path: &Path, limit: u64) -> Result<Vec<u8>, FileFault> {
    let file = open_regular(path)?;
    if file.metadata()?.len() > limit {
        return Err(FileFault::TooLarge { limit });
    }
    let mut bytes = Vec::new();
    // It may grow while it is read.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(FileFault::TooLarge { limit });
    }
    Ok(bytes)
}

fn check(kind: &std::fs::FileType) -> Result<(), FileFault> {
    if kind.is_file() {
        return Ok(());
    }
    Err(FileFault::NotRegular { what: name_of(kind) })
}

fn name_of(kind: &std::fs::FileType) -> &'static str {
    if kind.is_dir() {
        return "a folder";
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt as _;
        if kind.is_fifo() {
            return "a pipe";
        }
        if kind.is_char_device() || kind.is_block_device() {
            return "a device";
        }
        if kind.is_socket() {
            return "a socket";
        }
    }
    "something"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs_err::write(&path, b"12345").unwrap();
        assert_eq!(read_regular(&path, 5).unwrap(), b"12345");
        assert!(matches!(
            read_regular(&path, 4),
            Err(FileFault::TooLarge { limit: 4 })
        ));
        assert!(
            read_regular(&folder.path().join("y"), 4)
                .unwrap_err()
                .is_missing()
        );
        assert!(matches!(
            read_regular(folder.path(), 4),
            Err(FileFault::NotRegular { what: "a folder" })
        ));
    }

    #[cfg(unix)]
    #[test]
    fn pipes_devices_and_sockets_are_refused_at_once_behind_links_too() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let made = std::process::Command::new("mkfifo").arg(at("pipe")).status();
        assert!(made.unwrap().success());
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for (name, target) in [("link", at("pipe")), ("endless", "/dev/zero".into())] {
            fs_err::os::unix::fs::symlink(target, at(name)).unwrap();
        }
        let cases = [
            ("pipe", "a pipe"),
            ("link", "a pipe"),
            ("endless", "a device"),
            ("socket", "a socket"),
        ];
        for (name, expected) in cases {
            let fault = read_regular(&at(name), 100).unwrap_err();
            assert!(
                matches!(fault, FileFault::NotRegular { what } if what == expected),
                "{name}: {fault:?}"
            );
        }
    }
}
