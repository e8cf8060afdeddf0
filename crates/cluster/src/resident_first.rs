//! Which jobs a node asks for: those of the checkpoints in its memory first, so that models are rarely loaded, then the oldest
//! of any that it can load.
//!
//! A model that is in memory nowhere is served too: once a minute a node takes the job first that has waited longest, if that
//! is older than half a minute. In a full cluster every job is old, and a rule that old ones always go first would be the order
//! of arrival again, with a load for nearly every job; one job in eight, as it was once, is most of a fast device's time
//! (docs/cluster-sizing.md). A minute between two such loads keeps them below some percent of the time, whatever computes.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use pentimento_jobs::QueueEntry;
use pentimento_types::ModelId;

use crate::affinity::made_at;
use crate::{Affinity, ModelToken, WaitingModel};

/// From this age on a job may go before those of models in memory.
const OLD: Duration = Duration::from_secs(30);
/// Between two jobs that are taken for their age.
const PAUSE: Duration = Duration::from_secs(60);

/// What a node has.
pub trait Stock: Send + Sync + Debug {
    /// Catalogue names of the checkpoints in memory.
    fn resident(&self) -> HashSet<String>;

    /// The catalogue name of a checkpoint whose files are here; None for all others.
    fn can_load(&self, model: &ModelId) -> Option<String>;

    /// Whether the files of everything that a job needs are here.
    fn can_run(&self, entry: &QueueEntry) -> bool;

    /// The time that jobs are dated by.
    fn now(&self) -> SystemTime;
}

/// Models in memory first.
#[derive(Debug)]
pub struct ResidentFirst {
    stock: Arc<dyn Stock>,
    /// When a job was last taken for its age.
    for_its_age: Mutex<Option<SystemTime>>,
}

impl ResidentFirst {
    /// Of this node.
    #[must_use]
    pub fn new(stock: Arc<dyn Stock>) -> Self {
        Self {
            stock,
            for_its_age: Mutex::default(),
        }
    }

    fn last_for_its_age(&self) -> MutexGuard<'_, Option<SystemTime>> {
        self.for_its_age.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_old(&self, made: SystemTime) -> bool {
        let age = self.stock.now().duration_since(made);
        age.is_ok_and(|age| age >= OLD)
    }

    /// Whether the oldest may go first. A clock that was set back makes nobody wait longer than a pause.
    fn is_turn_of_the_oldest(&self) -> bool {
        let mut last = self.last_for_its_age();
        let Some(at) = *last else { return true };
        match self.stock.now().duration_since(at) {
            Ok(since) => since >= PAUSE,
            Err(_) => {
                *last = Some(self.stock.now());
                false
            }
        }
    }
}

impl Affinity for ResidentFirst {
    fn order(&self, waiting: Vec<WaitingModel>) -> Vec<ModelToken> {
        let resident = self.stock.resident();
        let mut ranked: Vec<(u8, SystemTime, ModelToken)> = Vec::with_capacity(waiting.len());
        for WaitingModel { token, model, oldest } in waiting {
            let rank = match model.map(|model| self.stock.can_load(&model)) {
                Some(Some(name)) if resident.contains(&name) => 0,
                Some(Some(_)) => 1,
                // What it is called is seen when one is here.
                None => 2,
                // For other nodes.
                Some(None) => continue,
            };
            ranked.push((rank, oldest, token));
        }
        let is_turn = self.is_turn_of_the_oldest();
        let first = ranked
            .iter()
            .map(|(_, oldest, _)| *oldest)
            .min()
            .filter(|oldest| is_turn && self.is_old(*oldest));
        ranked.sort_by_key(|(rank, oldest, _)| (Some(*oldest) != first, *rank, *oldest));
        ranked.into_iter().map(|(_, _, token)| token).collect()
    }

    fn takes(&self, entry: &QueueEntry) -> bool {
        if !self.stock.can_run(entry) {
            return false;
        }
        let loads = || {
            let name = self.stock.can_load(&entry.model);
            name.is_some_and(|name| !self.stock.resident().contains(&name))
        };
        if self.is_old(made_at(entry.id)) && loads() {
            *self.last_for_its_age() = Some(self.stock.now());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use pentimento_jobs::ModelsBeside;
    use pentimento_types::{ApiKeyId, JobId, Priority};

    use super::*;

    #[derive(Debug)]
    struct Shelf;

    impl Stock for Shelf {
        fn resident(&self) -> HashSet<String> {
            HashSet::from(["warm".to_owned()])
        }

        fn can_load(&self, model: &ModelId) -> Option<String> {
            let name = model.as_str();
            ["warm", "cold", "colder"]
                .contains(&name)
                .then(|| name.to_owned())
        }

        fn can_run(&self, entry: &QueueEntry) -> bool {
            self.can_load(&entry.model).is_some()
        }

        fn now(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH + Duration::from_secs(1000)
        }
    }

    fn waiting(name: &str, seconds: u64) -> WaitingModel {
        let model = ModelId::new(name);
        WaitingModel {
            token: ModelToken::of(&model),
            oldest: Shelf.now() - Duration::from_secs(seconds),
            model: Some(model),
        }
    }

    fn order(affinity: &ResidentFirst, waiting: &[WaitingModel]) -> Vec<String> {
        let order = affinity.order(waiting.to_vec()).into_iter();
        order
            .map(|token| token.as_str().rsplit_once('-').unwrap().0.to_owned())
            .collect()
    }

    #[test]
    fn models_in_memory_go_first_then_the_oldest_and_what_is_not_here_is_left() {
        let affinity = ResidentFirst::new(Arc::new(Shelf));
        let all = [
            waiting("cold", 5),
            waiting("missing", 20),
            waiting("warm", 1),
            waiting("colder", 9),
        ];
        assert_eq!(order(&affinity, &all), ["warm", "colder", "cold"]);
        let unknown = WaitingModel {
            model: None,
            ..waiting("unheard", 3)
        };
        assert_eq!(
            order(&affinity, &[unknown, waiting("cold", 1)]),
            ["cold", "unheard"]
        );
    }

    fn entry(model: &str, seconds: u64) -> QueueEntry {
        let made = Shelf.now() - Duration::from_secs(seconds);
        let millis = made.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
        QueueEntry {
            id: JobId::from_u128(millis << 80),
            owner: ApiKeyId::anonymous(),
            model: ModelId::new(model),
            beside: ModelsBeside::default(),
            stays: false,
            priority: Priority::Normal,
            work: 1,
        }
    }

    #[test]
    fn one_job_in_a_while_is_taken_for_its_age_and_only_a_load_counts_as_one() {
        let affinity = ResidentFirst::new(Arc::new(Shelf));
        let all = [waiting("cold", 60), waiting("warm", 50)];
        let first = || order(&affinity, &all).remove(0);
        assert_eq!(first(), "cold");
        assert!(affinity.takes(&entry("warm", 50)));
        assert_eq!(
            first(),
            "cold",
            "somebody else was faster: it is still this node's turn"
        );
        assert!(affinity.takes(&entry("cold", 60)));
        assert_eq!(first(), "warm");
        *affinity.last_for_its_age() = Some(Shelf.now() - PAUSE);
        assert_eq!(first(), "cold");
        // As after a clock that was set back.
        *affinity.last_for_its_age() = Some(Shelf.now() + 100 * PAUSE);
        assert_eq!(first(), "warm");
        assert_eq!(*affinity.last_for_its_age(), Some(Shelf.now()));
        *affinity.last_for_its_age() = None;
        let young = [waiting("cold", 20), waiting("warm", 1)];
        assert_eq!(order(&affinity, &young)[0], "warm", "nobody has waited for long");
        assert!(affinity.takes(&entry("cold", 20)));
        assert_eq!(
            *affinity.last_for_its_age(),
            None,
            "it was taken for want of others"
        );
    }
}
