//! The numbers of files that other people trained, at the shapes of Stable Diffusion 1.5, against the published formulas in
//! f64. Files, names and formulas are read here by other means than the code under test has.
//!
//! LoRA: arXiv 2106.09685, equation 3. LoKr: arXiv 2309.14859, section 3. The numbering: cloneofsimo/lora.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::Init;
use candle_nn::var_builder::SimpleBackend;
use half::f16;
use pentimento_testkit::{Tolerance, assert_close};
use safetensors::{Dtype, SafeTensors};

use super::{LoraFile, LoraNetwork, LoraTarget, layers};
use crate::EmbeddingFile;
use crate::seeded::SeededWeights;

const STRENGTH: f64 = 0.8;
/// Layers of each kind that are compared.
const SAMPLE: usize = 12;

/// A matrix with its first dimension.
struct Matrix {
    rows: usize,
    numbers: Vec<f64>,
}

impl Matrix {
    fn columns(&self) -> usize {
        self.numbers.len() / self.rows
    }

    fn at(&self, row: usize, column: usize) -> f64 {
        self.numbers[row * self.columns() + column]
    }

    fn times(&self, right: &Self) -> Self {
        assert_eq!(self.columns(), right.rows);
        let sum = |row, column| -> f64 {
            (0..right.rows)
                .map(|r| self.at(row, r) * right.at(r, column))
                .sum()
        };
        let cells = (0..self.rows).flat_map(|row| (0..right.columns()).map(move |column| (row, column)));
        Self {
            rows: self.rows,
            numbers: cells.map(|(row, column)| sum(row, column)).collect(),
        }
    }
}

/// All tensors of a file.
struct Raw(HashMap<String, Matrix>);

impl Raw {
    fn read(path: &Path) -> Self {
        let bytes = fs_err::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.tensors().into_iter().map(|(name, view)| {
            let numbers = if view.dtype() == Dtype::F16 {
                let halves = view.data().chunks_exact(2);
                halves
                    .map(|two| f16::from_le_bytes([two[0], two[1]]).to_f64())
                    .collect()
            } else {
                assert_eq!(view.dtype(), Dtype::F32, "{name}");
                floats(view.data())
            };
            let rows = view.shape().first().copied().unwrap_or(1);
            (name, Matrix { rows, numbers })
        });
        Self(tensors.collect())
    }
}

fn floats(bytes: &[u8]) -> Vec<f64> {
    bytes
        .chunks_exact(4)
        .map(|four| f64::from(f32::from_le_bytes([four[0], four[1], four[2], four[3]])))
        .collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/real")
}

/// None, with a message, where nobody has put it there.
fn real(name: &str) -> Option<PathBuf> {
    let path = folder().join(name);
    if !path.exists() {
        println!("{name} is not there and was NOT read");
        return None;
    }
    Some(path)
}

/// W' - W for a layer, row by row.
fn expected(raw: &Raw, module: &str, outputs: usize) -> Vec<f64> {
    let part = |name: &str| &raw.0[&format!("{module}{name}")];
    if raw.0.contains_key(&format!("{module}:up")) {
        let product = part(":up").times(part(":down"));
        assert_eq!(product.rows, outputs, "{module}");
        return product.numbers.iter().map(|number| STRENGTH * number).collect();
    }
    let left = part(".lokr_w1_a").times(part(".lokr_w1_b"));
    let right = part(".lokr_w2_a").times(part(".lokr_w2_b"));
    assert_eq!(left.rows * right.rows, outputs, "{module}");
    #[expect(clippy::cast_precision_loss, reason = "a rank is small")]
    let rank = part(".lokr_w2_b").rows as f64;
    let factor = STRENGTH * part(".alpha").numbers[0] / rank;
    let (columns, wide) = (left.columns() * right.columns(), right.columns());
    let cell = |row: usize, column: usize| {
        factor * left.at(row / right.rows, column / wide) * right.at(row % right.rows, column % wide)
    };
    let cell = &cell;
    (0..outputs)
        .flat_map(|row| (0..columns).map(move |column| cell(row, column)))
        .collect()
}

/// Where a layer with attention comes in the numbering of 2022: the way up before the middle, and the feed-forward before the
/// second attention.
fn place_in_unet(name: &str) -> Option<(usize, Vec<usize>, usize)> {
    const MATRICES: [&str; 9] = [
        "attn1.to_q",
        "attn1.to_k",
        "attn1.to_v",
        "attn1.to_out.0",
        "ff.net.0.proj",
        "attn2.to_q",
        "attn2.to_k",
        "attn2.to_v",
        "attn2.to_out.0",
    ];
    let matrix = MATRICES
        .iter()
        .position(|matrix| name.ends_with(&format!(".{matrix}")))?;
    let block = ["down_blocks", "up_blocks", "mid_block"]
        .iter()
        .position(|block| name.starts_with(block))?;
    let (inside, _) = name.split_once(".transformer_blocks")?;
    let numbers = inside.split('.').filter_map(|word| word.parse().ok());
    Some((block, numbers.collect(), matrix))
}

fn place_in_text(name: &str) -> Option<(usize, Vec<usize>, usize)> {
    let (before, matrix) = name.split_once(".self_attn.")?;
    let layer = before.rsplit('.').next()?.parse().ok()?;
    let matrices = ["k_proj", "v_proj", "q_proj", "out_proj"];
    Some((0, vec![layer], matrices.iter().position(|of| *of == matrix)?))
}

/// What the file calls each layer.
fn modules(
    layers: &[(LoraNetwork, Vec<LoraTarget>)],
    numbered: bool,
) -> HashMap<(LoraNetwork, String), String> {
    let mut modules = HashMap::new();
    for (network, targets) in layers {
        let is_unet = *network == LoraNetwork::UNet;
        if numbered {
            let place = if is_unet { place_in_unet } else { place_in_text };
            let places = targets
                .iter()
                .filter_map(|target| Some((place(&target.name)?, &target.name)));
            let ordered: BTreeMap<_, _> = places.collect();
            let before = if is_unet { "unet" } else { "text_encoder" };
            for (number, name) in ordered.into_values().enumerate() {
                modules.insert((*network, name.clone()), format!("{before}:{number}"));
            }
        } else {
            let before = if is_unet { "lora_unet_" } else { "lora_te_" };
            for target in targets {
                let module = format!("{before}{}", target.name.replace('.', "_"));
                modules.insert((*network, target.name.clone()), module);
            }
        }
    }
    modules
}

#[test]
fn published_loras_change_the_weights_by_the_published_formulas() {
    let layers = layers("sd15");
    for (name, numbered, kinds) in [
        ("smart_falcon_4_lokr.safetensors", false, 4),
        ("smart_falcon_8_lokr.safetensors", false, 4),
        ("analog_svd_rank4.safetensors", true, 2),
        ("lora_disney.safetensors", true, 2),
    ] {
        let Some(path) = real(name) else {
            continue;
        };
        let (raw, modules) = (Raw::read(&path), modules(&layers, numbered));
        let lora = LoraFile::open(&path).unwrap().resolve(&layers).unwrap();
        let mut by_kind: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for change in &lora.changes {
            let (network, _, layer) = change;
            by_kind
                .entry((*network, layer.weight_dims()[1..].get(1).copied()))
                .or_default()
                .push(change);
        }
        assert_eq!(by_kind.len(), kinds, "{name}: {:?}", by_kind.keys());
        for (kind, changes) in by_kind {
            let step = (changes.len() / SAMPLE).max(1);
            let sample: Vec<_> = changes.into_iter().step_by(step).take(SAMPLE).collect();
            assert_eq!(sample.len(), SAMPLE, "{name}: {kind:?}");
            for (network, layer, change) in sample {
                let dims = change.weight_dims();
                let stored = format!("{layer}.weight");
                let base = SeededWeights::new(7).get(
                    Shape::from(dims),
                    &stored,
                    Init::Const(0.0),
                    DType::F32,
                    &Device::Cpu,
                );
                let found = change.weight_delta(&base.unwrap(), STRENGTH).unwrap();
                let expected = expected(&raw, &modules[&(*network, layer.clone())], dims[0]);
                assert!(expected.iter().any(|number| *number != 0.0), "{name}: {layer}");
                #[expect(clippy::cast_possible_truncation, reason = "compared as f32")]
                let expected: Vec<f32> = expected.into_iter().map(|number| number as f32).collect();
                let expected = Tensor::from_vec(expected, dims, &Device::Cpu).unwrap();
                assert_close(&format!("{name}: {layer}"), &found, &expected, Tolerance::LORA);
            }
        }
    }
}

#[test]
fn published_embeddings_are_read_bit_by_bit() {
    let check = |name: &str, path: &Path, token: Option<&str>, expected: &[f64]| {
        let file = EmbeddingFile::open(path).unwrap();
        assert_eq!((file.embeddings.len(), file.unmatched.len()), (1, 0), "{name}");
        let embedding = &file.embeddings[0];
        assert_eq!(embedding.token.as_deref(), token, "{name}");
        let (_, vectors) = &embedding.vectors[0];
        assert_eq!(vectors.dims(), [expected.len() / 768, 768], "{name}");
        let found: Vec<f32> = vectors.flatten_all().unwrap().to_vec1().unwrap();
        assert!(
            found
                .iter()
                .map(|number| f64::from(*number))
                .eq(expected.iter().copied()),
            "{name}"
        );
        assert!(found.iter().any(|number| *number != 0.0), "{name}");
    };
    let name = "test_embedding.safetensors";
    if let Some(path) = real(name) {
        check(name, &path, None, &Raw::read(&path).0["emb_params"].numbers);
    }
    let name = "learned_embeds.bin";
    if let Some(path) = real(name) {
        // A pickle in a zip: the numbers lie in a file of their own as they are.
        let mut archive = zip::ZipArchive::new(fs_err::File::open(&path).unwrap()).unwrap();
        let mut bytes = Vec::new();
        let mut numbers = archive.by_name("archive/data/0").unwrap();
        numbers.read_to_end(&mut bytes).unwrap();
        drop(numbers);
        check(name, &path, Some("<birb-style>"), &floats(&bytes));
    }
    let name = "lora_disney.safetensors";
    if let Some(path) = real(name) {
        let raw = Raw::read(&path);
        for embedding in LoraFile::open(&path).unwrap().embeddings().unwrap() {
            let expected = &raw.0[embedding.token.as_deref().unwrap()].numbers;
            let found: Vec<f32> = embedding.vectors[0].1.flatten_all().unwrap().to_vec1().unwrap();
            assert!(
                found
                    .iter()
                    .map(|number| f64::from(*number))
                    .eq(expected.iter().copied()),
                "{name}"
            );
        }
    }
}
