//! Where a tensor lies in a weights file, whatever the file's format.

use std::collections::BTreeMap;

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

/// The tensors whose names begin with `prefix`, by what follows it, in order.
pub(crate) fn below<'a>(
    tensors: &'a BTreeMap<String, StoredTensor>,
    prefix: &str,
) -> impl Iterator<Item = (&'a str, &'a StoredTensor)> {
    let from = tensors.range(prefix.to_owned()..);
    from.map_while(move |(name, stored)| Some((name.strip_prefix(prefix)?, stored)))
}

impl StoredTensor {
    /// For tests that look at names and shapes only.
    #[cfg(test)]
    pub(crate) fn of_shape(shape: &[usize]) -> Self {
        Self {
            dtype: Dtype::F16,
            shape: shape.to_vec(),
            start: 0,
            end: 2 * shape.iter().product::<usize>() as u64,
            strides: None,
        }
    }

    /// Bytes in the file.
    pub(crate) const fn size_bytes(&self) -> u64 {
        self.end - self.start
    }

    /// One of `count` equal parts along the first dimension, counted from 0. None where the dimension has no such parts.
    pub(crate) fn part(&self, number: usize, count: usize) -> Option<Self> {
        let (first, rest) = self.shape.split_first()?;
        if count == 0 || number >= count || first % count != 0 || self.shape.contains(&0) {
            return None;
        }
        let shape: Vec<usize> = std::iter::once(first / count)
            .chain(rest.iter().copied())
            .collect();
        let strides = match &self.strides {
            Some(strides) => strides.clone(),
            None => contiguous(&shape),
        };
        let size = self.dtype.bitsize() as u64 / 8;
        let start = self.start + (number * shape[0] * strides[0]) as u64 * size;
        let last: usize = shape
            .iter()
            .zip(&strides)
            .map(|(size, stride)| (size - 1) * stride)
            .sum();
        let end = start + (last as u64 + 1) * size;
        (end <= self.end).then(|| Self {
            dtype: self.dtype,
            shape,
            start,
            end,
            strides: self.strides.clone(),
        })
    }

    /// A matrix with its rows and columns exchanged; None for what is no matrix.
    pub(crate) fn transposed(&self) -> Option<Self> {
        let [rows, columns] = *self.shape.as_slice() else {
            return None;
        };
        let strides = match &self.strides {
            Some(strides) => strides.clone(),
            None => contiguous(&self.shape),
        };
        Some(Self {
            shape: vec![columns, rows],
            strides: Some(vec![strides[1], strides[0]]),
            ..self.clone()
        })
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

/// The strides of elements that follow each other.
fn contiguous(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for dimension in (1..shape.len()).rev() {
        strides[dimension - 1] = strides[dimension] * shape[dimension];
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 6 by 2 numbers from 100 on, in half precision.
    fn matrix() -> StoredTensor {
        StoredTensor {
            dtype: Dtype::F16,
            shape: vec![6, 2],
            start: 100,
            end: 124,
            strides: None,
        }
    }

    /// The numbers 0 to 11 that a tensor of [`matrix`] has, by where its bytes are.
    fn numbers(stored: &StoredTensor) -> Vec<u64> {
        let range = (stored.start - 100) / 2..(stored.end - 100) / 2;
        stored.in_order(range.collect())
    }

    #[test]
    fn parts_and_transposes_are_found_without_a_copy() {
        let third = matrix().part(1, 3).unwrap();
        assert_eq!(
            (third.shape.as_slice(), numbers(&third)),
            (&[2, 2][..], vec![4, 5, 6, 7])
        );
        let turned = matrix().transposed().unwrap();
        assert_eq!(turned.shape, [2, 6]);
        assert_eq!(numbers(&turned), [0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11]);
        let half = turned.part(1, 2).unwrap();
        assert_eq!(
            (half.shape.as_slice(), numbers(&half)),
            (&[1, 6][..], vec![1, 3, 5, 7, 9, 11])
        );
        assert_eq!(turned.transposed().unwrap().shape, [6, 2]);
        assert_eq!(
            numbers(&turned.transposed().unwrap()),
            (0..12).collect::<Vec<_>>()
        );
    }

    #[test]
    fn what_cannot_be_cut_is_not_cut() {
        assert!(
            matrix().part(0, 4).is_none() && matrix().part(3, 3).is_none() && matrix().part(0, 0).is_none()
        );
        let empty = StoredTensor::of_shape(&[0, 2]);
        assert!(empty.part(0, 1).is_none());
        assert!(StoredTensor::of_shape(&[3]).transposed().is_none());
    }
}
