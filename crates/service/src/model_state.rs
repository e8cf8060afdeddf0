//! What the lists say of a model: whether it can be used now, and what hinders it.

use std::sync::Arc;

use pentimento_catalog::{ModelEntry, Unavailable};
use pentimento_hub::{Found, Progress};

use crate::Service;

/// Whether a model can be used now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelState {
    /// Its files are here.
    Available,
    /// They are on their way, or are compared with their sha256.
    Pending(Progress),
    /// They will be fetched when a request names it.
    Absent,
    /// They will be compared with their sha256 when a request names it.
    Unchecked,
    /// Something is wrong with them, or with what they come from. Safe to show.
    Failed(String),
}

impl ModelState {
    /// In a list.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Pending(progress) if progress.is_checking() => "checking",
            Self::Pending(_) => "downloading",
            Self::Absent => "missing",
            Self::Unchecked => "unchecked",
            Self::Failed(_) => "failed",
        }
    }

    /// Whether a request that names it can be served at once.
    #[must_use]
    pub const fn is_available(&self) -> bool {
        matches!(self, Self::Available | Self::Unchecked)
    }

    /// What hinders it, as a sentence without its end.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Available | Self::Unchecked => None,
            Self::Pending(progress) => Some(progress.doing()),
            Self::Absent => Some("its files are fetched when a request names it".to_owned()),
            Self::Failed(reason) => Some(reason.clone()),
        }
    }
}

impl Service {
    /// The states of these models, in their order. Models on a disk that does not answer hold up the answer for a few seconds
    /// at most. Nothing is fetched for it. The only way to ask while a caller waits.
    pub async fn model_states(&self, entries: &[Arc<ModelEntry>]) -> Vec<(Arc<ModelEntry>, ModelState)> {
        let looks: Vec<_> = entries
            .iter()
            .map(|entry| {
                let (inner, entry) = (Arc::clone(&self.inner), Arc::clone(entry));
                tokio::spawn(async move {
                    // What is on its way needs no look at the disk.
                    if let Some(work) = inner.hub.under_way(&entry) {
                        return ModelState::Pending(work.progress());
                    }
                    let found = inner.looks.look(&inner.hub, &entry).await;
                    inner.state_of(&entry, &found)
                })
            })
            .collect();
        let mut states = Vec::with_capacity(entries.len());
        for (entry, look) in entries.iter().zip(looks) {
            // A look does not panic, and is not aborted.
            let unknown = ModelState::Failed(Unavailable::NotEmbedded.to_string());
            states.push((Arc::clone(entry), look.await.unwrap_or(unknown)));
        }
        states
    }
}

impl crate::inner::Inner {
    fn state_of(&self, entry: &ModelEntry, found: &Found) -> ModelState {
        match found {
            Found::Ready(_) => ModelState::Available,
            Found::Unchecked => ModelState::Unchecked,
            Found::Wrong(error) => ModelState::Failed(error.to_string()),
            Found::Unavailable(why) => ModelState::Failed(why.to_string()),
            Found::Absent => match self.hub.failure(entry) {
                Some(error) => ModelState::Failed(error.to_string()),
                None if self.hub.is_offline() => {
                    ModelState::Failed(pentimento_hub::HubError::Offline.to_string())
                }
                None => ModelState::Absent,
            },
        }
    }
}
