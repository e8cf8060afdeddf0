//! Which webhook is sent next: the rule that every outbox goes by.

use std::collections::HashMap;

use pentimento_types::ApiKeyId;

/// Whom a sender may send to now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendingTurn {
    /// Receivers that get nothing.
    pub except: Vec<String>,
    /// The sendings under way of each owner. Of the webhooks that are due, one of the owner with the fewest comes first.
    pub under_way: HashMap<ApiKeyId, usize>,
    /// An owner with so many under way gets no other.
    pub of_an_owner: usize,
}

impl Default for SendingTurn {
    /// Anybody's, to anybody.
    fn default() -> Self {
        Self {
            except: Vec::new(),
            under_way: HashMap::new(),
            of_an_owner: usize::MAX,
        }
    }
}

impl SendingTurn {
    /// Under way of one owner.
    pub(crate) fn sendings_of(&self, owner: &ApiKeyId) -> usize {
        self.under_way.get(owner).copied().unwrap_or_default()
    }
}
