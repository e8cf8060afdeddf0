//! Names and configurations of single files against diffusers' own conversion.
//!
//! The table is made by `tests/golden/generate/single_file.py`, which has run that conversion.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;

use super::base::Base;
use super::{Part, Renamed, Tensors, base};
use crate::ReadProgress;
use crate::container::{StoredTensor, TensorFile};

fn golden() -> Value {
    let path = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/golden/single/names.json"
    ));
    serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap()
}

/// Original name, name in diffusers, shape in the file. A matrix that holds several has a row for each.
type Row = (String, String, Vec<usize>);

const PARTS: [&str; 4] = ["unet", "vae", "text_encoder", "text_encoder_2"];

/// The rows of one component, with those of the network that it is like.
fn rows(golden: &Value, network: &str, part: &str) -> Vec<Row> {
    let read = |rows: &Value| -> Vec<Row> { serde_json::from_value(rows.clone()).unwrap() };
    let found = &golden[network]["tensors"][part];
    let (like, differing) = match (&golden[network]["like"], &found["differing"]) {
        (Value::String(like), Value::Array(_)) => (like, read(&found["differing"])),
        (Value::String(_), _) if !found.is_null() => return read(&found["alone"]),
        _ if found.is_null() => return Vec::new(),
        _ => return read(found),
    };
    let replaced: BTreeSet<&String> = differing.iter().map(|(original, ..)| original).collect();
    let mut all = rows(golden, like, part);
    all.retain(|(original, ..)| !replaced.contains(original));
    all.extend(differing);
    all
}

/// A file with all tensors of a network, without any bytes in them.
fn file(golden: &Value, network: &str) -> Tensors {
    let rows = PARTS.iter().flat_map(|part| rows(golden, network, part));
    let tensors = rows.map(|(original, _, shape)| (original, StoredTensor::of_shape(&shape)));
    let empty = TensorFile::from_bytes(network.to_owned(), b"\x02\0\0\0\0\0\0\0{}".to_vec()).unwrap();
    Tensors::of(empty.with_tensors(tensors.collect(), &ReadProgress::default())).unwrap()
}

/// Calls `check` with the network, the part, its rows, and a file with all of the network.
fn each_part(golden: &Value, check: impl Fn(&str, &str, &[Row], &Tensors)) {
    for network in golden.as_object().unwrap().keys() {
        let file = file(golden, network);
        for part in PARTS {
            check(network, part, &rows(golden, network, part), &file);
        }
    }
}

#[test]
fn the_base_is_found_from_the_tensors() {
    let golden = golden();
    for network in golden.as_object().unwrap().keys() {
        let expected = match network.as_str() {
            name if name.contains("sdxl") => Base::Sdxl,
            name if name.contains("sd2") => Base::Sd2,
            _ => Base::Sd1,
        };
        assert_eq!(file(&golden, network).base, expected, "{network}");
    }
}

#[test]
fn all_tensors_have_the_names_that_diffusers_gives_them() {
    each_part(&golden(), |network, part, rows, file| {
        assert!(rows.len() > 10 || part == "text_encoder_2", "{network} {part}");
        let component = file.component(part, &ReadProgress::default());
        let found: BTreeSet<&String> = component.tensors().keys().collect();
        // A name for nothing stands for what is left out.
        let expected: BTreeSet<&String> = rows
            .iter()
            .map(|(_, name, _)| name)
            .filter(|name| !name.is_empty())
            .collect();
        assert_eq!(found, expected, "{network} {part}");
    });
}

#[test]
fn tensors_keep_their_shapes_but_for_what_is_cut_and_turned() {
    each_part(&golden(), |network, part, rows, file| {
        let component = file.component(part, &ReadProgress::default());
        for (original, name, shape) in rows.iter().filter(|(_, name, _)| !name.is_empty()) {
            let mut expected = shape.clone();
            if original.contains("attn.in_proj") {
                expected[0] /= 3;
            } else if original.ends_with("text_projection") {
                expected.reverse();
            }
            assert_eq!(
                component.tensors()[name].shape,
                expected,
                "{network} {part} {name}"
            );
        }
    });
}

#[test]
fn the_configuration_is_found_from_the_shapes() {
    let golden = golden();
    each_part(&golden, |network, part, rows, file| {
        let found = file.config(&format!("{part}/config.json"));
        assert_eq!(found.is_some(), !rows.is_empty(), "{network} {part}");
        let Some(expected) = golden[network]["config"][part].as_object() else {
            return;
        };
        for (key, expected) in expected {
            // What no network of ours reads there.
            let unread = matches!(key.as_str(), "sample_size" | "upcast_attention")
                || key == "projection_dim" && part == "text_encoder";
            if !unread {
                assert_eq!(&found.as_ref().unwrap()[key], expected, "{network} {part} {key}");
            }
        }
    });
}

#[test]
fn the_scheduler_is_the_one_that_the_base_is_published_with() {
    let golden = golden();
    for (network, class, prediction) in [
        ("sd15", "PNDMScheduler", None),
        ("lcm", "LCMScheduler", None),
        ("sd2", "DDIMScheduler", Some("v_prediction")),
        ("sd2-inpaint", "PNDMScheduler", None),
        ("sdxl", "EulerDiscreteScheduler", None),
        ("sdxl-lcm", "LCMScheduler", None),
    ] {
        let found = file(&golden, network)
            .config("scheduler/scheduler_config.json")
            .unwrap();
        assert_eq!(found["_class_name"], class, "{network}");
        assert_eq!(
            found.get("prediction_type").and_then(Value::as_str),
            prediction,
            "{network}"
        );
    }
}

#[test]
fn a_trainers_mark_says_that_the_velocity_is_predicted() {
    let marked = file(&golden(), "sdxl");
    let mut tensors = marked.file.tensors().clone();
    for mark in ["v_pred", "ztsnr"] {
        tensors.insert(mark.to_owned(), StoredTensor::of_shape(&[]));
    }
    let marked = Tensors::of(marked.file.with_tensors(tensors, &ReadProgress::default())).unwrap();
    let found = marked.config("scheduler/scheduler_config.json").unwrap();
    assert_eq!(found["prediction_type"], "v_prediction");
    assert_eq!(found["rescale_betas_zero_snr"], true);
}

#[test]
fn what_is_no_checkpoint_is_named_for_what_it_seems_to_be() {
    for (names, expected) in [
        (
            &[
                "conditioner.embedders.0.model.ln_final.weight",
                "model.diffusion_model.out.0.weight",
            ][..],
            "a refiner",
        ),
        (&["model.diffusion_model.joint_blocks.0.x"], "Stable Diffusion 3"),
        (&["model.diffusion_model.double_blocks.0.x"], "FLUX"),
        (
            &[
                "edm_mean",
                "model.diffusion_model.x",
                "first_stage_model.x",
                "conditioner.embedders.1.model.x",
            ],
            "Playground",
        ),
        (
            &[
                "cond_stage_model.model.x",
                "first_stage_model.x",
                "model.diffusion_model.label_emb.weight",
            ],
            "an upscaler",
        ),
        (&["clip_txt_mapper.weight"], "Stable Cascade"),
        (&["control_model.x", "cond_stage_model.x"], "a ControlNet"),
        (
            &["cond_stage_model.model.x", "model.diffusion_model.x"],
            "is missing",
        ),
        (&["model.diffusion_model.out.0.weight"], "no text encoder"),
        (
            &["lora_unet_mid_block_attentions_0_proj_in.lora_up.weight"],
            "a LoRA",
        ),
        (&["unet.mid_block.attentions.0.to_q.lora_A.weight"], "a LoRA"),
        (&["unet:0:down"], "a LoRA"),
        (
            &["lora_te_text_model_encoder_layers_0_mlp_fc1.lokr_w1_a"],
            "a LoRA",
        ),
        (&["encoder.down.0.block.0.conv1.weight"], "a VAE"),
        (&["emb_params"], "a textual inversion"),
        (&["conv_in.weight"], "a single component"),
        (
            &["double_blocks.0.img_attn.qkv.weight"],
            "a diffusion transformer",
        ),
        (&["something.else"], "none of its tensors"),
    ] {
        let tensors = names
            .iter()
            .map(|name| ((*name).to_owned(), StoredTensor::of_shape(&[1])));
        let found = base::of(&tensors.collect::<Renamed>()).unwrap_err();
        assert!(found.contains(expected), "{names:?}: {found}");
    }
}

/// What cannot be what its name says keeps the name, so that it is missed and complained about.
#[test]
fn a_matrix_that_is_no_three_is_not_cut() {
    let odd = StoredTensor::of_shape(&[7, 2]);
    let flat = StoredTensor::of_shape(&[4]);
    let part = Part(BTreeMap::from([
        ("transformer.resblocks.0.attn.in_proj_weight", &odd),
        ("text_projection", &flat),
    ]));
    let found = super::open_clip::renamed(&part, super::Use::Whole);
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["text_projection", "transformer.resblocks.0.attn.in_proj_weight"]
    );
}
