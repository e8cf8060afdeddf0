//! The size that the image to start from is brought to, and with it the size of the result.

use pentimento_types::Size;

/// Image pixels per latent pixel and side, in every VAE of Stable Diffusion.
pub(super) const STEP: u32 = 8;

/// What the caller says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Fit {
    /// It stays as it is.
    #[default]
    AsSent,
    /// It is brought to this size.
    To(Size),
    /// The caller leaves it open. A model that says its native size gets the image within that ([`Self::Within`]); for any other
    /// the image is brought to the dialect's usual size, or stays as it is where there is none.
    Open(Option<Size>),
    /// It keeps its proportions, and is reduced where it has more pixels than a square of this side.
    Within(u32),
}

impl Fit {
    /// What is left open is settled by the model's native side, where it says one.
    pub(crate) fn settled(self, native_side: Option<u32>) -> Self {
        match (self, native_side) {
            (Self::Open(_), Some(side)) => Self::Within(side),
            (Self::Open(Some(size)), None) => Self::To(size),
            (Self::Open(None), None) => Self::AsSent,
            (Self::AsSent | Self::To(_) | Self::Within(_), _) => self,
        }
    }

    /// The size of the result, while the image is not known. None where only the image says it.
    pub(crate) fn expected(self) -> Option<Size> {
        match self {
            Self::AsSent => None,
            Self::To(size) => Some(size),
            Self::Open(usual) => usual,
            Self::Within(side) => Some(Size {
                width: side,
                height: side,
            }),
        }
    }

    /// The size of the result for an image of this size.
    pub(crate) fn of(self, image: Size) -> Size {
        match self {
            Self::AsSent | Self::Open(None) => image,
            Self::To(size) | Self::Open(Some(size)) => size,
            Self::Within(side) => within(image, side),
        }
    }
}

/// An image of at most as many pixels as a square of `side` stays as it is. A larger one is reduced in its proportions, as far as
/// sides allow that are multiples of eight from a quarter of `side` to four times as much.
fn within(image: Size, side: u32) -> Size {
    if image.pixels() <= u64::from(side) * u64::from(side) {
        return image;
    }
    let (least, most) = ((side / 4).next_multiple_of(STEP), side * 4 / STEP * STEP);
    let [width, height] = [image.width, image.height].map(f64::from);
    let factor = f64::from(side) / (width * height).sqrt();
    let [width, height] = [width, height].map(|pixels| {
        let steps = (pixels * factor / f64::from(STEP)).floor();
        // A float beyond the range becomes its end.
        (steps as u32).saturating_mul(STEP).clamp(least, most)
    });
    Size { width, height }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn size(width: u32, height: u32) -> Size {
        Size { width, height }
    }

    #[test]
    fn what_is_left_open_is_the_models_native_size_or_the_dialects_usual_one() {
        let usual = size(512, 512);
        for (fit, native, photo) in [
            (Fit::Open(Some(usual)), None, usual),
            (Fit::Open(None), None, size(600, 400)),
            (Fit::Open(Some(usual)), Some(160), size(192, 128)),
            (Fit::Open(None), Some(160), size(192, 128)),
            // What was asked for is done, whatever the model.
            (Fit::To(usual), Some(160), usual),
            (Fit::AsSent, Some(160), size(600, 400)),
        ] {
            let settled = fit.settled(native);
            assert_eq!(settled.of(size(600, 400)), photo, "{fit:?} {native:?}");
        }
    }

    #[test]
    fn within_a_native_size_an_image_keeps_its_proportions_and_has_at_most_its_pixels() {
        for (image, expected) in [
            (size(192, 128), size(192, 128)),
            (size(160, 160), size(160, 160)),
            (size(512, 512), size(160, 160)),
            (size(3000, 2000), size(192, 128)),
            (size(2000, 3000), size(128, 192)),
            // Nothing is enlarged or rounded.
            (size(100, 61), size(100, 61)),
            (size(1, 1), size(1, 1)),
            // As near as the bounds allow.
            (size(8000, 10), size(640, 40)),
            (size(u32::MAX, u32::MAX), size(160, 160)),
            (size(u32::MAX, 1), size(640, 40)),
        ] {
            let found = Fit::Within(160).of(image);
            assert_eq!(found, expected, "{image}");
            assert!(found.pixels() <= 160 * 160, "{found}");
        }
    }
}
