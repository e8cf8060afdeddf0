//! Rows of one picture: they differ in their text alone, and so in nothing before the network first attends to it.

use candle_core::{Result, Tensor};

/// Which rows of a forward are whose.
#[derive(Debug)]
pub(super) struct Rows {
    pictures: usize,
    /// The picture of each row; None where every picture has one.
    of: Option<Tensor>,
    /// Whether a picture merges tokens.
    merging: Vec<bool>,
}

impl Rows {
    /// `counts`: rows of each picture, empty for one each. `merging`: of each picture, empty for none.
    pub(super) fn new(sample: &Tensor, counts: &[usize], merging: &[bool]) -> Result<Self> {
        let pictures = sample.dim(0)?;
        let of = if counts.iter().all(|&count| count == 1) {
            None
        } else {
            let of = (0_u32..).zip(counts);
            let of = of.flat_map(|(picture, &count)| std::iter::repeat_n(picture, count));
            Some(Tensor::from_iter(of, sample.device())?)
        };
        let mut merging = merging.to_vec();
        merging.resize(pictures, false);
        Ok(Self {
            pictures,
            of,
            merging,
        })
    }

    /// `x` with what belongs to a picture in each of its rows, or as it is where every row has its own already.
    pub(super) fn spread(&self, x: &Tensor) -> Result<Tensor> {
        match &self.of {
            Some(of) if x.dim(0)? == self.pictures => x.index_select(of, 0),
            _ => Ok(x.clone()),
        }
    }

    /// Whether tokens are merged, of each line of `x`.
    pub(super) fn merging(&self, x: &Tensor) -> Result<Vec<bool>> {
        match &self.of {
            Some(of) if x.dim(0)? != self.pictures => {
                let of: Vec<u32> = of.to_vec1()?;
                Ok(of.iter().map(|&picture| self.merging[picture as usize]).collect())
            }
            _ => Ok(self.merging.clone()),
        }
    }
}
