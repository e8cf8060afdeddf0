//! What the hub client is told. Only `cli` reads the environment, so the variables that users of a hub expect arrive here.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

/// A secret that is sent to the hub. It never shows itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// None where the text is blank or could not stand in a header.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let is_word = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_word.then(|| Self(text.to_owned()))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Where models come from and where they are kept.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// `HF_ENDPOINT`.
    pub endpoint: Url,
    /// `HF_TOKEN`, or what the file of `HF_TOKEN_PATH` holds.
    pub token: Option<Token>,
    /// `HF_HUB_CACHE`: the folder with a `models--owner--name` for each repository.
    pub cache: PathBuf,
    /// Where files of `https:` sources are kept, by their sha256.
    pub downloads: PathBuf,
    /// `HF_HUB_OFFLINE`: nothing is fetched, what is there is used.
    pub offline: bool,
    /// Whether `HTTPS_PROXY` and its like are respected.
    pub system_proxy: bool,
    /// The pause before a broken transfer is tried again; each one after it is twice as long.
    pub retry_pause: Duration,
    /// How long a connection may be silent.
    pub silence: Duration,
}

impl HubSettings {
    /// The public hub, with nothing set.
    #[must_use]
    pub fn new(cache: PathBuf, downloads: PathBuf) -> Self {
        let endpoint = "https://huggingface.co";
        Self {
            endpoint: Url::parse(endpoint).expect("it is an address"),
            token: None,
            cache,
            downloads,
            offline: false,
            system_proxy: true,
            retry_pause: Duration::from_secs(1),
            silence: Duration::from_secs(30),
        }
    }
}
