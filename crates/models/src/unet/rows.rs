//! Rows of one picture: they differ in their text alone, and so in nothing before the network first attends to it.

use candle_core::{Result, Tensor};

/// Which rows of a forward are whose.
#[derive(Debug)]
pub(super) struct Rows {
    /// The picture of each row; None where every picture has one.
    of: Option<Tensor>,
    /// Whether each picture merges tokens.
    pictures: Vec<bool>,
    /// The same of each row.
    rows: Vec<bool>,
}

impl Rows {
    /// `counts`: rows of each picture of `sample`, empty for one each. `merging`: whether each merges tokens, empty for
    /// none.
    pub(super) fn new(sample: &Tensor, counts: &[usize], merging: &[bool]) -> Result<Self> {
        let mut pictures = merging.to_vec();
        pictures.resize(sample.dim(0)?, false);
        if counts.iter().all(|&count| count == 1) {
            return Ok(Self {
                of: None,
                rows: pictures.clone(),
                pictures,
            });
        }
        let of = (0_u32..).zip(counts);
        let of = of.flat_map(|(picture, &count)| std::iter::repeat_n(picture, count));
        let rows = pictures.iter().zip(counts);
        let rows = rows.flat_map(|(&merges, &count)| std::iter::repeat_n(merges, count));
        Ok(Self {
            of: Some(Tensor::from_iter(of, sample.device())?),
            rows: rows.collect(),
            pictures,
        })
    }

    /// `x` with what belongs to a picture in each of its rows, or as it is where every row has its own already.
    pub(super) fn spread(&self, x: &Tensor) -> Result<Tensor> {
        match &self.of {
            Some(of) if x.dim(0)? == self.pictures.len() => x.index_select(of, 0),
            _ => Ok(x.clone()),
        }
    }

    /// Whether tokens are merged in each of `count` pictures or rows.
    pub(super) fn merging(&self, count: usize) -> &[bool] {
        if count == self.pictures.len() {
            &self.pictures
        } else {
            &self.rows
        }
    }
}
