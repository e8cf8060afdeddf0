//! Tiny autoencoders: TAESD's numbered layers, and diffusers' names for them.
//!
//! The decoder's numbers begin with a clamp, which diffusers does not count.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Half;
use crate::container::{StoredTensor, below};
use crate::original::Renamed;

/// Whether a file is one of the two that its author publishes.
pub(super) fn half(tensors: &BTreeMap<String, StoredTensor>) -> Option<Half> {
    let numbered = |name: &String| name.split_once('.').is_some_and(|(number, _)| is_number(number));
    if tensors.is_empty() || !tensors.keys().all(numbered) {
        return None;
    }
    match (tensors.contains_key("0.weight"), tensors.contains_key("1.weight")) {
        (true, false) => Some(Half::Encoder),
        (false, true) => Some(Half::Decoder),
        _ => None,
    }
}

/// The tensors of one of the two files, named as in diffusers.
pub(super) fn renamed(tensors: &BTreeMap<String, StoredTensor>, part: &str) -> Renamed {
    let named = tensors.iter().map(|(name, stored)| {
        let renamed = layer_name(part, name).unwrap_or_else(|| name.clone());
        (renamed, stored.clone())
    });
    named.collect()
}

/// The tensors of both in one file: as diffusers writes them, or the author's numbers behind `encoder.` or `taesd_encoder.`.
pub(super) fn joined(tensors: &BTreeMap<String, StoredTensor>) -> Option<Renamed> {
    if tensors.contains_key("encoder.layers.0.weight") {
        return Some(tensors.clone());
    }
    let named = tensors.iter().map(|(name, stored)| {
        let bare = name.strip_prefix("taesd_").unwrap_or(name);
        let (part, rest) = bare.split_once('.')?;
        matches!(part, "encoder" | "decoder").then_some(())?;
        Some((layer_name(part, rest)?, stored.clone()))
    });
    named.collect()
}

fn layer_name(part: &str, numbered: &str) -> Option<String> {
    let (number, rest) = numbered.split_once('.')?;
    let number: usize = number.parse().ok()?;
    let number = if part == "decoder" {
        number.checked_sub(1)?
    } else {
        number
    };
    Some(format!("{part}.layers.{number}.{rest}"))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() < 6 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The configuration of tensors that are named as in diffusers; None where they are something else.
pub(super) fn config(tensors: &Renamed) -> Option<Value> {
    let encoder = Layers::of(tensors, "encoder.layers.")?;
    let decoder = Layers::of(tensors, "decoder.layers.")?;
    let (first, last) = (encoder.convolutions.first()?, encoder.convolutions.last()?);
    let levels = encoder.convolutions.len() - 1;
    if levels == 0 || decoder.convolutions.len() != levels + 1 {
        return None;
    }
    let size = |shape: &[usize], dimension: usize| shape.get(dimension).copied();
    let width = size(first, 0)?;
    let inner_norm = |name: &String| name.ends_with(".pool.0.weight");
    Some(json!({
        "_class_name": "AutoencoderTiny",
        "in_channels": size(first, 1)?,
        "out_channels": size(decoder.convolutions.last()?, 0)?,
        "latent_channels": size(last, 0)?,
        "encoder_block_out_channels": vec![width; levels],
        "decoder_block_out_channels": vec![width; levels],
        "num_encoder_blocks": encoder.blocks.get(..levels)?,
        "num_decoder_blocks": decoder.blocks.get(..levels)?,
        "use_midblock_gn": tensors.keys().any(inner_norm),
    }))
}

/// What the layers of one half are, in order.
#[derive(Default)]
struct Layers<'a> {
    /// Shapes of the weights.
    convolutions: Vec<&'a [usize]>,
    /// Blocks after each convolution.
    blocks: Vec<usize>,
}

impl<'a> Layers<'a> {
    fn of(tensors: &'a Renamed, prefix: &str) -> Option<Self> {
        // By number, which is not the order of the names.
        let mut numbered: BTreeMap<usize, Option<&[usize]>> = BTreeMap::new();
        for (name, stored) in below(tensors, prefix) {
            let (number, rest) = name.split_once('.')?;
            let number = number.parse().ok()?;
            let convolution = numbered.entry(number).or_default();
            if rest == "weight" {
                *convolution = Some(stored.shape.as_slice());
            }
        }
        let mut layers = Self::default();
        for convolution in numbered.into_values() {
            if let Some(shape) = convolution {
                layers.convolutions.push(shape);
                layers.blocks.push(0);
            } else {
                *layers.blocks.last_mut()? += 1;
            }
        }
        Some(layers)
    }
}
