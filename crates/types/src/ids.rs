//! Typed identifiers, so that a job id can never be passed where a model name is meant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::InputRole;

/// One job. Printed as `job_` and 32 hexadecimal digits; ids sort by the time of their making.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(Uuid);

impl JobId {
    /// A fresh id: 48 bits of milliseconds, then random bits (UUID version 7).
    #[must_use]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// An id with a chosen value, for tests.
    #[must_use]
    pub const fn from_u128(value: u128) -> Self {
        Self(Uuid::from_u128(value))
    }

    /// The id without its printed prefix.
    #[must_use]
    pub const fn as_uuid(&self) -> Uuid {
        self.0
    }
}

impl Default for JobId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job_{}", self.0.simple())
    }
}

impl FromStr for JobId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(Uuid::parse_str(text.strip_prefix("job_").unwrap_or(text))?))
    }
}

/// One webhook: the message that tells a receiver of a job's end. A job has one end, so its webhook has the job's own id,
/// printed as `msg_` and 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WebhookId(JobId);

impl WebhookId {
    /// The webhook of a job.
    #[must_use]
    pub const fn of(job: JobId) -> Self {
        Self(job)
    }

    /// The job whose end it tells.
    #[must_use]
    pub const fn job(self) -> JobId {
        self.0
    }
}

impl fmt::Display for WebhookId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "msg_{}", self.0.as_uuid().simple())
    }
}

impl FromStr for WebhookId {
    type Err = uuid::Error;

    /// Its own form, or its job's.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix("msg_").unwrap_or(text).parse().map(Self)
    }
}

/// The name under which a caller asks for a model; resolved by the catalogue, never a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModelId(String);

impl ModelId {
    /// Takes the name as it came; only the catalogue decides whether it means anything.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which configured key a caller used; a short label, never the secret itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ApiKeyId(String);

impl ApiKeyId {
    /// Takes the label of a configured key.
    pub fn new(label: impl Into<String>) -> Self {
        Self(label.into())
    }

    /// The caller of a server that has no keys configured.
    #[must_use]
    pub fn anonymous() -> Self {
        Self("anonymous".to_owned())
    }

    /// The label as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The folder of the inputs.
const INPUTS: &str = "inputs";
/// What follows a picture's name when its bytes are shown as text.
const TEXT_ENDING: &str = ".base64";

/// The object name of a stored picture or input, made by us from a job id; never from a caller's text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageKey(String);

impl ImageKey {
    /// The finished picture number `index` of a job, `generations/lcm_img2img_<uuid>_0.png` for example.
    ///
    /// `stem` is a dialect's file-name prefix; only its ASCII letters, digits, `_` and `-` are kept. Without one the
    /// name is `generations/<uuid>-0.png`, as the other vendor has it.
    #[must_use]
    pub fn output(stem: &str, job: JobId, index: usize, extension: &str) -> Self {
        let stem: String = stem
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
            .collect();
        let job = job.as_uuid();
        Self(if stem.is_empty() {
            format!("generations/{job}-{index}.{extension}")
        } else {
            format!("generations/{stem}_{job}_{index}.{extension}")
        })
    }

    /// The name under which this picture is shown as text, in base64; nothing is stored under it.
    #[must_use]
    pub fn as_text(&self) -> Self {
        Self(format!("{}{TEXT_ENDING}", self.0))
    }

    /// The picture behind a name of [`ImageKey::as_text`].
    #[must_use]
    pub fn of_text(&self) -> Option<Self> {
        let picture = self.0.strip_suffix(TEXT_ENDING)?;
        Some(Self(picture.to_owned()))
    }

    /// An input image of a job, kept until the job ends.
    #[must_use]
    pub fn input(job: JobId, role: InputRole) -> Self {
        Self(format!("{INPUTS}/{}/{}", job.as_uuid(), role.as_str()))
    }

    /// The file that the image to start from was sent as, where another one is stored in its place and a part of it, such as a
    /// signed manifest, is wanted at the end. Kept as the inputs are.
    #[must_use]
    pub fn sent(job: JobId) -> Self {
        Self(format!("{INPUTS}/{}/sent", job.as_uuid()))
    }

    /// The job that this picture or input belongs to. None for a name that was not made here.
    #[must_use]
    pub fn job(&self) -> Option<JobId> {
        const UUID: usize = 36;
        let (folder, name) = self.0.split_once('/')?;
        let uuid = if folder == INPUTS {
            name.split('/').next()?
        } else {
            let (name, _) = name.rsplit_once('.')?;
            let (name, _index) = name.rsplit_once(['_', '-'])?;
            name.get(name.len().checked_sub(UUID)?..)?
        };
        uuid.parse().ok()
    }

    /// A key read back from a link that we signed ourselves. Refuses anything that could climb out of the store.
    #[must_use]
    pub fn from_link(path: &str) -> Option<Self> {
        let safe = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        };
        path.split('/').all(safe).then(|| Self(path.to_owned()))
    }

    /// The key as a path inside the object store.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ImageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_id_prints_and_parses_back() {
        let id = JobId::new();
        assert_eq!(id.to_string().parse::<JobId>().unwrap(), id);
        assert!("job_nonsense".parse::<JobId>().is_err());
    }

    #[test]
    fn a_webhook_has_the_id_of_its_job_in_a_form_of_its_own() {
        let job = JobId::from_u128(0xa7);
        let id = WebhookId::of(job);
        assert_eq!(id.to_string(), "msg_000000000000000000000000000000a7");
        assert_eq!(id.to_string().parse::<WebhookId>().unwrap(), id);
        assert_eq!(job.to_string().parse::<WebhookId>().unwrap().job(), job);
    }

    #[test]
    fn a_key_has_the_dialects_form_and_a_name_as_text() {
        let job = JobId::from_u128(7);
        let key = ImageKey::output("", job, 1, "png");
        assert_eq!(
            key.as_str(),
            "generations/00000000-0000-0000-0000-000000000007-1.png"
        );
        assert!(key.as_text().as_str().ends_with("-1.png.base64"));
        assert_eq!(key.as_text().of_text(), Some(key.clone()));
        assert_eq!(key.of_text(), None);
    }

    #[test]
    fn a_key_says_whose_it_is() {
        let job = JobId::new();
        for key in [
            ImageKey::output("lcm_img2img", job, 0, "png"),
            ImageKey::output("", job, 11, "webp"),
            ImageKey::output("a-b", job, 1, "jpeg"),
            ImageKey::input(job, InputRole::Mask),
            ImageKey::sent(job),
        ] {
            assert_eq!(key.job(), Some(job), "{key}");
        }
        for foreign in [
            "generations/x_0.png",
            "generations/notes",
            "inputs/x/init",
            "other",
        ] {
            assert_eq!(ImageKey(foreign.to_owned()).job(), None, "{foreign}");
        }
    }

    #[test]
    fn a_key_from_a_link_never_climbs() {
        let key = ImageKey::output("lcm_img2img", JobId::from_u128(7), 0, "png");
        assert_eq!(ImageKey::from_link(key.as_str()), Some(key));
        for bad in [
            "../x",
            "a//b",
            "a/../b",
            "/a",
            "a/",
            "a\\b",
            "a/%2e%2e/b",
            "",
            "a/\0",
        ] {
            assert_eq!(ImageKey::from_link(bad), None, "{bad}");
        }
    }
}
