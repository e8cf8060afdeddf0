//! Which rows of a forward belong to which image: rows of one image differ in their conditioning alone, and so in nothing
//! before the first cross-attention.

use crate::layers::{Device, Result, RowIndex, Tensor};

/// The image of each row, and which of them merge tokens.
#[derive(Debug)]
pub(super) struct RowMap {
    /// The image of each row; None where every image has one row.
    image_of_row: Option<RowIndex>,
    merging_images: Vec<bool>,
    merging_rows: Vec<bool>,
}

impl RowMap {
    /// `counts`: rows of each of `images`, empty for one each. `merging`: whether each merges tokens, empty for none.
    pub(super) fn new(images: usize, counts: &[usize], merging: &[bool], device: &Device) -> Result<Self> {
        let mut merging_images = merging.to_vec();
        merging_images.resize(images, false);
        if counts.iter().all(|&count| count == 1) {
            return Ok(Self {
                image_of_row: None,
                merging_rows: merging_images.clone(),
                merging_images,
            });
        }
        let images = (0_u32..).zip(counts);
        let images = images.flat_map(|(image, &count)| std::iter::repeat_n(image, count));
        let rows = merging_images.iter().zip(counts);
        let rows = rows.flat_map(|(&merges, &count)| std::iter::repeat_n(merges, count));
        Ok(Self {
            image_of_row: Some(RowIndex::new(images.collect(), device)?),
            merging_rows: rows.collect(),
            merging_images,
        })
    }

    /// `x` of P images repeated for each of their rows, or as it is where it has B rows already.
    pub(super) fn expand(&self, x: &Tensor) -> Result<Tensor> {
        match &self.image_of_row {
            Some(images) if x.rows() == self.merging_images.len() => x.select_rows(images),
            _ => Ok(x.clone()),
        }
    }

    /// Whether tokens are merged in each of `count` images or rows.
    pub(super) fn merging(&self, count: usize) -> &[bool] {
        if count == self.merging_images.len() {
            &self.merging_images
        } else {
            &self.merging_rows
        }
    }
}
