//! The fields of every call, as data: what documentation and schemas are made of.

use serde::Serialize;

use super::field::{FieldDescription, Table, describe};
use super::{a1111, modelslab, novita, openai};

/// One call and everything that it takes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EndpointFields {
    /// `novita`, `modelslab`, `openai` or `a1111`.
    pub dialect: &'static str,
    /// The HTTP method.
    pub method: &'static str,
    /// The path that the vendor documents.
    pub path: &'static str,
    /// In the order of the vendor's documentation.
    pub fields: Vec<FieldDescription>,
}

/// All calls that take fields. What is said here is what the calls read: both come from the same tables.
#[must_use]
pub fn endpoint_fields() -> Vec<EndpointFields> {
    tables()
        .map(|(dialect, (method, path, tables))| EndpointFields {
            dialect,
            method,
            path,
            fields: describe(tables),
        })
        .collect()
}

/// Those of one call; none where it has no table.
pub(crate) fn fields_of(method: &str, path: &str) -> Vec<FieldDescription> {
    let found = tables().find(|(_, endpoint)| (endpoint.0, endpoint.1) == (method, path));
    found.map_or_else(Vec::new, |(_, (_, _, tables))| describe(tables))
}

type Endpoint = (&'static str, &'static str, &'static [Table]);

/// Every call with the name of its dialect.
fn tables() -> impl Iterator<Item = (&'static str, &'static Endpoint)> {
    let novita = novita::ENDPOINTS.iter().map(|endpoint| ("novita", endpoint));
    let modelslab = modelslab::ENDPOINTS.iter();
    let modelslab = modelslab.map(|endpoint| ("modelslab", endpoint));
    let openai = openai::ENDPOINTS.iter().map(|endpoint| ("openai", endpoint));
    let a1111 = a1111::ENDPOINTS.iter().map(|endpoint| ("a1111", endpoint));
    novita.chain(modelslab).chain(openai).chain(a1111)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::field::Effect;

    fn fields(path: &str) -> Vec<FieldDescription> {
        let found = endpoint_fields()
            .into_iter()
            .find(|endpoint| endpoint.path == path);
        found.unwrap_or_else(|| panic!("{path} has no table")).fields
    }

    /// What the vendors' pages and clients have, and our own `soft_edge` and `differential_diffusion`.
    const DOCUMENTED: &[(&str, &str)] = &[
        (
            "/v3/lcm-img2img",
            "extra model_name input_image prompt negative_prompt image_num sd_vae loras embeddings steps \
             guidance_scale seed clip_skip strength",
        ),
        (
            "/v3/model",
            "types visibility query is_sdxl is_inpainting is_nsfw source limit cursor",
        ),
        (
            "/api/v1/enterprise/img2img",
            "key model_id prompt negative_prompt init_image width height samples num_inference_steps \
             safety_checker safety_checker_type enhance_prompt guidance_scale strength tomesd use_karras_sigmas \
             algorithm_type vae lora_strength lora_model embeddings_model seed scheduler loadbalancer clip_skip \
             ip_adapter_id ip_adapter_scale ip_adapter_image webhook track_id base64 temp",
        ),
        ("/api/v1/enterprise/fetch", "key request_id"),
        ("/api/v1/enterprise/fetch/{id}", "key"),
        ("/api/v1/enterprise/verify_model", "key model_id"),
        ("/api/v1/enterprise/load_model", "key model_id"),
        ("/api/v1/enterprise/load_model_v2", "key model_id"),
        ("/api/v1/enterprise/load_vae", "key vae_id"),
        ("/api/v1/enterprise/delete_model", "key model_id"),
        ("/api/v1/enterprise/upload_image", "key base64_image image_type"),
        ("/api/v1/enterprise/clear_queue", "key"),
        ("/api/v1/enterprise/clear_cache", "key"),
        ("/api/v1/enterprise/restart_server", "key"),
        ("/api/v1/enterprise/system_details", "key"),
        ("/api/v1/enterprise/schedulers_list", "key"),
        ("/api/v1/enterprise/get_all_models", "key"),
        ("/api/v1/enterprise/nsfw_image_check", "key init_image threshold"),
        (
            "/api/v1/enterprise/super_resolution",
            "key url scale model_id face_enhance webhook",
        ),
        (
            "/v1/images/edits",
            "image images prompt mask markup model n size quality input_fidelity output_format output_compression \
             response_format background stream partial_images moderation user negative_prompt seed steps guidance_scale \
             scheduler use_karras_sigmas clip_skip vae loras strength ip_adapter ip_adapter_scale soft_edge \
             differential_diffusion",
        ),
        (
            "/v1/images/generations",
            "prompt model n size quality style output_format output_compression response_format background stream \
             partial_images moderation user negative_prompt seed steps guidance_scale scheduler use_karras_sigmas clip_skip \
             vae loras",
        ),
        (
            "/v1/images/variations",
            "image images model n size prompt quality output_format output_compression response_format background stream \
             partial_images moderation user negative_prompt seed steps guidance_scale scheduler use_karras_sigmas clip_skip \
             vae loras strength ip_adapter ip_adapter_scale",
        ),
        (
            "/sdapi/v1/options",
            "sd_model_checkpoint sd_vae CLIP_stop_at_last_layers samples_format img2img_fix_steps",
        ),
        ("/sdapi/v1/progress", "skip_current_image"),
        ("/sdapi/v1/png-info", "image"),
        (
            "/sdapi/v1/extra-single-image",
            "image upscaling_resize upscaler_1 resize_mode gfpgan_visibility codeformer_visibility upscaler_2 \
             extras_upscaler_2_visibility",
        ),
    ];

    #[test]
    fn every_documented_field_is_in_its_table_and_no_other() {
        for (path, names) in DOCUMENTED {
            let found: Vec<&str> = fields(path).iter().map(|field| field.name).collect();
            assert_eq!(found, names.split(' ').collect::<Vec<_>>(), "{path}");
        }
        let inpaint: Vec<&str> = fields("/api/v1/enterprise/inpaint")
            .iter()
            .map(|field| field.name)
            .collect();
        assert_eq!(inpaint.len(), fields("/api/v1/enterprise/img2img").len() + 3);
        let own = ["mask_image", "soft_edge", "differential_diffusion"];
        assert_eq!(inpaint[inpaint.len() - 3..], own);
        // What A1111's client sends has a test of its own, with that client.
        assert_eq!(endpoint_fields().len(), DOCUMENTED.len() + 3);
    }

    #[test]
    fn every_field_says_what_happens_without_it_and_defaults_are_allowed_values() {
        fn check(path: &str, field: &FieldDescription) {
            let place = format!("{path} {}", field.name);
            let answers = [field.required, field.default.is_some(), field.otherwise.is_some()];
            assert_eq!(
                answers.iter().filter(|answer| **answer).count(),
                1,
                "{place}: {answers:?}"
            );
            assert!(field.text.ends_with('.'), "{place}");
            if let Some(number) = field.default.as_ref().and_then(serde_json::Value::as_f64) {
                let (least, most) = (field.minimum.unwrap(), field.maximum.unwrap());
                assert!(
                    (least..=most).contains(&number),
                    "{place}: {number} is not in {least}..={most}"
                );
            }
            if let Some(word) = field.default.as_ref().and_then(serde_json::Value::as_str) {
                assert!(
                    field.choices.is_empty() || field.choices.contains(&word),
                    "{place}: {word}"
                );
            }
            for member in &field.members {
                check(&place, member);
            }
        }
        for endpoint in endpoint_fields() {
            for field in &endpoint.fields {
                check(endpoint.path, field);
            }
        }
    }

    #[test]
    fn a_field_is_written_as_data() {
        let steps = fields("/v3/lcm-img2img")
            .into_iter()
            .find(|field| field.name == "steps");
        assert_eq!(
            serde_json::to_value(steps).unwrap(),
            serde_json::json!({
                "name": "steps",
                "type": "integer",
                "minimum": 1.0,
                "maximum": 8.0,
                "required": false,
                "default": 8,
                "effect": {"since": "0.1.0"},
                "text": "How many steps run; all of them, whatever the strength.",
            })
        );
        let lora = fields("/v3/lcm-img2img")
            .into_iter()
            .find(|field| field.name == "loras");
        let lora = lora.unwrap();
        assert_eq!(
            (lora.effect, lora.members[1].aliases),
            (Effect::Since("0.1.0"), &["strenth"][..])
        );
    }
}
