//! A weights file on disk, read into our own memory block by block.
//!
//! Not mapped into memory: a mapped file that is cut short ends the whole process by a signal, and here it is an error
//! of one load. The numbers behind that are in [ADR 0006](../../../../docs/adr/0006-components-and-loads-beside-the-device.md).

use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use pentimento_types::{FileFault, open_regular};

use super::BLOCK;
use crate::{ReadProgress, WeightsError};

/// An open file, with its length and time when it was opened. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct DiskFile {
    name: String,
    file: Arc<Mutex<fs_err::File>>,
    length: u64,
    modified: Option<SystemTime>,
    progress: ReadProgress,
}

impl DiskFile {
    /// Opens `path`, which must be a regular file.
    pub(super) fn open(path: &Path, progress: &ReadProgress) -> Result<Self, WeightsError> {
        let name = path.display().to_string();
        let file = open_regular(path).map_err(|fault| WeightsError::file(&name, fault))?;
        let about = file.metadata();
        let about = about.map_err(|error| WeightsError::file(&name, FileFault::Io(error)))?;
        Ok(Self {
            name,
            file: Arc::new(Mutex::new(file)),
            length: about.len(),
            modified: about.modified().ok(),
            progress: progress.clone(),
        })
    }

    /// The same file, whose reads are counted elsewhere.
    pub(super) fn counting(&self, progress: &ReadProgress) -> Self {
        Self {
            progress: progress.clone(),
            ..self.clone()
        }
    }

    pub(super) const fn len(&self) -> u64 {
        self.length
    }

    pub(super) fn blocks(
        &self,
        start: u64,
        end: u64,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), WeightsError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |error: std::io::Error| {
            if error.kind() == ErrorKind::UnexpectedEof {
                self.changed()
            } else {
                WeightsError::file(&self.name, FileFault::Io(error))
            }
        };
        file.seek(SeekFrom::Start(start)).map_err(failed)?;
        let mut left = end.saturating_sub(start);
        let mut block = vec![0; usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK))];
        while left > 0 {
            let wanted = usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK));
            let part = &mut block[..wanted];
            file.read_exact(part).map_err(failed)?;
            self.progress.add(wanted);
            take(part);
            left -= wanted as u64;
        }
        Ok(())
    }

    /// A file that was written to while it was read may have given half of the old weights and half of the new ones.
    pub(super) fn check_unchanged(&self) -> Result<(), WeightsError> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let about = file.metadata();
        let about = about.map_err(|error| WeightsError::file(&self.name, FileFault::Io(error)))?;
        if about.len() == self.length && about.modified().ok() == self.modified {
            Ok(())
        } else {
            Err(self.changed())
        }
    }

    fn changed(&self) -> WeightsError {
        WeightsError::Changed {
            file: self.name.clone(),
        }
    }
}
