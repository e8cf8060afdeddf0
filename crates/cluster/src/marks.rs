//! What somebody is at just now, for others to look at.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub(crate) struct Marks<T>(Mutex<HashSet<T>>);

impl<T> Default for Marks<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Eq + Hash + Copy> Marks<T> {
    /// It is marked from now on.
    pub(crate) fn mark(&self, what: T) {
        self.lock().insert(what);
    }

    /// It is not any more.
    pub(crate) fn unmark(&self, what: T) {
        self.lock().remove(&what);
    }

    /// It is marked until the answer is dropped.
    pub(crate) fn mark_while(&self, what: T) -> Marked<'_, T> {
        self.mark(what);
        Marked { marks: self, what }
    }

    pub(crate) fn contains(&self, what: T) -> bool {
        self.lock().contains(&what)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Marks::mark_while`].
#[derive(Debug)]
pub(crate) struct Marked<'a, T: Eq + Hash + Copy> {
    marks: &'a Marks<T>,
    what: T,
}

impl<T: Eq + Hash + Copy> Drop for Marked<'_, T> {
    fn drop(&mut self) {
        self.marks.unmark(self.what);
    }
}
