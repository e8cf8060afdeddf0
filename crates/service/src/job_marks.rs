//! Which jobs somebody in this process has in hand.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pentimento_types::JobId;

/// Ids of jobs that somebody in this process will bring further, or end.
#[derive(Clone, Debug, Default)]
pub(crate) struct JobMarks {
    /// How often each is marked: an attempt may begin before the one that it follows has been dropped.
    ids: Arc<Mutex<HashMap<JobId, usize>>>,
}

/// Keeps an id among them until it is dropped.
#[derive(Debug)]
pub(crate) struct Mark {
    all: JobMarks,
    id: JobId,
}

impl JobMarks {
    /// Before the job is stored in the state that this is about, so that nobody finds it without its mark.
    pub(crate) fn mark(&self, id: JobId) -> Mark {
        *self.ids().entry(id).or_default() += 1;
        let all = self.clone();
        Mark { all, id }
    }

    pub(crate) fn contains(&self, id: JobId) -> bool {
        self.ids().contains_key(&id)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.ids().len()
    }

    fn ids(&self) -> MutexGuard<'_, HashMap<JobId, usize>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if let Entry::Occupied(mut marks) = self.all.ids().entry(self.id) {
            *marks.get_mut() -= 1;
            if *marks.get() == 0 {
                marks.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_marked_until_the_last_of_its_marks_is_dropped() {
        let (marks, id) = (JobMarks::default(), JobId::new());
        let first = marks.mark(id);
        let second = marks.mark(id);
        drop(first);
        assert_eq!((marks.contains(id), marks.len()), (true, 1));
        drop(second);
        assert_eq!((marks.contains(id), marks.len()), (false, 0));
    }
}
