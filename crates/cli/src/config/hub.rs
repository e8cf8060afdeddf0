//! Where models are fetched from and kept: the variables that every client of a Hugging Face hub reads, with the meanings
//! and defaults of Python's `huggingface_hub` (its `constants.py`).

use std::ffi::OsString;
use std::path::PathBuf;

use pentimento_hub::{HubSettings, Token};
use pentimento_types::read_regular;
use url::Url;

use super::ConfigError;

const PUBLIC: &str = "https://huggingface.co";
/// No token comes near it.
const LARGEST_TOKEN_FILE: u64 = 16 << 10;
/// What Python takes for yes.
const YES: [&str; 4] = ["1", "ON", "YES", "TRUE"];

/// The variables, as they are. An empty one is as good as none.
#[derive(Clone, Debug, Default)]
pub(crate) struct HubVariables {
    endpoint: Option<OsString>,
    token: Option<OsString>,
    token_path: Option<OsString>,
    home: Option<OsString>,
    cache: Option<OsString>,
    offline: Option<OsString>,
    user_cache: Option<OsString>,
    user_home: Option<OsString>,
}

impl HubVariables {
    /// Takes a variable in that means something here.
    pub(super) fn add(&mut self, name: &str, value: OsString) {
        let place = match name {
            "HF_ENDPOINT" => &mut self.endpoint,
            "HF_TOKEN" => &mut self.token,
            "HF_TOKEN_PATH" => &mut self.token_path,
            "HF_HOME" => &mut self.home,
            "HF_HUB_CACHE" => &mut self.cache,
            "HF_HUB_OFFLINE" => &mut self.offline,
            "XDG_CACHE_HOME" => &mut self.user_cache,
            "HOME" => &mut self.user_home,
            // The same on Windows.
            "USERPROFILE" if self.user_home.is_none() => &mut self.user_home,
            _ => return,
        };
        if !value.is_empty() {
            *place = Some(value);
        }
    }

    /// `~/.cache/huggingface`, unless a variable says otherwise.
    fn home(&self) -> PathBuf {
        if let Some(home) = &self.home {
            return PathBuf::from(home);
        }
        let user_home = || PathBuf::from(self.user_home.clone().unwrap_or_default()).join(".cache");
        let cache = self.user_cache.as_ref().map_or_else(user_home, PathBuf::from);
        cache.join("huggingface")
    }
}

/// What one run was told about the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HubConfig {
    endpoint: Url,
    token: Option<Token>,
    cache: PathBuf,
    offline: bool,
}

impl HubConfig {
    pub(super) fn of(variables: &HubVariables) -> Result<Self, ConfigError> {
        let endpoint = variables
            .endpoint
            .as_ref()
            .map_or_else(|| PUBLIC.into(), |url| url.to_string_lossy());
        let endpoint = Url::parse(endpoint.trim()).ok();
        let endpoint = endpoint.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let wrong = |problem: &str| ConfigError::Variable {
            name: "HF_ENDPOINT".to_owned(),
            problem: problem.to_owned(),
        };
        let home = variables.home();
        Ok(Self {
            endpoint: endpoint.ok_or_else(|| wrong("write an address like https://huggingface.co"))?,
            token: token(variables, &home)?,
            cache: variables
                .cache
                .as_ref()
                .map_or_else(|| home.join("hub"), PathBuf::from),
            offline: variables
                .offline
                .as_ref()
                .is_some_and(|value| YES.contains(&value.to_string_lossy().to_uppercase().as_str())),
        })
    }

    /// The settings of the client; files of `https:` sources are kept in the data folder.
    pub(crate) fn settings(&self, data: &std::path::Path) -> HubSettings {
        HubSettings {
            endpoint: self.endpoint.clone(),
            token: self.token.clone(),
            offline: self.offline,
            ..HubSettings::new(self.cache.clone(), data.join("models"))
        }
    }
}

/// `HF_TOKEN`, or what a log-in with Python's tool has left in a file.
fn token(variables: &HubVariables, home: &std::path::Path) -> Result<Option<Token>, ConfigError> {
    if let Some(token) = &variables.token {
        return Ok(Token::new(&token.to_string_lossy()));
    }
    let named = variables.token_path.as_ref().map(PathBuf::from);
    let path = named.clone().unwrap_or_else(|| home.join("token"));
    match read_regular(&path, LARGEST_TOKEN_FILE) {
        Ok(bytes) => Ok(Token::new(&String::from_utf8_lossy(&bytes))),
        Err(fault) if named.is_some() => Err(ConfigError::TokenFile {
            path,
            source: fault.into(),
        }),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)]) -> Result<HubConfig, ConfigError> {
        let mut read = HubVariables::default();
        for (name, value) in variables {
            read.add(name, value.into());
        }
        HubConfig::of(&read)
    }

    #[test]
    fn the_variables_of_a_hubs_users_mean_what_they_expect() {
        let cache = |variables: &[(&str, &str)]| config(variables).unwrap().cache;
        assert_eq!(
            cache(&[("HOME", "/me")]),
            PathBuf::from("/me/.cache/huggingface/hub")
        );
        assert_eq!(
            cache(&[("HOME", "/me"), ("XDG_CACHE_HOME", "/c")]),
            PathBuf::from("/c/huggingface/hub")
        );
        assert_eq!(
            cache(&[("XDG_CACHE_HOME", "/c"), ("HF_HOME", "/hf")]),
            PathBuf::from("/hf/hub")
        );
        assert_eq!(
            cache(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/big")]),
            PathBuf::from("/big")
        );
        for (value, offline) in [
            ("1", true),
            ("yes", true),
            ("True", true),
            ("0", false),
            ("", false),
            ("no", false),
        ] {
            assert_eq!(
                config(&[("HF_HUB_OFFLINE", value)]).unwrap().offline,
                offline,
                "{value}"
            );
        }
        assert_eq!(config(&[]).unwrap().endpoint.as_str(), "https://huggingface.co/");
        let mirror = config(&[("HF_ENDPOINT", "https://mirror.example/hub")]).unwrap();
        assert_eq!(mirror.endpoint.as_str(), "https://mirror.example/hub");
        for wrong in ["mirror", "file:///x", "ftp://x"] {
            let error = config(&[("HF_ENDPOINT", wrong)]).unwrap_err().to_string();
            assert!(error.contains("HF_ENDPOINT"), "{error}");
        }
    }

    #[test]
    fn a_token_comes_from_its_variable_or_a_file_and_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        let token = |variables: &[(&str, &str)]| config(variables).unwrap().token;
        assert_eq!(token(&[("HF_HOME", home)]), None);
        fs_err::write(folder.path().join("token"), "hf_file\n").unwrap();
        assert_eq!(token(&[("HF_HOME", home)]), Token::new("hf_file"));
        assert_eq!(
            token(&[("HF_HOME", home), ("HF_TOKEN", "hf_mine")]),
            Token::new("hf_mine")
        );
        let other = folder.path().join("other");
        let named = [("HF_HOME", home), ("HF_TOKEN_PATH", other.to_str().unwrap())];
        assert!(config(&named).unwrap_err().to_string().contains("HF_TOKEN_PATH"));
        let shown = format!("{:?}", config(&[("HF_TOKEN", "hf_mine")]));
        assert!(!shown.contains("hf_mine"), "{shown}");
    }
}
