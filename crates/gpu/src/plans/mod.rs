//! Plans of cuDNN 9's graph API for convolutions and linear layers: which engine computes a layer, fixed for each layer and
//! size, and never for a number of rows, so that a picture does not depend on its company (ADR 14).
//!
//! A plan is made for a card that is there, or for one that is only described, which is how they are checked without a GPU.

mod choice;
mod conv;
mod descriptor;
mod kept;
#[cfg(test)]
mod tests;

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use cudarc::cudnn::sys;

use self::choice::{Pinned, pin};
pub(crate) use self::conv::ConvKey;
use self::conv::{BIAS, RESULT, WEIGHT, X};
use self::descriptor::{Descriptor, Handle, Kind, Name, checked};
use self::kept::Kept;
use crate::command::Span;

/// Symbols of cuDNN that are used. One that is missing would end the process at its first use.
const SYMBOLS: &[&str] = &[
    "cudnnBackendCreateDescriptor",
    "cudnnBackendDestroyDescriptor",
    "cudnnBackendExecute",
    "cudnnBackendFinalize",
    "cudnnBackendGetAttribute",
    "cudnnBackendSetAttribute",
    "cudnnCreate",
    "cudnnDestroy",
    "cudnnGetLastErrorString",
    "cudnnGetVersion",
    "cudnnSetStream",
];

/// Alignment of every tensor that cuDNN may rely on, in bytes.
const ALIGNED: u64 = 16;

/// Why there is no plan: cuDNN's words.
pub(crate) type Why = String;

/// The version of cuDNN, or why it cannot be used.
pub(crate) fn version() -> Result<usize, Why> {
    // cuDNN 9.26 ends the process where it looks for this one and does not find it.
    // SAFETY: opening a library runs its initialisation, which NVIDIA's survive.
    if !unsafe { cudarc::cublaslt::sys::is_culib_present() } {
        return Err(
            "libcublasLt.so.13 was not found (cuDNN needs it; the package nvidia-cublas has it)".to_owned(),
        );
    }
    // SAFETY: as above.
    if !unsafe { sys::is_culib_present() } {
        return Err("libcudnn.so.9 was not found (the package nvidia-cudnn-cu13 has it)".to_owned());
    }
    // SAFETY: the library has just been opened.
    let library = unsafe { sys::culib() };
    for symbol in SYMBOLS {
        // SAFETY: the symbol is looked up and not used.
        if unsafe { library.get::<*const c_char>(symbol.as_bytes()) }.is_err() {
            return Err(format!("libcudnn has no `{symbol}`; version 9 is needed"));
        }
    }
    // SAFETY: it takes nothing.
    let version = unsafe { sys::cudnnGetVersion() };
    if version < 90_800 {
        return Err(format!("cuDNN {version} is too old; 9.8 or newer is needed"));
    }
    Ok(version)
}

/// The card that plans are for.
#[derive(Debug)]
enum Card {
    /// The one that is there.
    Present(Handle),
    /// One that is described, as JSON in cuDNN's words.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "plans are checked without a card in tests only")
    )]
    Described(Descriptor),
}

/// A plan that can be executed, with everything that it refers to.
#[derive(Debug)]
pub(crate) struct Plan {
    plan: Descriptor,
    workspace_bytes: usize,
    has_bias: bool,
    /// Whether it computes one row at a time.
    by_row: bool,
    /// Dropped after the plan.
    _held: Vec<Descriptor>,
}

impl Plan {
    /// Bytes that it works in.
    pub(crate) fn workspace_bytes(&self) -> usize {
        self.workspace_bytes
    }
}

// SAFETY: a finished plan is only read, by whoever executes it and by the graphs that hold its kernels.
unsafe impl Send for Plan {}
// SAFETY: as above.
unsafe impl Sync for Plan {}

/// Where the operands of a plan are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operands {
    pub(crate) x: u64,
    pub(crate) weight: u64,
    pub(crate) bias: Option<u64>,
    pub(crate) y: u64,
}

/// Engines that are remembered: all of some sizes of a few networks. One that is forgotten is chosen again, as the same.
const MOST_ENGINES: usize = 1 << 14;

/// Plans that are kept beside those that graphs hold: more than the layers of the largest network, so that what a program has
/// just run is there when its graph is made.
const MOST_PLANS: usize = 1 << 12;

/// The plans of a card that is there.
#[derive(Debug)]
pub(crate) struct Plans {
    card: Card,
    /// By layer and size.
    pinned: Kept<ConvKey, Result<Pinned, Why>>,
    /// By layer, size and rows.
    plans: Kept<(ConvKey, usize), Arc<Plan>>,
}

/// A layer that is about to be executed.
#[derive(Debug)]
pub(crate) struct PreparedLayer {
    plan: Arc<Plan>,
    /// One, or one for each row.
    packs: Vec<Descriptor>,
}

impl PreparedLayer {
    /// What computes it.
    pub(crate) fn plan(self) -> Arc<Plan> {
        self.plan
    }
}

impl Plans {
    /// For the card whose context is this thread's, on this stream.
    pub(crate) fn new(stream: sys::cudaStream_t) -> Result<Self, Why> {
        version()?;
        Ok(Self {
            card: Card::Present(Handle::new(stream)?),
            pinned: Kept::new(MOST_ENGINES),
            plans: Kept::new(MOST_PLANS),
        })
    }

    /// How many plans are kept.
    pub(crate) fn len(&self) -> usize {
        self.plans.len()
    }

    /// Everything that can fail before something is launched.
    pub(crate) fn prepare(
        &mut self,
        (key, rows): (ConvKey, usize),
        operands: Operands,
        workspace: Span,
    ) -> Result<PreparedLayer, Why> {
        let all = [operands.x, operands.weight, operands.y]
            .into_iter()
            .chain(operands.bias);
        if all.into_iter().any(|address| address % ALIGNED != 0) {
            return Err(format!(
                "{operands:?} do not begin at multiples of {ALIGNED} bytes"
            ));
        }
        let plan = self.plan(key, rows)?;
        if plan.workspace_bytes > workspace.bytes {
            return Err(format!(
                "{key:?} works in {} bytes, and there are {}",
                plan.workspace_bytes, workspace.bytes
            ));
        }
        let at_a_time = if plan.by_row { rows } else { 1 };
        let packs = (0..at_a_time as u64).map(|row| pack(&plan, of_row(key, operands, row), workspace));
        let packs = packs.collect::<Result<_, Why>>()?;
        Ok(PreparedLayer { plan, packs })
    }

    /// Executes a layer on the stream.
    ///
    /// # Safety
    /// Operands and workspace, as they were prepared, lie in the card's memory, the operands as long as the key says.
    pub(crate) unsafe fn execute(&self, layer: &PreparedLayer) -> Result<(), Why> {
        let Card::Present(handle) = &self.card else {
            return Err("a card that is only described computes nothing".to_owned());
        };
        layer.packs.iter().try_for_each(|pack| {
            // SAFETY: the caller answers for the memory; handle and descriptors are finished.
            checked("execute", unsafe {
                sys::cudnnBackendExecute(handle.raw(), layer.plan.plan.raw(), pack.raw())
            })
        })
    }

    /// The plan of a layer for `rows` rows. The first call for a layer chooses its engine, or finds that there is none.
    pub(crate) fn plan(&mut self, key: ConvKey, rows: usize) -> Result<Arc<Plan>, Why> {
        if let Some(plan) = self.plans.get(&(key, rows)) {
            return Ok(Arc::clone(plan));
        }
        let pinned = match self.pinned.get(&key) {
            Some(pinned) => pinned.clone(),
            None => {
                let pinned = pin(&self.card, key);
                self.pinned.put(key, pinned.clone());
                pinned
            }
        }?;
        let at_a_time = if pinned.by_row { 1 } else { rows };
        let plan = Arc::new(pinned.plan(&self.card, key, at_a_time)?);
        self.plans.put((key, rows), Arc::clone(&plan));
        Ok(plan)
    }
}

/// The operands of one row alone.
fn of_row(key: ConvKey, operands: Operands, row: u64) -> Operands {
    let bytes = |(h, w): (usize, usize), channels: usize| (h * w * channels * key.dtype.size_bytes()) as u64;
    Operands {
        x: operands.x + row * bytes(key.from, key.inputs),
        y: operands.y + row * bytes(key.to, key.outputs),
        ..operands
    }
}

/// What a plan is executed with.
fn pack(plan: &Plan, operands: Operands, workspace: Span) -> Result<Descriptor, Why> {
    let mut ids = vec![X, WEIGHT, RESULT];
    let mut pointers = vec![operands.x, operands.weight, operands.y];
    if let Some(bias) = operands.bias.filter(|_| plan.has_bias) {
        ids.push(BIAS);
        pointers.push(bias);
    }
    Descriptor::new(Kind::CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)?
        .ints(Name::CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, &ids)?
        .pointers(Name::CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, &pointers)?
        .pointers(
            Name::CUDNN_ATTR_VARIANT_PACK_WORKSPACE,
            &[workspace.address().unwrap_or(0)],
        )?
        .finished()
}

/// What is at an address of the card.
fn pointer(address: u64) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or(0))
}
