//! Files of every format against the differences that PEFT, diffusers or the published formula make, and the layers of the
//! published bases against every spelling.
//!
//! Made by `tests/golden/generate/lora_files.py`.

mod published;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use pentimento_testkit::{Golden, Tolerance, assert_close, golden_dir};
use serde_json::Value;

use super::layers::Layers;
use super::names::{address, underscored};
use super::{LoraFile, LoraNetwork, LoraTarget, ResolvedLora};
use crate::container::{Dtypes, TensorFile};
use crate::{ReadProgress, WeightsError};

type Networks = Vec<(LoraNetwork, Vec<LoraTarget>)>;

fn folder() -> PathBuf {
    golden_dir().join("lora")
}

fn table() -> Value {
    serde_json::from_slice(&fs_err::read(folder().join("layers.json")).unwrap()).unwrap()
}

fn network(name: &str) -> LoraNetwork {
    match name {
        "unet" => LoraNetwork::UNet,
        "text_encoder" => LoraNetwork::TextEncoder,
        _ => LoraNetwork::TextEncoder2,
    }
}

fn layers(base: &str) -> Networks {
    let networks = table()[base].as_object().unwrap().clone();
    let networks = networks.into_iter().map(|(name, rows)| {
        let rows: Vec<(String, Vec<usize>, bool)> = serde_json::from_value(rows).unwrap();
        let targets = rows.into_iter().map(|(name, weight_dims, has_bias)| LoraTarget {
            name,
            weight_dims,
            has_bias,
        });
        (network(&name), targets.collect())
    });
    networks.collect()
}

fn open(name: &str) -> LoraFile {
    let folder = folder().join(name);
    if folder.is_dir() {
        return LoraFile::open(&folder).unwrap();
    }
    LoraFile::open(&folder.with_extension("safetensors")).unwrap()
}

/// The weights of `models/tiny`.
struct Tiny(BTreeMap<&'static str, TensorFile>);

impl Tiny {
    fn open() -> Self {
        let file = |path: &str| {
            let path = golden_dir().join("models/tiny").join(path);
            TensorFile::open(&path, &ReadProgress::default()).unwrap()
        };
        Self(BTreeMap::from([
            ("unet", file("unet/diffusion_pytorch_model.safetensors")),
            ("text_encoder", file("text_encoder/model.safetensors")),
        ]))
    }

    fn tensor(&self, network: &str, name: &str) -> Tensor {
        let file = &self.0[network];
        let stored = &file.tensors()[name];
        let place = (Dtypes::All(DType::F32), &Device::Cpu);
        file.read(name, stored, &stored.shape, place).unwrap()
    }
}

/// A network, a tensor of it, and the name of the difference in the golden file.
type Row = (String, String, String);

/// For each file and strength, what is expected of which tensor.
fn expected(golden: &Golden) -> BTreeMap<(String, String), Vec<Row>> {
    let mut files: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for full in golden.names() {
        let [file, strength, network, tensor] = *full.split('/').collect::<Vec<_>>() else {
            panic!("{full}");
        };
        let of_file = files.entry((file.to_owned(), strength.to_owned())).or_default();
        of_file.push((network.to_owned(), tensor.to_owned(), full.to_owned()));
    }
    files
}

/// What a LoRA adds to `<layer>.weight` or `<layer>.bias`.
fn delta(lora: &ResolvedLora, tiny: &Tiny, of: &str, tensor: &str, strength: f64) -> Tensor {
    let (layer, part) = tensor.rsplit_once('.').unwrap();
    let changes = lora
        .changes
        .iter()
        .filter(|(found, name, _)| *found == network(of) && name == layer);
    let deltas = changes.map(|(_, _, change)| {
        let base = tiny.tensor(of, tensor);
        if part == "weight" {
            change.weight_delta(&base, strength).unwrap()
        } else {
            change.bias_delta(Some(&base), strength).unwrap().unwrap()
        }
    });
    deltas.reduce(|sum, next| (sum + next).unwrap()).unwrap()
}

#[test]
fn every_format_changes_the_weights_as_its_reference_does() {
    let golden = Golden::open("lora/expected.safetensors");
    let (tiny, layers) = (Tiny::open(), layers("tiny"));
    let mut seen = 0;
    for ((name, strength), tensors) in expected(&golden) {
        let lora = open(&name).resolve(&layers).unwrap();
        assert_eq!(lora.unmatched, Vec::<String>::new(), "{name}");
        let strength: f64 = strength.parse().unwrap();
        for (network, tensor, full) in &tensors {
            let found = delta(&lora, &tiny, network, tensor, strength);
            assert_close(full, &found, golden.tensor(full), Tolerance::LORA);
            seen += 1;
        }
        // Only some of the many are expected there.
        if name != "numbered" {
            let expected: BTreeSet<String> = tensors
                .iter()
                .map(|(network, tensor, _)| format!("{network}/{}", tensor.rsplit_once('.').unwrap().0))
                .collect();
            let changed = lora.changes.iter().map(|(of, layer, _)| {
                let of = if *of == LoraNetwork::UNet {
                    "unet"
                } else {
                    "text_encoder"
                };
                format!("{of}/{layer}")
            });
            assert_eq!(changed.collect::<BTreeSet<_>>(), expected, "{name}");
        }
    }
    assert!(seen > 100, "{seen}");
}

#[test]
fn a_pickle_is_the_same_as_its_safetensors() {
    let (tiny, layers) = (Tiny::open(), layers("tiny"));
    let pickled = LoraFile::open(&folder().join("pickled.pt")).unwrap();
    let (pickled, plain) = (
        pickled.resolve(&layers).unwrap(),
        open("kohya").resolve(&layers).unwrap(),
    );
    assert_eq!(pickled.changes.len(), plain.changes.len());
    for (network, layer, change) in &plain.changes {
        let of = if *network == LoraNetwork::UNet {
            "unet"
        } else {
            "text_encoder"
        };
        let tensor = format!("{layer}.weight");
        let found = delta(&pickled, &tiny, of, &tensor, 1.0);
        let expected = change.weight_delta(&tiny.tensor(of, &tensor), 1.0).unwrap();
        assert_close(layer, &found, &expected, Tolerance::EXACT);
    }
}

#[test]
fn a_branch_beside_the_layer_makes_the_same_difference() {
    let (tiny, layers) = (Tiny::open(), layers("tiny"));
    let mut branches = 0;
    for name in [
        "kohya-alphas",
        "peft",
        "processor",
        "numbered",
        "peft-folder",
        "metadata",
    ] {
        for (network, layer, change) in open(name).resolve(&layers).unwrap().changes {
            let of = if network == LoraNetwork::UNet {
                "unet"
            } else {
                "text_encoder"
            };
            let base = tiny.tensor(of, &format!("{layer}.weight"));
            let Some(branch) = change.low_rank() else {
                assert_eq!(base.dims().get(2), Some(&3), "{name} {layer}");
                continue;
            };
            let product = branch.up.matmul(branch.down).unwrap();
            let product = (product * (branch.scale * 0.3))
                .unwrap()
                .reshape(base.dims())
                .unwrap();
            let merged = change.weight_delta(&base, 0.3).unwrap();
            assert_close(&layer, &product, &merged, Tolerance::LORA);
            branches += 1;
        }
    }
    assert!(branches > 50, "{branches}");
}

#[test]
fn only_plain_pairs_of_matrices_are_branches() {
    let layers = layers("tiny");
    for name in [
        "loha",
        "lokr",
        "dora-scale",
        "peft-dora",
        "ia3",
        "differences",
        "peft-bias",
        "locon",
    ] {
        for (_, layer, change) in open(name).resolve(&layers).unwrap().changes {
            assert!(change.low_rank().is_none(), "{name} {layer}");
        }
    }
}

#[test]
fn bundled_embeddings_come_with_the_file() {
    let shapes = |name: &str| -> Vec<String> {
        let embeddings = open(name).embeddings().unwrap().into_iter().map(|embedding| {
            let vectors = embedding.vectors.iter();
            let vectors: Vec<_> = vectors
                .map(|(slot, tensor)| (*slot, tensor.dims().to_vec()))
                .collect();
            format!("{} {vectors:?}", embedding.token.unwrap())
        });
        embeddings.collect()
    };
    assert_eq!(
        shapes("numbered"),
        ["<s1> [(ByWidth, [1, 32])]", "<s2> [(ByWidth, [1, 32])]"]
    );
    assert_eq!(
        shapes("bundle"),
        [
            "a cat [(ByWidth, [3, 32])]",
            "dog [(ByWidth, [2, 32])]",
            "xl [(First, [2, 32]), (Second, [2, 48])]",
        ]
    );
}

/// A module that does not say its network goes where it fits, and is no misfit for the others.
#[test]
fn the_changes_of_one_network_are_those_that_all_of_them_have_there() {
    let target = |outputs| LoraTarget {
        name: "text_projection".to_owned(),
        weight_dims: vec![outputs, 8],
        has_bias: false,
    };
    let layers = [
        (LoraNetwork::TextEncoder, vec![target(8)]),
        (LoraNetwork::TextEncoder2, vec![target(16)]),
    ];
    let zeros = |shape: (usize, usize)| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let tensors = [
        ("text_projection.lora_A.weight".to_owned(), zeros((2, 8))),
        ("text_projection.lora_B.weight".to_owned(), zeros((16, 2))),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    candle_core::safetensors::save(&tensors.into_iter().collect(), &path).unwrap();
    let file = LoraFile::open(&path).unwrap();
    let count = |network| file.resolve_one(&layers, network).unwrap().changes.len();
    let all = file.resolve(&layers).unwrap().changes;
    assert_eq!((all.len(), all[0].0), (1, LoraNetwork::TextEncoder2));
    assert_eq!(
        [
            LoraNetwork::TextEncoder,
            LoraNetwork::TextEncoder2,
            LoraNetwork::UNet
        ]
        .map(count),
        [0, 1, 0]
    );
}

/// The first layer that a module with this name is for.
fn meant(layers: &Layers<'_>, module: &str) -> Option<(LoraNetwork, String)> {
    let found = layers.meant(module, &address(module));
    assert!(found.len() < 2, "{module}");
    found
        .first()
        .map(|(network, target)| (*network, target.name.clone()))
}

#[test]
fn every_layer_of_every_base_is_found_by_each_spelling() {
    for base in ["sd15", "sd2", "sdxl"] {
        let networks = layers(base);
        let layers = Layers::of(&networks);
        for (network, targets) in &networks {
            let (short, dotted): (&[&str], &str) = match network {
                LoraNetwork::UNet => (&["lora_unet_"], "unet."),
                LoraNetwork::TextEncoder => (&["lora_te_", "lora_te1_"], "text_encoder."),
                LoraNetwork::TextEncoder2 => (&["lora_te2_"], "text_encoder_2."),
            };
            for target in targets {
                let expected = Some((*network, target.name.clone()));
                for prefix in short {
                    let kohya = format!("{prefix}{}", underscored(&target.name));
                    assert_eq!(meant(&layers, &kohya), expected, "{base} {kohya}");
                }
                for peft in [
                    format!("{dotted}{}", target.name),
                    format!("{dotted}base_model.model.{}", target.name),
                ] {
                    assert_eq!(meant(&layers, &peft), expected, "{base} {peft}");
                }
            }
        }
    }
}

#[test]
fn the_original_names_of_xl_are_found() {
    let networks = layers("sdxl");
    let layers = Layers::of(&networks);
    let originals: BTreeMap<String, String> =
        serde_json::from_value(table()["sdxl originals"].clone()).unwrap();
    assert!(originals.len() > 700, "{}", originals.len());
    for (name, original) in originals {
        let expected = Some((LoraNetwork::UNet, name));
        for module in [
            format!("lora_unet_{}", underscored(&original)),
            format!("diffusion_model.{original}"),
        ] {
            assert_eq!(meant(&layers, &module), expected, "{module}");
        }
    }
}

/// A file of zeros in f16.
fn zeros(tensors: &[(&str, &[usize])]) -> Result<LoraFile, WeightsError> {
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        let info = serde_json::json!({"dtype": "F16", "shape": shape, "data_offsets": [start, end]});
        header.insert((*name).to_owned(), info);
    }
    let header = Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + end, 0);
    let file = TensorFile::from_bytes("x.safetensors".to_owned(), bytes)?;
    LoraFile::of(PathBuf::from("x.safetensors"), file, None)
}

#[test]
fn a_lora_for_another_base_is_refused_with_its_base_and_numbers() {
    let xl_key = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k";
    let key = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k";
    for (module, width, base, outputs) in [
        (xl_key, 2048, "sdxl", 640),
        (key, 2048, "sdxl", 640),
        (key, 768, "sd15", 640),
        (key, 1024, "sd2", 640),
    ] {
        let (down, up) = (
            format!("{module}.lora_down.weight"),
            format!("{module}.lora_up.weight"),
        );
        let file = zeros(&[(&down, &[4, width]), (&up, &[outputs, 4])]).unwrap();
        for other in ["sd15", "sd2", "sdxl"] {
            let found = file.resolve(&layers(other));
            if other == base {
                assert_eq!(found.unwrap().changes.len(), 1, "{module}");
                continue;
            }
            let Err(error @ WeightsError::OtherBase { .. }) = found else {
                panic!("{module} {other}: {found:?}");
            };
            let text = error.to_string();
            assert!(text.contains(&format!("seems to be for {base}")), "{text}");
            assert!(text.contains("of its 1 modules"), "{text}");
        }
    }
    // A tiny one fits none of them.
    let error = open("kohya").resolve(&layers("sd15")).unwrap_err();
    assert!(matches!(error, WeightsError::OtherBase { .. }), "{error}");
}

#[test]
fn what_no_layer_has_a_use_for_is_listed() {
    let q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q";
    let file = zeros(&[
        (&format!("{q}.lora_down.weight"), &[4, 32]),
        (&format!("{q}.lora_up.weight"), &[32, 4]),
        // No bias there.
        (&format!("{q}.diff_b"), &[32]),
        (&format!("{q}.scalar"), &[]),
        // A half alone, halves that do not fit, no rank, and a layer that is not there.
        ("lora_unet_conv_out.lora_down.weight", &[4, 32, 3, 3]),
        (
            "lora_unet_mid_block_resnets_0_conv1.lora_down.weight",
            &[4, 64, 3, 3],
        ),
        (
            "lora_unet_mid_block_resnets_0_conv1.lora_up.weight",
            &[64, 5, 1, 1],
        ),
        (
            "lora_unet_mid_block_resnets_0_conv2.lora_down.weight",
            &[0, 64, 3, 3],
        ),
        (
            "lora_unet_mid_block_resnets_0_conv2.lora_up.weight",
            &[64, 0, 1, 1],
        ),
        ("lora_unet_nowhere.lora_down.weight", &[4, 64]),
        ("lora_unet_nowhere.lora_up.weight", &[64, 4]),
        // Another variant's first convolution.
        ("lora_unet_conv_in.lora_down.weight", &[4, 9, 3, 3]),
        ("lora_unet_conv_in.lora_up.weight", &[32, 4, 1, 1]),
        ("something", &[1]),
    ]);
    let found = file.unwrap().resolve(&layers("tiny")).unwrap();
    assert_eq!(found.changes.len(), 1);
    assert_eq!(found.unmatched.len(), 12, "{:?}", found.unmatched);
    assert!(found.unmatched.is_sorted());
}

#[test]
fn what_is_no_lora_is_refused_by_its_kind() {
    for (name, expected) in [
        ("control_model.input_blocks.0.0.weight", "a ControlNet"),
        ("controlnet_cond_embedding.conv_in.weight", "a ControlNet"),
        ("lllite_unet_x.depth1.0.weight", "a ControlNet-LLLite"),
        ("ip_adapter.1.to_k_ip.weight", "an IP-Adapter"),
        ("model.diffusion_model.input_blocks.0.0.weight", "a checkpoint"),
        ("first_stage_model.encoder.conv_in.weight", "a VAE"),
        ("decoder.up_blocks.0.resnets.0.conv1.weight", "a VAE"),
        ("emb_params", "a textual inversion"),
        ("text_model.encoder.layers.0.mlp.fc1.weight", "a text encoder"),
        ("lora_unet_x.oft_blocks", "an OFT adapter"),
        ("something.else", "a file without a tensor of a LoRA"),
    ] {
        let error = zeros(&[(name, &[2, 2])]).unwrap_err().to_string();
        assert!(
            error.contains(expected) && error.ends_with("instead of a LoRA"),
            "{error}"
        );
    }
    let error = zeros(&[
        ("lora_controlnet", &[1]),
        ("input_blocks.1.0.in_layers.2.up", &[4, 4]),
    ]);
    assert!(error.unwrap_err().to_string().contains("a ControlLoRA"));
    let path = golden_dir().join("lora/hypernetwork.pt");
    let error = LoraFile::open(&path).unwrap_err().to_string();
    assert!(error.contains("a hypernetwork instead of a LoRA"), "{error}");
}

#[test]
fn a_file_says_what_it_is() {
    let about = open("kohya-alphas").about();
    assert_eq!(about.formats, ["LoCon", "LoRA", "kohya"]);
    assert_eq!(about.ranks, [2, 3, 4]);
    assert_eq!(about.dtypes, ["F16"]);
    assert_eq!(about.modules[&Some(LoraNetwork::UNet)], 7);
    assert_eq!(about.modules[&Some(LoraNetwork::TextEncoder)], 2);
    assert_eq!(about.strangers, Vec::<String>::new());
    assert_eq!(open("bundle").about().tokens, ["a cat", "dog", "xl"]);
    assert!(open("dora-scale").about().formats.contains(&"DoRA".to_owned()));
    assert_eq!(
        open("peft-folder").identity().unwrap(),
        open("peft-folder").identity().unwrap()
    );
    assert_ne!(
        open("kohya").identity().unwrap(),
        open("peft").identity().unwrap()
    );
}

/// Files that other people trained, where somebody has put them beside the checkout; none of them is ours to commit.
#[test]
fn published_files_are_placed_whole() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/real");
    let layers = layers("sd15");
    for (name, unet, text, tokens) in [
        ("smart_falcon_4_lokr.safetensors", 278, 72, 0),
        ("smart_falcon_8_lokr.safetensors", 278, 72, 0),
        ("analog_svd_rank4.safetensors", 144, 48, 0),
        ("lora_disney.safetensors", 144, 48, 2),
    ] {
        let path = folder.join(name);
        if !path.exists() {
            println!("{name} is not there and was NOT read");
            continue;
        }
        let file = LoraFile::open(&path).unwrap();
        assert_eq!(file.about().base, Some("sd15"), "{name}");
        let found = file.resolve(&layers).unwrap();
        let count = |of| {
            found
                .changes
                .iter()
                .filter(|(network, ..)| *network == of)
                .count()
        };
        assert_eq!(count(LoraNetwork::UNet), unet, "{name}");
        assert_eq!(count(LoraNetwork::TextEncoder), text, "{name}");
        assert_eq!(found.unmatched, Vec::<String>::new(), "{name}");
        assert_eq!(file.embeddings().unwrap().len(), tokens, "{name}");
        let layers: BTreeSet<_> = found
            .changes
            .iter()
            .map(|(network, name, _)| (network, name))
            .collect();
        assert_eq!(layers.len(), unet + text, "{name}: each layer once");
        for other in ["sd2", "sdxl"] {
            let error = file.resolve(&self::layers(other)).unwrap_err().to_string();
            assert!(error.contains("seems to be for sd15"), "{name} {other}: {error}");
        }
    }
}
