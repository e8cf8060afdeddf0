//! What must be equal for two images to share one forward.
//!
//! Guidance, timestep, noise level, seed, step count, strength and scheduler are deliberately not here: they are
//! numbers of a row or state of an image, so requests that differ only in them run together.

use std::fmt;
use std::sync::Arc;

use pentimento_pipeline::{ConditioningShape, ProgramsId, ResolvedModels};
use pentimento_types::Size;

/// The weights a job runs on: the checkpoint and everything that changes its weights. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelKey(Arc<str>);

impl ModelKey {
    /// A checkpoint by its name in the catalogue (not by the alias the caller used), with nothing beside it.
    #[must_use]
    pub fn checkpoint(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// The checkpoint with what changes its weights or stands beside them: another VAE, LoRAs in their order with their
    /// strengths, an IP-Adapter.
    #[must_use]
    pub fn of(models: &ResolvedModels) -> Self {
        // Names have no control characters, so no name looks like two parts.
        let mut text = models.checkpoint.name.clone();
        if let Some(vae) = &models.vae {
            text.extend(["\nvae=", &vae.name]);
        }
        for (lora, strength) in &models.loras {
            // The shortest text that gives the same number back.
            text.extend(["\nlora=", &lora.name, ":", &strength.to_string()]);
        }
        for lora in models.lcm_loras.iter().flatten() {
            text.extend(["\nlcm=", &lora.name]);
        }
        if let Some(it) = &models.ip_adapter {
            // Its image and scale are a row's own.
            text.extend(["\nip_adapter=", &it.adapter.name]);
        }
        Self(text.into())
    }

    /// The same without LoRAs, but for the LCM-LoRA, which is in the weights.
    #[must_use]
    pub fn without_loras(models: &ResolvedModels) -> Self {
        Self::of(&ResolvedModels {
            loras: Vec::new(),
            ..models.clone()
        })
    }

    /// The checkpoint alone.
    pub(crate) fn checkpoint_name(&self) -> &str {
        self.0.lines().next().unwrap_or_default()
    }

    /// Its parts as lines.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = self.0.lines();
        f.write_str(parts.next().unwrap_or_default())?;
        parts.try_for_each(|part| write!(f, " {part}"))
    }
}

/// Height and width of a latent, in latent pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LatentSize {
    /// Lines.
    pub height: u32,
    /// Latent pixels per line.
    pub width: u32,
}

impl LatentSize {
    /// Image pixels per latent pixel and side, in every VAE of Stable Diffusion 1, 2 and XL.
    pub const IMAGE_PIXELS: u32 = 8;

    /// The latent of an image whose sides are padded to the next multiple of 8.
    #[must_use]
    pub const fn of_image(size: Size) -> Self {
        let padded = size.padded_to(Self::IMAGE_PIXELS);
        Self {
            height: padded.height / Self::IMAGE_PIXELS,
            width: padded.width / Self::IMAGE_PIXELS,
        }
    }

    /// Height times width.
    #[must_use]
    pub const fn pixels(self) -> u64 {
        self.height as u64 * self.width as u64
    }
}

/// Two images may share a forward when, and only when, their keys are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BatchKey {
    /// The checkpoint and what stands beside it, but for LoRAs, which the programs tell apart.
    pub model: ModelKey,
    /// One forward runs through one set of programs. Where [sets of LoRAs mix](pentimento_pipeline::Device::mixes_sets), those that
    /// are branches beside the same weights have the same; each other set, and each load, has its own.
    pub programs: ProgramsId,
    /// Rows are stacked into one tensor (B, C, h, w), and padding a latent would change its image.
    pub latent: LatentSize,
    /// What steers the rows is stacked, too: filling up a text would change the attention of the shorter prompt, and an
    /// input is there for all rows or for none.
    pub conditioning: ConditioningShape,
}

#[cfg(test)]
mod tests {
    use pentimento_catalog::{ModelEntry, ModelKind, Source};
    use pentimento_pipeline::IpAdapterEntries;

    use super::*;

    #[test]
    fn no_name_stands_for_two() {
        let entry = |name: &str| {
            Arc::new(ModelEntry::new(
                name,
                ModelKind::Checkpoint,
                Source::Path("x".into()),
            ))
        };
        let with_vae = ResolvedModels {
            vae: Some(entry("b")),
            ..ResolvedModels::checkpoint(entry("a"))
        };
        let alone = ResolvedModels::checkpoint(entry("a vae=b"));
        let (one, other) = (ModelKey::of(&with_vae), ModelKey::of(&alone));
        assert_ne!(one, other);
        assert_eq!(one.to_string(), "a vae=b");
        // An adapter counts by its name; what it shows and how much of it are a row's own.
        let with_adapter = |name: &str| {
            ModelKey::of(&ResolvedModels {
                ip_adapter: Some(IpAdapterEntries {
                    adapter: entry(name),
                    image_encoder: None,
                }),
                ..ResolvedModels::checkpoint(entry("a"))
            })
        };
        assert_eq!(with_adapter("b"), with_adapter("b"));
        assert_ne!(with_adapter("b"), with_adapter("c"));
        assert_eq!(with_adapter("b").to_string(), "a ip_adapter=b");
    }

    #[test]
    fn a_latent_covers_the_padded_image() {
        let latent = LatentSize::of_image(Size {
            width: 513,
            height: 8,
        });
        assert_eq!(latent, LatentSize { height: 1, width: 65 });
        assert_eq!(latent.pixels(), 65);
    }
}
