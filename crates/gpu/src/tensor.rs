//! Numbers in a device's memory, with their shape. They are contiguous, the last dimension innermost.

use std::sync::Arc;

use half::f16;

use crate::command::Span;
use crate::data::{DType, HostData, floats};
use crate::device::{Buffer, Gpu};
use crate::error::{Error, Result};
use crate::tape::{Block, Tape};

/// A tensor. Clones share its numbers.
///
/// It is kept, with memory of its own (weights, what outlives a program), or belongs to the program that is being
/// recorded, and has numbers only while that program runs.
#[derive(Clone, Debug)]
pub struct Tensor {
    shape: Vec<usize>,
    dtype: DType,
    storage: Storage,
    /// Bytes from the beginning of the storage.
    start: usize,
}

#[derive(Clone, Debug)]
enum Storage {
    Kept(Arc<Buffer>),
    Recorded(Arc<Block>),
}

impl Tensor {
    /// A kept tensor of `data`, as it is.
    ///
    /// # Errors
    /// When there are not as many numbers as the shape says, or as [`Error::OutOfMemory`] and [`Error::Lost`].
    pub fn upload(gpu: &Gpu, shape: &[usize], data: HostData<'_>) -> Result<Self> {
        let elements = elements(shape);
        if data.len() != elements {
            return Err(Error::operands(
                "upload",
                format!("{} numbers for {shape:?}", data.len()),
            ));
        }
        let tensor = Self::kept(gpu, shape, data.dtype())?;
        gpu.upload(tensor.span(), &data.to_bytes())?;
        Ok(tensor)
    }

    /// A kept tensor of floats, in `dtype`: as they are, or rounded to nearest.
    ///
    /// # Errors
    /// As [`Tensor::upload`], and when `dtype` is not a float.
    pub fn upload_as(gpu: &Gpu, shape: &[usize], data: &[f32], dtype: DType) -> Result<Self> {
        match dtype {
            DType::F32 => Self::upload(gpu, shape, HostData::F32(data)),
            DType::F16 => {
                let rounded: Vec<f16> = data.iter().map(|number| f16::from_f32(*number)).collect();
                Self::upload(gpu, shape, HostData::F16(&rounded))
            }
            DType::I32 | DType::Address => Err(Error::operands("upload", "floats as something else")),
        }
    }

    /// A kept tensor of places on its device, which only kernels of this crate follow.
    pub(crate) fn upload_addresses(gpu: &Gpu, shape: &[usize], addresses: &[u64]) -> Result<Self> {
        let tensor = Self::kept(gpu, shape, DType::Address)?;
        let bytes: Vec<u8> = addresses
            .iter()
            .flat_map(|address| address.to_le_bytes())
            .collect();
        gpu.upload(tensor.span(), &bytes)?;
        Ok(tensor)
    }

    /// A kept tensor of whatever is in its memory.
    pub(crate) fn kept(gpu: &Gpu, shape: &[usize], dtype: DType) -> Result<Self> {
        let bytes = size_bytes(shape, dtype)?;
        Ok(Self {
            shape: shape.to_vec(),
            dtype,
            storage: Storage::Kept(Arc::new(gpu.allocate(bytes)?)),
            start: 0,
        })
    }

    /// A tensor of the program that `tape` records.
    pub(crate) fn recorded(tape: &Arc<Tape>, shape: &[usize], dtype: DType) -> Result<Self> {
        let bytes = size_bytes(shape, dtype)?;
        Ok(Self {
            shape: shape.to_vec(),
            dtype,
            storage: Storage::Recorded(Arc::new(tape.take(bytes))),
            start: 0,
        })
    }

    /// The numbers of a kept tensor as f32.
    ///
    /// # Errors
    /// When it belongs to a program, or [`Error::Lost`].
    pub fn download(&self) -> Result<Vec<f32>> {
        let Storage::Kept(buffer) = &self.storage else {
            return Err(Error::operands(
                "download",
                "a tensor of a program that is being recorded has no numbers yet",
            ));
        };
        let mut bytes = vec![0; self.size_bytes()];
        buffer.gpu().download(self.span(), &mut bytes)?;
        Ok(floats(&bytes, self.dtype))
    }

    /// Its dimensions.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The type of its numbers.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// How many numbers it has.
    #[must_use]
    pub fn elements(&self) -> usize {
        elements(&self.shape)
    }

    /// Bytes of its numbers.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.elements() * self.dtype.size_bytes()
    }

    /// Whether it has memory of its own.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        matches!(self.storage, Storage::Kept(_))
    }

    /// The device that it is on.
    #[must_use]
    pub fn gpu(&self) -> Gpu {
        match &self.storage {
            Storage::Kept(buffer) => buffer.gpu(),
            Storage::Recorded(block) => block.tape().gpu().clone(),
        }
    }

    /// The same numbers in another shape.
    ///
    /// # Errors
    /// When the shape has another number of numbers.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        if elements(shape) != self.elements() {
            return Err(Error::operands(
                "reshape",
                format!("{:?} to {shape:?}", self.shape),
            ));
        }
        Ok(Self {
            shape: shape.to_vec(),
            ..self.clone()
        })
    }

    /// `count` rows from `first` on, of the outermost dimension; a view.
    ///
    /// # Errors
    /// When there are not so many.
    pub fn narrow_rows(&self, first: usize, count: usize) -> Result<Self> {
        let fits = self
            .shape
            .first()
            .is_some_and(|rows| first.checked_add(count).is_some_and(|end| end <= *rows));
        if !fits {
            return Err(Error::operands(
                "narrow",
                format!("rows {first} and the {count} from there of {:?}", self.shape),
            ));
        }
        let row: usize = self.shape.iter().skip(1).product();
        let mut shape = self.shape.clone();
        shape[0] = count;
        Ok(Self {
            shape,
            start: self.start + first * row * self.dtype.size_bytes(),
            ..self.clone()
        })
    }

    /// Where its numbers are.
    pub(crate) fn span(&self) -> Span {
        let bytes = self.size_bytes();
        match &self.storage {
            Storage::Kept(buffer) => buffer.span(self.start, bytes),
            Storage::Recorded(block) => block.span(self.start, bytes),
        }
    }

    /// The address of a kept tensor; 0 where it has none yet.
    pub(crate) fn address(&self) -> u64 {
        self.span().address().unwrap_or(0)
    }

    /// The recording that it belongs to.
    pub(crate) fn tape(&self) -> Option<&Arc<Tape>> {
        match &self.storage {
            Storage::Kept(_) => None,
            Storage::Recorded(block) => Some(block.tape()),
        }
    }

    /// Its memory, if it has any of its own.
    pub(crate) fn buffer(&self) -> Option<Arc<Buffer>> {
        match &self.storage {
            Storage::Kept(buffer) => Some(Arc::clone(buffer)),
            Storage::Recorded(_) => None,
        }
    }
}

fn elements(shape: &[usize]) -> usize {
    shape.iter().product()
}

fn size_bytes(shape: &[usize], dtype: DType) -> Result<usize> {
    shape
        .iter()
        .try_fold(dtype.size_bytes(), |bytes, side| bytes.checked_mul(*side))
        .ok_or_else(|| {
            Error::operands(
                "allocate",
                format!("{shape:?} has more bytes than can be counted"),
            )
        })
}
