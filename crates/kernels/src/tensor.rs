//! What layers take and give: a tensor in the place where they compute.
//!
//! On the CPU it is candle's, and nothing here copies what candle would not. Networks see these operations and no others, so
//! that one source of them serves every device. Tensors get to a device as the inputs of a computation (`program.rs`), and
//! from it as its results.

use candle_core::{D, DType, Device as HostDevice};
use pentimento_gpu as gpu;

use crate::{KernelError, Result};

/// A tensor in main memory, as it comes from files and goes to schedulers: candle's.
pub type HostTensor = candle_core::Tensor;

/// Numbers on a device. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Tensor {
    /// f32 in main memory, for the CPU.
    Host(HostTensor),
    /// In the memory of a GPU, or of a program for one.
    Gpu(gpu::Tensor),
}

/// `values`, f32, as a tensor of this shape in main memory.
///
/// # Errors
/// When they are not as many as the shape says.
pub fn host_tensor(values: Vec<f32>, dims: &[usize]) -> Result<HostTensor> {
    Ok(HostTensor::from_vec(values, dims, &HostDevice::Cpu)?)
}

/// The same numbers as f32, itself where it is that already.
///
/// # Errors
/// When they are no floats.
pub fn to_f32(values: &HostTensor) -> Result<HostTensor> {
    Ok(values.to_dtype(DType::F32)?)
}

/// All numbers of a tensor of any floating type, in order.
pub(crate) fn floats(values: &HostTensor) -> Result<Vec<f32>> {
    Ok(to_f32(values)?.flatten_all()?.to_vec1()?)
}

impl Tensor {
    /// The result of a computation in main memory, f32; that of the CPU is there already.
    ///
    /// # Errors
    /// When it is no result yet, or the device fails.
    pub fn into_host(self) -> Result<HostTensor> {
        match self {
            Self::Host(values) => Ok(values),
            Self::Gpu(values) => host_tensor(values.download()?, values.shape()),
        }
    }

    /// The tensor for a layer of the CPU.
    pub(crate) fn host(&self) -> Result<&HostTensor> {
        match self {
            Self::Host(values) => Ok(values),
            Self::Gpu(_) => Err(KernelError::mismatch("a layer of the CPU got a tensor of a GPU")),
        }
    }

    /// The tensor for a layer of a GPU.
    pub(crate) fn gpu(&self) -> Result<&gpu::Tensor> {
        match self {
            Self::Gpu(values) => Ok(values),
            Self::Host(_) => Err(KernelError::mismatch(
                "a layer of a GPU got a tensor of main memory",
            )),
        }
    }

    /// Its shape.
    #[must_use]
    pub fn dims(&self) -> &[usize] {
        match self {
            Self::Host(values) => values.dims(),
            Self::Gpu(values) => values.shape(),
        }
    }

    /// The length of the first axis, 0 of a single number.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.dims().first().copied().unwrap_or(0)
    }

    /// The shape of a tensor of three axes.
    ///
    /// # Errors
    /// When it has others.
    pub fn dims3(&self) -> Result<(usize, usize, usize)> {
        match *self.dims() {
            [a, b, c] => Ok((a, b, c)),
            _ => Err(self.unexpected_rank(3)),
        }
    }

    /// The shape of a tensor of four axes.
    ///
    /// # Errors
    /// When it has others.
    pub fn dims4(&self) -> Result<(usize, usize, usize, usize)> {
        match *self.dims() {
            [a, b, c, d] => Ok((a, b, c, d)),
            _ => Err(self.unexpected_rank(4)),
        }
    }

    fn unexpected_rank(&self, expected: usize) -> KernelError {
        KernelError::mismatch(format!(
            "{expected} axes are expected, this has {:?}",
            self.dims()
        ))
    }

    /// Bytes that its numbers take where they are.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        match self {
            Self::Host(values) => (values.elem_count() * values.dtype().size_in_bytes()) as u64,
            Self::Gpu(values) => values.size_bytes() as u64,
        }
    }

    /// The same numbers in another shape.
    ///
    /// # Errors
    /// When the shape is that of another number of them.
    pub fn reshape(&self, dims: &[usize]) -> Result<Self> {
        match self {
            Self::Host(values) => Ok(Self::Host(values.reshape(dims)?)),
            Self::Gpu(values) => Ok(Self::Gpu(values.reshape(dims)?)),
        }
    }

    /// The same numbers with an axis of length 1 before axis `axis`.
    ///
    /// # Errors
    /// When there are fewer axes.
    pub fn unsqueeze(&self, axis: usize) -> Result<Self> {
        match self {
            Self::Host(values) => Ok(Self::Host(values.unsqueeze(axis)?)),
            Self::Gpu(values) => {
                let mut dims = values.shape().to_vec();
                if axis > dims.len() {
                    return Err(self.unexpected_rank(axis));
                }
                dims.insert(axis, 1);
                Ok(Self::Gpu(values.reshape(&dims)?))
            }
        }
    }

    /// `count` rows from row `first` on, which are shared and not copied.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn narrow_rows(&self, first: usize, count: usize) -> Result<Self> {
        match self {
            Self::Host(values) => Ok(Self::Host(values.narrow(0, first, count)?)),
            Self::Gpu(values) => Ok(Self::Gpu(values.narrow_rows(first, count)?)),
        }
    }

    /// The rows of all `parts`, one after the other.
    ///
    /// # Errors
    /// When there is no part, or rows of two parts differ in shape or place.
    pub fn cat_rows(parts: &[&Self]) -> Result<Self> {
        match parts {
            [Self::Gpu(only)] => Ok(Self::Gpu(only.clone())),
            [Self::Gpu(_), ..] => {
                let parts = parts.iter().map(|part| part.gpu());
                let parts = parts.collect::<Result<Vec<_>>>()?;
                Ok(Self::Gpu(gpu::cat_rows(&parts)?))
            }
            _ => {
                let parts = parts.iter().map(|part| part.host());
                let parts = parts.collect::<Result<Vec<_>>>()?;
                Ok(Self::Host(HostTensor::cat(&parts, 0)?))
            }
        }
    }

    /// The tokens of each row (B, S, D) and then those of the same row of `other` (B, N, D): (B, S + N, D).
    ///
    /// # Errors
    /// When rows, widths or places differ.
    pub fn cat_tokens(&self, other: &Self) -> Result<Self> {
        match self {
            Self::Host(values) => {
                let joined = HostTensor::cat(&[values, other.host()?], 1)?;
                Ok(Self::Host(joined))
            }
            Self::Gpu(values) => {
                let ((b, s, d), (_, n, width)) = (self.dims3()?, other.dims3()?);
                if d != width {
                    return Err(KernelError::mismatch(format!(
                        "tokens of {d} and of {width} numbers"
                    )));
                }
                // The numbers of a row are one line.
                let lines = [values.reshape(&[b, s * d])?, other.gpu()?.reshape(&[b, n * d])?];
                let joined = gpu::join_channels(&lines[0], &lines[1])?;
                Ok(Self::Gpu(joined.reshape(&[b, s + n, d])?))
            }
        }
    }

    /// `count` numbers of each line (…, D) from number `first` on: (…, `count`).
    ///
    /// # Errors
    /// When a line has fewer.
    pub fn columns(&self, first: usize, count: usize) -> Result<Self> {
        match self {
            Self::Host(values) => {
                let part = values.narrow(D::Minus1, first, count)?;
                Ok(Self::Host(part.contiguous()?))
            }
            Self::Gpu(values) => {
                if values.shape().last().is_none_or(|width| first + count > *width) {
                    return Err(KernelError::mismatch(format!(
                        "{count} numbers from {first} on of {:?}",
                        self.dims()
                    )));
                }
                Ok(Self::Gpu(gpu::columns(values, first, count)?))
            }
        }
    }

    /// The rows that `index` names, in its order.
    ///
    /// # Errors
    /// When there are fewer rows, which a GPU does not see and gives NaN for; or the index is on another device.
    pub fn select_rows(&self, index: &RowIndex) -> Result<Self> {
        match (self, &index.0) {
            (Self::Host(values), Numbers::Cpu(index)) => Ok(Self::Host(values.index_select(index, 0)?)),
            (Self::Gpu(values), Numbers::Gpu(index)) => Ok(Self::Gpu(gpu::gather(values, index)?)),
            _ => Err(KernelError::mismatch(
                "rows are chosen by an index of another device",
            )),
        }
    }

    /// The sums of its numbers and those of `other`, of the same shape.
    ///
    /// # Errors
    /// When the shapes or the places differ.
    pub fn add(&self, other: &Self) -> Result<Self> {
        match self {
            Self::Host(values) => Ok(Self::Host((values + other.host()?)?)),
            Self::Gpu(values) => Ok(Self::Gpu(gpu::add(values, other.gpu()?)?)),
        }
    }

    /// x · sigmoid(x) of each number.
    ///
    /// # Errors
    /// When the device fails.
    pub fn silu(&self) -> Result<Self> {
        match self {
            Self::Host(values) => Ok(Self::Host(values.silu()?)),
            Self::Gpu(values) => Ok(Self::Gpu(gpu::activate(values, gpu::Activation::Silu)?)),
        }
    }

    /// factor · x + term of each number.
    ///
    /// # Errors
    /// When the device fails.
    #[expect(clippy::cast_possible_truncation, reason = "the numbers are f32")]
    pub fn affine(&self, factor: f64, term: f64) -> Result<Self> {
        match self {
            Self::Host(values) => Ok(Self::Host(values.affine(factor, term)?)),
            Self::Gpu(values) => Ok(Self::Gpu(gpu::affine(values, factor as f32, term as f32)?)),
        }
    }

    /// The hyperbolic tangent of each number.
    ///
    /// # Errors
    /// When the device fails.
    pub fn tanh(&self) -> Result<Self> {
        match self {
            Self::Host(values) => Ok(Self::Host(values.tanh()?)),
            Self::Gpu(values) => Ok(Self::Gpu(gpu::activate(values, gpu::Activation::Tanh)?)),
        }
    }
}

/// Numbers of rows on a device, for [`Tensor::select_rows`].
#[derive(Clone, Debug)]
pub struct RowIndex(Numbers);

#[derive(Clone, Debug)]
enum Numbers {
    Cpu(HostTensor),
    Gpu(gpu::Tensor),
}

impl RowIndex {
    /// These rows, in this order; one may occur several times.
    pub(crate) fn on_cpu(rows: &[u32]) -> Result<Self> {
        let rows = HostTensor::from_slice(rows, rows.len(), &HostDevice::Cpu)?;
        Ok(Self(Numbers::Cpu(rows)))
    }

    /// (M,), i32.
    pub(crate) const fn on_gpu(rows: gpu::Tensor) -> Self {
        Self(Numbers::Gpu(rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_same, noise};

    fn select(x: &Tensor, rows: &[u32]) -> Result<Tensor> {
        x.select_rows(&RowIndex::on_cpu(rows).unwrap())
    }

    #[test]
    fn rows_and_tokens_are_taken_and_put_together() {
        let x = Tensor::Host(noise(&[4, 3, 5], 1));
        let picked = select(&x, &[2, 0, 2]).unwrap();
        let row = |number| x.narrow_rows(number, 1).unwrap();
        let (two, zero) = (row(2), row(0));
        let expected = Tensor::cat_rows(&[&two, &zero, &two]).unwrap();
        assert_same("rows", picked.host().unwrap(), expected.host().unwrap());
        assert_eq!(picked.rows(), 3);
        assert_eq!(picked.size_bytes(), 3 * 3 * 5 * 4);
        let joined = x.cat_tokens(&x).unwrap();
        assert_eq!(joined.dims(), [4, 6, 5]);
        let [all, half] = [&joined, &x].map(|x| x.columns(1, 3).unwrap());
        assert_same(
            "columns",
            all.host().unwrap(),
            half.cat_tokens(&half).unwrap().host().unwrap(),
        );
        assert!(x.columns(3, 3).is_err());
        assert!(x.narrow_rows(3, 2).is_err());
        assert!(select(&x, &[4]).is_err());
    }

    #[test]
    fn another_rank_is_named() {
        let x = Tensor::Host(noise(&[4, 3, 5], 1));
        assert_eq!(x.dims3().unwrap(), (4, 3, 5));
        let error = x.dims4().unwrap_err().to_string();
        assert_eq!(error, "4 axes are expected, this has [4, 3, 5]");
    }
}
