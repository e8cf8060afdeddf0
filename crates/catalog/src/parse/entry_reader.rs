//! Reads one `[[model]]` table: what the entry is and where its files are.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Lines;
use crate::nearest::nearest;
use crate::{BaseModel, EntryFault, ModelEntry, ModelKind, ModelPrecision, Prediction, Source};

const KEYS: &[&str] = &[
    "name",
    "aliases",
    "kind",
    "source",
    "sha256",
    "variant",
    "base",
    "role",
    "prediction",
    "precision",
    "native_size",
    "lcm_lora",
    "scheduler",
    "checkpoint",
    "vae",
    "loras",
    "embeddings",
    "image_encoder",
    "pinned",
    "keep_alive",
];
/// Longer names are refused here, so that a caller's name never needs to be.
const LONGEST_NAME: usize = 256;

/// A text with the place where it stands.
pub(super) type Placed = (String, Range<usize>);

pub(super) struct EntryReader<'a> {
    lines: &'a Lines,
    span: Range<usize>,
    name: Option<String>,
    faults: Vec<EntryFault>,
}

impl<'a> EntryReader<'a> {
    pub(super) fn new(lines: &'a Lines, model: &Spanned<DeValue<'_>>) -> Self {
        Self {
            lines,
            span: model.span(),
            name: None,
            faults: Vec::new(),
        }
    }

    pub(super) fn into_faults(self) -> Vec<EntryFault> {
        self.faults
    }

    pub(super) fn fault(&mut self, span: &Range<usize>, problem: String) {
        self.faults.push(EntryFault {
            line: self.lines.of(span),
            entry: self.name.clone(),
            problem,
        });
    }

    pub(super) fn read(&mut self, table: &DeTable<'_>, folder: &Path) -> Option<ModelEntry> {
        // The name first, so that every other message can say it.
        let name = self.required_text(table, "name");
        self.name = name.as_ref().map(|name| name.0.clone());
        if let Some((name, span)) = &name {
            self.check_name(name, span, "name");
        }
        self.known_keys(table, KEYS);
        let aliases = self.aliases(table, name.as_ref().map(|name| name.0.as_str()));
        let words: Vec<&str> = ModelKind::ALL.iter().map(|kind| kind.as_str()).collect();
        let kind = self.required_text(table, "kind");
        let kind = self.choice(kind, ("kind", &words), ModelKind::parse);
        let source = self.source(table, folder);
        let words: Vec<&str> = BaseModel::ALL.iter().map(|base| base.as_str()).collect();
        let base = self.text(table, "base");
        let base = self.choice(base, ("base", &words), BaseModel::parse);
        let role = self.text(table, "role");
        let role = self.choice(role, ("role", &[ModelEntry::ROLE_LCM]), |word| {
            (word == ModelEntry::ROLE_LCM).then(|| word.to_owned())
        });
        let words: Vec<&str> = Prediction::ALL.iter().map(|word| word.as_str()).collect();
        let prediction = self.text(table, "prediction");
        let prediction = self.choice(prediction, ("prediction", &words), Prediction::parse);
        let words: Vec<&str> = ModelPrecision::ALL.iter().map(|word| word.as_str()).collect();
        let precision = self.text(table, "precision");
        let precision = self.choice(precision, ("precision", &words), ModelPrecision::parse);
        let sha256 = self.sha256(table, source.as_ref());
        let variant = self.variant(table, source.as_ref());
        let scheduler = self.scheduler(table);
        let native_size = self.native_size(table);
        let lcm_lora = self.text(table, "lcm_lora").map(|(name, _)| name);
        let preset = self.preset(table);
        let image_encoder = self.text(table, "image_encoder").map(|(name, _)| name);
        let pinned = self.flag(table, "pinned").unwrap_or(false);
        let keep_alive = self.keep_alive(table);
        self.check_kind(table, kind?);
        Some(ModelEntry {
            name: name?.0,
            aliases,
            kind: kind?,
            source: source?,
            sha256,
            variant,
            base,
            role,
            prediction,
            precision,
            native_size,
            lcm_lora,
            scheduler,
            image_encoder,
            preset,
            pinned,
            keep_alive,
        })
    }

    /// Reports keys that nothing reads.
    pub(super) fn known_keys(&mut self, table: &DeTable<'_>, known: &[&str]) {
        for key in table.keys() {
            if known.contains(&&**key.get_ref()) {
                continue;
            }
            let near = nearest(key.get_ref(), known.iter().copied());
            let hint = near.first().map_or_else(
                || format!("the keys are {}", known.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            self.fault(&key.span(), format!("unknown key `{}`; {hint}", key.get_ref()));
        }
    }

    /// Reports keys that mean nothing for a model of this kind: a line without effect is a mistake of its writer.
    fn check_kind(&mut self, table: &DeTable<'_>, kind: ModelKind) {
        use ModelKind::{Checkpoint, IpAdapter, Lora};
        let only: [(&str, &[ModelKind]); 13] = [
            ("checkpoint", &[Checkpoint]),
            ("vae", &[Checkpoint]),
            ("loras", &[Checkpoint]),
            ("embeddings", &[Checkpoint]),
            ("prediction", &[Checkpoint]),
            ("precision", &[Checkpoint]),
            ("native_size", &[Checkpoint]),
            ("lcm_lora", &[Checkpoint]),
            ("pinned", &[Checkpoint]),
            ("keep_alive", &[Checkpoint]),
            ("scheduler", &[Checkpoint, Lora]),
            ("role", &[Checkpoint, Lora]),
            ("image_encoder", &[IpAdapter]),
        ];
        for (key, kinds) in only {
            let Some((key, _)) = table.get_key_value(key).filter(|_| !kinds.contains(&kind)) else {
                continue;
            };
            let kinds: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
            let problem = format!(
                "`{}` means something for {} only, and this is a {kind}; remove it",
                key.get_ref(),
                kinds.join(" and ")
            );
            self.fault(&key.span(), problem);
        }
    }

    /// The source. A preset has none of its own: its checkpoint's is put in its place when all entries are known.
    fn source(&mut self, table: &DeTable<'_>, folder: &Path) -> Option<Source> {
        if table.contains_key("checkpoint") {
            let own = ["source", "sha256", "variant"].map(|key| table.get_key_value(key));
            for (own, _) in own.into_iter().flatten() {
                let problem = format!(
                    "an entry has the files of its `checkpoint` or a `{}` of its own; remove one of the two",
                    own.get_ref()
                );
                self.fault(&own.span(), problem);
            }
            return Some(Source::Path(PathBuf::new()));
        }
        let (text, span) = self.required_text(table, "source")?;
        Source::parse(&text, folder)
            .map_err(|problem| self.fault(&span, problem))
            .ok()
    }

    /// The text under `key`; a fault when it is of another type.
    pub(super) fn text(&mut self, table: &DeTable<'_>, key: &str) -> Option<Placed> {
        let value = table.get(key)?;
        if let DeValue::String(text) = value.get_ref() {
            return Some((text.clone().into_owned(), value.span()));
        }
        self.fault(
            &value.span(),
            format!("`{key}` must be a text in quotation marks"),
        );
        None
    }

    fn required_text(&mut self, table: &DeTable<'_>, key: &str) -> Option<Placed> {
        if table.get(key).is_none() {
            let span = self.span.clone();
            self.fault(&span, format!("`{key}` is missing; add {key} = \"…\""));
        }
        self.text(table, key)
    }

    pub(super) fn choice<T>(
        &mut self,
        value: Option<Placed>,
        (key, words): (&str, &[&str]),
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let (word, span) = value?;
        let found = parse(&word);
        if found.is_none() {
            self.fault(
                &span,
                format!("`{word}` is no {key}; write one of {}", words.join(", ")),
            );
        }
        found
    }

    fn check_name(&mut self, name: &str, span: &Range<usize>, what: &str) {
        let problem = if name.trim() != name || name.is_empty() {
            "must not be empty nor begin or end with a space"
        } else if name.len() > LONGEST_NAME {
            "must not be longer than 256 bytes"
        } else if name.chars().any(char::is_control) {
            "must not contain control characters"
        } else {
            return;
        };
        self.fault(span, format!("a {what} {problem}"));
    }

    fn aliases(&mut self, table: &DeTable<'_>, name: Option<&str>) -> Vec<String> {
        let mut aliases: Vec<String> = Vec::new();
        for (alias, span) in self.texts(table, "aliases") {
            self.check_name(&alias, &span, "alias");
            if aliases.contains(&alias) || name == Some(alias.as_str()) {
                let problem = format!("the alias `{alias}` is there already; remove one of the two");
                self.fault(&span, problem);
                continue;
            }
            aliases.push(alias);
        }
        aliases
    }

    fn sha256(&mut self, table: &DeTable<'_>, source: Option<&Source>) -> Option<String> {
        let value = self.text(table, "sha256");
        let Some((digits, span)) = value else {
            if matches!(source, Some(Source::Https(_))) && table.get("sha256").is_none() {
                let span = table.get("source").map_or(self.span.clone(), Spanned::span);
                let problem = "an https source needs its sha256; add sha256 = \"…\" (64 hexadecimal digits)";
                self.fault(&span, problem.to_owned());
            }
            return None;
        };
        if source.is_some_and(|source| source.repository_folder().is_some())
            || matches!(source, Some(Source::Embedded(_)))
        {
            let problem =
                "a sha256 belongs to one file; name the file (hf:owner/repo:file) or remove the sha256";
            self.fault(&span, problem.to_owned());
        }
        if digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Some(digits.to_ascii_lowercase());
        }
        self.fault(
            &span,
            "`sha256` must be 64 hexadecimal digits, as `sha256sum FILE` prints them".to_owned(),
        );
        None
    }

    fn variant(&mut self, table: &DeTable<'_>, source: Option<&Source>) -> Option<String> {
        let (variant, span) = self.text(table, "variant")?;
        let is_word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_word(&variant) {
            let problem =
                "`variant` is the word in the names of the files, such as fp16 in model.fp16.safetensors";
            self.fault(&span, problem.to_owned());
            return None;
        }
        if source.is_some_and(|source| source.repository_folder().is_some()) {
            return Some(variant);
        }
        let problem = "`variant` chooses among the files of a whole repository (hf:owner/repo); remove it";
        self.fault(&span, problem.to_owned());
        None
    }
}
