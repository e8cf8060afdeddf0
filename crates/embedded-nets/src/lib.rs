//! Small trained networks of others inside the binary: a classifier of unsafe pictures, and two that enlarge pictures.
//!
//! The bytes are safetensors as `convert/convert.mjs` writes them, neither compressed nor read before somebody asks for them.
//! `MODEL_CARD.md` says what each is and where it comes from; `licences/` holds the licences.

/// `nsfwjs` 4.3.0's MobileNetV2, 224 pixels, five classes. Bytes with a range for each tensor.
pub const NSFW_MOBILENET_V2: &[u8] = include_bytes!("../weights/nsfw_mobilenet_v2.safetensors");

/// `@upscalerjs/esrgan-slim` 1.0.0's residual dense network for twice the size, in f16.
pub const ESRGAN_SLIM_X2: &[u8] = include_bytes!("../weights/esrgan_slim_x2.safetensors");

/// The same for four times the size.
pub const ESRGAN_SLIM_X4: &[u8] = include_bytes!("../weights/esrgan_slim_x4.safetensors");

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::{Dtype, SafeTensors};

    #[test]
    fn every_byte_of_the_classifier_has_a_range() {
        let file = SafeTensors::deserialize(NSFW_MOBILENET_V2).expect("safetensors");
        let (mut bytes, mut ranges) = (0, 0);
        for (name, tensor) in file.tensors() {
            if tensor.dtype() == Dtype::F64 {
                ranges += 1;
                continue;
            }
            assert_eq!(tensor.dtype(), Dtype::U8, "{name}");
            let range = file.tensor(&format!("{name}/range")).expect("a range");
            assert_eq!(range.shape(), [2], "{name}");
            bytes += tensor.data().len();
        }
        // As the model.json of the package counts them.
        assert_eq!((ranges, bytes), (266, 2_619_461));
    }

    #[test]
    fn the_upscalers_are_finite_halves() {
        for (file, parameters) in [(ESRGAN_SLIM_X2, 888_300 / 4), (ESRGAN_SLIM_X4, 933_804 / 4)] {
            let file = SafeTensors::deserialize(file).expect("safetensors");
            let mut found = 0;
            for (name, tensor) in file.tensors() {
                assert_eq!(tensor.dtype(), Dtype::F16, "{name}");
                // All ones in the exponent is infinity or not a number.
                let finite = tensor.data().chunks_exact(2).all(|b| b[1] & 0x7c != 0x7c);
                assert!(finite, "{name}");
                found += tensor.data().len() / 2;
            }
            assert_eq!(found, parameters);
        }
    }

    #[test]
    fn the_binary_grows_by_less_than_five_megabytes() {
        let all = [NSFW_MOBILENET_V2, ESRGAN_SLIM_X2, ESRGAN_SLIM_X4];
        assert!(all.iter().map(|file| file.len()).sum::<usize>() < 5_000_000);
    }
}
