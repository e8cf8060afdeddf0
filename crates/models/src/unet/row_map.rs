//! Which rows of a forward belong to which image: rows of one image differ in their conditioning alone, and so in nothing
//! before the first cross-attention.

use crate::layers::{Result, RowIndex, Tensor};

/// Which images, and which of their rows, merge tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Merging {
    images: Vec<bool>,
    rows: Vec<bool>,
}

impl Merging {
    /// `counts`: rows of each of `images`, empty for one each. `merging`: whether each merges tokens, empty for none.
    pub(super) fn new(images: usize, counts: &[usize], merging: &[bool]) -> Self {
        let mut images_merge = merging.to_vec();
        images_merge.resize(images, false);
        let rows = if counts.is_empty() {
            images_merge.clone()
        } else {
            let rows = images_merge.iter().zip(counts);
            rows.flat_map(|(&merges, &count)| std::iter::repeat_n(merges, count))
                .collect()
        };
        Self {
            images: images_merge,
            rows,
        }
    }
}

/// The image of each row, by `counts` of rows; None where every image has one row.
pub(super) fn images_of_rows(counts: &[usize]) -> Option<Vec<u32>> {
    if counts.iter().all(|&count| count == 1) {
        return None;
    }
    let images = (0_u32..).zip(counts);
    let rows = images.flat_map(|(image, &count)| std::iter::repeat_n(image, count));
    Some(rows.collect())
}

/// The image of each row, and which of them merge tokens.
#[derive(Debug)]
pub(super) struct RowMap {
    /// As [`images_of_rows`] has it.
    image_of_row: Option<RowIndex>,
    merging: Merging,
}

impl RowMap {
    pub(super) const fn new(image_of_row: Option<RowIndex>, merging: Merging) -> Self {
        Self {
            image_of_row,
            merging,
        }
    }

    /// `x` of P images repeated for each of their rows, or as it is where it has B rows already.
    pub(super) fn expand(&self, x: &Tensor) -> Result<Tensor> {
        match &self.image_of_row {
            Some(images) if x.rows() == self.merging.images.len() => x.select_rows(images),
            _ => Ok(x.clone()),
        }
    }

    /// Whether tokens are merged in each of `count` images or rows.
    pub(super) fn merging(&self, count: usize) -> &[bool] {
        if count == self.merging.images.len() {
            &self.merging.images
        } else {
            &self.merging.rows
        }
    }
}
