//! Names and configurations of single files against diffusers' own conversion.
//!
//! The table is made by `tests/golden/generate/single_file.py`, which has run that conversion.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use super::{CLIP, Part, UNET, VAE, foreign, text, unet, vae};
use crate::container::StoredTensor;

fn golden() -> Value {
    let path = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/golden/single/names.json"
    ));
    serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap()
}

/// Original name, name in diffusers, shape.
type Row = (String, String, Vec<usize>);

/// The rows of one component, with those of SD 1.5 where the table holds differences only.
fn rows(golden: &Value, network: &str, part: &str) -> Vec<Row> {
    let rows = |network: &str| -> Vec<Row> {
        serde_json::from_value(golden[network]["tensors"][part].clone()).unwrap()
    };
    let mut found: BTreeMap<String, Row> = BTreeMap::new();
    let base: &[&str] = if network == "tiny" {
        &["tiny"]
    } else {
        &["sd15", network]
    };
    for row in base.iter().flat_map(|network| rows(network)) {
        found.insert(row.0.clone(), row);
    }
    found.into_values().collect()
}

fn tensors(rows: &[Row], prefix: &str) -> BTreeMap<String, StoredTensor> {
    let inside = rows
        .iter()
        .filter_map(|(name, _, shape)| Some((name.strip_prefix(prefix)?, shape)));
    inside
        .map(|(name, shape)| (name.to_owned(), StoredTensor::of_shape(shape)))
        .collect()
}

/// Calls `check` with the network, the part, its rows, and the tensors that a file with these rows has.
fn each_part(golden: &Value, check: impl Fn(&str, &str, &[Row], &Part<'_>)) {
    for network in ["sd15", "sd15-inpaint", "lcm", "tiny"] {
        for (part, prefix) in [("unet", UNET), ("vae", VAE), ("text_encoder", CLIP)] {
            let rows = rows(golden, network, part);
            let tensors = tensors(&rows, prefix);
            assert_eq!(tensors.len(), rows.len(), "{network} {part}");
            let named = tensors.iter().map(|(name, stored)| (name.as_str(), stored));
            check(network, part, &rows, &Part(named.collect()));
        }
    }
}

#[test]
fn all_tensors_have_the_names_that_diffusers_gives_them() {
    each_part(&golden(), |network, part, rows, original| {
        assert!(rows.len() > 50, "{network} {part}");
        let found = match part {
            "unet" => unet::renamed(original),
            "vae" => vae::renamed(original),
            _ => text::renamed(original),
        };
        let found: BTreeMap<&String, &Vec<usize>> =
            found.iter().map(|(name, stored)| (name, &stored.shape)).collect();
        let expected: BTreeMap<&String, &Vec<usize>> =
            rows.iter().map(|(_, name, shape)| (name, shape)).collect();
        assert_eq!(found, expected, "{network} {part}");
    });
}

#[test]
fn the_configuration_is_found_from_the_shapes() {
    let golden = golden();
    each_part(&golden, |network, part, _, original| {
        let found = match part {
            "unet" => unet::config(original),
            "vae" => vae::config(original),
            _ => text::config(original),
        };
        let found = found.unwrap();
        for (key, expected) in golden[network]["config"][part].as_object().unwrap() {
            // What no network of ours reads.
            if !matches!(key.as_str(), "sample_size" | "projection_dim") {
                assert_eq!(&found[key], expected, "{network} {part} {key}");
            }
        }
    });
}

#[test]
fn what_is_no_checkpoint_is_named_for_what_it_seems_to_be() {
    for (name, expected) in [
        ("conditioner.embedders.1.model.ln_final.weight", Some("XL")),
        (
            "cond_stage_model.model.ln_final.weight",
            Some("Stable Diffusion 2"),
        ),
        ("model.diffusion_model.out.0.weight", Some("no text encoder")),
        (
            "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight",
            Some("a LoRA"),
        ),
        ("unet.mid_block.attentions.0.to_q.lora_A.weight", Some("a LoRA")),
        ("unet:0:down", Some("a LoRA")),
        (
            "lora_te_text_model_encoder_layers_0_mlp_fc1.lokr_w1_a",
            Some("a LoRA"),
        ),
        ("encoder.down.0.block.0.conv1.weight", Some("a VAE")),
        ("emb_params", Some("a textual inversion")),
        ("conv_in.weight", Some("a single component")),
        (
            "double_blocks.0.img_attn.qkv.weight",
            Some("a diffusion transformer"),
        ),
        ("something.else", Some("none of its tensors")),
    ] {
        let tensors = BTreeMap::from([(name.to_owned(), StoredTensor::of_shape(&[1]))]);
        let found = foreign(&tensors);
        assert!(
            found
                .zip(expected)
                .is_some_and(|(found, expected)| found.contains(expected)),
            "{name}: {found:?}"
        );
    }
}
