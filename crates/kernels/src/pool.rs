//! The threads that the kernels share: rayon's global pool.

use rayon::prelude::*;

/// Runs `f`, which calls kernels one after the other, on a thread of the pool.
///
/// A kernel that is called from a thread outside of the pool hands its tasks over and waits until it is woken: two context
/// switches for each of a network's hundreds of kernels. One that is called from inside begins at once.
pub fn on_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| f())
}

/// How many threads there are.
pub(crate) fn threads() -> usize {
    rayon::current_num_threads()
}

/// The numbers below `count`, each a task for whichever thread is free.
///
/// By itself, rayon would cut the numbers into four pieces for two threads and not share a piece once it has begun, so
/// that a thread which the machine has slowed down could hold up the others for a quarter of the work.
pub(crate) fn tasks(count: usize) -> impl IndexedParallelIterator<Item = usize> {
    (0..count).into_par_iter().with_max_len(1)
}

/// Runs `task` for every number below `count`, as [`tasks`] has them.
pub(crate) fn for_each(count: usize, task: impl Fn(usize) + Send + Sync) {
    tasks(count).for_each(task);
}
