//! The names under which diffusers and transformers store a component's weights, and which of several copies is taken.
//!
//! Who fetches files and who loads them ask here, so that what was fetched is what is loaded.

/// As diffusers and transformers call weights.
const SAFETENSORS_STEMS: [&str; 2] = ["diffusion_pytorch_model", "model"];
const PICKLE_STEMS: [&str; 2] = ["diffusion_pytorch_model", "pytorch_model"];
/// The copy that is taken where the wanted one and the one without a variant are missing.
const FALLBACK_VARIANT: &str = "fp16";

/// One copy of a component's weights, inside the component's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightsCopy {
    /// The word between stem and ending; None in the usual names.
    pub variant: Option<String>,
    /// The file, when it is one.
    pub whole: String,
    /// The names that an index of several files has: transformers and diffusers put the variant at two places.
    pub indices: [String; 2],
    /// What stands before the number of one of several files, and what behind it; the variant at either place.
    pub shards: [(String, String); 2],
}

/// All copies that can be loaded, the preferred one first: safetensors before pickles, then the variant that is asked for,
/// the one without a name, and `fp16`.
#[must_use]
pub fn weights_copies(variant: Option<&str>) -> Vec<WeightsCopy> {
    let mut variants = vec![variant];
    for other in [None, Some(FALLBACK_VARIANT)] {
        if !variants.contains(&other) {
            variants.push(other);
        }
    }
    let mut copies = Vec::new();
    for (ending, stems) in [("safetensors", SAFETENSORS_STEMS), ("bin", PICKLE_STEMS)] {
        for variant in &variants {
            copies.extend(stems.map(|stem| copy(stem, *variant, ending)));
        }
    }
    copies
}

fn copy(stem: &str, variant: Option<&str>, ending: &str) -> WeightsCopy {
    let dotted = variant.map_or_else(String::new, |variant| format!(".{variant}"));
    WeightsCopy {
        variant: variant.map(str::to_owned),
        whole: format!("{stem}{dotted}.{ending}"),
        indices: [
            format!("{stem}.{ending}.index{dotted}.json"),
            format!("{stem}{dotted}.{ending}.index.json"),
        ],
        // diffusers writes the variant before the number, older transformers behind it.
        shards: [
            (format!("{stem}{dotted}-"), format!(".{ending}")),
            (format!("{stem}-"), format!("{dotted}.{ending}")),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variant_that_is_asked_for_comes_before_the_usual_names() {
        let whole = |variant| {
            let copies = weights_copies(variant);
            copies.into_iter().map(|copy| copy.whole).collect::<Vec<_>>()
        };
        assert_eq!(
            whole(Some("ema"))[..3],
            [
                "diffusion_pytorch_model.ema.safetensors",
                "model.ema.safetensors",
                "diffusion_pytorch_model.safetensors"
            ]
        );
        assert_eq!(
            whole(None)[..3],
            [
                "diffusion_pytorch_model.safetensors",
                "model.safetensors",
                "diffusion_pytorch_model.fp16.safetensors"
            ]
        );
        assert_eq!(whole(Some("fp16")).len(), whole(None).len(), "each copy once");
    }
}
