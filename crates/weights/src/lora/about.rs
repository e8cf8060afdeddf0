//! What a LoRA file says of itself, for who has no checkpoint beside it.

use std::collections::{BTreeMap, BTreeSet};

use super::LoraNetwork;
use super::form::{Form, Matrix};
use super::module::{Module, Parts, Place, assemble};
use super::names::{Part, address, number};
use super::peft::PeftConfigs;
use crate::container::TensorFile;
use crate::embedding_file::Places;

/// A LoRA file in words and numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoraAbout {
    /// The forms of its modules and how their names are spelt: `LoRA`, `LoCon`, `LoHa`, `kohya`, `PEFT`.
    pub formats: Vec<String>,
    /// The base that it seems to be for: `sd15`, `sd2`, `sdxl`, or another model's name; None where nothing tells.
    pub base: Option<&'static str>,
    /// All ranks that modules have, in order.
    pub ranks: Vec<usize>,
    /// The dtypes of its tensors.
    pub dtypes: Vec<String>,
    /// How many modules there are for each network; None for those that do not say.
    pub modules: BTreeMap<Option<LoraNetwork>, usize>,
    /// The words of bundled embeddings.
    pub tokens: Vec<String>,
    /// Tensors of the file.
    pub tensors: usize,
    /// Names of tensors that make no module.
    pub strangers: Vec<String>,
    /// What the trainer wrote down.
    pub metadata: BTreeMap<String, String>,
}

pub(super) fn of(
    file: &TensorFile,
    modules: &BTreeMap<String, Parts>,
    configs: &PeftConfigs,
    embeddings: &Places,
) -> LoraAbout {
    let mut about = LoraAbout {
        tokens: embeddings.keys().flatten().cloned().collect(),
        tensors: file.tensors().len(),
        metadata: file.notes().clone(),
        ..LoraAbout::default()
    };
    let (mut formats, mut ranks) = (BTreeSet::new(), BTreeSet::new());
    let mut hints = Hints::default();
    let mut known: BTreeSet<&str> = embeddings
        .values()
        .flatten()
        .map(|(_, key)| key.as_str())
        .collect();
    for (name, parts) in modules {
        let Some(module) = assemble(parts.clone()) else {
            continue;
        };
        known.extend(parts.values().map(|place| place.key.as_str()));
        formats.insert(form_name(&module, parts).to_owned());
        formats.insert(spelling(name, parts).to_owned());
        if module.magnitude.is_some() {
            formats.insert("DoRA".to_owned());
        }
        ranks.extend(module.rank);
        let place = address(name);
        let network = number(name).map_or(place.network, |(network, _)| Some(network));
        *about.modules.entry(network).or_default() += 1;
        hints.see(name, &place.layer, network, &module);
    }
    let is_stranger = |key: &&String| {
        !known.contains(key.as_str()) && !about.tokens.iter().any(|token| key.contains(token.as_str()))
    };
    about.strangers = file.tensors().keys().filter(is_stranger).cloned().collect();
    about.dtypes = file.dtypes();
    about.base = base_in_metadata(file.notes()).or_else(|| hints.base());
    if !configs.is_empty() {
        formats.insert("alpha in PEFT's configuration".to_owned());
    }
    about.formats = formats.into_iter().collect();
    about.ranks = ranks.into_iter().collect();
    about
}

fn form_name(module: &Module, parts: &Parts) -> &'static str {
    let has_kernel = |parts: &Parts| {
        let down = parts.get(&Part::Down).map(|place: &Place| place.shape.as_slice());
        matches!(down, Some([_, _, height, width]) if height * width > 1)
    };
    match &module.form {
        Form::Sum(Matrix::Whole(_)) if parts.values().any(|place| place.key.ends_with("_norm")) => "norms",
        Form::Sum(Matrix::Whole(_)) | Form::Nothing => "full differences",
        Form::Sum(Matrix::Tucker { .. }) => "LoCon (Tucker)",
        Form::Sum(Matrix::Product(..)) if has_kernel(parts) => "LoCon",
        Form::Sum(Matrix::Product(..)) => "LoRA",
        Form::Hadamard(..) => "LoHa",
        Form::Kronecker(..) => "LoKr",
        Form::Scaling { .. } => "(IA)³",
    }
}

fn spelling(name: &str, parts: &Parts) -> &'static str {
    let has = |word: &str| parts.values().any(|place| place.key.contains(word));
    if number(name).is_some() {
        "numbers of 2022"
    } else if name.starts_with("lora_") || name.starts_with("lycoris_") {
        "kohya"
    } else if has(".lora_A") || has(".lora_B") || name.starts_with("base_model.model.") {
        "PEFT"
    } else {
        "diffusers"
    }
}

/// What the shapes tell of the base.
#[derive(Debug, Default)]
struct Hints {
    /// Widths of the text's hidden states in the UNet's second attentions.
    context: BTreeSet<usize>,
    /// Widths of the first text encoder.
    text: BTreeSet<usize>,
    second_encoder: bool,
    transformer: bool,
}

impl Hints {
    fn see(&mut self, name: &str, layer: &str, network: Option<LoraNetwork>, module: &Module) {
        let columns = module.size.map_or(0, |(_, columns)| columns);
        let is_key = layer.ends_with("attn2_to_k") || layer.ends_with("attn2_to_v");
        let is_numbered = number(name).is_some() && network == Some(LoraNetwork::UNet);
        if is_key || is_numbered && matches!(columns, 768 | 1024) {
            self.context.insert(columns);
        }
        if network == Some(LoraNetwork::TextEncoder2) {
            self.second_encoder = true;
        }
        if layer.ends_with("self_attn_q_proj") || layer.ends_with("self_attn_k_proj") {
            self.text.insert(columns);
        }
        self.transformer |= [
            "transformer.",
            "double_blocks",
            "single_blocks",
            "joint_blocks",
            "transformer_blocks_",
            "lora_transformer_",
        ]
        .iter()
        .any(|start| layer.starts_with(start) || name.starts_with(start));
    }

    fn base(&self) -> Option<&'static str> {
        let has = |widths: &BTreeSet<usize>, width| widths.contains(&width);
        if self.second_encoder || has(&self.context, 2048) {
            Some("sdxl")
        } else if has(&self.context, 1024) || self.context.is_empty() && has(&self.text, 1024) {
            Some("sd2")
        } else if has(&self.context, 768) || self.context.is_empty() && has(&self.text, 768) {
            Some("sd15")
        } else if self.transformer {
            Some("a diffusion transformer")
        } else {
            None
        }
    }
}

/// What trainers write down: kohya's `ss_*`, and `modelspec.architecture`.
fn base_in_metadata(notes: &BTreeMap<String, String>) -> Option<&'static str> {
    let says = |key: &str| notes.get(key).map(|text| text.to_lowercase());
    let version = says("ss_base_model_version").or_else(|| says("modelspec.architecture"));
    if let Some(version) = version {
        const KNOWN: [(&str, &str); 10] = [
            ("sdxl", "sdxl"),
            ("stable-diffusion-xl", "sdxl"),
            ("sd_v2", "sd2"),
            ("stable-diffusion-v2", "sd2"),
            ("sd_v1", "sd15"),
            ("stable-diffusion-v1", "sd15"),
            ("sd3", "Stable Diffusion 3"),
            ("stable-diffusion-3", "Stable Diffusion 3"),
            ("flux", "FLUX"),
            ("stable-cascade", "Stable Cascade"),
        ];
        return KNOWN
            .iter()
            .find(|(start, _)| version.starts_with(start))
            .map(|(_, base)| *base);
    }
    match notes.get("ss_v2").map(String::as_str) {
        Some("True") => Some("sd2"),
        _ => None,
    }
}
