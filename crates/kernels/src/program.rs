//! One computation of a network on its device: what it is given, and what is done with it.
//!
//! On the CPU it runs as it is written. On a GPU it is written down the first time, as a program for the shapes of what it is
//! given, and that program runs from then on. So a computation sees nothing but its inputs, its layers and its key.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pentimento_gpu as gpu;

use crate::device::GpuDevice;
use crate::tensor::floats;
use crate::{BranchSet, Device, HostTensor, KernelError, Result, RowIndex, RowSets, Tensor};

/// Launches of a network's programs that are kept; of more, the programs that were not used for longest are recorded again.
/// A launch is some hundred bytes in main memory, and a node of a graph on the device; the activations are in an arena that all
/// share. So a UNet has some thirty shapes, and an autoencoder, whose stages are small programs of their own, some dozens.
const KEPT_LAUNCHES: usize = 1 << 15;

/// What a computation is given, in order.
#[derive(Debug, Default)]
pub struct InputList<'a>(Vec<Part<'a>>);

#[derive(Debug)]
enum Part<'a> {
    Host(HostTensor),
    Tensor(Tensor),
    Rows(Vec<&'a Tensor>),
    Index(Vec<u32>),
    Sets(Vec<Option<&'a BranchSet>>),
    Taken,
}

/// The place of a tensor among what is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorPlace(usize);

/// The place of numbers of rows among what is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexPlace(usize);

/// The place of the sets of rows among what is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetsPlace(usize);

impl<'a> InputList<'a> {
    fn push(&mut self, part: Part<'a>) -> usize {
        self.0.push(part);
        self.0.len() - 1
    }

    /// `values`, f32 in main memory.
    pub fn host(&mut self, values: HostTensor) -> TensorPlace {
        TensorPlace(self.push(Part::Host(values)))
    }

    /// What another computation of the same device has given.
    pub fn tensor(&mut self, x: Tensor) -> TensorPlace {
        TensorPlace(self.push(Part::Tensor(x)))
    }

    /// The rows of such tensors, one after the other.
    pub fn rows(&mut self, parts: Vec<&'a Tensor>) -> TensorPlace {
        TensorPlace(self.push(Part::Rows(parts)))
    }

    /// Numbers of rows, for [`Tensor::select_rows`].
    pub fn index(&mut self, rows: Vec<u32>) -> IndexPlace {
        IndexPlace(self.push(Part::Index(rows)))
    }

    /// The set of LoRAs of each row, or none, for [`Branch::of_rows`](crate::Branch::of_rows).
    pub fn sets(&mut self, rows: Vec<Option<&'a BranchSet>>) -> SetsPlace {
        SetsPlace(self.push(Part::Sets(rows)))
    }
}

/// What a computation has been given, on its device.
#[derive(Debug)]
pub struct Inputs<'a>(Source<'a>);

#[derive(Debug)]
enum Source<'a> {
    Cpu(Vec<Part<'a>>),
    Gpu(Vec<Option<gpu::Tensor>>, gpu::DType),
}

impl Inputs<'_> {
    /// The tensor at a place, which is there no more: who takes it decides when its memory is free.
    ///
    /// # Errors
    /// When it has been taken before.
    pub fn take(&mut self, place: TensorPlace) -> Result<Tensor> {
        match &mut self.0 {
            Source::Cpu(parts) => {
                let part = parts.get_mut(place.0);
                match part.map(|part| std::mem::replace(part, Part::Taken)) {
                    Some(Part::Host(values)) => Ok(Tensor::Host(values)),
                    Some(Part::Tensor(x)) => Ok(x),
                    Some(Part::Rows(parts)) => joined(&parts),
                    Some(Part::Index(_) | Part::Sets(_) | Part::Taken) | None => Err(gone()),
                }
            }
            Source::Gpu(tensors, dtype) => {
                let tensor = tensors.get_mut(place.0).and_then(Option::take);
                let tensor = gpu::convert(&tensor.ok_or_else(gone)?, *dtype)?;
                Ok(Tensor::Gpu(tensor))
            }
        }
    }

    /// The tensor at a place. Rows of several are put together for whoever asks, and held by nobody else.
    ///
    /// # Errors
    /// When it has been taken before.
    pub fn get(&self, place: TensorPlace) -> Result<Tensor> {
        match &self.0 {
            Source::Cpu(parts) => match parts.get(place.0) {
                Some(Part::Host(values)) => Ok(Tensor::Host(values.clone())),
                Some(Part::Tensor(x)) => Ok(x.clone()),
                Some(Part::Rows(parts)) => joined(parts),
                Some(Part::Index(_) | Part::Sets(_) | Part::Taken) | None => Err(gone()),
            },
            Source::Gpu(tensors, dtype) => {
                let tensor = tensors.get(place.0).and_then(Option::as_ref);
                Ok(Tensor::Gpu(gpu::convert(tensor.ok_or_else(gone)?, *dtype)?))
            }
        }
    }

    /// The numbers of rows at a place.
    ///
    /// # Errors
    /// When there are none.
    pub fn index(&self, place: IndexPlace) -> Result<RowIndex> {
        match &self.0 {
            Source::Cpu(parts) => match parts.get(place.0) {
                Some(Part::Index(rows)) => RowIndex::on_cpu(rows),
                _ => Err(gone()),
            },
            Source::Gpu(tensors, _) => {
                let tensor = tensors.get(place.0).and_then(Option::as_ref);
                tensor.cloned().map(RowIndex::on_gpu).ok_or_else(gone)
            }
        }
    }
}

impl Inputs<'_> {
    /// The sets of rows at a place.
    ///
    /// # Errors
    /// When there are none, or the device [mixes none](Device::mixes_sets).
    pub fn sets(&self, place: SetsPlace) -> Result<RowSets> {
        match &self.0 {
            Source::Cpu(_) => Err(KernelError::mismatch("rows of different sets on the CPU")),
            Source::Gpu(tensors, _) => {
                let tensor = tensors.get(place.0).and_then(Option::as_ref);
                tensor.cloned().map(RowSets::on_gpu).ok_or_else(gone)
            }
        }
    }
}

fn joined(parts: &[&Tensor]) -> Result<Tensor> {
    match parts {
        [only] => Ok((*only).clone()),
        several => Tensor::cat_rows(several),
    }
}

fn gone() -> KernelError {
    KernelError::mismatch("an input of a computation is not there any more")
}

/// Which programs of this process some are; copies are others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProgramsId(u64);

/// The computations of one network, told apart by keys.
#[derive(Debug)]
pub struct Programs<K> {
    id: ProgramsId,
    device: Device,
    recorded: Mutex<Recordings<K>>,
}

/// What a run of a computation takes of a GPU's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramMemory {
    /// Bytes of the arena, which all programs of the device share.
    pub arena_bytes: u64,
    /// Bytes of the results.
    pub output_bytes: u64,
    /// Whether there is so much, the arena counted that is there.
    pub fits: bool,
}

/// The one that was used last is at the end.
#[derive(Debug)]
struct Recordings<K>(Vec<Recorded<K>>);

impl<K> Default for Recordings<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// A program for one key and these shapes.
#[derive(Debug)]
struct Recorded<K> {
    key: K,
    shapes: Vec<gpu::InputShape>,
    program: gpu::Program,
}

/// Copies have programs of their own, since their layers may become others.
impl<K: Eq> Clone for Programs<K> {
    fn clone(&self) -> Self {
        Self::new(&self.device)
    }
}

impl<K: Eq> Programs<K> {
    /// For a network on `device`.
    #[must_use]
    pub fn new(device: &Device) -> Self {
        static MADE: AtomicU64 = AtomicU64::new(1);
        Self {
            id: ProgramsId(MADE.fetch_add(1, Ordering::Relaxed)),
            device: device.clone(),
            recorded: Mutex::default(),
        }
    }

    /// Tells them from all others of this process.
    #[must_use]
    pub const fn id(&self) -> ProgramsId {
        self.id
    }

    /// Where they run.
    #[must_use]
    pub const fn device(&self) -> &Device {
        &self.device
    }

    /// What `body` makes of what is given. `key` is everything but the shapes of its inputs on which it depends what `body`
    /// does.
    ///
    /// # Errors
    /// Those of `body`; and when the device fails.
    pub fn run(
        &self,
        key: K,
        given: InputList<'_>,
        body: impl FnOnce(&mut Inputs<'_>) -> Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        match &self.device {
            Device::Cpu | Device::CpuInBf16 => body(&mut Inputs(Source::Cpu(given.0))),
            Device::Gpu(device) => self.run_on(device, key, &GpuPart::all(&given)?, body),
        }
    }

    /// The same for a computation with one result.
    ///
    /// # Errors
    /// As [`Programs::run`].
    pub fn run_one(
        &self,
        key: K,
        given: InputList<'_>,
        body: impl FnOnce(&mut Inputs<'_>) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mut results = self.run(key, given, |inputs| Ok(vec![body(inputs)?]))?;
        results
            .pop()
            .ok_or_else(|| KernelError::mismatch("a computation without a result"))
    }

    /// What a run of this computation would take of the device's memory, exactly, and whether there is so much now. Nothing is
    /// computed; on a GPU it is recorded, and found by the run. None on the CPU, where it is not known.
    ///
    /// # Errors
    /// As [`Programs::run`].
    pub fn measure(
        &self,
        key: K,
        given: &InputList<'_>,
        body: impl FnOnce(&mut Inputs<'_>) -> Result<Vec<Tensor>>,
    ) -> Result<Option<ProgramMemory>> {
        let Device::Gpu(device) = &self.device else {
            return Ok(None);
        };
        let given = GpuPart::all(given)?;
        let mut recorded = self.recorded();
        let known = recorded.find_or_record(device, key, &given, body)?;
        let (arena_bytes, output_bytes) = (known.program.arena_bytes(), known.program.output_bytes());
        recorded.keep(known);
        Ok(Some(ProgramMemory {
            arena_bytes: arena_bytes as u64,
            output_bytes: output_bytes as u64,
            fits: device.gpu().fits(arena_bytes, output_bytes)?,
        }))
    }

    fn run_on(
        &self,
        device: &GpuDevice,
        key: K,
        given: &[GpuPart<'_>],
        body: impl FnOnce(&mut Inputs<'_>) -> Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        let mut recorded = self.recorded();
        let mut known = recorded.find_or_record(device, key, given, body)?;
        let inputs: Vec<_> = given.iter().map(GpuPart::input).collect();
        let results = known.program.run(&inputs);
        recorded.keep(known);
        Ok(results?.into_iter().map(Tensor::Gpu).collect())
    }

    fn recorded(&self) -> MutexGuard<'_, Recordings<K>> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq> Recordings<K> {
    /// The program, which is given back by [`Recordings::keep`].
    fn find_or_record(
        &mut self,
        device: &GpuDevice,
        key: K,
        given: &[GpuPart<'_>],
        body: impl FnOnce(&mut Inputs<'_>) -> Result<Vec<Tensor>>,
    ) -> Result<Recorded<K>> {
        let shapes: Vec<_> = given.iter().map(GpuPart::shape).collect();
        let found = self
            .0
            .iter()
            .position(|known| known.key == key && known.shapes == shapes);
        Ok(match found {
            Some(place) => self.0.remove(place),
            None => Recorded {
                key,
                program: record(device, &shapes, body)?,
                shapes,
            },
        })
    }

    fn keep(&mut self, known: Recorded<K>) {
        let mut launches: usize = self.0.iter().map(|known| known.program.launches()).sum();
        launches += known.program.launches();
        while launches > KEPT_LAUNCHES && !self.0.is_empty() {
            launches -= self.0.remove(0).program.launches();
        }
        self.0.push(known);
    }
}

fn record(
    device: &GpuDevice,
    shapes: &[gpu::InputShape],
    body: impl FnOnce(&mut Inputs<'_>) -> Result<Vec<Tensor>>,
) -> Result<gpu::Program> {
    gpu::Program::record(device.gpu(), shapes, |tensors| {
        let tensors = tensors.into_iter().map(Some).collect();
        let mut inputs = Inputs(Source::Gpu(tensors, device.dtype()));
        let results = body(&mut inputs)?;
        results.iter().map(|result| result.gpu().cloned()).collect()
    })
}

/// A part of what is given, as a program takes it.
#[derive(Debug)]
enum GpuPart<'a> {
    Floats(Vec<usize>, Vec<f32>),
    Index(Vec<i32>),
    Tensor(&'a gpu::Tensor),
    Rows(Vec<&'a gpu::Tensor>),
    Sets(Vec<Option<&'a gpu::LowRankSet>>),
}

impl<'a> GpuPart<'a> {
    fn all(given: &'a InputList<'_>) -> Result<Vec<Self>> {
        let part = |part: &'a Part<'_>| match part {
            Part::Host(values) => Ok(Self::Floats(values.dims().to_vec(), floats(values)?)),
            Part::Tensor(x) => x.gpu().map(Self::Tensor),
            Part::Rows(parts) => {
                let parts = parts.iter().map(|part| part.gpu());
                parts.collect::<Result<_>>().map(Self::Rows)
            }
            Part::Index(rows) => {
                let rows = rows.iter().map(|row| i32::try_from(*row));
                let rows = rows.collect::<std::result::Result<_, _>>();
                rows.map(Self::Index)
                    .map_err(|_| KernelError::mismatch("a row beyond what is counted"))
            }
            Part::Sets(rows) => {
                let rows = rows.iter().map(|set| set.map(BranchSet::gpu));
                Ok(Self::Sets(rows.collect()))
            }
            Part::Taken => Err(gone()),
        };
        given.0.iter().map(part).collect()
    }

    fn shape(&self) -> gpu::InputShape {
        match self {
            Self::Floats(dims, _) => gpu::InputShape::new(dims, gpu::DType::F32),
            Self::Index(rows) => gpu::InputShape::new(&[rows.len()], gpu::DType::I32),
            Self::Sets(rows) => gpu::InputShape::new(&[rows.len()], gpu::DType::Address),
            Self::Tensor(x) => gpu::InputShape::new(x.shape(), x.dtype()),
            Self::Rows(parts) => {
                let Some(first) = parts.first() else {
                    return gpu::InputShape::new(&[0], gpu::DType::F32);
                };
                let mut shape = first.shape().to_vec();
                if let Some(rows) = shape.first_mut() {
                    *rows = parts.iter().filter_map(|part| part.shape().first()).sum();
                }
                gpu::InputShape::new(&shape, first.dtype())
            }
        }
    }

    fn input(&self) -> gpu::Input<'_> {
        match self {
            Self::Floats(_, values) => gpu::Input::Host(gpu::HostData::F32(values)),
            Self::Index(rows) => gpu::Input::Host(gpu::HostData::I32(rows)),
            Self::Tensor(x) => gpu::Input::Kept(x),
            Self::Rows(parts) => gpu::Input::Joined(parts),
            Self::Sets(rows) => gpu::Input::Sets(rows),
        }
    }
}
