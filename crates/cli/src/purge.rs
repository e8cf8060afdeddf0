//! Tells the allocator to give memory back to the system.
//!
//! Beside `allocator.rs`, which benches of other crates take in for its options alone.

use std::ptr;

/// Gives back to the system what the allocator keeps and nobody uses.
#[expect(unsafe_code, reason = "jemalloc is told through a C function")]
pub(crate) fn give_back() {
    // 4096 stands for all arenas (`MALLCTL_ARENAS_ALL`). The call takes no argument and has no result.
    let every_arena = c"arena.4096.purge";
    // SAFETY: the name ends with a zero byte, and null pointers with a length of zero stand for no argument and no result.
    // Purging touches pages that hold no object, from any thread, at any time.
    let failed = unsafe {
        tikv_jemalloc_sys::mallctl(
            every_arena.as_ptr(),
            ptr::null_mut(),
            ptr::null_mut(),
            ptr::null_mut(),
            0,
        )
    };
    if failed != 0 {
        tracing::debug!(failed, "the allocator could not be told to give memory back");
    }
}
