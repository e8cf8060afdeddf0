//! PEFT's configuration of an adapter, which has what its tensors do not: alpha, for all modules or by name.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value};

/// `adapter_config.json`, or the part of `lora_adapter_metadata` that is for one network. Unknown keys are ignored.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PeftConfig {
    pub(super) peft_type: Option<String>,
    r: Option<f64>,
    /// `alpha` with LoHa and LoKr.
    #[serde(alias = "alpha")]
    lora_alpha: Option<f64>,
    rank_pattern: Patterns,
    alpha_pattern: Patterns,
    use_rslora: Option<bool>,
    /// (IA)³: the layers whose inputs are scaled.
    feedforward_modules: Option<Value>,
}

/// Which network a configuration is for, by the prefix that diffusers writes; empty for all.
pub(super) type PeftConfigs = Vec<(String, PeftConfig)>;

/// `lora_adapter_metadata` of a safetensors header (diffusers, `loaders/lora_base.py`): the keys of one configuration for
/// each network, below that network's name.
pub(super) fn from_metadata(text: &str) -> Option<PeftConfigs> {
    let flat: Map<String, Value> = serde_json::from_str(text).ok()?;
    let mut networks: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for (key, value) in flat {
        let (network, key) = key.split_once('.').unwrap_or(("", &key));
        networks
            .entry(network.to_owned())
            .or_default()
            .insert(key.to_owned(), value);
    }
    let parsed = networks
        .into_iter()
        .map(|(network, keys)| Some((network, serde_json::from_value(Value::Object(keys)).ok()?)));
    parsed.collect()
}

/// The configuration that a module goes by.
pub(super) fn of_module<'a>(configs: &'a PeftConfigs, module: &str) -> Option<&'a PeftConfig> {
    let is_for = |network: &str| {
        network.is_empty()
            || module
                .strip_prefix(network)
                .is_some_and(|rest| rest.starts_with('.'))
    };
    let found = configs.iter().find(|(network, _)| is_for(network))?;
    Some(&found.1)
}

impl PeftConfig {
    /// alpha / r of a module whose tensors have this rank; None where the configuration has no alpha.
    pub(super) fn scale(&self, module: &str, rank: Option<usize>) -> Option<f64> {
        let alpha = self.alpha_pattern.value(module).or(self.lora_alpha)?;
        // What the tensors have counts; LoKr may have none and still be scaled.
        #[expect(clippy::cast_precision_loss, reason = "a rank is small")]
        let rank = rank
            .map(|rank| rank as f64)
            .or_else(|| self.rank_pattern.value(module))
            .or(self.r)
            .filter(|rank| *rank > 0.0)?;
        Some(if self.use_rslora == Some(true) {
            alpha / rank.sqrt()
        } else {
            alpha / rank
        })
    }

    /// Whether (IA)³ scales what comes into a layer, by PEFT's list of the ends of such layers' names.
    pub(super) fn is_feedforward(&self, layer: &str) -> bool {
        let listed = self.feedforward_modules.as_ref().and_then(Value::as_array);
        let mut listed = listed.into_iter().flatten().filter_map(Value::as_str);
        listed.any(|end| ends(layer).any(|name| name == end))
    }

    /// Patterns of alpha that none of the modules goes by: perhaps they were not understood.
    pub(super) fn idle_patterns<'a>(&self, modules: impl Iterator<Item = &'a str>) -> Vec<&str> {
        let used: BTreeSet<&str> = modules
            .filter_map(|module| self.alpha_pattern.found(module))
            .collect();
        let all = self.alpha_pattern.0.keys().map(String::as_str);
        all.filter(|pattern| !used.contains(pattern)).collect()
    }
}

/// Numbers by the ends of modules' names, from a dot on, as PEFT's `get_pattern_key` has it. PEFT reads regular expressions;
/// those that are read here are names with escaped dots, perhaps between `^` and `$`. Of several the longest counts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "BTreeMap<String, f64>")]
struct Patterns(BTreeMap<String, f64>);

impl From<BTreeMap<String, f64>> for Patterns {
    fn from(written: BTreeMap<String, f64>) -> Self {
        let plain = |(pattern, value): (String, f64)| {
            let pattern = pattern.strip_suffix('$').unwrap_or(&pattern);
            (pattern.replace("\\.", "."), value)
        };
        Self(written.into_iter().map(plain).collect())
    }
}

impl Patterns {
    fn value(&self, module: &str) -> Option<f64> {
        self.0.get(self.found(module)?).copied()
    }

    /// The pattern that a module goes by.
    fn found(&self, module: &str) -> Option<&str> {
        let get = |name: &str| self.0.get_key_value(name).map(|(key, _)| key.as_str());
        if self.0.is_empty() {
            return None;
        }
        get(&format!("^{module}")).or_else(|| ends(module).find_map(get))
    }
}

/// A name, and what follows each of its dots.
fn ends(name: &str) -> impl Iterator<Item = &str> {
    let after_dots = name.match_indices('.').map(|(dot, _)| &name[dot + 1..]);
    std::iter::once(name).chain(after_dots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpha_goes_by_module_and_network() {
        let text = r#"{"unet.r": 4, "unet.lora_alpha": 8, "unet.alpha_pattern": {"attn1.to_q": 2}, "unet.use_rslora": false,
            "text_encoder.r": 4, "text_encoder.lora_alpha": 4, "text_encoder.use_rslora": true}"#;
        let configs = from_metadata(text).unwrap();
        let scale =
            |module: &str| of_module(&configs, module).and_then(|config| config.scale(module, Some(4)));
        assert_eq!(scale("unet.mid.attn1.to_q"), Some(0.5));
        assert_eq!(scale("unet.mid.attn1.to_k"), Some(2.0));
        assert_eq!(scale("text_encoder.x"), Some(2.0));
        assert_eq!(scale("text_encoder_2.x"), None);
    }

    #[test]
    fn a_pattern_is_an_end_from_a_dot_on() {
        for (pattern, module, expected) in [
            ("to_q", "attn1.to_q", true),
            ("q", "attn1.to_q", false),
            ("attn1\\.to_q", "x.attn1.to_q", true),
            ("^attn1.to_q$", "attn1.to_q", true),
            ("^attn1.to_q", "x.attn1.to_q", false),
        ] {
            let patterns = Patterns::from(BTreeMap::from([(pattern.to_owned(), 2.0)]));
            assert_eq!(patterns.value(module).is_some(), expected, "{pattern} {module}");
        }
    }
}
