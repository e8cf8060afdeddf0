//! Which rows of a forward belong to which image: rows of one image differ in their conditioning alone, and so in nothing
//! before the first cross-attention.

use candle_core::{Result, Tensor};

/// The image of each row, and which of them merge tokens.
#[derive(Debug)]
pub(super) struct RowMap {
    /// The image of each row; None where every image has one row.
    image_of_row: Option<Tensor>,
    merging_images: Vec<bool>,
    merging_rows: Vec<bool>,
}

impl RowMap {
    /// `counts`: rows of each image of `sample`, empty for one each. `merging`: whether each merges tokens, empty for
    /// none.
    pub(super) fn new(sample: &Tensor, counts: &[usize], merging: &[bool]) -> Result<Self> {
        let mut merging_images = merging.to_vec();
        merging_images.resize(sample.dim(0)?, false);
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
            image_of_row: Some(Tensor::from_iter(images, sample.device())?),
            merging_rows: rows.collect(),
            merging_images,
        })
    }

    /// `x` of P images repeated for each of their rows, or as it is where it has B rows already.
    pub(super) fn expand(&self, x: &Tensor) -> Result<Tensor> {
        match &self.image_of_row {
            Some(images) if x.dim(0)? == self.merging_images.len() => x.index_select(images, 0),
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
