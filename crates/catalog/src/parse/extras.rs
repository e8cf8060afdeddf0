//! Reads what an entry says beside its files: scheduler settings, the parts of a preset, and its life in memory.

use std::time::Duration;

use pentimento_types::SchedulerKind;
use toml::de::{DeTable, DeValue};

use super::entry_reader::EntryReader;
use crate::{LoraInPreset, Preset, SchedulerSettings, TimestepSpacing};

const SCHEDULER_KEYS: &[&str] = &["name", "timestep_spacing", "timesteps"];
const LORA_KEYS: &[&str] = &["name", "strength"];
/// Stable Diffusion was trained with this many noise levels.
const TRAINED_STEPS: u32 = 1000;
/// As many as a request can name of each.
const MOST_PARTS: usize = 5;
/// Strengths of what a dialect takes: beyond it nothing but noise comes out.
const STRENGTHS: std::ops::RangeInclusive<f64> = -5.0..=5.0;
/// Sides of training pictures: below it a UNet has no latents to halve, beyond it nobody has trained one.
const SMALLEST_NATIVE: u32 = 64;
const LARGEST_NATIVE: u32 = 4096;
const LONGEST_KEEP_ALIVE: u64 = 365 * 24 * 3600;

impl EntryReader<'_> {
    pub(super) fn scheduler(&mut self, table: &DeTable<'_>) -> SchedulerSettings {
        let mut settings = SchedulerSettings::default();
        let Some(value) = table.get("scheduler") else {
            return settings;
        };
        let DeValue::Table(table) = value.get_ref() else {
            let problem = "write a [model.scheduler] table below the other keys of the model";
            self.fault(&value.span(), problem.to_owned());
            return settings;
        };
        self.known_keys(table, SCHEDULER_KEYS);
        let names: Vec<&str> = SchedulerKind::ALL.iter().map(|kind| kind.class_name()).collect();
        let name = self.text(table, "name");
        settings.kind = self.choice(name, ("scheduler", &names), SchedulerKind::parse);
        let words: Vec<&str> = TimestepSpacing::ALL.iter().map(|word| word.as_str()).collect();
        let spacing = self.text(table, "timestep_spacing");
        settings.spacing = self.choice(spacing, ("timestep_spacing", &words), TimestepSpacing::parse);
        settings.timesteps = self.timesteps(table);
        settings
    }

    fn timesteps(&mut self, table: &DeTable<'_>) -> Option<Vec<u32>> {
        let value = table.get("timesteps")?;
        let wrong = "`timesteps` must be a list of falling whole numbers, like [999, 749, 499, 249]";
        let DeValue::Array(values) = value.get_ref() else {
            self.fault(&value.span(), wrong.to_owned());
            return None;
        };
        let mut timesteps: Vec<u32> = Vec::with_capacity(values.len());
        for value in values {
            let bounds = ("a timestep", TRAINED_STEPS - 1);
            timesteps.push(self.whole(value.get_ref(), &value.span(), bounds)?);
        }
        if timesteps.is_empty() || timesteps.windows(2).any(|pair| pair[0] <= pair[1]) {
            self.fault(&value.span(), wrong.to_owned());
            return None;
        }
        Some(timesteps)
    }

    /// What a preset adds to a checkpoint; None where the entry adds nothing.
    pub(super) fn preset(&mut self, table: &DeTable<'_>) -> Option<Preset> {
        let keys = ["checkpoint", "vae", "loras", "embeddings"];
        if keys.iter().all(|key| table.get(*key).is_none()) {
            return None;
        }
        let embeddings = self.texts(table, "embeddings");
        if let Some((_, span)) = embeddings.get(MOST_PARTS) {
            self.fault(
                span,
                format!("at most {MOST_PARTS} embeddings can be used at once"),
            );
        }
        Some(Preset {
            checkpoint: self.text(table, "checkpoint").map(|(name, _)| name),
            vae: self.text(table, "vae").map(|(name, _)| name),
            loras: self.loras(table),
            embeddings: embeddings.into_iter().map(|(name, _)| name).collect(),
        })
    }

    fn loras(&mut self, table: &DeTable<'_>) -> Vec<LoraInPreset> {
        let Some(value) = table.get("loras") else {
            return Vec::new();
        };
        let wrong = "`loras` must be a list, like [{ name = \"detail\", strength = 0.8 }]";
        let DeValue::Array(values) = value.get_ref() else {
            self.fault(&value.span(), wrong.to_owned());
            return Vec::new();
        };
        if let Some(value) = values.get(MOST_PARTS) {
            self.fault(
                &value.span(),
                format!("at most {MOST_PARTS} LoRAs can be used at once"),
            );
        }
        let mut loras = Vec::with_capacity(values.len());
        for value in values {
            let DeValue::Table(table) = value.get_ref() else {
                self.fault(&value.span(), wrong.to_owned());
                continue;
            };
            self.known_keys(table, LORA_KEYS);
            let Some((name, _)) = self.text(table, "name") else {
                if table.get("name").is_none() {
                    self.fault(&value.span(), wrong.to_owned());
                }
                continue;
            };
            let strength = match table.get("strength") {
                None => Some(1.0),
                Some(value) => self.number(value.get_ref(), &value.span(), "a strength"),
            };
            let Some(strength) = strength else { continue };
            if !STRENGTHS.contains(&strength) {
                let problem = format!("a strength must be {} to {}", STRENGTHS.start(), STRENGTHS.end());
                self.fault(&value.span(), problem);
                continue;
            }
            loras.push(LoraInPreset { name, strength });
        }
        loras
    }

    /// The side of the squares that the model was trained on.
    pub(super) fn native_size(&mut self, table: &DeTable<'_>) -> Option<u32> {
        let value = table.get("native_size")?;
        let side = self.whole(value.get_ref(), &value.span(), ("native_size", LARGEST_NATIVE))?;
        if side < SMALLEST_NATIVE {
            let problem = format!("`native_size` must be {SMALLEST_NATIVE} to {LARGEST_NATIVE} pixels");
            self.fault(&value.span(), problem);
            return None;
        }
        Some(side)
    }

    /// How long the model stays in memory when nobody uses it.
    pub(super) fn keep_alive(&mut self, table: &DeTable<'_>) -> Option<Duration> {
        let (text, span) = self.text(table, "keep_alive")?;
        let time = duration(&text);
        if time.is_none() {
            let problem = "`keep_alive` must be a time up to a year, like 30s, 10m or 2h; to keep a model for ever, write \
                           pinned = true";
            self.fault(&span, problem.to_owned());
        }
        time
    }
}

/// A whole number of seconds, minutes or hours: `30s`, `10m`, `2h`.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = number.parse().ok().filter(|_| digits)?;
    let seconds = number.checked_mul(unit)?;
    (seconds <= LONGEST_KEEP_ALIVE).then(|| Duration::from_secs(seconds))
}
