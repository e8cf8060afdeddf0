//! What a component will take on its device, told by the names and shapes of its file before a number of it is read.

use pentimento_models::{Device, Precision, VaeConfig};

use super::{DTYPES, HOST, ModelSource};
use crate::PipelineError;
use crate::component::{ComponentKey, ComponentRole};

/// Sides of matrices and convolutions are filled up to multiples of this there, and lines of numbers as well.
const CHANNELS: usize = 8;
/// What one tensor takes there is a multiple of this.
const UNIT: usize = 256;

impl ModelSource {
    /// About how much memory a component will take beside its base, in bytes, known before it is loaded: on a processor that is the
    /// size of its files, on a GPU what its layers become there.
    #[must_use]
    pub fn expected_bytes(&self, key: &ComponentKey) -> u64 {
        let on_device = match (&self.device, key.base()) {
            (Device::Gpu(_), None) => self.bytes_on_device(key),
            (Device::Gpu(_), Some(_)) | (Device::Cpu | Device::CpuInBf16, _) => Ok(None),
        };
        // What is wrong with the files is said when they are read.
        on_device.ok().flatten().unwrap_or_else(|| key.expected_bytes())
    }

    /// None for what is on no device, and where no file says it.
    fn bytes_on_device(&self, key: &ComponentKey) -> Result<Option<u64>, PipelineError> {
        let role = key.role();
        let (files, precision) = match (role, &self.vae) {
            (ComponentRole::Vae, Some(lone)) => (&lone.files, self.precision_of(key)?),
            (
                ComponentRole::Vae
                | ComponentRole::UNet
                | ComponentRole::TextEncoder
                | ComponentRole::TextEncoder2,
                _,
            ) => (&self.checkpoint, self.precision_of(key)?),
            (
                ComponentRole::Tokenizer
                | ComponentRole::Tokenizer2
                | ComponentRole::IpAdapter
                | ComponentRole::ImageEncoder
                | ComponentRole::PromptEnhancer,
                _,
            ) => return Ok(None),
        };
        let weights = files.component(role.folder(), DTYPES, &HOST);
        let weights = weights.map_err(|error| self.weights_error(error))?;
        // Tables of embeddings stay in main memory as the files have them, whose numbers are nearly all of their bytes.
        let numbers = weights.tensors().map(|(_, dims)| product(dims));
        let numbers = numbers.fold(1_usize, usize::saturating_add) as u64;
        let stored_bytes = (key.files.size_bytes().saturating_add(numbers / 2) / numbers).clamp(1, 4);
        let stored_bytes = usize::try_from(stored_bytes).unwrap_or(size_of::<f32>());
        let bytes = weights
            .tensors()
            .map(|(name, dims)| bytes_of((name, dims), precision, stored_bytes));
        let bytes = bytes.fold(0_u64, |sum, bytes| sum.saturating_add(bytes as u64));
        Ok(Some(bytes.saturating_add(key.merged_bytes())))
    }

    /// The numbers in which a component computes, which for some VAEs are others than the device's.
    fn precision_of(&self, key: &ComponentKey) -> Result<Precision, PipelineError> {
        if key.role() != ComponentRole::Vae {
            return Ok(self.device.precision());
        }
        let config: VaeConfig = match &self.vae {
            Some(lone) => serde_json::from_value(self.lone_vae_config(lone)?)
                .map_err(|_| self.mismatch("the configuration of the VAE cannot be read"))?,
            None => self.config(ComponentRole::Vae)?,
        };
        Ok(self.vae_device(key, &config)?.precision())
    }
}

fn product(dims: &[usize]) -> usize {
    dims.iter().fold(1_usize, |all, side| all.saturating_mul(*side))
}

/// What a tensor of this name and shape takes, of whose numbers each has so many bytes in its file.
fn bytes_of((name, dims): (&str, &[usize]), precision: Precision, stored_bytes: usize) -> usize {
    let number_bytes = match precision {
        Precision::F16 | Precision::Bf16 => 2,
        Precision::F32 => 4,
    };
    if name.contains("embedding") && name.ends_with("embedding.weight") {
        return product(dims).saturating_mul(stored_bytes);
    }
    let filled = |side: &usize| side.checked_next_multiple_of(CHANNELS).unwrap_or(usize::MAX);
    let (sides, rest) = dims.split_at(dims.len().min(2));
    let sides: Vec<usize> = sides.iter().map(filled).collect();
    let bytes = product(&sides)
        .saturating_mul(product(rest))
        .saturating_mul(number_bytes);
    bytes.checked_next_multiple_of(UNIT).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_filled_up_and_tables_stay_where_they_are() {
        let of = |name, dims: &[usize]| bytes_of((name, dims), Precision::F16, 4);
        assert_eq!(of("conv_in.weight", &[320, 4, 3, 3]), 320 * 8 * 9 * 2);
        assert_eq!(of("conv_out.weight", &[4, 320, 3, 3]), 8 * 320 * 9 * 2);
        assert_eq!(of("to_q.weight", &[320, 320]), 320 * 320 * 2);
        assert_eq!(of("norm.bias", &[320]), 768, "rounded up");
        assert_eq!(
            bytes_of(("norm.bias", &[320]), Precision::F32, 2),
            320 * 4,
            "and in f32 twice as much"
        );
        let table = "text_model.embeddings.token_embedding.weight";
        assert_eq!(of(table, &[100, 3]), 1200);
        assert_eq!(
            of("x.weight", &[usize::MAX, 9]),
            usize::MAX,
            "a hostile file makes no panic"
        );
    }
}
