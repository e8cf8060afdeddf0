//! The fields beside the image itself: what is done to its prompts and to unsafe results, and how the result is handed over.

use super::super::fields::{
    BASE64, ENHANCE_PROMPT, LOADBALANCER, SAFETY_CHECKER, SAFETY_CHECKER_TYPE, TEMP, TRACK_ID, WEBHOOK,
};
use super::super::reader::{Reader, is_nothing};
use crate::dialects::json::Json;

/// The vendor's own condition is "more than 1 server".
const ONE_SERVER: &str =
    "loadbalancer has no effect: this server is in no cluster, and has run this request by itself.";

/// What is done beside the image, and how the result is handed over.
#[derive(Clone, Debug)]
pub(super) struct Extras {
    pub(super) safety_checker: bool,
    pub(super) safety_checker_type: &'static str,
    pub(super) enhance_prompt: bool,
    /// Whether no other machine may run it.
    pub(super) stays: bool,
    pub(super) base64: bool,
    pub(super) temp: bool,
    pub(super) webhook: Option<String>,
    pub(super) track_id: Json,
}

/// Reads them. Whether prompts are enhanced where nothing is said is the operator's to choose.
pub(super) fn extras(
    reader: &mut Reader,
    (enhance_prompt, has_cluster): (bool, bool),
    warnings: &mut Vec<String>,
) -> Extras {
    let balanced = reader.flag_if_given(&LOADBALANCER);
    if balanced == Some(true) && !has_cluster {
        warnings.push(ONE_SERVER.to_owned());
    }
    Extras {
        safety_checker: reader.flag(&SAFETY_CHECKER),
        safety_checker_type: reader
            .one_of(&SAFETY_CHECKER_TYPE)
            .unwrap_or(SAFETY_CHECKER_TYPE.kind.default),
        enhance_prompt: reader.flag_if_given(&ENHANCE_PROMPT).unwrap_or(enhance_prompt),
        stays: balanced == Some(false),
        base64: reader.flag(&BASE64),
        temp: reader.flag(&TEMP),
        webhook: webhook(reader),
        track_id: track_id(reader),
    }
}

fn webhook(reader: &mut Reader) -> Option<String> {
    let address = reader.text(WEBHOOK.name)?;
    let address = address.trim();
    if is_nothing(address) {
        return None;
    }
    let good = address.len() <= WEBHOOK.kind.max_bytes
        && url::Url::parse(address)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if !good {
        reader.refuse(WEBHOOK.name, "must be an http or https URL");
    }
    Some(address.to_owned())
}

fn track_id(reader: &mut Reader) -> Json {
    let limit = TRACK_ID.kind.max_bytes;
    let mut value = reader.take(TRACK_ID.name);
    // 0 is a number that can be passed on.
    if value == Json::Bool(false) {
        value = Json::Null;
    }
    match &value {
        Json::Null | Json::Integer(_) | Json::Number(_) => {}
        Json::Text(text) if text.len() <= limit => {}
        Json::Text(_) | Json::Bool(_) | Json::File(_) | Json::List(_) | Json::Object(_) => {
            let message = format_args!("must be a number or a text of at most {limit} bytes");
            reader.refuse(TRACK_ID.name, message);
        }
    }
    value
}
