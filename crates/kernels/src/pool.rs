//! The threads that the kernels share: rayon's global pool.

use rayon::prelude::*;

/// Runs `f`, which calls kernels one after the other, on a thread of the pool.
///
/// A kernel that is called from another thread hands all its tasks over and is woken when they are done, two changes of
/// threads for each of a network's hundreds of kernels; one that is called from the pool begins at once and only shares.
pub fn on_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| f())
}

/// How many threads there are.
pub(crate) fn threads() -> usize {
    rayon::current_num_threads()
}

/// The numbers below `count`, each a task for whichever thread is free.
///
/// Left to itself, rayon cuts the numbers into four pieces for two threads, and a piece that has been begun is not shared
/// any more: a thread that the machine has slowed down then lets the others wait for up to a quarter of the work.
pub(crate) fn tasks(count: usize) -> impl IndexedParallelIterator<Item = usize> {
    (0..count).into_par_iter().with_max_len(1)
}

/// Runs `task` for every number below `count`, as [`tasks`] has them.
pub(crate) fn for_each(count: usize, task: impl Fn(usize) + Send + Sync) {
    tasks(count).for_each(task);
}
