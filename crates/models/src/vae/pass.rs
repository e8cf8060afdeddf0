//! One way through the autoencoder in slices: between two of them the caller may run something else, or give up.
//!
//! A slice is a stage, and none takes as long as an evaluation of the UNet at the same size: of a picture of 512x512 the
//! dearest is 0.15 of the 1.2 tera multiplications of its decoding, and an evaluation of one row has 0.4.

use std::mem;

use super::Vae;
use super::way::Way;
use crate::ModelError;
use crate::error::During;
use crate::layers::{HostTensor, InputList, Tensor, channels_first, channels_last, on_pool};

/// An image or a latent on its way through. Between two slices it holds one tensor, which is large: up to 1 GiB for a
/// picture of 1024x1024.
#[derive(Debug)]
pub struct VaePass {
    way: Way,
    stage: usize,
    /// None once it is through, or after an error.
    x: Option<Tensor>,
}

impl Vae {
    /// Begins to encode one image (1, 3, H, W) in main memory, as [`Vae::encode_moments`] does all at once.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn begin_encode(&self, x: &HostTensor) -> Result<VaePass, ModelError> {
        let (c, factor) = (self.config.in_channels, self.config.downscale());
        let fits = matches!(*x.dims(), [1, found, h, w]
            if found == c && h * w > 0 && h % factor == 0 && w % factor == 0);
        if !fits {
            return Err(ModelError::Shape {
                tensor: "image",
                found: x.dims().to_vec(),
                expected: format!("(B, {c}, H, W), multiples of {factor}"),
            });
        }
        let begin = || {
            let mut given = InputList::default();
            let x = given.host(x.clone());
            let key = (Way::Encode, None);
            self.programs
                .run_one(key, given, |inputs| channels_last(&inputs.take(x)?))
        };
        let x = on_pool(begin).during(Way::Encode.name())?;
        Ok(VaePass::new(Way::Encode, x))
    }

    /// Begins to decode one latent (1, latent channels, h, w) in main memory, as [`Vae::decode`] does all at once.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn begin_decode(&self, z: &HostTensor) -> Result<VaePass, ModelError> {
        let c = self.config.latent_channels;
        if !matches!(*z.dims(), [1, found, h, w] if found == c && h * w > 0) {
            return Err(ModelError::Shape {
                tensor: "latent",
                found: z.dims().to_vec(),
                expected: format!("(B, {c}, h, w)"),
            });
        }
        let begin = || {
            let mut given = InputList::default();
            let z = given.host(z.clone());
            self.programs.run_one((Way::Decode, None), given, |inputs| {
                let z = channels_last(&inputs.take(z)?)?;
                match &self.post_quant {
                    Some(post_quant) => post_quant.forward(&z),
                    None => Ok(z),
                }
            })
        };
        let z = on_pool(begin).during(Way::Decode.name())?;
        Ok(VaePass::new(Way::Decode, z))
    }

    /// Does the next slice; what the pass is for, in main memory, once it was the last one.
    ///
    /// # Errors
    /// When a layer fails; the pass is then of no use any more.
    pub fn advance(&self, pass: &mut VaePass) -> Result<Option<HostTensor>, ModelError> {
        let stages = match pass.way {
            Way::Encode => &self.encoder,
            Way::Decode => &self.decoder,
        };
        let Some(x) = mem::take(&mut pass.x) else {
            return Err(ModelError::Spent {
                what: pass.way.name(),
            });
        };
        let stage = pass.stage;
        pass.stage += 1;
        let is_last = pass.stage == stages.len();
        let run = || {
            let mut given = InputList::default();
            let x = given.tensor(x);
            let key = (pass.way, Some(stage));
            self.programs.run_one(key, given, |inputs| {
                let x = stages.run(stage, inputs.take(x)?)?;
                match (&self.quant, pass.way) {
                    _ if !is_last => Ok(x),
                    (Some(quant), Way::Encode) => channels_first(&quant.forward(&x)?),
                    _ => channels_first(&x),
                }
            })
        };
        let x = on_pool(run).during(pass.way.name())?;
        if is_last {
            return x.into_host().map(Some).during(pass.way.name());
        }
        pass.x = Some(x);
        Ok(None)
    }

    /// Slices of an encoding and of a decoding.
    #[must_use]
    pub const fn slices(&self) -> (usize, usize) {
        (self.encoder.len(), self.decoder.len())
    }
}

impl VaePass {
    const fn new(way: Way, x: Tensor) -> Self {
        let x = Some(x);
        Self { way, stage: 0, x }
    }
}
