//! Names under which published files keep the same tensor, and the tensors that are harmless extras.

/// The names under which `wanted` may stand in a file, best first, without `wanted` itself.
pub(crate) fn aliases(wanted: &str) -> Vec<String> {
    let mut names = Vec::new();
    // transformers 5 saves CLIP's text encoder without the prefix that every earlier file has.
    match wanted.strip_prefix("text_model.") {
        Some(bare) => names.push(bare.to_owned()),
        None => names.push(format!("text_model.{wanted}")),
    }
    // Autoencoders saved before diffusers 0.18 name the projections of their attention differently.
    const OLD_ATTENTION: [(&str, &str); 4] = [
        (".to_q.", ".query."),
        (".to_k.", ".key."),
        (".to_v.", ".value."),
        (".to_out.0.", ".proj_attn."),
    ];
    for (new, old) in OLD_ATTENTION {
        if wanted.contains(new) {
            names.push(wanted.replace(new, old));
        }
    }
    names
}

/// Whether a matrix may be stored as a 1x1 convolution: the attention of autoencoders converted from the original
/// single-file layout, and the projections around a transformer, which exist in both forms.
pub(crate) fn may_be_pointwise_convolution(name: &str) -> bool {
    const PROJECTIONS: [&str; 10] = [
        ".to_q.",
        ".to_k.",
        ".to_v.",
        ".to_out.0.",
        ".query.",
        ".key.",
        ".value.",
        ".proj_attn.",
        ".proj_in.",
        ".proj_out.",
    ];
    name.contains("attentions.") && PROJECTIONS.iter().any(|part| name.contains(part))
}

/// Tensors that published files carry and no network reads.
pub(crate) fn is_harmless_extra(name: &str) -> bool {
    let mut bare = name;
    for encoder in ["text_model.", "vision_model."] {
        bare = bare.strip_prefix(encoder).unwrap_or(bare);
    }
    // Token positions 0, 1, 2 …: a buffer that older transformers saved with the weights.
    bare == "embeddings.position_ids"
        // The projection into CLIP's joint space, kept by files saved from the whole CLIP model.
        || matches!(name, "text_projection.weight" | "logit_scale")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_names_are_found() {
        assert_eq!(aliases("text_model.a"), ["a"]);
        assert!(
            aliases("encoder.mid_block.attentions.0.to_out.0.weight")
                .contains(&"encoder.mid_block.attentions.0.proj_attn.weight".to_owned())
        );
        assert!(is_harmless_extra("text_model.embeddings.position_ids"));
        assert!(is_harmless_extra("vision_model.embeddings.position_ids"));
        assert!(!is_harmless_extra("text_model.embeddings.token_embedding.weight"));
        assert!(may_be_pointwise_convolution(
            "encoder.mid_block.attentions.0.query.weight"
        ));
        assert!(!may_be_pointwise_convolution("conv_in.weight"));
    }
}
