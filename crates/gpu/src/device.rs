//! A device that is open, and memory on it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::arena::rounded;
use crate::command::{Command, Place, Span};
use crate::driver::{Description, Driver};
use crate::error::{Error, Result};

/// A device. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Gpu(Arc<Inner>);

/// Which device of this process one is, whatever becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GpuId(u64);

#[derive(Debug)]
struct Inner {
    id: GpuId,
    driver: Box<dyn Driver>,
    used: AtomicUsize,
    budget: AtomicUsize,
    /// The activations of the program that runs; one runs at a time, and all share it.
    arena: Mutex<Option<Buffer>>,
}

impl Gpu {
    /// The CUDA device with this number. Our kernels are compiled for it, and kept in the folder `cache` for the next start
    /// if there is one. Its budget is 90 % of what is free.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with what is missing: the driver, a library, the card, or CUDA in this build.
    #[cfg(feature = "cuda")]
    pub fn open(ordinal: usize, cache: Option<&std::path::Path>) -> Result<Self> {
        let driver = crate::driver::real::Cuda::open(ordinal, cache)?;
        let budget = driver.free_bytes()? / 10 * 9;
        Ok(Self::over(Box::new(driver), budget))
    }

    /// The CUDA device with this number, which this build cannot open.
    ///
    /// # Errors
    /// [`Error::Unavailable`], always.
    #[cfg(not(feature = "cuda"))]
    pub fn open(ordinal: usize, _: Option<&std::path::Path>) -> Result<Self> {
        Err(Error::Unavailable {
            why: format!("device {ordinal} was asked for, and this build has no CUDA (feature `cuda`)"),
        })
    }

    /// The emulated device: host memory, our kernels in the emulator, libraries by a plain reference.
    #[cfg(feature = "emulated")]
    #[must_use]
    pub fn emulated(emulation: crate::Emulation) -> Self {
        let budget = emulation.memory_bytes;
        Self::over(
            Box::new(crate::driver::emulated::Emulated::new(emulation)),
            budget,
        )
    }

    #[cfg_attr(
        not(any(feature = "cuda", feature = "emulated")),
        expect(dead_code, reason = "no device is left in this build")
    )]
    fn over(driver: Box<dyn Driver>, budget: usize) -> Self {
        static OPENED: AtomicU64 = AtomicU64::new(0);
        Self(Arc::new(Inner {
            id: GpuId(OPENED.fetch_add(1, Ordering::Relaxed)),
            driver,
            used: AtomicUsize::new(0),
            budget: AtomicUsize::new(budget),
            arena: Mutex::new(None),
        }))
    }

    /// Tells it from every other that this process has opened.
    #[must_use]
    pub fn id(&self) -> GpuId {
        self.0.id
    }

    /// What the device says about itself.
    #[must_use]
    pub fn description(&self) -> Description {
        self.0.driver.description()
    }

    /// Bytes that this process may use, at most. What is in use already stays.
    pub fn set_budget(&self, bytes: usize) {
        self.0.budget.store(bytes, Ordering::Relaxed);
    }

    /// Bytes that this process uses now: weights, kept tensors and the arena.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Bytes that this process may still take: of its budget, and of what nobody else uses.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub fn free_bytes(&self) -> Result<usize> {
        let of_budget = self
            .0
            .budget
            .load(Ordering::Relaxed)
            .saturating_sub(self.used_bytes());
        Ok(of_budget.min(self.0.driver.free_bytes()?))
    }

    /// Gives the arena back, whose size is that of the largest program so far. The next program takes it again.
    pub fn release_arena(&self) {
        *self.arena() = None;
    }

    /// Waits until everything that was told the device is done.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub fn synchronize(&self) -> Result<()> {
        self.0.driver.synchronize()
    }

    /// Whether both are the same device.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// `bytes` bytes that belong to the caller.
    pub(crate) fn allocate(&self, bytes: usize) -> Result<Buffer> {
        let bytes = rounded(bytes);
        let free = self.free_bytes()?;
        if bytes > free {
            return Err(Error::OutOfMemory { asked: bytes, free });
        }
        let address = self.0.driver.allocate(bytes)?;
        self.0.used.fetch_add(bytes, Ordering::Relaxed);
        Ok(Buffer {
            gpu: Arc::clone(&self.0),
            address,
            bytes,
        })
    }

    /// The arena with at least `bytes` bytes, for as long as the guard lives.
    pub(crate) fn arena_of(&self, bytes: usize) -> Result<ArenaGuard<'_>> {
        let mut arena = self.arena();
        if arena.as_ref().is_none_or(|buffer| buffer.bytes < bytes) {
            // The old one first, since both may not fit. What is queued ends before memory is given back.
            *arena = None;
            *arena = Some(self.allocate(bytes)?);
        }
        Ok(ArenaGuard(arena))
    }

    fn arena(&self) -> MutexGuard<'_, Option<Buffer>> {
        self.0.arena.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn upload(&self, to: Span, bytes: &[u8]) -> Result<()> {
        debug_assert_eq!(to.bytes, bytes.len());
        // SAFETY: spans come from buffers and blocks that their owners hold.
        unsafe { self.0.driver.upload(to, bytes) }
    }

    pub(crate) fn download(&self, from: Span, bytes: &mut [u8]) -> Result<()> {
        debug_assert_eq!(from.bytes, bytes.len());
        // SAFETY: spans come from buffers and blocks that their owners hold.
        unsafe { self.0.driver.download(from, bytes) }
    }

    pub(crate) fn run(&self, command: &Command) -> Result<()> {
        debug_assert!(command.spans().iter().all(|span| span.address().is_some()));
        // SAFETY: commands are made by the launchers of this crate, which check shapes against spans; their spans lie in
        // tensors that the program holds, and in the arena, whose size is the recording's.
        unsafe { self.0.driver.run(command) }
    }
}

/// The arena while a program uses it.
#[derive(Debug)]
pub(crate) struct ArenaGuard<'a>(MutexGuard<'a, Option<Buffer>>);

impl ArenaGuard<'_> {
    /// Where it begins.
    pub(crate) fn address(&self) -> u64 {
        self.0.as_ref().map_or(0, |buffer| buffer.address)
    }
}

/// Bytes of a device's memory, given back when dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    gpu: Arc<Inner>,
    address: u64,
    bytes: usize,
}

impl Buffer {
    /// `bytes` bytes from `offset` on.
    pub(crate) fn span(&self, offset: usize, bytes: usize) -> Span {
        debug_assert!(offset + bytes <= self.bytes);
        Span {
            place: Place::Device(self.address + offset as u64),
            bytes,
        }
    }

    pub(crate) fn gpu(&self) -> Gpu {
        Gpu(Arc::clone(&self.gpu))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.gpu.driver.free(self.address);
        self.gpu.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
