//! Where a model's files come from, and whether they can be used now.

use std::path::{Path, PathBuf};

use pentimento_types::{FileFault, open_regular};

/// The places that `source` in `models.toml` can name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A diffusers folder or one weights file; relative paths were joined to the folder of `models.toml`.
    Path(PathBuf),
    /// Compiled into the binary, by the name after `embedded:`.
    Embedded(String),
    /// `hf:owner/repo[@revision][:file]` or `…:folder/`, fetched from a hub.
    HuggingFace {
        /// `owner/repo`.
        repo: String,
        /// A branch, tag or commit.
        revision: Option<String>,
        /// One file of the repository instead of all of it, or one folder, which ends in `/`.
        file: Option<String>,
    },
    /// An `https://` address of one file.
    Https(String),
}

/// Whether a model can be used at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Availability {
    /// Its files are there.
    Available,
    /// They are not, and why.
    Unavailable(Unavailable),
}

/// Why a model cannot be used. `Display` is safe to show to a caller: it names no path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The path does not exist.
    #[error("its files are missing on the server")]
    Missing {
        /// The path, for the log.
        path: PathBuf,
    },
    /// The path exists and cannot be read.
    #[error("its files cannot be read by the server")]
    Unreadable {
        /// The path, for the log.
        path: PathBuf,
    },
    /// The disk that should hold it says nothing.
    #[error("its files on the server do not answer at this moment")]
    NotAnswering {
        /// The path, for the log.
        path: PathBuf,
    },
    /// It is a pipe or a device.
    #[error("its source on the server is no file and no folder")]
    NotAFile {
        /// The path, for the log.
        path: PathBuf,
    },
    /// The folder holds nothing.
    #[error("its folder on the server is empty")]
    Empty {
        /// The path, for the log.
        path: PathBuf,
    },
    /// `hf:` and `https:` sources, as far as can be said without their cache.
    #[error("its files are fetched when a request names it")]
    NotDownloaded,
    /// `embedded:` with a name that this binary does not hold.
    #[error("this binary does not contain it")]
    NotEmbedded,
}

impl Source {
    /// The folder of a repository that a model of several files is chosen from: the empty text is all of it, None is for a
    /// lone file and every other source.
    #[must_use]
    pub fn repository_folder(&self) -> Option<&str> {
        match self {
            Self::HuggingFace { file: None, .. } => Some(""),
            Self::HuggingFace { file: Some(file), .. } => file.strip_suffix('/'),
            Self::Path(_) | Self::Embedded(_) | Self::Https(_) => None,
        }
    }

    /// The names that `embedded:` knows.
    pub const EMBEDDED: &'static [&'static str] = &["demo"];

    /// The side in pixels of the squares that an embedded model is at its best with; of all others nothing is known here.
    pub(crate) fn native_side(&self) -> Option<u32> {
        match self {
            // Trained on 128x128; its photograph of 192x128 comes out well too.
            Self::Embedded(name) if name == "demo" => Some(160),
            Self::Embedded(_) | Self::Path(_) | Self::HuggingFace { .. } | Self::Https(_) => None,
        }
    }

    /// Reads one `source` value; the text of the error says what is wrong and what would be right.
    pub(crate) fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix("embedded:") {
            return if Self::EMBEDDED.contains(&name) {
                Ok(Self::Embedded(name.to_owned()))
            } else {
                Err(format!(
                    "this binary contains no model `{name}`; write one of {}",
                    Self::EMBEDDED
                        .iter()
                        .map(|name| format!("`embedded:{name}`"))
                        .collect::<Vec<_>>()
                        .join(", ")
                ))
            };
        }
        if let Some(rest) = text.strip_prefix("hf:") {
            return parse_hugging_face(rest);
        }
        if text.starts_with("https://") {
            return if text.len() > "https://".len() && !text.contains(char::is_whitespace) {
                Ok(Self::Https(text.to_owned()))
            } else {
                Err("this is not a complete https address".to_owned())
            };
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(format!(
                "`{scheme}://` is not supported; use https://, hf:owner/repo, embedded:demo or a path"
            ));
        }
        if text.is_empty() || text.contains('\0') {
            return Err(
                "the source is empty or not a path; use hf:owner/repo, https://, embedded:demo or a path"
                    .to_owned(),
            );
        }
        Ok(Self::Path(folder.join(text)))
    }

    pub(crate) fn availability(&self) -> Availability {
        match self {
            Self::Path(path) => look_at(path),
            Self::Embedded(name) if Self::EMBEDDED.contains(&name.as_str()) => Availability::Available,
            Self::Embedded(_) => Availability::Unavailable(Unavailable::NotEmbedded),
            Self::HuggingFace { .. } | Self::Https(_) => {
                Availability::Unavailable(Unavailable::NotDownloaded)
            }
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Embedded(name) => write!(f, "embedded:{name}"),
            Self::HuggingFace { repo, revision, file } => {
                write!(f, "hf:{repo}")?;
                if let Some(revision) = revision {
                    write!(f, "@{revision}")?;
                }
                if let Some(file) = file {
                    write!(f, ":{file}")?;
                }
                Ok(())
            }
            Self::Https(address) => f.write_str(address),
        }
    }
}

fn look_at(path: &Path) -> Availability {
    let unreadable = || {
        Availability::Unavailable(Unavailable::Unreadable {
            path: path.to_owned(),
        })
    };
    match fs_err::metadata(path) {
        Ok(about) if about.is_dir() => match fs_err::read_dir(path) {
            Ok(mut files) => match files.next() {
                Some(Ok(_)) => Availability::Available,
                Some(Err(_)) => unreadable(),
                None => Availability::Unavailable(Unavailable::Empty {
                    path: path.to_owned(),
                }),
            },
            Err(_) => unreadable(),
        },
        Ok(_) => match open_regular(path) {
            Ok(_) => Availability::Available,
            Err(FileFault::NotRegular { .. }) => Availability::Unavailable(Unavailable::NotAFile {
                path: path.to_owned(),
            }),
            Err(FileFault::Io(_) | FileFault::TooLarge { .. }) => unreadable(),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Availability::Unavailable(Unavailable::Missing {
                path: path.to_owned(),
            })
        }
        Err(_) => unreadable(),
    }
}

/// `owner/repo[@revision][:file]`; owner and repository as the hub allows them.
fn parse_hugging_face(rest: &str) -> Result<Source, String> {
    let wrong = || {
        format!("`hf:{rest}` is not of the form hf:owner/repo[@revision][:file], where a folder ends in /")
    };
    let (rest_of_name, file) = match rest.split_once(':') {
        Some((name, file)) => (name, Some(file)),
        None => (rest, None),
    };
    let (repo, revision) = match rest_of_name.split_once('@') {
        Some((repo, revision)) => (repo, Some(revision)),
        None => (rest_of_name, None),
    };
    let part = |text: &str, more: &[char]| {
        !text.is_empty()
            && text != "."
            && text != ".."
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') || more.contains(&c))
    };
    let word = |text: &str| part(text, &[]);
    // People give files names with spaces and brackets.
    let file_name = |text: &str| part(text, &[' ', '+', '(', ')', '[', ']', '=', ',', '&']);
    let (owner, name) = repo.split_once('/').ok_or_else(wrong)?;
    let good = word(owner)
        && word(name)
        && revision.is_none_or(|r| r.split('/').all(word))
        && file.is_none_or(|f| f.strip_suffix('/').unwrap_or(f).split('/').all(file_name));
    if !good {
        return Err(wrong());
    }
    Ok(Source::HuggingFace {
        repo: repo.to_owned(),
        revision: revision.map(str::to_owned),
        file: file.map(str::to_owned),
    })
}
