//! The input images of a job by their role: as the caller sent them, as they are stored, or decoded.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What an input image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputRole {
    /// The image to start from.
    Init,
    /// White is made anew, black stays pixel for pixel. Stretched to the size of the image to start from.
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

/// The images that a job works on. There is always one to start from; whether there is a mask decides whether the job is
/// inpainting, so that a mask and a task cannot contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs<I> {
    init: I,
    #[serde(default = "BTreeMap::new", skip_serializing_if = "BTreeMap::is_empty")]
    others: BTreeMap<InputRole, I>,
}

impl<I> Inputs<I> {
    /// An image to start from and nothing else.
    pub const fn new(init: I) -> Self {
        Self {
            init,
            others: BTreeMap::new(),
        }
    }

    /// Puts an image in its role, in place of one that was there.
    #[must_use]
    pub fn with(mut self, role: InputRole, image: I) -> Self {
        match role {
            InputRole::Init => self.init = image,
            InputRole::Mask | InputRole::IpAdapter => {
                self.others.insert(role, image);
            }
        }
        self
    }

    /// The image to start from.
    pub const fn init(&self) -> &I {
        &self.init
    }

    /// The mask of an inpainting job.
    pub fn mask(&self) -> Option<&I> {
        self.get(InputRole::Mask)
    }

    /// What an IP-Adapter shows the model.
    pub fn ip_adapter(&self) -> Option<&I> {
        self.get(InputRole::IpAdapter)
    }

    /// The image in a role.
    pub fn get(&self, role: InputRole) -> Option<&I> {
        match role {
            InputRole::Init => Some(&self.init),
            InputRole::Mask | InputRole::IpAdapter => self.others.get(&role),
        }
    }

    /// All images with their roles, the one to start from first.
    pub fn iter(&self) -> impl Iterator<Item = (InputRole, &I)> {
        let others = self.others.iter().map(|(role, image)| (*role, image));
        std::iter::once((InputRole::Init, &self.init)).chain(others)
    }

    /// Gives the images away, with their roles.
    pub fn into_vec(self) -> Vec<(InputRole, I)> {
        std::iter::once((InputRole::Init, self.init))
            .chain(self.others)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_has_its_image_and_its_own_name() {
        let inputs = Inputs::new(1).with(InputRole::Mask, 2);
        assert_eq!((inputs.init(), inputs.mask()), (&1, Some(&2)));
        let all: Vec<_> = inputs.iter().map(|(role, image)| (role, *image)).collect();
        assert_eq!(all, [(InputRole::Init, 1), (InputRole::Mask, 2)]);
        assert_eq!(inputs.into_vec(), all);
        let replaced = Inputs::new(1).with(InputRole::Init, 3);
        assert_eq!((replaced.init(), replaced.mask()), (&3, None));
        let names: std::collections::BTreeSet<_> =
            InputRole::ALL.iter().copied().map(InputRole::as_str).collect();
        assert_eq!(names.len(), InputRole::ALL.len());
    }
}
