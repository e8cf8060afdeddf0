//! What Pillow makes of the files under `tests/golden/images`, and how far from it this server is.

use std::collections::BTreeMap;
use std::path::Path;

use pentimento_service::InputLimits;
use pentimento_service::image_codec::{decode, resized};
use pentimento_types::{RgbImage, Size};
use safetensors::SafeTensors;

/// One file or picture beside Pillow.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// None when the sizes differ or the file was refused; the text says which.
    pub(crate) difference: Result<Difference, String>,
}

/// In levels of 0 to 255, over all samples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Difference {
    pub(crate) largest: u8,
    sum: u64,
    samples: u64,
}

const LIMITS: InputLimits = InputLimits {
    max_side: 1024,
    max_pixels: u64::MAX,
    max_bytes: 1 << 20,
};

/// JPEG files of every layout.
pub(crate) fn jpeg_files() -> Vec<Case> {
    decoded("jpeg")
}

/// Files that say in every place how they are turned.
pub(crate) fn turned_files() -> Vec<Case> {
    decoded("orientation")
}

/// Resized pictures.
pub(crate) fn resized_pictures() -> Vec<Case> {
    let cases = golden("resize", "before", "after").into_iter();
    cases
        .map(|(name, [before, after])| {
            let (before, after) = (before.to_rgb(), after.to_rgb());
            let found = resized(&before, after.size());
            let difference = Difference::between(&found, &after);
            Case { name, difference }
        })
        .collect()
}

fn decoded(file: &str) -> Vec<Case> {
    let cases = golden(file, "file", "rgb").into_iter();
    cases
        .map(|(name, [file, expected])| {
            let found = decode(&file.bytes, LIMITS).map_err(|error| error.to_string());
            let difference = found.and_then(|found| Difference::between(&found, &expected.to_rgb()));
            Case { name, difference }
        })
        .collect()
}

impl Difference {
    /// Of all samples of several files.
    #[expect(clippy::cast_precision_loss, reason = "a few million samples")]
    pub(crate) fn mean(all: &[Self]) -> f64 {
        let sum: u64 = all.iter().map(|difference| difference.sum).sum();
        let samples: u64 = all.iter().map(|difference| difference.samples).sum();
        sum as f64 / samples.max(1) as f64
    }

    fn between(found: &RgbImage, expected: &RgbImage) -> Result<Self, String> {
        if found.size() != expected.size() {
            return Err(format!("{} instead of {}", found.size(), expected.size()));
        }
        let samples = found.pixels().iter().zip(expected.pixels());
        let off: Vec<u8> = samples.map(|(a, b)| a.abs_diff(*b)).collect();
        Ok(Self {
            largest: off.iter().copied().max().unwrap_or_default(),
            sum: off.iter().map(|off| u64::from(*off)).sum(),
            samples: off.len() as u64,
        })
    }
}

struct Tensor {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Tensor {
    /// From (H, W, 3), or from (H, W), which is grey.
    fn to_rgb(&self) -> RgbImage {
        let side = |axis: usize| u32::try_from(self.shape[axis]).unwrap();
        let size = Size {
            width: side(1),
            height: side(0),
        };
        let pixels = if self.shape.len() == 2 {
            self.bytes.iter().flat_map(|level| [*level; 3]).collect()
        } else {
            self.bytes.clone()
        };
        RgbImage::new(size, pixels).unwrap()
    }
}

/// The cases of a golden file by name, each with its two tensors.
fn golden(file: &str, first: &str, second: &str) -> BTreeMap<String, [Tensor; 2]> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/images");
    let bytes = fs_err::read(folder.join(file).with_extension("safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |name: &str, part: &str| {
        let tensor = tensors.tensor(&format!("{name}.{part}")).unwrap();
        Tensor {
            shape: tensor.shape().to_vec(),
            bytes: tensor.data().to_vec(),
        }
    };
    let names = tensors.names().into_iter();
    names
        .filter_map(|name| name.strip_suffix(&format!(".{first}")))
        .map(|name| (name.to_owned(), [tensor(name, first), tensor(name, second)]))
        .collect()
}
