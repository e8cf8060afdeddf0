//! Which models can be used now.

use std::sync::Arc;

use pentimento_catalog::{Availability, ModelEntry, Unavailable};

use crate::Service;

impl Service {
    /// Whether each of these models can be used now, in their order. Models on a disk that does not answer cannot, and hold
    /// up the answer for a few seconds at most. The only way to ask while a caller waits.
    pub async fn availabilities(&self, entries: &[Arc<ModelEntry>]) -> Vec<(Arc<ModelEntry>, Availability)> {
        let looks: Vec<_> = entries
            .iter()
            .map(|entry| {
                let (looks, entry) = (Arc::clone(&self.inner.looks), Arc::clone(entry));
                tokio::spawn(async move { looks.look(&entry).await })
            })
            .collect();
        let mut found = Vec::with_capacity(entries.len());
        for (entry, look) in entries.iter().zip(looks) {
            // A look does not panic, and is not aborted.
            let look = look
                .await
                .unwrap_or(Availability::Unavailable(Unavailable::NotEmbedded));
            found.push((Arc::clone(entry), look));
        }
        found
    }
}
