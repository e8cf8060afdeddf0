//! Classifier-free guidance: Ho and Salimans 2022, equation 6, in the form that diffusers uses.

use candle_core::{Result, Tensor};

/// How one picture is steered towards its prompt.
#[derive(Clone, Debug)]
pub(crate) enum Guidance {
    /// One row: the prompt alone.
    Off,
    /// Two rows: `uncond + scale * (cond - uncond)`.
    ClassifierFree {
        /// Above 1.
        scale: f64,
    },
    /// One row whose scale goes into the UNet as an embedding `(1, time_cond_proj_dim)`:
    /// distilled checkpoints (Meng et al. 2023; Luo et al. 2023, section 4.2).
    Embedded {
        /// The sinusoidal embedding of `scale - 1`.
        embedding: Tensor,
    },
}

impl Guidance {
    /// Rows that one evaluation needs.
    pub(crate) const fn rows(&self) -> u32 {
        match self {
            Self::Off | Self::Embedded { .. } => 1,
            Self::ClassifierFree { .. } => 2,
        }
    }

    /// Joins a picture's rows `(rows, C, h, w)`, unconditional first, into one prediction `(1, C, h, w)`.
    pub(crate) fn combine(&self, rows: &Tensor) -> Result<Tensor> {
        match self {
            Self::Off | Self::Embedded { .. } => Ok(rows.clone()),
            Self::ClassifierFree { scale } => {
                let uncond = rows.narrow(0, 0, 1)?;
                let cond = rows.narrow(0, 1, 1)?;
                &uncond + ((cond - &uncond)? * *scale)?
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn guidance_moves_away_from_the_unconditional_row() {
        let rows = Tensor::new(&[[1.0_f32], [3.0]], &Device::Cpu)
            .unwrap()
            .reshape((2, 1, 1, 1))
            .unwrap();
        let out = Guidance::ClassifierFree { scale: 7.5 }.combine(&rows).unwrap();
        assert_eq!(out.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [16.0]);
    }
}
