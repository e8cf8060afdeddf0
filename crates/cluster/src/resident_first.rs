//! Which jobs a node asks for: those of the checkpoints in its memory first, so that models are rarely loaded, then the oldest
//! of any that it can load.
//!
//! In a full cluster every job is old, and a rule that old ones go first would be the order of arrival again, with a load for
//! nearly every job (docs/cluster-sizing.md). So only one look in eight is for the job that has waited longest.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use pentimento_jobs::QueueEntry;
use pentimento_types::ModelId;

use crate::{Affinity, ModelToken, WaitingModel};

/// From this age on a job may go before those of models in memory.
const OLD: Duration = Duration::from_secs(30);
/// Of so many looks one is for age.
const TURN_OF_THE_OLDEST: u32 = 8;

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
    looks: AtomicU32,
}

impl ResidentFirst {
    /// Of this node.
    #[must_use]
    pub fn new(stock: Arc<dyn Stock>) -> Self {
        Self {
            stock,
            looks: AtomicU32::new(0),
        }
    }
}

impl Affinity for ResidentFirst {
    fn order(&self, waiting: Vec<WaitingModel>) -> Vec<ModelToken> {
        let resident = self.stock.resident();
        let look = self.looks.fetch_add(1, Ordering::Relaxed);
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
        let is_turn = look.is_multiple_of(TURN_OF_THE_OLDEST);
        let is_old = |oldest: SystemTime| {
            self.stock
                .now()
                .duration_since(oldest)
                .is_ok_and(|age| age >= OLD)
        };
        let first = ranked
            .iter()
            .map(|(_, oldest, _)| *oldest)
            .min()
            .filter(|oldest| is_turn && is_old(*oldest));
        ranked.sort_by_key(|(rank, oldest, _)| (Some(*oldest) != first, *rank, *oldest));
        ranked.into_iter().map(|(_, _, token)| token).collect()
    }

    fn takes(&self, entry: &QueueEntry) -> bool {
        self.stock.can_run(entry)
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn one_look_in_eight_is_for_the_oldest() {
        let affinity = ResidentFirst::new(Arc::new(Shelf));
        let all = [waiting("cold", 60), waiting("warm", 50)];
        let firsts: Vec<String> = (0..16).map(|_| order(&affinity, &all).remove(0)).collect();
        assert_eq!(
            firsts.iter().filter(|name| *name == "cold").count(),
            2,
            "{firsts:?}"
        );
        let young = [waiting("cold", 20), waiting("warm", 1)];
        assert!(
            (0..16).all(|_| order(&affinity, &young)[0] == "warm"),
            "nobody has waited for long"
        );
    }
}
