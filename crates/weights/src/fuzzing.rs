//! The door for `fuzz/`, which is there when it builds this crate, and in tests, which run its corpus.

use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};

use crate::container::TensorFile;
use crate::original::Tensors;
use crate::{Dtypes, LoraFile, LoraNetwork, LoraTarget, embedding_file, ip_adapter};

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
    if let Ok(about) = ip_adapter::about(&file) {
        assert!(about.tokens > 0 && !about.layers.is_empty());
    }
    if let Ok(tensors) = Tensors::of(file) {
        for part in ["unet", "vae", "text_encoder", "text_encoder_2"] {
            let _ = tensors.config(&format!("{part}/config.json"));
            let _ = tensors.component(part, &crate::ReadProgress::default());
        }
        let _ = tensors.config("scheduler/scheduler_config.json");
    }
}

/// A LoRA or a textual inversion, perhaps behind PEFT's configuration on a line of its own, beside a small checkpoint.
///
/// # Panics
/// When something that must hold for every file does not.
pub fn lora_file(bytes: &[u8]) {
    let line = bytes.iter().position(|byte| *byte == b'\n');
    let (config, bytes) = match line {
        Some(end) if bytes.starts_with(b"{") => (Some(&bytes[..end]), &bytes[end + 1..]),
        _ => (None, bytes),
    };
    let open = || TensorFile::from_bytes("fuzz".to_owned(), bytes.to_vec());
    let Ok(file) = open() else {
        return;
    };
    if let Ok((embeddings, _)) = embedding_file::all(&file) {
        let vectors = embeddings.iter().flat_map(|embedding| &embedding.vectors);
        let numbers: usize = vectors.map(|(_, tensor)| tensor.elem_count()).sum();
        assert!(numbers <= bytes.len());
    }
    let targets = small_checkpoint();
    let Ok(lora) = LoraFile::of(PathBuf::from("fuzz"), file, config) else {
        return;
    };
    let _ = lora.about();
    let Ok(resolved) = lora.resolve(&targets) else {
        return;
    };
    assert!(resolved.size_bytes() <= lora.memory_bytes());
    for (network, layer, change) in &resolved.changes {
        let (_, layers) = targets
            .iter()
            .find(|(of, _)| of == network)
            .expect("one of the targets");
        let target = layers.iter().find(|target| target.name == *layer);
        let dims = &*target.expect("one of the targets").weight_dims;
        let base = Tensor::ones(dims, DType::F16, &Device::Cpu).expect("a small tensor");
        let delta = change
            .weight_delta(&base, -0.5)
            .expect("what is placed can be computed");
        assert_eq!(delta.dims(), dims, "{layer}");
        let bias = Tensor::ones(dims[0], DType::F32, &Device::Cpu).expect("a small tensor");
        if let Some(delta) = change
            .bias_delta(Some(&bias), 2.0)
            .expect("what is placed can be computed")
        {
            assert_eq!(delta.dims(), bias.dims(), "{layer}");
        }
        if let Some(branch) = change.low_rank() {
            assert_eq!(branch.up.dims()[0], dims[0], "{layer}");
            assert_eq!(branch.down.dims()[1], dims[1], "{layer}");
        }
    }
}

/// A layer of each shape.
fn small_checkpoint() -> Vec<(LoraNetwork, Vec<LoraTarget>)> {
    let target = |(name, dims): (&str, &[usize])| LoraTarget {
        name: name.to_owned(),
        weight_dims: dims.to_vec(),
        has_bias: !name.ends_with("to_q"),
    };
    let unet: [(&str, &[usize]); 7] = [
        ("conv_in", &[8, 4, 3, 3]),
        ("down_blocks.0.attentions.0.norm", &[8]),
        ("down_blocks.0.attentions.0.proj_in", &[8, 8, 1, 1]),
        (
            "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
            &[8, 8],
        ),
        (
            "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k",
            &[8, 4],
        ),
        ("down_blocks.0.resnets.0.conv1", &[8, 8, 3, 3]),
        ("conv_out", &[4, 8, 3, 3]),
    ];
    let text: [(&str, &[usize]); 2] = [
        ("text_model.encoder.layers.0.self_attn.q_proj", &[4, 4]),
        ("text_model.encoder.layers.0.mlp.fc1", &[16, 4]),
    ];
    vec![
        (LoraNetwork::UNet, unet.map(target).to_vec()),
        (LoraNetwork::TextEncoder, text.map(target).to_vec()),
    ]
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_the_fuzzer_found_in_loras_holds() {
        pentimento_testkit::each_fuzzed("lora_file", super::lora_file);
    }

    #[test]
    fn what_the_fuzzer_found_holds() {
        pentimento_testkit::each_fuzzed("weights_file", super::weights_file);
    }
}
