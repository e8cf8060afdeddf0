//! A device that is open, and memory on it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::arena::rounded;
use crate::command::{Command, Place, Span};
use crate::driver::{Description, Driver, Graph, Preparation};
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
    /// Held for every call that the device queues: while a graph is being made, whatever is queued becomes a part of it.
    queue: Mutex<()>,
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

    /// How many CUDA devices this process can see; `CUDA_VISIBLE_DEVICES` hides some.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is no driver, or it does not start.
    #[cfg(feature = "cuda")]
    pub fn count() -> Result<usize> {
        crate::driver::real::count()
    }

    /// How many CUDA devices this process can see, which this build cannot tell.
    ///
    /// # Errors
    /// [`Error::Unavailable`], always.
    #[cfg(not(feature = "cuda"))]
    pub fn count() -> Result<usize> {
        Err(Error::Unavailable {
            why: "this build has no CUDA (feature `cuda`)".to_owned(),
        })
    }

    /// The libraries that a CUDA device needs, for `doctor`: the name of each, and its version or why it cannot be used. None
    /// in a build without CUDA.
    #[must_use]
    pub fn libraries() -> Vec<(&'static str, std::result::Result<String, String>)> {
        #[cfg(feature = "cuda")]
        return crate::driver::real::libraries();
        #[cfg(not(feature = "cuda"))]
        Vec::new()
    }

    /// The emulated device of a test that runs the whole program: with no `fault`, or one like `memory@12`, `launch@100` or
    /// `lost@400`, which is met by that allocation, launch or call, counted from 1.
    ///
    /// # Errors
    /// [`Error::Unavailable`] in a build without the emulator (feature `emulated`), or when there is no such fault.
    #[cfg(feature = "emulated")]
    pub fn open_emulated(fault: Option<&str>) -> Result<Self> {
        let planned = |text: &str| text.parse().map_err(|why| Error::Unavailable { why });
        Ok(Self::emulated(crate::Emulation {
            fault: fault.map(planned).transpose()?,
            ..crate::Emulation::default()
        }))
    }

    /// The emulated device, which this build has not.
    ///
    /// # Errors
    /// [`Error::Unavailable`], always.
    #[cfg(not(feature = "emulated"))]
    pub fn open_emulated(_: Option<&str>) -> Result<Self> {
        Err(Error::Unavailable {
            why: "this build has no emulated device, which is for tests (feature `emulated`)".to_owned(),
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
            queue: Mutex::default(),
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

    /// Bytes that this process may use, at most.
    #[must_use]
    pub fn budget_bytes(&self) -> usize {
        self.0.budget.load(Ordering::Relaxed)
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
        let _alone = self.0.queue();
        Ok(of_budget.min(self.0.driver.free_bytes()?))
    }

    /// Whether a program with this arena and these results can run now, as far as it can be known.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub fn fits(&self, arena_bytes: usize, output_bytes: usize) -> Result<bool> {
        // The old arena makes room for a larger one.
        let arena = self.arena().as_ref().map_or(0, |arena| arena.bytes);
        let needed = if arena_bytes > arena { arena_bytes } else { arena };
        Ok(needed.saturating_add(output_bytes) <= self.free_bytes()?.saturating_add(arena))
    }

    /// Plans of libraries that are kept.
    #[must_use]
    pub fn plans(&self) -> usize {
        self.0.driver.plans()
    }

    /// Gives the arena back, whose size is that of the largest program so far, and says how many bytes that was. The next program
    /// takes it again.
    pub fn release_arena(&self) -> usize {
        let arena = self.arena().take();
        arena.map_or(0, |arena| arena.bytes)
    }

    /// Waits until everything that was told the device is done.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub fn synchronize(&self) -> Result<()> {
        let _alone = self.0.queue();
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
        let _alone = self.0.queue();
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
        let _alone = self.0.queue();
        // SAFETY: spans come from buffers and blocks that their owners hold.
        unsafe { self.0.driver.upload(to, bytes) }
    }

    pub(crate) fn download(&self, from: Span, bytes: &mut [u8]) -> Result<()> {
        debug_assert_eq!(from.bytes, bytes.len());
        let _alone = self.0.queue();
        // SAFETY: spans come from buffers and blocks that their owners hold.
        unsafe { self.0.driver.download(from, bytes) }
    }

    /// What a library needs for the command.
    pub(crate) fn prepare(&self, command: &Command) -> Result<Preparation> {
        let _alone = self.0.queue();
        self.0.driver.prepare(command)
    }

    pub(crate) fn run(&self, command: &Command, workspace: Span) -> Result<()> {
        debug_assert!(command.spans().iter().all(|span| span.address().is_some()));
        let _alone = self.0.queue();
        // SAFETY: commands are made by the launchers of this crate, which check shapes against spans; their spans lie in
        // tensors that the program holds, and in the arena, whose size is the recording's, the workspace at its end included.
        unsafe { self.0.driver.run(command, workspace) }
    }
}

impl Gpu {
    /// Commands that have been run, as one. None where the device has no such thing.
    pub(crate) fn graph(&self, commands: &[Command], workspace: Span) -> Result<Option<ProgramGraph>> {
        let _alone = self.0.queue();
        // SAFETY: as for `run`; a program drops its graph when the arena has another place, and holds the tensors.
        let graph = unsafe { self.0.driver.graph(commands, workspace) }?;
        Ok(graph.map(|graph| ProgramGraph {
            graph: Some(graph),
            gpu: Arc::clone(&self.0),
        }))
    }

    pub(crate) fn replay(&self, graph: &ProgramGraph) -> Result<()> {
        let _alone = self.0.queue();
        graph.graph.as_ref().map_or(Ok(()), |graph| {
            // SAFETY: as above.
            unsafe { self.0.driver.replay(graph) }
        })
    }
}

impl Inner {
    fn queue(&self) -> MutexGuard<'_, ()> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A graph with the device that it belongs to, which it keeps open.
#[derive(Debug)]
pub(crate) struct ProgramGraph {
    /// There until it is given back.
    graph: Option<Graph>,
    gpu: Arc<Inner>,
}

impl Drop for ProgramGraph {
    fn drop(&mut self) {
        if let Some(graph) = self.graph.take() {
            let _alone = self.gpu.queue();
            self.gpu.driver.release(graph);
        }
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
        let _alone = self.gpu.queue();
        self.gpu.driver.free(self.address);
        self.gpu.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
