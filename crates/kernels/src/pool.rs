//! The threads that the kernels share: rayon's global pool.

/// Runs `f`, which calls kernels one after the other, on a thread of the pool.
///
/// A kernel that is called from another thread hands all its tasks over and is woken when they are done, two changes of
/// threads for each of a network's hundreds of kernels; one that is called from the pool begins at once and only shares.
pub fn on_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| f())
}
