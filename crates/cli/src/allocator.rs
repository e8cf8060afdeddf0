//! The allocator of the process.
//!
//! Every layer takes a buffer of up to hundreds of megabytes and gives one back. The system's allocator returns such
//! buffers to the kernel at once, which then clears their pages again at the next layer: a third of the time of a
//! picture. jemalloc keeps them in huge pages for ten minutes: over one minute it would already take the autoencoder's
//! largest buffers away during the seconds for which only the UNet runs. A server that has nothing to do gives them back
//! at once, by `cli::purge`.
//! Buffers from 256 KiB on come from one arena (`oversize_threshold`): each thread of the pool would keep those of the
//! networks that happened to run on it, up to 300 MB more at 512x512 than in other runs.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Read by jemalloc before `main`, as a pointer to a C string; a variable `_RJEM_MALLOC_CONF` in the environment overrides it.
#[expect(unsafe_code, reason = "the name under which jemalloc looks for its options")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static OPTIONS: &[u8; 99] =
    b"thp:always,background_thread:true,dirty_decay_ms:600000,muzzy_decay_ms:0,oversize_threshold:262144\0";
