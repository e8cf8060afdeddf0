//! A VAE in a file of its own, or a tiny autoencoder in two: it answers for the folder `vae` of a checkpoint.
//!
//! Which network it is, is found from its tensors: the original layout of a large one (with the prefix that it has in a
//! checkpoint, or without), diffusers' names, and TAESD's numbers, whose encoder and decoder are files beside each other.
//! None of these files says by which factor a latent is scaled; that is left out of the configuration.

mod kl;
mod tiny;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;

use crate::container::{StoredTensor, TensorFile};
use crate::identity::FileStamp;
use crate::original::{self, Renamed};
use crate::{FileIdentity, ReadProgress, WeightsError};

/// The only small file of a VAE.
pub(crate) const CONFIG: &str = "vae/config.json";
/// As the files of a tiny autoencoder are published.
const ENDINGS: [&str; 4] = ["safetensors", "pth", "pt", "bin"];

/// One file, or the first of two, which is opened when something of it is asked for.
#[derive(Debug)]
pub(crate) struct LoneVae {
    path: PathBuf,
    opened: OnceLock<Opened>,
}

/// What was found.
#[derive(Debug)]
struct Opened {
    config: Value,
    /// Each with its tensors under the names that diffusers gives them.
    files: Vec<(PathBuf, TensorFile)>,
}

/// What the tensors of a file are.
enum Layout {
    /// All that is needed, named as in diffusers.
    Whole(Value, Renamed),
    /// One of the two files of a tiny autoencoder.
    Half(Half),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    Encoder,
    Decoder,
}

impl Half {
    const fn name(self) -> &'static str {
        match self {
            Self::Encoder => "encoder",
            Self::Decoder => "decoder",
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::Encoder => Self::Decoder,
            Self::Decoder => Self::Encoder,
        }
    }
}

impl LoneVae {
    pub(crate) fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            opened: OnceLock::new(),
        }
    }

    /// The file to begin with in a folder that has the two files of a tiny autoencoder and no configuration.
    pub(crate) fn in_folder(folder: &Path) -> Option<Self> {
        let mut names: Vec<String> = fs_err::read_dir(folder)
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        let is_encoder = |name: &&String| {
            let ending = name.rsplit_once('.').map(|(_, ending)| ending);
            name.contains("encoder") && ending.is_some_and(|ending| ENDINGS.contains(&ending))
        };
        let first = names.iter().find(is_encoder)?;
        Some(Self::at(&folder.join(first)))
    }

    /// `vae/config.json`; None for other files.
    ///
    /// # Errors
    /// When a file cannot be read or is something else.
    pub(crate) fn read(&self, path: &str, progress: &ReadProgress) -> Result<Option<Vec<u8>>, WeightsError> {
        if path != CONFIG {
            return Ok(None);
        }
        let config = self.opened(progress)?.config.to_string();
        Ok(Some(config.into_bytes()))
    }

    /// The weights.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn files(&self, progress: &ReadProgress) -> Result<Vec<TensorFile>, WeightsError> {
        let files = self.opened(progress)?.files.iter();
        Ok(files
            .map(|(_, file)| file.with_tensors(file.tensors().clone(), progress))
            .collect())
    }

    /// Which bytes it is made of.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn identity(&self, progress: &ReadProgress) -> Result<FileIdentity, WeightsError> {
        let opened = self.opened(progress)?;
        let stamps = opened.files.iter().map(|(path, file)| {
            let sizes = file.tensors().values().map(StoredTensor::size_bytes);
            Ok(FileStamp::PartOfFile {
                file: Box::new(FileStamp::of(path)?),
                part: "vae".to_owned(),
                size_bytes: sizes.sum(),
            })
        });
        Ok(FileIdentity {
            contents: vec![(CONFIG.to_owned(), opened.config.to_string().into_bytes())],
            large: stamps.collect::<Result<_, WeightsError>>()?,
        })
    }

    fn opened(&self, progress: &ReadProgress) -> Result<&Opened, WeightsError> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let opened = open(&self.path, progress)?;
        Ok(self.opened.get_or_init(|| opened))
    }
}

fn open(path: &Path, progress: &ReadProgress) -> Result<Opened, WeightsError> {
    let file = TensorFile::open(path, progress)?;
    match layout(&file)? {
        Layout::Whole(config, renamed) => Ok(Opened {
            config,
            files: vec![(path.to_owned(), file.with_tensors(renamed, progress))],
        }),
        Layout::Half(half) => {
            let (other_path, other) = other_half(path, half, progress)?;
            let renamed = [
                tiny::renamed(file.tensors(), half.name()),
                tiny::renamed(other.tensors(), half.other().name()),
            ];
            let all: Renamed = renamed
                .iter()
                .flatten()
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect();
            let config = tiny::config(&all).ok_or_else(|| not_a_vae(&file))?;
            let [first, second] = renamed;
            Ok(Opened {
                config,
                files: vec![
                    (path.to_owned(), file.with_tensors(first, progress)),
                    (other_path, other.with_tensors(second, progress)),
                ],
            })
        }
    }
}

fn layout(file: &TensorFile) -> Result<Layout, WeightsError> {
    let tensors = file.tensors();
    if let Some(half) = tiny::half(tensors) {
        return Ok(Layout::Half(half));
    }
    let whole = original::lone_vae(tensors)
        .or_else(|| {
            let config = kl::config(tensors)?;
            Some((config, tensors.clone()))
        })
        .or_else(|| {
            let renamed = tiny::joined(tensors)?;
            Some((tiny::config(&renamed)?, renamed))
        });
    whole
        .map(|(config, renamed)| Layout::Whole(config, renamed))
        .ok_or_else(|| not_a_vae(file))
}

fn not_a_vae(file: &TensorFile) -> WeightsError {
    WeightsError::NotAModel {
        file: file.name().to_owned(),
        detail: "its tensors are not those of a VAE".to_owned(),
    }
}

/// The file beside `path` that has the other half, under a name that differs in `encoder` and `decoder` only.
fn other_half(
    path: &Path,
    half: Half,
    progress: &ReadProgress,
) -> Result<(PathBuf, TensorFile), WeightsError> {
    let name = path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    let stem = name.replace(half.name(), half.other().name());
    let mut candidates = ENDINGS
        .iter()
        .map(|ending| path.with_file_name(format!("{stem}.{ending}")));
    let found = candidates.find(|candidate| stem != name && candidate.is_file());
    let Some(found) = found else {
        return Err(WeightsError::Missing {
            model: path.display().to_string(),
            wanted: half.other().name().to_owned(),
            hint: format!(
                " beside it; of a tiny autoencoder's {}, the other file is looked for as `{stem}` with any ending",
                half.name()
            ),
        });
    };
    let file = TensorFile::open(&found, progress)?;
    if tiny::half(file.tensors()) == Some(half.other()) {
        Ok((found, file))
    } else {
        Err(not_a_vae(&file))
    }
}

/// How many blocks `<list>.<0, 1, 2 …>.` there are.
fn count(tensors: &BTreeMap<String, StoredTensor>, list: &str) -> usize {
    let has = |number: usize| {
        let prefix = format!("{list}.{number}.");
        let from = tensors.range(prefix.clone()..).next();
        from.is_some_and(|(name, _)| name.starts_with(&prefix))
    };
    (0..).take_while(|number| has(*number)).count()
}

#[cfg(test)]
mod tests;
