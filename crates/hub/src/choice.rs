//! Which files of a repository a model needs. One rule for what is fetched and for whether what is there is all of it.
//!
//! A repository often has the same weights five times (f32 and f16, safetensors, pickles, Flax, ONNX); of each component
//! one copy is taken: safetensors before pickles, and the variant that the catalogue names before others.

use pentimento_catalog::{ModelEntry, ModelKind};
use pentimento_types::{WeightsCopy, weights_copies};
use serde::{Deserialize, Serialize};

use crate::listing::Listing;

const INDEX: &str = "model_index.json";
/// The parts of a checkpoint with weights in them.
const NETWORKS: [&str; 4] = ["unet", "vae", "text_encoder", "text_encoder_2"];
/// Without these there is no checkpoint.
const NEEDED: [&str; 3] = ["unet", "vae", "text_encoder"];
/// Parts that consist of small files.
const SMALL: [&str; 3] = ["scheduler", "tokenizer", "tokenizer_2"];
const TOKENIZER: [&str; 2] = ["vocab.json", "merges.txt"];
/// What a model needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Choice {
    /// Small files first, so that all of them are there when the last weights are.
    pub(crate) files: Vec<String>,
    /// What a loader is given: a folder of the repository (the empty text is all of it) or one of the files.
    pub(crate) place: String,
    /// Whether it would be the same if the repository had more files than the listing: there is no copy that would be
    /// preferred, and no other file that could be meant.
    pub(crate) is_certain: bool,
}

/// The files of an entry's model, in the folder of the repository that it names.
///
/// # Errors
/// As [`choose`].
pub(crate) fn choose_for(listing: &Listing, entry: &ModelEntry) -> Result<Choice, String> {
    let folder = entry.source.repository_folder().unwrap_or_default();
    let variant = entry.variant.as_deref();
    if folder.is_empty() {
        return choose(listing, entry.kind, variant);
    }
    let within = |path: &str| format!("{folder}/{path}").trim_end_matches('/').to_owned();
    let choice = choose(&listing.within(folder), entry.kind, variant);
    let choice = choice.map_err(|problem| format!("of {folder}: {problem}"))?;
    Ok(Choice {
        files: choice.files.iter().map(|path| within(path)).collect(),
        place: within(&choice.place),
        ..choice
    })
}

/// The files of a model of this kind.
///
/// # Errors
/// What is missing, as the end of a sentence.
pub(crate) fn choose(listing: &Listing, kind: ModelKind, variant: Option<&str>) -> Result<Choice, String> {
    match kind {
        ModelKind::Checkpoint => checkpoint(listing, variant),
        ModelKind::Vae => vae(listing, variant),
        ModelKind::Lora => lora(listing),
        ModelKind::Embedding => single(
            listing,
            &["learned_embeds.safetensors", "learned_embeds.bin"],
            &["safetensors", "bin", "pt"],
        ),
        ModelKind::IpAdapter => single(listing, &[], &["safetensors", "bin"]),
        ModelKind::Upscaler => single(listing, &[], &["safetensors", "pth", "pt"]),
        ModelKind::ImageEncoder => part_alone(listing, "image_encoder", variant),
        ModelKind::SafetyChecker => part_alone(listing, "safety_checker", variant),
        ModelKind::PromptEnhancer => prompt_enhancer(listing, variant),
    }
}

fn checkpoint(listing: &Listing, variant: Option<&str>) -> Result<Choice, String> {
    if !listing.has(INDEX) {
        return single(listing, &[], &["safetensors", "ckpt"]);
    }
    let mut files = vec![INDEX.to_owned()];
    for part in SMALL {
        let small = |name: &&str| [".json", ".txt"].iter().any(|ending| name.ends_with(ending));
        files.extend(
            listing
                .names_in(part)
                .filter(small)
                .map(|name| format!("{part}/{name}")),
        );
    }
    let mut needed: Vec<String> = TOKENIZER.iter().map(|name| format!("tokenizer/{name}")).collect();
    needed.push("scheduler/scheduler_config.json".to_owned());
    if let Some(missing) = needed.iter().find(|path| !listing.has(path)) {
        return Err(format!("{missing} is missing"));
    }
    let (mut weights, mut is_certain) = (Vec::new(), true);
    for part in NETWORKS {
        if listing.names_in(part).next().is_none() && !NEEDED.contains(&part) {
            continue;
        }
        let network = network(listing, part, variant)?;
        files.push(network.config);
        weights.extend(network.weights);
        is_certain &= network.is_wanted;
    }
    files.extend(weights);
    Ok(Choice {
        files,
        place: String::new(),
        is_certain,
    })
}

fn vae(listing: &Listing, variant: Option<&str>) -> Result<Choice, String> {
    let part = if listing.has("config.json") { "" } else { "vae" };
    if part == "vae" && !listing.has("vae/config.json") {
        return single(listing, &[], &["safetensors", "ckpt", "pt", "pth"]);
    }
    let network = network(listing, part, variant)?;
    Ok(Choice {
        files: std::iter::once(network.config).chain(network.weights).collect(),
        place: part.to_owned(),
        is_certain: network.is_wanted,
    })
}

/// At the top of the repository, or in the folder that diffusers has for it.
fn part_alone(listing: &Listing, part: &str, variant: Option<&str>) -> Result<Choice, String> {
    let part = if listing.has("config.json") { "" } else { part };
    let network = network(listing, part, variant)?;
    Ok(Choice {
        files: std::iter::once(network.config).chain(network.weights).collect(),
        place: part.to_owned(),
        is_certain: network.is_wanted,
    })
}

/// The same with the vocabulary beside the network.
fn prompt_enhancer(listing: &Listing, variant: Option<&str>) -> Result<Choice, String> {
    let mut choice = part_alone(listing, "prompt_enhancer", variant)?;
    for name in ["vocab.json", "merges.txt"] {
        let file = match choice.place.as_str() {
            "" => name.to_owned(),
            place => format!("{place}/{name}"),
        };
        if !listing.has(&file) {
            return Err(format!("{file} is missing"));
        }
        choice.files.push(file);
    }
    Ok(choice)
}

fn lora(listing: &Listing) -> Result<Choice, String> {
    let peft = ["adapter_config.json", "adapter_model.safetensors"];
    if peft.iter().all(|name| listing.has(name)) {
        return Ok(Choice {
            files: peft.map(str::to_owned).to_vec(),
            place: String::new(),
            is_certain: true,
        });
    }
    let usual = ["pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin"];
    single(listing, &usual, &["safetensors", "bin", "pt"])
}

/// The first of the usual names, or the only file at the top with one of the endings.
fn single(listing: &Listing, usual: &[&str], endings: &[&str]) -> Result<Choice, String> {
    let of = |name: &str, is_certain| Choice {
        files: vec![name.to_owned()],
        place: name.to_owned(),
        is_certain,
    };
    if let Some(name) = usual.iter().find(|name| listing.has(name)) {
        return Ok(of(name, true));
    }
    for ending in endings {
        let found: Vec<&str> = listing
            .names_in("")
            .filter(|name| name.rsplit_once('.').is_some_and(|(_, its)| its == *ending))
            .collect();
        match found[..] {
            [] => {}
            [only] => return Ok(of(only, false)),
            [..] => {
                return Err(format!(
                    "it has several ({}); name one in the source, as in hf:owner/repo:{}",
                    found.iter().take(4).copied().collect::<Vec<_>>().join(", "),
                    found[0]
                ));
            }
        }
    }
    Err(format!("it has no file ending in .{}", endings.join(" or .")))
}

/// The files of a component.
struct Network {
    config: String,
    weights: Vec<String>,
    /// Whether the weights are of the variant that is asked for, and not of another in its place.
    is_wanted: bool,
}

fn network(listing: &Listing, part: &str, variant: Option<&str>) -> Result<Network, String> {
    let path = |name: &str| {
        if part.is_empty() {
            name.to_owned()
        } else {
            format!("{part}/{name}")
        }
    };
    let config = path("config.json");
    if !listing.has(&config) {
        return Err(format!("{config} is missing"));
    }
    let names: Vec<&str> = listing.names_in(part).collect();
    for copy in weights_copies(variant) {
        if let Some(found) = files_of(&names, &copy) {
            return Ok(Network {
                config,
                weights: found.iter().map(|name| path(name)).collect(),
                is_wanted: copy.variant.as_deref() == variant,
            });
        }
    }
    let what = if part.is_empty() { "the repository" } else { part };
    Err(format!(
        "{what} has no weights in safetensors or PyTorch's format, or not all of them"
    ))
}

/// A copy of a component's weights, when all of it is there: a file, or an index with all of its parts.
fn files_of(names: &[&str], copy: &WeightsCopy) -> Option<Vec<String>> {
    if names.contains(&copy.whole.as_str()) {
        return Some(vec![copy.whole.clone()]);
    }
    let mut indices = copy.indices.iter();
    let index = indices.find(|index| names.contains(&index.as_str()))?.clone();
    let number_of = |name: &str| -> Option<(u32, u32)> {
        let mut shards = copy.shards.iter();
        let number =
            shards.find_map(|(before, behind)| name.strip_prefix(before)?.strip_suffix(behind.as_str()))?;
        let (this, all) = number.split_once("-of-")?;
        Some((this.parse().ok()?, all.parse().ok()?))
    };
    let parts: Vec<(&str, (u32, u32))> = names
        .iter()
        .filter_map(|name| Some((*name, number_of(name)?)))
        .collect();
    let all = parts.first()?.1.1;
    let is_whole = parts.len() as u64 == u64::from(all) && parts.iter().all(|(_, (_, its))| *its == all);
    is_whole.then(|| {
        std::iter::once(index)
            .chain(parts.iter().map(|(name, _)| (*name).to_owned()))
            .collect()
    })
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    fn listing(paths: &str) -> Listing {
        paths
            .split_whitespace()
            .map(|path| (path.to_owned(), None))
            .collect()
    }

    fn chosen(paths: &str, kind: ModelKind, variant: Option<&str>) -> Result<(String, String), String> {
        let choice = choose(&listing(paths), kind, variant)?;
        Ok((choice.files.join(" "), choice.place))
    }

    const SMALL_FILES: &str = "model_index.json scheduler/scheduler_config.json tokenizer/merges.txt tokenizer/vocab.json \
        unet/config.json vae/config.json text_encoder/config.json";

    #[test]
    fn of_a_checkpoint_one_copy_of_every_component_is_taken() {
        let paths = format!(
            "{SMALL_FILES} README.md v1-5-pruned.ckpt safety_checker/model.safetensors \
             unet/diffusion_pytorch_model.safetensors unet/diffusion_pytorch_model.fp16.safetensors \
             unet/diffusion_pytorch_model.bin unet/diffusion_flax_model.msgpack unet/model.onnx \
             vae/diffusion_pytorch_model.safetensors text_encoder/model.safetensors text_encoder/pytorch_model.bin \
             text_encoder/model.fp16.safetensors tokenizer/tokenizer_config.json"
        );
        let (files, place) = chosen(&paths, ModelKind::Checkpoint, None).unwrap();
        assert_eq!(place, "");
        assert_eq!(
            files,
            "model_index.json scheduler/scheduler_config.json tokenizer/merges.txt tokenizer/tokenizer_config.json \
             tokenizer/vocab.json unet/config.json vae/config.json text_encoder/config.json \
             unet/diffusion_pytorch_model.safetensors vae/diffusion_pytorch_model.safetensors text_encoder/model.safetensors"
        );
        let (files, _) = chosen(&paths, ModelKind::Checkpoint, Some("fp16")).unwrap();
        assert!(files.contains("unet/diffusion_pytorch_model.fp16.safetensors"));
        assert!(files.contains("text_encoder/model.fp16.safetensors"));
        assert!(
            files.contains("vae/diffusion_pytorch_model.safetensors"),
            "it has no other variant"
        );
        assert!(!files.contains("unet/diffusion_pytorch_model.safetensors"));
    }

    #[test]
    fn pickles_are_taken_where_there_is_nothing_else() {
        let paths = format!(
            "{SMALL_FILES} unet/diffusion_pytorch_model.bin vae/diffusion_pytorch_model.bin \
             text_encoder/pytorch_model.fp16.bin"
        );
        let (files, _) = chosen(&paths, ModelKind::Checkpoint, None).unwrap();
        assert!(files.ends_with(
            "unet/diffusion_pytorch_model.bin vae/diffusion_pytorch_model.bin text_encoder/pytorch_model.fp16.bin"
        ));
    }

    #[test]
    fn parts_of_an_index_are_all_or_nothing() {
        let index = "diffusion_pytorch_model.safetensors.index.json";
        let parts = |names: &str| format!("config.json {names}");
        let whole = parts(&format!(
            "{index} diffusion_pytorch_model-00001-of-00002.safetensors diffusion_pytorch_model-00002-of-00002.safetensors"
        ));
        let (files, _) = chosen(&whole, ModelKind::Vae, None).unwrap();
        assert_eq!(files.split(' ').count(), 4);
        let half = parts(&format!(
            "{index} diffusion_pytorch_model-00001-of-00002.safetensors"
        ));
        assert!(chosen(&half, ModelKind::Vae, None).is_err());
        for index_and_parts in [
            "diffusion_pytorch_model.safetensors.index.fp16.json diffusion_pytorch_model.fp16-00001-of-00001.safetensors",
            "diffusion_pytorch_model.fp16.safetensors.index.json diffusion_pytorch_model-00001-of-00001.fp16.safetensors",
        ] {
            let (files, _) = chosen(&parts(index_and_parts), ModelKind::Vae, Some("fp16")).unwrap();
            assert_eq!(files, format!("config.json {index_and_parts}"));
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        let broken = |without: &str| {
            let paths = format!(
                "{SMALL_FILES} unet/diffusion_pytorch_model.bin vae/diffusion_pytorch_model.bin text_encoder/model.safetensors"
            );
            chosen(&paths.replace(without, ""), ModelKind::Checkpoint, None).unwrap_err()
        };
        assert_eq!(broken("tokenizer/vocab.json"), "tokenizer/vocab.json is missing");
        assert_eq!(broken("vae/config.json"), "vae/config.json is missing");
        assert!(broken("unet/diffusion_pytorch_model.bin").starts_with("unet has no weights"));
    }

    #[test]
    fn of_other_kinds_the_usual_file_or_the_only_one_is_taken() {
        let lora = |paths: &str| chosen(paths, ModelKind::Lora, None);
        let usual = "pytorch_lora_weights.safetensors";
        assert_eq!(
            lora(&format!("{usual} other.safetensors")),
            Ok((usual.to_owned(), usual.to_owned()))
        );
        assert_eq!(
            lora("adapter_config.json adapter_model.safetensors README.md")
                .unwrap()
                .1,
            "",
            "a PEFT folder is used as a folder"
        );
        assert_eq!(lora("a.safetensors b.bin").unwrap().1, "a.safetensors");
        let several = lora("a.safetensors b.safetensors").unwrap_err();
        assert!(several.contains("hf:owner/repo:a.safetensors"), "{several}");
        assert!(lora("README.md").is_err());
        let embedding = chosen("learned_embeds.bin x.safetensors", ModelKind::Embedding, None);
        assert_eq!(embedding.unwrap().1, "learned_embeds.bin");
        let within = "model_index.json vae/config.json vae/diffusion_pytorch_model.safetensors";
        assert_eq!(chosen(within, ModelKind::Vae, None).unwrap().1, "vae");
        assert_eq!(chosen("x.bin", ModelKind::IpAdapter, None).unwrap().1, "x.bin");
        let encoder =
            "image_encoder/config.json image_encoder/model.safetensors image_encoder/pytorch_model.bin";
        assert_eq!(
            chosen(encoder, ModelKind::ImageEncoder, None),
            Ok((
                "image_encoder/config.json image_encoder/model.safetensors".to_owned(),
                "image_encoder".to_owned()
            ))
        );
        assert!(chosen("x.safetensors", ModelKind::SafetyChecker, None).is_err());
        assert_eq!(
            chosen(
                "README.md config.json pytorch_model.bin tf_model.h5",
                ModelKind::SafetyChecker,
                None
            ),
            Ok(("config.json pytorch_model.bin".to_owned(), String::new()))
        );
        let enhancer = "README.md config.json merges.txt pytorch_model.bin tokenizer.json vocab.json";
        assert_eq!(
            chosen(enhancer, ModelKind::PromptEnhancer, None),
            Ok((
                "config.json pytorch_model.bin vocab.json merges.txt".to_owned(),
                String::new()
            ))
        );
        let without = enhancer.replace("merges.txt", "");
        assert!(
            chosen(&without, ModelKind::PromptEnhancer, None)
                .unwrap_err()
                .contains("merges.txt")
        );
    }

    #[test]
    fn a_model_may_be_a_folder_of_a_repository() {
        let paths = "config.json model.safetensors models/image_encoder/config.json models/image_encoder/model.safetensors \
                     sdxl_models/image_encoder/config.json";
        let chosen = |folder: &str| {
            let source = pentimento_catalog::Source::HuggingFace {
                repo: "h94/IP-Adapter".to_owned(),
                revision: None,
                file: Some(folder.to_owned()),
            };
            choose_for(
                &listing(paths),
                &ModelEntry::new("encoder", ModelKind::ImageEncoder, source),
            )
        };
        let found = chosen("models/image_encoder/").unwrap();
        assert_eq!(found.place, "models/image_encoder");
        assert_eq!(
            found.files,
            [
                "models/image_encoder/config.json",
                "models/image_encoder/model.safetensors"
            ]
        );
        let error = chosen("sdxl_models/image_encoder/").unwrap_err();
        assert!(error.starts_with("of sdxl_models/image_encoder: "), "{error}");
    }
}
