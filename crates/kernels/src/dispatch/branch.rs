//! What LoRAs add beside the weights of linear layers: to all rows of a forward, or to each row what its own set has.

use std::sync::Arc;

use pentimento_gpu as gpu;

use crate::device::GpuDevice;
use crate::{Device, HostTensor, KernelError, Result, matrix};

use super::weights::Weights;

/// Rooms for ranks are multiples of this, so that sets of about the same ranks share their programs.
const ROOM: usize = 32;

/// A low-rank change of a layer that keeps the layer's own weights as they are: y = activation(W x + b + U D x).
#[derive(Debug)]
pub struct Branch(Form);

#[derive(Debug)]
enum Form {
    Cpu(matrix::Branch),
    Gpu(Arc<gpu::LowRank>),
    OfRows(OfRows),
}

/// What the rows have that a forward is recorded for.
#[derive(Debug)]
struct OfRows {
    sets: Vec<RowSets>,
    layer: gpu::LayerOfSets,
}

impl Branch {
    /// One beside a layer of the CPU.
    pub(super) const fn on_cpu(branch: matrix::Branch) -> Self {
        Self(Form::Cpu(branch))
    }

    /// `down` (rank, inputs) and `up` (rows, rank) beside a layer of these sides on a GPU.
    pub(super) fn on_gpu(
        device: &GpuDevice,
        (inputs, rows): (usize, usize),
        (down, up): (&HostTensor, &HostTensor),
    ) -> Result<Self> {
        let (rank, down_inputs) = down.dims2()?;
        if rank == 0 || down_inputs != inputs || up.dims() != [rows, rank] {
            return Err(KernelError::mismatch(format!(
                "a branch of {:?} and {:?} beside a layer of {inputs} inputs and {rows} rows",
                down.dims(),
                up.dims()
            )));
        }
        let (down, up) = (Weights::of(down)?, Weights::of(up)?);
        let data = (down.data(), up.data());
        let low = gpu::LowRank::new(device.gpu(), (rows, inputs, rank), data, device.dtype())?;
        Ok(Self(Form::Gpu(Arc::new(low))))
    }

    /// Layer number `layer` of the sets that the rows of a computation have, with the `room` that [`BranchSet::rooms`] says. A
    /// layer looks for its rows in that of `sets` with as many.
    #[must_use]
    pub fn of_rows(sets: Vec<RowSets>, layer: usize, room: usize) -> Self {
        let layer = gpu::LayerOfSets { layer, room };
        Self(Form::OfRows(OfRows { sets, layer }))
    }

    /// The same for `count` rows from row `first` on of those that are `of` in all; None where all rows have the same anyway.
    ///
    /// # Errors
    /// When no rows are so many.
    pub fn narrow_rows(&self, first: usize, count: usize, of: usize) -> Result<Option<Self>> {
        let Form::OfRows(rows) = &self.0 else {
            return Ok(None);
        };
        let narrow = RowSets(rows.sets_of(of)?.narrow_rows(first, count)?);
        let layer = rows.layer;
        Ok(Some(Self(Form::OfRows(OfRows {
            sets: vec![narrow],
            layer,
        }))))
    }

    /// Bytes that its weights hold.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match &self.0 {
            Form::Cpu(branch) => branch.size_bytes(),
            Form::Gpu(low) => low.size_bytes(),
            Form::OfRows(_) => 0,
        }
    }

    pub(super) fn cpu(&self) -> Result<&matrix::Branch> {
        match &self.0 {
            Form::Cpu(branch) => Ok(branch),
            Form::Gpu(_) | Form::OfRows(_) => Err(elsewhere()),
        }
    }

    /// `y` with what this adds for `x`.
    pub(super) fn add_on_gpu(&self, x: &gpu::Tensor, y: gpu::Tensor) -> Result<gpu::Tensor> {
        match &self.0 {
            Form::Cpu(_) => Err(elsewhere()),
            Form::Gpu(low) => Ok(low.add(x, y)?),
            Form::OfRows(rows) => {
                let count = x.shape().first().copied().unwrap_or(0);
                Ok(gpu::add_low_rank(x, y, rows.sets_of(count)?, rows.layer)?)
            }
        }
    }
}

impl OfRows {
    fn sets_of(&self, count: usize) -> Result<&gpu::Tensor> {
        let found = self.sets.iter().find(|sets| sets.0.shape() == [count]);
        let found = found.ok_or_else(|| KernelError::mismatch(format!("no sets for {count} rows")))?;
        Ok(&found.0)
    }
}

fn elsewhere() -> KernelError {
    KernelError::mismatch("a branch is on another device than its layer")
}

/// The branches of one set of LoRAs beside all layers of a network, where [rows of different sets share a
/// forward](Device::mixes_sets).
#[derive(Debug)]
pub struct BranchSet {
    set: gpu::LowRankSet,
    ranks: Vec<usize>,
}

impl BranchSet {
    /// Of the layers' branches, in the order in which the network counts them. None where sets do not share forwards.
    ///
    /// # Errors
    /// When a branch is elsewhere, or the device has no room.
    pub fn new<'a>(
        device: &Device,
        branches: impl IntoIterator<Item = Option<&'a Branch>>,
    ) -> Result<Option<Self>> {
        let Device::Gpu(device) = device else {
            return Ok(None);
        };
        let branches = branches
            .into_iter()
            .map(|branch| match branch.map(|branch| &branch.0) {
                None => Ok(None),
                Some(Form::Gpu(low)) => Ok(Some(Arc::clone(low))),
                Some(Form::Cpu(_) | Form::OfRows(_)) => Err(elsewhere()),
            });
        let layers = branches.collect::<Result<Vec<_>>>()?;
        let set = gpu::LowRankSet::new(device.gpu(), layers, device.dtype())?;
        let ranks = set.ranks().collect();
        Ok(Some(Self { set, ranks }))
    }

    /// Bytes that it holds beside its branches.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.set.table_bytes()
    }

    /// The room that each layer needs for the ranks of these sets, 0 where none has anything: what a program for them depends on.
    /// Empty where no layer needs any.
    #[must_use]
    pub fn rooms(sets: &[Option<&Self>]) -> Vec<usize> {
        let mut rooms = Vec::new();
        for set in sets.iter().flatten() {
            rooms.resize(set.ranks.len().max(rooms.len()), 0);
            for (room, rank) in rooms.iter_mut().zip(&set.ranks) {
                *room = rank.next_multiple_of(ROOM).max(*room);
            }
        }
        if rooms.iter().all(|room| *room == 0) {
            rooms.clear();
        }
        rooms
    }

    pub(crate) const fn gpu(&self) -> &gpu::LowRankSet {
        &self.set
    }
}

/// The sets of the rows of a computation, on its device. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RowSets(gpu::Tensor);

impl RowSets {
    /// (B,), addresses.
    pub(crate) const fn on_gpu(sets: gpu::Tensor) -> Self {
        Self(sets)
    }
}
