//! Jobs that were deleted here, and that the cluster has not been told of yet. They are kept in a file, because a caller has been
//! told that they are gone: without it a node that is started again while the broker is away would have forgotten the deletion,
//! and the cluster would bring the job back.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pentimento_jobs::JobsError;
use pentimento_types::JobId;

use crate::failures::failed;

/// In the folder of the node, while there are any.
const FILE: &str = "cluster-deletions.json";

/// Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Deletions {
    path: Arc<PathBuf>,
    state: Arc<Mutex<State>>,
    /// Whoever writes the file.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct State {
    /// With the keys of the names that the job had.
    open: BTreeMap<JobId, Vec<String>>,
    /// Whether there is something in the file.
    is_kept: bool,
}

impl Deletions {
    /// Those that an earlier life has left in this folder. Blocks.
    ///
    /// # Errors
    /// What keeps the file from being read; one that holds something else is `InvalidData`.
    pub(crate) fn in_folder(folder: &Path) -> io::Result<Self> {
        let path = folder.join(FILE);
        let open: BTreeMap<JobId, Vec<String>> = match fs_err::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        let is_kept = !open.is_empty();
        Ok(Self {
            path: Arc::new(path),
            state: Arc::new(Mutex::new(State { open, is_kept })),
            turn: Arc::default(),
        })
    }

    /// A job is deleted here, with its names.
    pub(crate) fn add(&self, id: JobId, names: Vec<String>) {
        self.lock().open.insert(id, names);
    }

    /// Whether the cluster is still to be told.
    pub(crate) fn contains(&self, id: JobId) -> bool {
        self.lock().open.contains_key(&id)
    }

    /// All of which the cluster is to be told.
    pub(crate) fn open(&self) -> Vec<(JobId, Vec<String>)> {
        let state = self.lock();
        let open = state.open.iter();
        open.map(|(id, names)| (*id, names.clone())).collect()
    }

    /// The cluster knows.
    pub(crate) fn told(&self, id: JobId) {
        self.lock().open.remove(&id);
    }

    /// Writes down what the cluster is still to be told, so that a start finds it.
    ///
    /// # Errors
    /// [`JobsError::Backend`].
    pub(crate) async fn keep(&self) -> Result<(), JobsError> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let this = self.clone();
        let written = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let (bytes, is_empty) = {
                let state = this.lock();
                if state.open.is_empty() && !state.is_kept {
                    return Ok(());
                }
                (serde_json::to_vec(&state.open)?, state.open.is_empty())
            };
            write(&this.path, &bytes)?;
            this.lock().is_kept = !is_empty;
            Ok::<_, io::Error>(())
        });
        let what = "write down that a job is deleted";
        written.await.map_err(failed(what))?.map_err(failed(what))
    }

    /// Takes out of the file what the cluster knows by now.
    pub(crate) async fn tidy(&self) -> Result<(), JobsError> {
        let is_kept = self.lock().is_kept;
        if is_kept { self.keep().await } else { Ok(()) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In one step, so that the file holds all of it or is as it was.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut draft = tempfile::NamedTempFile::new_in(folder)?;
    draft.write_all(bytes)?;
    draft.as_file().sync_all()?;
    draft.persist(path).map_err(|error| error.error)?;
    // The name is in the folder only when that is on the disk.
    fs_err::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_cluster_was_not_told_of_is_found_by_the_next_life_and_then_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (JobId::from_u128(1), JobId::from_u128(2));
        let first = Deletions::in_folder(folder.path()).unwrap();
        first.keep().await.unwrap();
        assert!(!folder.path().join(FILE).exists(), "there is nothing to keep");
        first.add(one, vec!["key.1".to_owned()]);
        first.add(other, Vec::new());
        first.keep().await.unwrap();
        first.told(other);
        first.tidy().await.unwrap();
        let next = Deletions::in_folder(folder.path()).unwrap();
        assert_eq!(next.open(), [(one, vec!["key.1".to_owned()])]);
        assert!(next.contains(one) && !next.contains(other));
        next.told(one);
        next.tidy().await.unwrap();
        assert_eq!(Deletions::in_folder(folder.path()).unwrap().open(), []);
    }
}
