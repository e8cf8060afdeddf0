//! The emulated device: memory of the host, our kernels compiled for the host, and libraries by a plain reference.

use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::faults::{Faults, PlannedFault};
use super::heap::{Heap, pointer};
use super::{Description, Driver, Graph, Preparation, reference};
use crate::command::{Command, Launch, Span};
use crate::error::{Error, Result};

unsafe extern "C" {
    fn pentimento_emulate(
        name: *const c_char,
        signature: *const c_char,
        grid: *const u32,
        block: *const u32,
        shared_bytes: usize,
        order: c_int,
        fault: *const c_char,
        parameters: *mut *mut c_void,
        why: *mut c_char,
        why_bytes: usize,
    ) -> c_int;
}

/// The emulator keeps its fibers in globals: one launch at a time in a process.
static EMULATOR: Mutex<()> = Mutex::new(());

/// Shared memory that a block may have on every card that the kernels are written for, in bytes (compute capability 8.6 and
/// 8.9 have the least).
const LARGEST_SHARED: usize = 99 << 10;

/// Bytes that the emulated libraries work in.
pub(crate) const WORKSPACE: usize = 256;

/// How often a thread that has a graph made lets others go first.
const CAPTURE_TURNS: usize = 64;

/// In which order the threads of a block run. What a kernel computes must not depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum ThreadOrder {
    /// From the first to the last, each from barrier to barrier.
    #[default]
    Ascending = 0,
    /// From the last to the first.
    Descending = 1,
    /// In another order after every barrier.
    Random = 2,
    /// From the first warp to the last, each as far as it can before the next one runs at all.
    WarpsAscending = 3,
    /// From the last warp to the first.
    WarpsDescending = 4,
    /// Warps in another order after every barrier.
    WarpsRandom = 5,
}

impl ThreadOrder {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Ascending,
        Self::Descending,
        Self::Random,
        Self::WarpsAscending,
        Self::WarpsDescending,
        Self::WarpsRandom,
    ];
}

/// What an emulated device is like.
#[derive(Clone, Copy, Debug)]
pub struct Emulation {
    /// All of its memory.
    pub memory_bytes: usize,
    /// In which order threads run.
    pub order: ThreadOrder,
    /// What goes wrong.
    pub fault: Option<PlannedFault>,
    /// A fault in the kernels themselves: the barrier of this name is left out, `shuffle` or `fragments` is wrong, or one thread
    /// waits at another barrier (`divergence`). For the
    /// test that such faults are found.
    pub planted: Option<&'static str>,
}

impl Default for Emulation {
    fn default() -> Self {
        Self {
            memory_bytes: 1 << 30,
            order: ThreadOrder::default(),
            fault: None,
            planted: None,
        }
    }
}

/// The device.
#[derive(Debug)]
pub(crate) struct Emulated {
    emulation: Emulation,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    heap: Heap,
    faults: Faults,
    /// Whether a graph is being made: nothing else may be told the device then.
    is_capturing: bool,
    /// Graphs that have been made and not given back.
    graphs: usize,
}

impl Emulated {
    pub(crate) fn new(emulation: Emulation) -> Self {
        Self {
            emulation,
            state: Mutex::new(State {
                heap: Heap::default(),
                faults: Faults::new(emulation.fault),
                is_capturing: false,
                graphs: 0,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// As a call on a stream whose work is being captured ends the capture, and with it whatever relied on it.
    fn is_alone(&mut self) -> Result<()> {
        if self.is_capturing {
            return Err(self.faults.lose("a call was made while a graph was being made"));
        }
        Ok(())
    }

    fn call(&mut self) -> Result<()> {
        self.is_alone()?;
        self.faults.call()
    }

    fn launch(&mut self) -> Result<()> {
        self.is_alone()?;
        self.faults.launch()
    }

    /// As a card's memory protection does for whole pages: an operand outside of all blocks ends everything.
    fn check(&mut self, spans: &[Span]) -> Result<()> {
        match spans.iter().find(|span| !self.heap.holds(**span)) {
            None => Ok(()),
            Some(span) => Err(self.faults.lose(format!("{span:?} is no allocated memory"))),
        }
    }
}

impl Driver for Emulated {
    fn description(&self) -> Description {
        Description {
            name: "emulated".to_owned(),
            capability: (0, 0),
            memory_bytes: self.emulation.memory_bytes,
            software: Vec::new(),
        }
    }

    fn free_bytes(&self) -> Result<usize> {
        let mut state = self.state();
        state.call()?;
        Ok(self.emulation.memory_bytes.saturating_sub(state.heap.used()))
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        let mut state = self.state();
        state.is_alone()?;
        state.faults.allocation(bytes)?;
        let free = self.emulation.memory_bytes.saturating_sub(state.heap.used());
        if bytes > free {
            return Err(Error::OutOfMemory { asked: bytes, free });
        }
        Ok(state.heap.allocate(bytes))
    }

    fn free(&self, address: u64) {
        let mut state = self.state();
        if !state.heap.free(address) {
            state.faults.lose("a kernel has written outside of its tensors");
        }
    }

    unsafe fn upload(&self, to: Span, bytes: &[u8]) -> Result<()> {
        let mut state = self.state();
        state.call()?;
        state.check(&[to])?;
        // SAFETY: the span has been found in a block, and the caller says that it is as long as `bytes`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), pointer(to), bytes.len().min(to.bytes)) };
        Ok(())
    }

    unsafe fn download(&self, from: Span, bytes: &mut [u8]) -> Result<()> {
        let mut state = self.state();
        state.call()?;
        state.check(&[from])?;
        let count = bytes.len().min(from.bytes);
        // SAFETY: the span has been found in a block, and the caller says that it is as long as `bytes`.
        unsafe { std::ptr::copy_nonoverlapping(pointer(from), bytes.as_mut_ptr(), count) };
        Ok(())
    }

    fn prepare(&self, command: &Command) -> Result<Preparation> {
        Ok(Preparation {
            workspace_bytes: workspace_of(command),
            held: None,
        })
    }

    unsafe fn run(&self, command: &Command, workspace: Span) -> Result<()> {
        let mut state = self.state();
        state.check(&command.spans())?;
        let wanted = workspace_of(command);
        if wanted > 0 {
            state.check(&[workspace])?;
            if workspace.bytes < wanted {
                return Err(state.faults.lose("a library has been given too little workspace"));
            }
            // Whatever else lies there is found by whoever reads it.
            state.heap.forget(workspace);
        }
        match command {
            Command::Freed(span) => {
                state.heap.forget(*span);
                return Ok(());
            }
            Command::Copy { from, to } => {
                state.call()?;
                // SAFETY: both spans have been found in blocks; they may be parts of the same.
                unsafe { std::ptr::copy(pointer(*from), pointer(*to), from.bytes.min(to.bytes)) };
                return Ok(());
            }
            Command::Launch(_) | Command::Linear(_) | Command::Conv(_) => state.launch()?,
        }
        let done = match command {
            // SAFETY: the spans have been found in blocks; the caller says that the parameters are the kernel's.
            Command::Launch(launch) => unsafe { emulate(launch, &self.emulation) },
            // SAFETY: the spans have been found in blocks, and launchers give them the lengths of their shapes.
            Command::Linear(call) => unsafe { reference::linear(call) },
            // SAFETY: as above.
            Command::Conv(call) => unsafe { reference::convolution(call) },
            Command::Freed(_) | Command::Copy { .. } => Ok(()),
        };
        done.map_err(|why| state.faults.lose(why))?;
        match state.heap.broken_guard() {
            None => Ok(()),
            Some(_) => Err(state
                .faults
                .lose(format!("{command:?} has written outside of its tensors"))),
        }
    }

    unsafe fn graph(&self, commands: &[Command], workspace: Span) -> Result<Option<Graph>> {
        let mut state = self.state();
        state.call()?;
        state.is_capturing = true;
        drop(state);
        // As long as a card would take, so that a thread that does not wait for the end is seen.
        for _ in 0..CAPTURE_TURNS {
            std::thread::yield_now();
        }
        let mut state = self.state();
        state.is_capturing = false;
        state.faults.call()?;
        if state.faults.refuses_capture() {
            return Ok(None);
        }
        state.graphs += 1;
        Ok(Some(Graph::Emulated(commands.to_vec(), workspace)))
    }

    unsafe fn replay(&self, graph: &Graph) -> Result<()> {
        match graph {
            Graph::Emulated(commands, workspace) => commands.iter().try_for_each(|command| {
                // SAFETY: the caller's.
                unsafe { self.run(command, *workspace) }
            }),
            #[cfg(feature = "cuda")]
            Graph::Cuda(_) => Err(Error::operands("replay", "a graph of another device")),
        }
    }

    fn release(&self, graph: Graph) {
        drop(graph);
        self.state().graphs -= 1;
    }

    fn synchronize(&self) -> Result<()> {
        self.state().call()
    }

    fn plans(&self) -> usize {
        0
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        // A graph of CUDA belongs to its context, and cannot be given back after it.
        let graphs = self.state().graphs;
        assert!(
            graphs == 0 || std::thread::panicking(),
            "{graphs} graphs have outlived their device"
        );
    }
}

/// A library takes some, so that a program which forgets it is found.
const fn workspace_of(command: &Command) -> usize {
    match command {
        Command::Linear(_) | Command::Conv(_) => WORKSPACE,
        Command::Launch(_) | Command::Copy { .. } | Command::Freed(_) => 0,
    }
}

/// Runs a kernel of ours on the host.
///
/// # Safety
/// The pointers lie in allocated memory and the parameters are the kernel's, each pointer to as many numbers as the kernel
/// touches for the others.
unsafe fn emulate(launch: &Launch, emulation: &Emulation) -> std::result::Result<(), String> {
    if launch.shared_bytes > LARGEST_SHARED {
        return Err(format!(
            "{}: {} bytes of shared memory are more than a card has",
            launch.kernel, launch.shared_bytes
        ));
    }
    let text = |text: &str| CString::new(text).map_err(|error| error.to_string());
    let name = text(&launch.kernel)?;
    let signature: String = launch.args.iter().map(|arg| arg.letter()).collect();
    let signature = text(&signature)?;
    let fault = text(emulation.planted.unwrap_or_default())?;
    let mut values: Vec<u64> = launch.args.iter().map(|arg| arg.bits()).collect();
    let mut parameters: Vec<*mut c_void> = values
        .iter_mut()
        .map(|value| std::ptr::from_mut(value).cast())
        .collect();
    let mut why = [0_u8; 512];
    let _alone = EMULATOR.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: strings end with 0; grid and block have three sides, the parameters are as many as the signature has letters,
    // which the emulator compares with the kernel's; the caller answers for the pointers.
    let failed = unsafe {
        pentimento_emulate(
            name.as_ptr(),
            signature.as_ptr(),
            launch.grid.as_ptr(),
            launch.block.as_ptr(),
            launch.shared_bytes,
            emulation.order as c_int,
            fault.as_ptr(),
            parameters.as_mut_ptr(),
            why.as_mut_ptr().cast(),
            why.len(),
        )
    };
    if failed == 0 {
        return Ok(());
    }
    let why =
        std::ffi::CStr::from_bytes_until_nul(&why).map_or_else(|_| "?".into(), |why| why.to_string_lossy());
    Err(format!("{}: {why}", launch.kernel))
}
