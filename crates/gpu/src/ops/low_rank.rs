//! Low-rank products beside the weights of linear layers, which are other ones for every row of a batch: what LoRAs add.
//!
//! A program is told where the matrices of its rows are each time that it runs, so it is one and the same whatever the sets of
//! its rows; what it knows is which layers have any, and the room for the largest rank.

use std::sync::Arc;

use super::record::{LaunchRecord, Record};
use super::weights::upload;
use crate::data::{DType, HostData};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::tape::LayerNeed;
use crate::tensor::Tensor;

/// What is beside one layer, in a table of addresses: those of both matrices, and the rank.
const ENTRY: usize = 3;

/// A low-rank product beside one linear layer: up (down x).
#[derive(Clone, Debug)]
pub struct LowRank {
    /// (rank, inputs)
    down: Tensor,
    /// (outputs, rank)
    up: Tensor,
}

impl LowRank {
    /// Of `down` (`rank`, `inputs`) and `up` (`outputs`, `rank`), in `dtype`: as given, or rounded to nearest.
    ///
    /// # Errors
    /// When the lengths do not fit or `dtype` is no float, or as [`Tensor::upload`].
    pub fn new(
        gpu: &Gpu,
        (outputs, inputs, rank): (usize, usize, usize),
        (down, up): (HostData<'_>, HostData<'_>),
        dtype: DType,
    ) -> Result<Self> {
        if rank * inputs * outputs == 0 || down.len() != rank * inputs || up.len() != outputs * rank {
            let what = format!(
                "{} and {} numbers for rank {rank} beside {outputs}x{inputs}",
                down.len(),
                up.len()
            );
            return Err(Error::operands("low rank", what));
        }
        Ok(Self {
            down: upload(gpu, &[rank, inputs], down, dtype)?,
            up: upload(gpu, &[outputs, rank], up, dtype)?,
        })
    }

    /// How many numbers are between the two matrices.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.down.shape().first().copied().unwrap_or(0)
    }

    /// Numbers of a line that comes in, and of one that comes out.
    #[must_use]
    pub fn sides(&self) -> (usize, usize) {
        let inputs = self.down.shape().last().copied().unwrap_or(0);
        (inputs, self.up.shape().first().copied().unwrap_or(0))
    }

    /// Bytes of both matrices.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.down.size_bytes() + self.up.size_bytes()
    }

    /// `y` (B, …, outputs) with up (down `x`) added in its place, for all rows of `x` (B, …, inputs). Sums are in f32 and rounded
    /// once, `y` included. Whoever else has `y` sees the sum.
    ///
    /// # Errors
    /// When a shape or a type does not fit.
    pub fn add(&self, x: &Tensor, y: Tensor) -> Result<Tensor> {
        let record = Record::new("low rank", [x, &y, &self.down, &self.up])?;
        record.float([x, &y, &self.down])?;
        let matrices = Matrices {
            own: Some(self),
            sets: None,
            layer: 0,
            room: self.rank(),
        };
        matrices.add(&record, self.sides(), x, &y)?;
        Ok(y)
    }
}

/// What is beside the layers of one network, in the order in which the network counts them.
#[derive(Debug)]
pub struct LowRankSet {
    layers: Vec<Option<Arc<LowRank>>>,
    dtype: DType,
    /// Entries of the layers, on their device.
    table: Tensor,
}

impl LowRankSet {
    /// Of these layers; None is one with nothing beside it. What there is has to be on `gpu`, in `dtype`.
    ///
    /// # Errors
    /// When something is elsewhere, or as [`Tensor::upload`].
    pub fn new(gpu: &Gpu, layers: Vec<Option<Arc<LowRank>>>, dtype: DType) -> Result<Self> {
        let fits = |low: &Arc<LowRank>| low.down.gpu().is(gpu) && low.down.dtype() == dtype;
        if !layers.iter().flatten().all(fits) {
            return Err(Error::operands("low rank", "a set of two devices or types"));
        }
        let entry = |low: &Option<Arc<LowRank>>| match low {
            Some(low) => [low.down.address(), low.up.address(), low.rank() as u64],
            None => [0; ENTRY],
        };
        let entries: Vec<u64> = layers.iter().flat_map(entry).collect();
        Ok(Self {
            table: Tensor::upload_addresses(gpu, &[layers.len(), ENTRY], &entries)?,
            layers,
            dtype,
        })
    }

    /// The rank beside each layer, 0 where there is nothing.
    pub fn ranks(&self) -> impl Iterator<Item = usize> + '_ {
        let layers = self.layers.iter();
        layers.map(|low| low.as_ref().map_or(0, |low| low.rank()))
    }

    /// Bytes of its table; what is beside the layers is counted there.
    #[must_use]
    pub fn table_bytes(&self) -> usize {
        self.table.size_bytes()
    }

    /// Where its table is.
    pub(crate) fn address(&self) -> u64 {
        self.table.address()
    }

    /// Whether it is on this device, and has what a program reads of it.
    pub(crate) fn meets(&self, gpu: &Gpu, needs: &[LayerNeed]) -> bool {
        let meets = |need: &LayerNeed| match self.layers.get(need.layer) {
            Some(Some(low)) => {
                low.sides() == need.sides && low.rank() <= need.room && self.dtype == need.dtype
            }
            Some(None) => true,
            None => false,
        };
        self.table.gpu().is(gpu) && needs.iter().all(meets)
    }
}

/// Which layer of the sets of rows is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerOfSets {
    /// Its number.
    pub layer: usize,
    /// The largest rank that any of them has there.
    pub room: usize,
}

/// `y` (B, …, outputs) with up (down `x`) added in its place, where each row of `x` (B, …, inputs) has the matrices that its set
/// has beside the layer. `sets` (B,) is an input of the program, given as [`Input::Sets`](crate::Input::Sets). A row without a set,
/// or whose set has nothing there, stays as it is, and what the others become depends on none but themselves.
///
/// # Errors
/// When a shape or a type does not fit.
pub fn add_low_rank(x: &Tensor, y: Tensor, sets: &Tensor, of: LayerOfSets) -> Result<Tensor> {
    let record = Record::new("low rank", [x, &y, sets])?;
    let dtype = record.float([x, &y])?;
    let fits = sets.dtype() == DType::Address && sets.shape() == x.shape().get(..1).unwrap_or_default();
    record.ensure(fits, "a set for each row is needed")?;
    let LayerOfSets { layer, room } = of;
    let side = |x: &Tensor| x.shape().last().copied().unwrap_or(0);
    let sides = (side(x), side(&y));
    record.need(LayerNeed {
        layer,
        sides,
        room,
        dtype,
    })?;
    let matrices = Matrices {
        own: None,
        sets: Some(sets),
        layer,
        room,
    };
    matrices.add(&record, sides, x, &y)?;
    Ok(y)
}

/// Where the kernels find what is beside a layer.
struct Matrices<'a> {
    /// That of all rows.
    own: Option<&'a LowRank>,
    /// Or the sets of the rows.
    sets: Option<&'a Tensor>,
    layer: usize,
    /// At least the largest rank.
    room: usize,
}

impl Matrices<'_> {
    /// Writes both launches down.
    fn add(
        &self,
        record: &Record<'_>,
        (inputs, outputs): (usize, usize),
        x: &Tensor,
        y: &Tensor,
    ) -> Result<()> {
        let lines_of = |tensor: &Tensor, side: usize| {
            let lines = tensor.shape().split_last();
            lines
                .filter(|(last, lines)| **last == side && !lines.is_empty())
                .map(|(_, lines)| lines.to_vec())
        };
        let lines = lines_of(x, inputs).filter(|lines| lines_of(y, outputs).as_ref() == Some(lines));
        let Some((rows, lines)) = lines.as_ref().and_then(|lines| lines.split_first()) else {
            return Err(record.mismatch(format_args!("lines of {inputs} to lines of {outputs} numbers")));
        };
        record.ensure(y.tape().is_some(), "a kept tensor is not changed")?;
        let (rows, lines): (usize, usize) = (*rows, lines.iter().product());
        let t = record.result(&[rows, lines, self.room], x.dtype())?;
        if self.room * x.elements() == 0 {
            return Ok(());
        }
        let [down, up] = [self.own.map(|own| &own.down), self.own.map(|own| &own.up)];
        let launch = |kernel: &str, from: &Tensor, matrix, to: &Tensor, sides: (usize, usize)| {
            let launch = record.launch(kernel, x.dtype());
            let launch = launch.tensor(from).tensor_or_none(matrix);
            let launch = launch.tensor_or_none(self.sets).tensor(to);
            let launch = launch.int(lines).int(sides.0).int(self.room);
            let launch = launch.int(self.own.map_or(0, LowRank::rank)).int(self.layer);
            blocks(launch, x.dtype(), [lines, sides.1, rows])
        };
        launch("low_rank_down", x, down, &t, (inputs, self.room))?;
        launch("low_rank_up", &t, up, y, (outputs, outputs))
    }
}

/// The geometry for results of these lines, columns and rows, as `low_rank.cu` has it.
fn blocks(launch: LaunchRecord<'_, '_>, dtype: DType, [lines, columns, rows]: [usize; 3]) -> Result<()> {
    let (side, threads, shared_bytes) = match dtype {
        DType::F16 => (64, 128, 2 * 64 * (32 + 8) * size_of::<u16>()),
        DType::F32 | DType::I32 | DType::Address => (16, 256, 2 * 16 * (16 + 1) * size_of::<f32>()),
    };
    let launch = launch.threads(threads).shared_bytes(shared_bytes);
    launch.grid([lines.div_ceil(side), columns.div_ceil(side), rows])
}
