//! What layers take and give: a tensor in the place where they compute.
//!
//! On the CPU it is candle's, and nothing here copies what candle would not. Networks see these operations and no others, so
//! that one source of them serves every device.

use candle_core::{D, DType, Device as HostDevice};

use crate::{Device, KernelError, Result};

/// A tensor in main memory, as it comes from files and goes to schedulers: candle's.
pub type HostTensor = candle_core::Tensor;

/// Numbers on a device, f32 to whoever looks. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Tensor {
    /// In main memory, for the CPU.
    Host(HostTensor),
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

impl Tensor {
    /// `values` f32 on `device`; on the CPU they are shared and not copied.
    ///
    /// # Errors
    /// When the device has no room for them.
    pub fn upload(values: &HostTensor, device: &Device) -> Result<Self> {
        match device {
            Device::Cpu => Ok(Self::Host(values.clone())),
        }
    }

    /// The numbers in main memory; those of the CPU are there already.
    ///
    /// # Errors
    /// When the device fails.
    pub fn into_host(self) -> Result<HostTensor> {
        match self {
            Self::Host(values) => Ok(values),
        }
    }

    /// The tensor for a layer of the CPU.
    pub(crate) fn host(&self) -> Result<&HostTensor> {
        match self {
            Self::Host(values) => Ok(values),
        }
    }

    /// Its shape.
    #[must_use]
    pub fn dims(&self) -> &[usize] {
        match self {
            Self::Host(values) => values.dims(),
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
        }
    }

    /// The same numbers in another shape.
    ///
    /// # Errors
    /// When the shape is that of another number of them.
    pub fn reshape(&self, dims: &[usize]) -> Result<Self> {
        match self {
            Self::Host(values) => Ok(Self::Host(values.reshape(dims)?)),
        }
    }

    /// The same numbers with an axis of length 1 before axis `axis`.
    ///
    /// # Errors
    /// When there are fewer axes.
    pub fn unsqueeze(&self, axis: usize) -> Result<Self> {
        match self {
            Self::Host(values) => Ok(Self::Host(values.unsqueeze(axis)?)),
        }
    }

    /// `count` rows from row `first` on, which are shared and not copied.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn narrow_rows(&self, first: usize, count: usize) -> Result<Self> {
        match self {
            Self::Host(values) => Ok(Self::Host(values.narrow(0, first, count)?)),
        }
    }

    /// The rows of all `parts`, one after the other.
    ///
    /// # Errors
    /// When there is no part, or rows of two parts differ in shape or place.
    pub fn cat_rows(parts: &[&Self]) -> Result<Self> {
        let host = parts.iter().map(|part| part.host());
        let host = host.collect::<Result<Vec<_>>>()?;
        Ok(Self::Host(HostTensor::cat(&host, 0)?))
    }

    /// The tokens of each row (B, S, D) and then those of the same row of `other` (B, N, D): (B, S + N, D).
    ///
    /// # Errors
    /// When rows, widths or places differ.
    pub fn cat_tokens(&self, other: &Self) -> Result<Self> {
        match (self, other) {
            (Self::Host(a), Self::Host(b)) => Ok(Self::Host(HostTensor::cat(&[a, b], 1)?)),
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
        }
    }

    /// The rows that `index` names, in its order.
    ///
    /// # Errors
    /// When there are fewer rows, or the index is on another device.
    pub fn select_rows(&self, index: &RowIndex) -> Result<Self> {
        match (self, &index.0) {
            (Self::Host(values), Numbers::Cpu(index)) => Ok(Self::Host(values.index_select(index, 0)?)),
        }
    }

    /// The sums of its numbers and those of `other`, of the same shape.
    ///
    /// # Errors
    /// When the shapes or the places differ.
    pub fn add(&self, other: &Self) -> Result<Self> {
        match (self, other) {
            (Self::Host(a), Self::Host(b)) => Ok(Self::Host((a + b)?)),
        }
    }

    /// x · sigmoid(x) of each number.
    ///
    /// # Errors
    /// When the device fails.
    pub fn silu(&self) -> Result<Self> {
        match self {
            Self::Host(values) => Ok(Self::Host(values.silu()?)),
        }
    }

    /// factor · x + term of each number.
    ///
    /// # Errors
    /// When the device fails.
    pub fn affine(&self, factor: f64, term: f64) -> Result<Self> {
        match self {
            Self::Host(values) => Ok(Self::Host(values.affine(factor, term)?)),
        }
    }

    /// The hyperbolic tangent of each number.
    ///
    /// # Errors
    /// When the device fails.
    pub fn tanh(&self) -> Result<Self> {
        match self {
            Self::Host(values) => Ok(Self::Host(values.tanh()?)),
        }
    }
}

/// Numbers of rows on a device, for [`Tensor::select_rows`].
#[derive(Clone, Debug)]
pub struct RowIndex(Numbers);

#[derive(Clone, Debug)]
enum Numbers {
    Cpu(HostTensor),
}

impl RowIndex {
    /// These rows, in this order; one may occur several times.
    ///
    /// # Errors
    /// When the device has no room for them.
    pub fn new(rows: Vec<u32>, device: &Device) -> Result<Self> {
        let count = rows.len();
        match device {
            Device::Cpu => {
                let rows = HostTensor::from_vec(rows, count, &HostDevice::Cpu)?;
                Ok(Self(Numbers::Cpu(rows)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_same, noise};

    fn on_cpu(x: &HostTensor) -> Tensor {
        Tensor::upload(x, &Device::Cpu).unwrap()
    }

    #[test]
    fn uploading_to_the_cpu_shares_the_numbers() {
        let x = noise(&[2, 3], 1);
        let y = on_cpu(&x).into_host().unwrap();
        assert_eq!(x.id(), y.id());
    }

    #[test]
    fn rows_are_taken_and_put_together() {
        let x = on_cpu(&noise(&[4, 3, 5], 1));
        let picked = RowIndex::new(vec![2, 0, 2], &Device::Cpu).unwrap();
        let picked = x.select_rows(&picked).unwrap();
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
        assert!(
            x.select_rows(&RowIndex::new(vec![4], &Device::Cpu).unwrap())
                .is_err()
        );
    }

    #[test]
    fn another_rank_is_named() {
        let x = on_cpu(&noise(&[4, 3, 5], 1));
        assert_eq!(x.dims3().unwrap(), (4, 3, 5));
        let error = x.dims4().unwrap_err().to_string();
        assert_eq!(error, "4 axes are expected, this has [4, 3, 5]");
    }
}
