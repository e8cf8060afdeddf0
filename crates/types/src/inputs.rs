//! The input images of a job by their role: as the caller sent them, as they are stored, or decoded.
//!
//! What there is decides what the job is, so that the images and a task cannot contradict each other.

use std::collections::BTreeMap;
use std::convert::Infallible;

use serde::{Deserialize, Serialize};

use crate::{RgbImage, Size};

/// What an input image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputRole {
    /// The image to start from.
    Init,
    /// White is made anew, black stays pixel for pixel; what grey means is [`crate::Recipe::differential_diffusion`]'s to say.
    /// Stretched to the size of the image to start from.
    Mask,
    /// What an IP-Adapter shows the model beside the prompt. Of any size.
    IpAdapter,
}

impl InputRole {
    /// Every role.
    pub const ALL: &'static [Self] = &[Self::Init, Self::Mask, Self::IpAdapter];

    /// The stored name of such an image.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init_image",
            Self::Mask => "mask_image",
            Self::IpAdapter => "ip_adapter_image",
        }
    }
}

/// What a job does, by the names of diffusers' pipelines. It follows from the inputs and is stored nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Makes an image from noise and words alone; strength has no meaning and counts as 1.
    TextToImage,
    /// Changes an image.
    #[default]
    ImageToImage,
    /// Changes an image where a mask says so.
    Inpainting,
}

impl Task {
    /// Its name in our own calls.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TextToImage => "text_to_image",
            Self::ImageToImage => "image_to_image",
            Self::Inpainting => "inpainting",
        }
    }
}

/// What a job starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start<I> {
    /// An image; with a mask the job is inpainting.
    Image {
        /// The image, whose size the results have.
        init: I,
        /// Where it is changed.
        mask: Option<I>,
    },
    /// Noise alone, of this size in pixels: the job is text to image. Sides are multiples of 8.
    Noise(Size),
}

/// What a job works on: what it starts from, and what an IP-Adapter shows the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    try_from = "StoredInputs<I>",
    into = "StoredInputs<I>",
    bound(serialize = "I: Serialize + Clone", deserialize = "I: Deserialize<'de>")
)]
pub struct Inputs<I> {
    start: Start<I>,
    ip_adapter: Option<I>,
}

impl<I> Inputs<I> {
    /// Image to image.
    pub const fn new(init: I) -> Self {
        Self::starting(Start::Image { init, mask: None })
    }

    /// Inpainting.
    pub const fn inpainting(init: I, mask: I) -> Self {
        let mask = Some(mask);
        Self::starting(Start::Image { init, mask })
    }

    /// Text to image, of a picture of this size.
    pub const fn from_noise(size: Size) -> Self {
        Self::starting(Start::Noise(size))
    }

    /// Whatever the job starts from, without an image prompt.
    pub const fn starting(start: Start<I>) -> Self {
        let ip_adapter = None;
        Self { start, ip_adapter }
    }

    /// With what an IP-Adapter shows the model.
    #[must_use]
    pub fn with_ip_adapter(self, image: I) -> Self {
        Self {
            ip_adapter: Some(image),
            ..self
        }
    }

    /// What the job does.
    #[must_use]
    pub const fn task(&self) -> Task {
        match self.start {
            Start::Noise(_) => Task::TextToImage,
            Start::Image { mask: None, .. } => Task::ImageToImage,
            Start::Image { mask: Some(_), .. } => Task::Inpainting,
        }
    }

    /// What the job starts from.
    #[must_use]
    pub const fn start(&self) -> &Start<I> {
        &self.start
    }

    /// The image to start from; None in text to image.
    #[must_use]
    pub const fn init(&self) -> Option<&I> {
        match &self.start {
            Start::Image { init, .. } => Some(init),
            Start::Noise(_) => None,
        }
    }

    /// The mask of an inpainting job.
    #[must_use]
    pub const fn mask(&self) -> Option<&I> {
        match &self.start {
            Start::Image { mask, .. } => mask.as_ref(),
            Start::Noise(_) => None,
        }
    }

    /// What an IP-Adapter shows the model.
    #[must_use]
    pub const fn ip_adapter(&self) -> Option<&I> {
        self.ip_adapter.as_ref()
    }

    /// All images with their roles, the one to start from first.
    pub fn iter(&self) -> impl Iterator<Item = (InputRole, &I)> {
        let of_role = |role, image: Option<_>| image.map(|image| (role, image));
        let all = [
            of_role(InputRole::Init, self.init()),
            of_role(InputRole::Mask, self.mask()),
            of_role(InputRole::IpAdapter, self.ip_adapter()),
        ];
        all.into_iter().flatten()
    }

    /// The same with another value for each image.
    pub fn map<J>(&self, mut of: impl FnMut(InputRole, &I) -> J) -> Inputs<J> {
        let Ok(mapped) = self.try_map(|role, image| Ok::<_, Infallible>(of(role, image)));
        mapped
    }

    /// The same with another value for each image, or the first error.
    ///
    /// # Errors
    /// Those of the function.
    pub fn try_map<J, E>(&self, mut of: impl FnMut(InputRole, &I) -> Result<J, E>) -> Result<Inputs<J>, E> {
        let start = match &self.start {
            Start::Image { init, mask } => Start::Image {
                init: of(InputRole::Init, init)?,
                mask: mask.as_ref().map(|mask| of(InputRole::Mask, mask)).transpose()?,
            },
            Start::Noise(size) => Start::Noise(*size),
        };
        let shown = self.ip_adapter.as_ref();
        let ip_adapter = shown.map(|image| of(InputRole::IpAdapter, image)).transpose()?;
        Ok(Inputs { start, ip_adapter })
    }

    /// Takes it apart: what the job starts from, and what an IP-Adapter shows the model.
    #[must_use]
    pub fn into_parts(self) -> (Start<I>, Option<I>) {
        (self.start, self.ip_adapter)
    }
}

impl Inputs<RgbImage> {
    /// Of each image that is made.
    #[must_use]
    pub const fn size(&self) -> Size {
        match &self.start {
            Start::Image { init, .. } => init.size(),
            Start::Noise(size) => *size,
        }
    }
}

/// How the store has it: `init` or `noise`, and the other images by their roles.
#[derive(Serialize, Deserialize)]
struct StoredInputs<I> {
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    init: Option<I>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    noise: Option<Size>,
    #[serde(default = "BTreeMap::new", skip_serializing_if = "BTreeMap::is_empty")]
    others: BTreeMap<InputRole, I>,
}

/// A default that asks nothing of the type.
const fn none<I>() -> Option<I> {
    None
}

impl<I> From<Inputs<I>> for StoredInputs<I> {
    fn from(Inputs { start, ip_adapter }: Inputs<I>) -> Self {
        let (init, mask, noise) = match start {
            Start::Image { init, mask } => (Some(init), mask, None),
            Start::Noise(size) => (None, None, Some(size)),
        };
        let others = [(InputRole::Mask, mask), (InputRole::IpAdapter, ip_adapter)];
        let others = others
            .into_iter()
            .filter_map(|(role, image)| Some((role, image?)));
        Self {
            init,
            noise,
            others: others.collect(),
        }
    }
}

impl<I> TryFrom<StoredInputs<I>> for Inputs<I> {
    type Error = &'static str;

    fn try_from(stored: StoredInputs<I>) -> Result<Self, Self::Error> {
        let mut others = stored.others;
        let (mask, ip_adapter) = (
            others.remove(&InputRole::Mask),
            others.remove(&InputRole::IpAdapter),
        );
        let start = match (stored.init, stored.noise, mask) {
            (Some(init), None, mask) => Start::Image { init, mask },
            (None, Some(size), None) => Start::Noise(size),
            _ => return Err("a job starts from an image, with a mask or without, or from noise of a size"),
        };
        Ok(Self { start, ip_adapter })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SIZE: Size = Size {
        width: 64,
        height: 48,
    };

    #[test]
    fn every_role_has_its_image_and_its_own_name() {
        let inputs = Inputs::inpainting(1, 2).with_ip_adapter(3);
        assert_eq!((inputs.init(), inputs.mask()), (Some(&1), Some(&2)));
        let all: Vec<_> = inputs.iter().map(|(role, image)| (role, *image)).collect();
        let roles = InputRole::ALL.iter().copied();
        assert_eq!(all, roles.zip(1..).collect::<Vec<_>>());
        let twice = inputs.map(|_, image| 2 * image);
        assert_eq!(twice, Inputs::inpainting(2, 4).with_ip_adapter(6));
        let without = inputs.try_map(|role, image| {
            if role == InputRole::Mask {
                Err(role)
            } else {
                Ok(*image)
            }
        });
        assert_eq!(without, Err(InputRole::Mask));
        let names: BTreeSet<_> = InputRole::ALL.iter().copied().map(InputRole::as_str).collect();
        assert_eq!(names.len(), InputRole::ALL.len());
    }

    #[test]
    fn what_there_is_says_what_is_done() {
        let noise = Inputs::<u8>::from_noise(SIZE);
        assert_eq!((noise.init(), noise.mask()), (None, None));
        assert_eq!(noise.iter().count(), 0);
        for (inputs, task) in [
            (noise.with_ip_adapter(1), Task::TextToImage),
            (Inputs::new(1), Task::ImageToImage),
            (Inputs::inpainting(1, 2), Task::Inpainting),
        ] {
            assert_eq!(inputs.task(), task);
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_by_this_version_and_earlier_ones() {
        for (inputs, written) in [
            (Inputs::new("a"), r#"{"init":"a"}"#),
            (
                Inputs::inpainting("a", "b").with_ip_adapter("c"),
                r#"{"init":"a","others":{"mask":"b","ip_adapter":"c"}}"#,
            ),
            (Inputs::from_noise(SIZE), r#"{"noise":{"width":64,"height":48}}"#),
        ] {
            assert_eq!(serde_json::to_string(&inputs).unwrap(), written);
            assert_eq!(serde_json::from_str::<Inputs<&str>>(written).unwrap(), inputs);
        }
        for contradiction in [
            "{}",
            r#"{"init":"a","noise":{"width":64,"height":48}}"#,
            r#"{"noise":{"width":64,"height":48},"others":{"mask":"b"}}"#,
        ] {
            let read = serde_json::from_str::<Inputs<&str>>(contradiction);
            assert!(read.is_err(), "{contradiction}");
        }
    }
}
