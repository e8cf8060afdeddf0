//! Enlarges finished pictures with the small networks inside the binary. It computes on the CPU, whatever the device.

use pentimento_models::ResidualDense;
use pentimento_types::RgbImage;

use crate::PipelineError;

/// How many times larger the sides become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpscaleFactor {
    /// Twice.
    Two,
    /// Four times.
    Four,
}

impl UpscaleFactor {
    /// The number.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }
}

/// A loaded upscaler, about 2 MB. It holds no state of any picture.
#[derive(Debug)]
pub struct Upscaler {
    network: ResidualDense,
}

impl Upscaler {
    /// The one inside the binary.
    ///
    /// # Errors
    /// When the binary is damaged.
    pub fn embedded(factor: UpscaleFactor) -> Result<Self, PipelineError> {
        let bytes = match factor {
            UpscaleFactor::Two => pentimento_embedded_nets::ESRGAN_SLIM_X2,
            UpscaleFactor::Four => pentimento_embedded_nets::ESRGAN_SLIM_X4,
        };
        let network = ResidualDense::from_safetensors(bytes, factor.number() as usize)?;
        Ok(Self { network })
    }

    /// The enlarged picture. Beside both pictures it holds some tens of megabytes, whatever their size.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn enlarge(&self, picture: &RgbImage) -> Result<RgbImage, PipelineError> {
        Ok(self.network.enlarge(picture)?)
    }
}
