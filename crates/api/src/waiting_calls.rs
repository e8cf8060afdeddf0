//! Calls of agents that wait for a picture, by caller and by the id that the caller has given them, so that one of them can be
//! cancelled by another message.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pentimento_service::RateCaller;
use tokio::sync::watch;

/// A caller, and a call's id as JSON.
type Key = (RateCaller, String);

/// Bounded by the connections, each of which has one.
#[derive(Debug, Default)]
pub(crate) struct WaitingCalls {
    calls: Mutex<HashMap<Key, Vec<watch::Sender<bool>>>>,
}

impl WaitingCalls {
    /// Waits until it is dropped.
    pub(crate) fn enter(self: &Arc<Self>, key: Key) -> WaitingCall {
        let cancel = watch::Sender::new(false);
        let cancelled = cancel.subscribe();
        self.calls().entry(key.clone()).or_default().push(cancel);
        WaitingCall {
            calls: Arc::clone(self),
            key,
            cancelled,
        }
    }

    /// Cancels the call of this id. Where a caller has several of it, since agents without keys at one address count alike, it is
    /// not known which one is meant, and none is cancelled.
    pub(crate) fn cancel(&self, key: &Key) {
        if let Some([one]) = self.calls().get(key).map(Vec::as_slice) {
            one.send_replace(true);
        }
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<Key, Vec<watch::Sender<bool>>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of them.
#[derive(Debug)]
pub(crate) struct WaitingCall {
    calls: Arc<WaitingCalls>,
    key: Key,
    cancelled: watch::Receiver<bool>,
}

impl WaitingCall {
    /// Returns when the call is cancelled.
    pub(crate) async fn cancelled(&mut self) {
        if self.cancelled.wait_for(|cancelled| *cancelled).await.is_err() {
            // The sender goes with this.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for WaitingCall {
    fn drop(&mut self) {
        let mut calls = self.calls.calls();
        let Some(same) = calls.get_mut(&self.key) else {
            return;
        };
        let own = same
            .iter()
            .position(|sender| sender.subscribe().same_channel(&self.cancelled));
        own.map(|at| same.swap_remove(at));
        if same.is_empty() {
            calls.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use pentimento_types::ApiKeyId;

    use super::*;

    #[tokio::test]
    async fn one_call_is_cancelled_and_of_two_alike_none() {
        let calls = Arc::new(WaitingCalls::default());
        let key = |id: &str| (RateCaller::Key(ApiKeyId::new("a")), id.to_owned());
        let mut first = calls.enter(key("1"));
        let second = calls.enter(key("1"));
        calls.cancel(&key("1"));
        assert!(!*first.cancelled.borrow() && !*second.cancelled.borrow());
        drop(second);
        calls.cancel(&key("2"));
        calls.cancel(&key("1"));
        first.cancelled().await;
        drop(first);
        assert!(calls.calls().is_empty());
    }
}
