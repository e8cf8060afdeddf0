//! The integer ids of this dialect: clients keep them in 32-bit columns and put them into paths.
//!
//! Invariant: a number stands for one job as long as it is remembered. The table lives as long as the process, as the
//! jobs in memory do; each job's note has its number too, so that a durable store can be asked instead.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pentimento_types::JobId;

/// More than the jobs that the server remembers.
const MOST: usize = 20_000;

/// Which job a number stands for.
#[derive(Debug, Default)]
pub(crate) struct JobNumbers {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    jobs: HashMap<u32, JobId>,
    oldest_first: VecDeque<u32>,
}

impl JobNumbers {
    /// A number from 1 to 2^31 - 1 that stands for no job. Drawn at random, so that it tells nothing about others.
    pub(super) fn draw(&self) -> u32 {
        let table = self.table();
        loop {
            #[expect(clippy::cast_possible_truncation, reason = "32 of the random bits")]
            let number = uuid::Uuid::new_v4().as_u128() as u32 >> 1;
            if number > 0 && !table.jobs.contains_key(&number) {
                return number;
            }
        }
    }

    /// From now on `number` stands for `job`.
    pub(super) fn remember(&self, number: u32, job: JobId) {
        let mut table = self.table();
        table.jobs.insert(number, job);
        table.oldest_first.push_back(number);
        while table.oldest_first.len() > MOST {
            if let Some(oldest) = table.oldest_first.pop_front() {
                table.jobs.remove(&oldest);
            }
        }
    }

    /// The job behind a number.
    pub(super) fn find(&self, number: u32) -> Option<JobId> {
        self.table().jobs.get(&number).copied()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fit_a_signed_column_and_lead_back() {
        let numbers = JobNumbers::default();
        for value in 0..100 {
            let number = numbers.draw();
            assert!((1..1 << 31).contains(&number));
            numbers.remember(number, JobId::from_u128(value));
            assert_eq!(numbers.find(number), Some(JobId::from_u128(value)));
        }
        assert_eq!(numbers.find(0), None);
    }

    #[test]
    fn the_table_is_bounded() {
        let numbers = JobNumbers::default();
        for value in 1..=MOST as u32 + 1 {
            numbers.remember(value, JobId::from_u128(value.into()));
        }
        assert_eq!(numbers.find(1), None);
        assert!(numbers.find(2).is_some());
        assert_eq!(numbers.table().jobs.len(), MOST);
    }
}
