//! Looks at the files of models, away from the async threads, and with patience only once.
//!
//! A look at a disk that does not answer cannot be interrupted. So there is at most one of each source at a time, and who
//! asks while one has been waited for in vain is told so at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pentimento_catalog::{ModelEntry, Source, Unavailable};
use pentimento_hub::{Found, Hub};
use tokio::sync::watch;
use tokio::time::timeout;

/// How long a caller waits for what is read from a model's disk on its behalf.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// The looks under way, by source.
#[derive(Debug, Default)]
pub(crate) struct Looks(Mutex<HashMap<String, Look>>);

#[derive(Clone, Debug)]
struct Look {
    found: watch::Receiver<Option<Found>>,
    /// Somebody has waited for it in vain.
    in_vain: bool,
}

impl Looks {
    /// What is known of the entry's files now.
    pub(crate) async fn look(self: &Arc<Self>, hub: &Hub, entry: &Arc<ModelEntry>) -> Found {
        let hub = hub.clone();
        self.look_with(entry, PATIENCE, move |entry| hub.look(entry))
            .await
    }

    async fn look_with(
        self: &Arc<Self>,
        entry: &Arc<ModelEntry>,
        patience: Duration,
        look: impl FnOnce(&Arc<ModelEntry>) -> Found + Send + 'static,
    ) -> Found {
        if matches!(entry.source, Source::Embedded(_)) {
            // Nothing on disk is needed to answer.
            return look(entry);
        }
        let not_answering = || {
            let path = entry.source.to_string().into();
            Found::Unavailable(Unavailable::NotAnswering { path })
        };
        let source = entry.files_key();
        let mut begun = self.join(&source, entry, look);
        if begun.in_vain {
            return not_answering();
        }
        // A look that panicked has found nothing, either.
        let found = timeout(patience, begun.found.wait_for(Option::is_some)).await;
        match found.map(|found| found.ok().and_then(|found| found.clone())) {
            Ok(Some(found)) => found_for(entry, found),
            Ok(None) | Err(_) => {
                if let Some(look) = self.under_way().get_mut(&source) {
                    look.in_vain = true;
                }
                not_answering()
            }
        }
    }

    /// The look at this source that is under way, or a new one.
    fn join(
        self: &Arc<Self>,
        source: &str,
        entry: &Arc<ModelEntry>,
        look: impl FnOnce(&Arc<ModelEntry>) -> Found + Send + 'static,
    ) -> Look {
        let mut under_way = self.under_way();
        if let Some(begun) = under_way.get(source) {
            return begun.clone();
        }
        let (sender, found) = watch::channel(None);
        let begun = Look {
            found,
            in_vain: false,
        };
        under_way.insert(source.to_owned(), begun.clone());
        let end = End {
            looks: Arc::clone(self),
            source: source.to_owned(),
        };
        let entry = Arc::clone(entry);
        tokio::task::spawn_blocking(move || {
            let _end = end;
            sender.send_replace(Some(look(&entry)));
        });
        begun
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<String, Look>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was found by a look that another entry with the same files may have begun: the place is the same, the rest of the
/// entry is the caller's own.
fn found_for(entry: &Arc<ModelEntry>, found: Found) -> Found {
    match &found {
        Found::Ready(located) if !Arc::ptr_eq(located, entry) => Found::Ready(Arc::new(ModelEntry {
            source: located.source.clone(),
            ..ModelEntry::clone(entry)
        })),
        Found::Ready(_) | Found::Unchecked | Found::Wrong(_) | Found::Absent | Found::Unavailable(_) => found,
    }
}

/// Takes a look off the list when it has ended, by a panic, too.
struct End {
    looks: Arc<Looks>,
    source: String,
}

impl Drop for End {
    fn drop(&mut self) {
        self.looks.under_way().remove(&self.source);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use pentimento_catalog::ModelKind;

    use super::*;

    fn entry(name: &str) -> Arc<ModelEntry> {
        Arc::new(ModelEntry::new(
            name,
            ModelKind::Checkpoint,
            Source::Path(format!("/{name}").into()),
        ))
    }

    #[tokio::test]
    async fn two_entries_on_one_path_share_a_look_and_stay_themselves() {
        let looks = Arc::new(Looks::default());
        let (first, second) = (entry("same"), entry("same"));
        let second = Arc::new(ModelEntry {
            name: "other".to_owned(),
            ..ModelEntry::clone(&second)
        });
        let (answer, hanging) = mpsc::channel::<()>();
        let hour = Duration::from_secs(3600);
        let held = {
            let (looks, first) = (Arc::clone(&looks), Arc::clone(&first));
            let look = move |entry: &Arc<ModelEntry>| {
                let _ = hanging.recv();
                Found::Ready(Arc::clone(entry))
            };
            tokio::spawn(async move { looks.look_with(&first, hour, look).await })
        };
        while looks.under_way().is_empty() {
            tokio::task::yield_now().await;
        }
        // Joins the look that is held open: its own would find nothing.
        let joined = looks.look_with(&second, hour, |_| Found::Absent);
        let (joined, _) = tokio::join!(joined, async { drop(answer) });
        let name = |found: &Found| {
            let Found::Ready(entry) = found else {
                panic!("{found:?}");
            };
            entry.name.clone()
        };
        assert_eq!(name(&joined), "other");
        assert_eq!(name(&held.await.unwrap()), "same");
    }

    #[tokio::test]
    async fn a_disk_that_does_not_answer_is_waited_for_once_and_by_one_thread() {
        let (looks, slow) = (Arc::new(Looks::default()), entry("slow"));
        let (answer, hanging) = mpsc::channel::<()>();
        let hang = move |_: &Arc<ModelEntry>| {
            let _ = hanging.recv();
            Found::Absent
        };
        let is_not_answering =
            |found: &Found| matches!(found, Found::Unavailable(Unavailable::NotAnswering { .. }));
        let short = Duration::from_millis(50);
        assert!(is_not_answering(&looks.look_with(&slow, short, hang).await));
        // Neither waits nor looks: with an hour of patience, this test would not end.
        let hour = Duration::from_secs(3600);
        let second = looks.look_with(&slow, hour, |_| Found::Absent).await;
        assert!(is_not_answering(&second));
        let other = looks.look_with(&entry("quick"), hour, |_| Found::Absent).await;
        assert!(matches!(other, Found::Absent));
        drop(answer);
        while !matches!(
            looks.look_with(&slow, hour, |_| Found::Absent).await,
            Found::Absent
        ) {
            tokio::task::yield_now().await;
        }
    }
}
