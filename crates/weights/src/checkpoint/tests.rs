//! Checkpoints on disk, in memory, sharded, damaged and seeded.

use std::collections::HashMap;

use candle_core::{DType, Tensor};

use super::*;

const CPU: Device = Device::Cpu;

fn weights(tensors: &[(&str, &[usize], DType)]) -> Vec<u8> {
    let tensors: HashMap<String, Tensor> = tensors
        .iter()
        .map(|(name, shape, dtype)| ((*name).to_owned(), Tensor::ones(*shape, *dtype, &CPU).unwrap()))
        .collect();
    safetensors::serialize(tensors, None).unwrap()
}

fn model(files: Vec<(&str, Vec<u8>)>) -> Checkpoint {
    let files: HashMap<String, Vec<u8>> = files
        .into_iter()
        .map(|(path, bytes)| (path.to_owned(), bytes))
        .collect();
    Checkpoint::in_memory("m", move |path| files.get(path).cloned())
}

fn one(tensors: &[(&str, &[usize], DType)]) -> Component {
    model(vec![(
        "unet/diffusion_pytorch_model.safetensors",
        weights(tensors),
    )])
    .component("unet", Dtypes::All(DType::F32), &CPU)
    .unwrap()
}

#[test]
fn every_float_dtype_is_converted() {
    let component = one(&[
        ("a", &[2, 3], DType::F32),
        ("b", &[3], DType::F16),
        ("c", &[3], DType::BF16),
        ("d", &[3], DType::F64),
    ]);
    let vb = component.var_builder();
    for (name, shape) in [("a", &[2, 3][..]), ("b", &[3]), ("c", &[3]), ("d", &[3])] {
        let tensor = vb.get(shape, name).unwrap();
        assert_eq!(tensor.dtype(), DType::F32);
        assert_eq!(
            tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
            vec![1.0; shape.iter().product()]
        );
    }
    component.finish().unwrap();
}

#[test]
fn halves_are_given_out_as_they_are_stored() {
    let stored = [
        ("a", DType::F16, DType::F16),
        ("b", DType::BF16, DType::BF16),
        ("c", DType::F64, DType::F32),
    ];
    let files = weights(&stored.map(|(name, stored, _)| (name, [2].as_slice(), stored)));
    let component = model(vec![("vae/diffusion_pytorch_model.fp16.safetensors", files)])
        .component("vae", Dtypes::Stored, &CPU)
        .unwrap();
    for (name, _, given) in stored {
        assert_eq!(component.var_builder().get(2, name).unwrap().dtype(), given);
    }
}

#[test]
fn a_wrong_tensor_is_named_with_file_and_shapes() {
    let component = one(&[("a.weight", &[2, 3], DType::F32), ("n", &[2], DType::I64)]);
    let vb = component.var_builder();
    let text = |result: candle_core::Result<Tensor>| result.unwrap_err().to_string();
    assert_eq!(
        text(vb.pp("a").get((3, 2), "weight")),
        "m/unet/diffusion_pytorch_model.safetensors: tensor `a.weight` has shape [2, 3], expected [3, 2]"
    );
    assert_eq!(
        text(vb.get(4, "b.bias")),
        "m/unet/diffusion_pytorch_model.safetensors: tensor `b.bias` is missing, expected shape [4]"
    );
    assert!(text(vb.get(2, "n")).ends_with("tensor `n` has dtype I64, expected F32, F16, BF16 or F64"));
    assert_eq!(
        component.finish().unwrap_err().to_string(),
        "m/unet/diffusion_pytorch_model.safetensors: 2 tensors are not part of the expected network, first `a.weight`, `n`"
    );
}

#[test]
fn other_names_and_harmless_extras_are_known() {
    let component = one(&[
        ("x.attentions.0.query.weight", &[4, 4, 1, 1], DType::F32),
        ("embeddings.token_embedding.weight", &[5, 4], DType::F32),
        ("text_model.embeddings.position_ids", &[1, 77], DType::I64),
    ]);
    let vb = component.var_builder();
    assert_eq!(
        vb.get((4, 4), "x.attentions.0.to_q.weight").unwrap().dims(),
        [4, 4]
    );
    vb.get((5, 4), "text_model.embeddings.token_embedding.weight")
        .unwrap();
    component.finish().unwrap();
}

#[test]
fn shards_are_joined_and_their_index_is_checked() {
    let index = |map: &str| format!(r#"{{"metadata":{{"total_size":1}},"weight_map":{map}}}"#).into_bytes();
    let shards = |map: &str| {
        model(vec![
            ("unet/diffusion_pytorch_model.safetensors.index.json", index(map)),
            ("unet/1.safetensors", weights(&[("a", &[1], DType::F32)])),
            ("unet/2.safetensors", weights(&[("b", &[2], DType::F32)])),
        ])
        .component("unet", Dtypes::All(DType::F32), &CPU)
    };
    let component = shards(r#"{"a":"1.safetensors","b":"2.safetensors"}"#).unwrap();
    component.var_builder().get(1, "a").unwrap();
    component.var_builder().get(2, "b").unwrap();
    component.finish().unwrap();
    let text = |map: &str| shards(map).unwrap_err().to_string();
    assert!(text(r#"{"b":"1.safetensors"}"#).ends_with("tensor `b` is not in `1.safetensors`"));
    assert!(text(r#"{"a":"3.safetensors"}"#).contains("has no `unet/3.safetensors`"));
    assert!(text(r#"{"a":"../../etc/passwd"}"#).contains("not a path inside a model"));
    assert!(text("7").contains("not a valid configuration"));
}

#[test]
fn a_folder_on_disk_is_mapped() {
    let folder = tempfile::tempdir().unwrap();
    fs_err::create_dir(folder.path().join("text_encoder")).unwrap();
    let path = folder.path().join("text_encoder/model.safetensors");
    fs_err::write(&path, weights(&[("text_model.a", &[2], DType::BF16)])).unwrap();
    fs_err::write(folder.path().join("text_encoder/config.json"), b"{\"x\": 3}").unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let component = checkpoint
        .component("text_encoder", Dtypes::All(DType::F32), &CPU)
        .unwrap();
    component.var_builder().get(2, "text_model.a").unwrap();
    component.finish().unwrap();
    let config: HashMap<String, u32> = checkpoint.json("text_encoder/config.json").unwrap();
    assert_eq!(config["x"], 3);
    for foreign in ["../x", "/etc/passwd", "a/../../b", "", "a\\b", "a\0b"] {
        assert!(!checkpoint.has(foreign), "{foreign}");
        assert!(
            matches!(checkpoint.read(foreign), Err(WeightsError::ForeignPath { .. })),
            "{foreign}"
        );
    }
    fs_err::write(&path, b"<html>404</html>").unwrap();
    let error = checkpoint
        .component("text_encoder", Dtypes::All(DType::F32), &CPU)
        .unwrap_err();
    assert!(error.to_string().contains("not a model: an HTML"), "{error}");
    assert!(Checkpoint::open(&path).is_err());
}

#[test]
fn of_several_copies_the_wanted_variant_is_read() {
    let copies = || {
        vec![
            (
                "vae/diffusion_pytorch_model.safetensors",
                weights(&[("a", &[1], DType::F32)]),
            ),
            (
                "vae/diffusion_pytorch_model.fp16.safetensors",
                weights(&[("a", &[2], DType::F32)]),
            ),
        ]
    };
    for (variant, length) in [(None, 1), (Some("fp16"), 2), (Some("ema"), 1)] {
        let component = model(copies())
            .preferring(variant)
            .component("vae", Dtypes::All(DType::F32), &CPU)
            .unwrap();
        component.var_builder().get(length, "a").unwrap();
        component.finish().unwrap();
    }
}

#[test]
fn missing_weights_say_what_was_looked_for() {
    let error = model(vec![("unet/diffusion_pytorch_model.ckpt", vec![1])])
        .component("unet", Dtypes::All(DType::F32), &CPU)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "m: has no weights under `unet/`; they are looked for as `diffusion_pytorch_model` or `model`, `.safetensors` or `.bin`"
    );
}

/// A text encoder as transformers saved it before safetensors, with the positions that it then had among its weights.
#[test]
fn a_pickled_component_has_the_tensors_of_its_safetensors_twin() {
    let golden = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden"));
    let component = |folder: &str| {
        let checkpoint = Checkpoint::open(&golden.join(folder)).unwrap();
        checkpoint
            .component("text_encoder", Dtypes::Stored, &CPU)
            .unwrap()
    };
    let (pickled, twin) = (component("pickle"), component("models/tiny"));
    let shards = golden.join("models/tiny/text_encoder/model.safetensors");
    let shards = fs_err::read(shards).unwrap();
    let names = safetensors::SafeTensors::deserialize(&shards).unwrap();
    for (name, view) in names.tensors() {
        let read = |component: &Component| {
            let tensor = component.var_builder().get(view.shape(), &name).unwrap();
            let dtype = tensor.dtype();
            let values = tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
            (dtype, values.to_vec1::<f32>().unwrap())
        };
        assert_eq!(read(&pickled), read(&twin), "{name}");
    }
    pickled.finish().unwrap();
}

#[test]
fn seeded_weights_answer_every_question() {
    let checkpoint = Checkpoint::seeded_random("s", [("unet/config.json".to_owned(), b"{}".to_vec())], 7);
    let component = checkpoint
        .component("unet", Dtypes::All(DType::F32), &CPU)
        .unwrap();
    assert_eq!(
        component.var_builder().get((8, 4), "any.weight").unwrap().dims(),
        [8, 4]
    );
    assert!(checkpoint.has("unet/config.json"));
    component.finish().unwrap();
}

#[test]
fn two_folders_that_link_to_one_file_have_one_identity_until_it_is_replaced() {
    let home = tempfile::tempdir().unwrap();
    let write = |path: &str, bytes: &[u8]| {
        let path = home.path().join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, bytes).unwrap();
    };
    let file = "unet/diffusion_pytorch_model.safetensors";
    write("shared", &weights(&[("a", &[2], DType::F16)]));
    for folder in ["one", "two"] {
        write(&format!("{folder}/unet/config.json"), b"{}");
        fs_err::os::unix::fs::symlink(home.path().join("shared"), home.path().join(folder).join(file))
            .unwrap();
    }
    let identity = |folder: &str| {
        let checkpoint = Checkpoint::open(&home.path().join(folder)).unwrap();
        checkpoint
            .component_identity("unet", &["unet/config.json"])
            .unwrap()
    };
    let first = identity("one");
    assert_eq!(first, identity("two"), "paths are followed to the file");
    assert_eq!(
        first.size_bytes(),
        fs_err::metadata(home.path().join("shared")).unwrap().len()
    );
    write("two/unet/config.json", b"{ }");
    assert_ne!(
        first,
        identity("two"),
        "another configuration is another component"
    );
    write("shared", &weights(&[("a", &[3], DType::F16)]));
    assert_ne!(first, identity("one"), "the file was replaced");
    let missing = Checkpoint::open(&home.path().join("one"))
        .unwrap()
        .component_identity("vae", &[]);
    assert!(
        matches!(missing, Err(WeightsError::Missing { .. })),
        "{missing:?}"
    );
}
