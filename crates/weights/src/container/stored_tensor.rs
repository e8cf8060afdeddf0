//! Where a tensor lies in a weights file, whatever the file's format.

use safetensors::Dtype;

/// Where one tensor lies in its file, checked: the range is inside the file and holds what shape, strides and dtype say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredTensor {
    pub(super) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Bytes of the file from the first element to the end of the last one.
    pub(super) start: u64,
    pub(super) end: u64,
    /// In elements, one for each dimension; None where the elements follow each other as the shape says.
    pub(super) strides: Option<Vec<usize>>,
}

impl StoredTensor {
    /// For tests that look at names and shapes only.
    #[cfg(test)]
    pub(crate) fn of_shape(shape: &[usize]) -> Self {
        Self {
            dtype: Dtype::F16,
            shape: shape.to_vec(),
            start: 0,
            end: 0,
            strides: None,
        }
    }

    /// Bytes in the file.
    pub(crate) const fn size_bytes(&self) -> u64 {
        self.end - self.start
    }

    /// The elements as the shape has them, out of those of the range.
    pub(super) fn in_order<T: Copy>(&self, stored: Vec<T>) -> Vec<T> {
        let Some(strides) = &self.strides else {
            return stored;
        };
        let count = self.shape.iter().product();
        let mut ordered = Vec::with_capacity(count);
        let mut place = vec![0_usize; self.shape.len()];
        for _ in 0..count {
            let offsets = place.iter().zip(strides).map(|(index, stride)| index * stride);
            ordered.push(stored[offsets.sum::<usize>()]);
            for (index, size) in place.iter_mut().zip(&self.shape).rev() {
                *index += 1;
                if *index < *size {
                    break;
                }
                *index = 0;
            }
        }
        ordered
    }
}
