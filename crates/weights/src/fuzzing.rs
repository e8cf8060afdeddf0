//! The door for `fuzz/`, which is there when it builds this crate, and in tests, which run its corpus.

use candle_core::{DType, Device};

use crate::Dtypes;
use crate::container::TensorFile;
use crate::original::Tensors;

/// A weights file of either format: indexed, and everything read that the index promises.
///
/// # Panics
/// When something that must hold for every file does not.
pub fn weights_file(bytes: &[u8]) {
    let Ok(file) = TensorFile::from_bytes("fuzz".to_owned(), bytes.to_vec()) else {
        return;
    };
    for (name, stored) in file.tensors() {
        let place = (Dtypes::All(DType::F32), &Device::Cpu);
        if let Ok(tensor) = file.read(name, stored, &stored.shape, place) {
            assert_eq!(tensor.dims(), stored.shape, "{name}");
            // One number for each byte at most, so nothing is larger than the file says.
            assert!(tensor.elem_count() <= bytes.len(), "{name}");
        }
    }
    if let Ok(tensors) = Tensors::of(file) {
        for part in ["unet", "vae", "text_encoder", "text_encoder_2"] {
            let _ = tensors.config(&format!("{part}/config.json"));
            let _ = tensors.component(part, &crate::ReadProgress::default());
        }
        let _ = tensors.config("scheduler/scheduler_config.json");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_the_fuzzer_found_holds() {
        pentimento_testkit::each_fuzzed("weights_file", super::weights_file);
    }
}
