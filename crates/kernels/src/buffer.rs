//! Memory for results and for what lies between two steps of a kernel.

use std::cell::RefCell;

/// A pointer that may cross into the tasks of one kernel. Each task touches its own part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedPtr<T>(T);

// SAFETY: the kernels give every task a part of the memory that no other task writes.
unsafe impl<T> Send for SharedPtr<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for SharedPtr<T> {}

impl<T: Copy> SharedPtr<T> {
    pub(crate) fn new(pointer: T) -> Self {
        Self(pointer)
    }

    /// Through a method, so that a closure captures the wrapper and not the bare pointer.
    #[inline(always)]
    pub(crate) fn get(self) -> T {
        self.0
    }
}

/// A vector of `length` numbers that `fill` writes, every one of them. Zeroing first would touch the memory twice.
///
/// # Safety
/// `fill` writes all `length` numbers at the pointer that it is given.
pub(crate) unsafe fn written(length: usize, fill: impl FnOnce(*mut f32)) -> Vec<f32> {
    let mut out = Vec::with_capacity(length);
    fill(out.as_mut_ptr());
    // SAFETY: the capacity is there, and the caller vouches for the contents.
    unsafe { out.set_len(length) };
    out
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Runs `f` with `length` numbers of this thread's own memory, which keeps its place in the caches from task to task.
/// What it holds at first is left over from earlier. Not to be nested.
///
/// A kernel is run inside of `f` and not the other way round: what a closure holds is compiled without the instructions
/// that its surroundings enable.
pub(crate) fn with_scratch<R>(length: usize, f: impl FnOnce(*mut f32) -> R) -> R {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.len() < length {
            // The old contents are of no use, so they are not copied.
            *scratch = vec![0.0; length];
        }
        f(scratch.as_mut_ptr())
    })
}
