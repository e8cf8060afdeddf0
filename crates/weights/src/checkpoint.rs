//! A checkpoint: a folder in the diffusers layout, on disk or in memory, or a single file that answers like one.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Component as PathPart, Path, PathBuf};

use candle_core::Device;
use pentimento_types::{WeightsCopy, read_regular, weights_copies};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::container::TensorFile;
use crate::identity::FileStamp;
use crate::lone_vae::{self, LoneVae};
use crate::original::SingleFile;
use crate::{Component, Dtypes, FileIdentity, ReadProgress, WeightsError};

/// A file with the weights of a component.
#[derive(Clone, Debug)]
enum Stored {
    /// All of them.
    Whole(String),
    /// The names of the files that they are in.
    Index(String),
}

/// The most bytes of a file that is read whole. The largest that a checkpoint has is a vocabulary of about one MiB.
const SMALL_FILE_BYTES: u64 = 16 << 20;

type ReadFile = Box<dyn Fn(&str) -> Option<Vec<u8>> + Send + Sync>;

/// One model: a folder of configurations, tokenizer files and weights.
pub struct Checkpoint {
    name: String,
    files: Files,
    /// The copy of the weights that is taken where there are several.
    variant: Option<String>,
    progress: ReadProgress,
}

enum Files {
    Folder(Folder),
    Memory(ReadFile),
    /// Configurations and tokenizer in memory, weights drawn from the seed.
    Seeded(BTreeMap<String, Vec<u8>>, u64),
    /// Everything in one file, and what no such file holds.
    Single(SingleFile, ReadFile),
    /// A VAE alone, in a file or two.
    Vae(LoneVae),
}

/// A folder on disk.
struct Folder {
    path: PathBuf,
    /// The beginning of paths that the folder stands for itself; mostly empty.
    stands_for: &'static str,
}

impl Folder {
    /// Where a path inside a model is.
    fn join(&self, path: &str) -> PathBuf {
        self.path.join(path.strip_prefix(self.stands_for).unwrap_or(path))
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Checkpoint {
    /// A model folder on disk. Nothing in it is read yet.
    ///
    /// # Errors
    /// When `folder` is not a folder.
    pub fn open(folder: &Path) -> Result<Self, WeightsError> {
        let name = folder.display().to_string();
        if !folder.is_dir() {
            return Err(WeightsError::NotAFolder { folder: name });
        }
        Ok(Self {
            name,
            files: Files::Folder(Folder {
                path: folder.to_owned(),
                stands_for: "",
            }),
            variant: None,
            progress: ReadProgress::default(),
        })
    }

    /// A VAE alone, as the part `vae` of a checkpoint that has nothing else: a folder as diffusers writes it, with its
    /// configuration in it or in a folder `vae` inside, one file in diffusers' or the original layout, or one or both files
    /// of a tiny autoencoder. Where the files have no configuration it is found from the tensors, without `scaling_factor`,
    /// which is its base's.
    ///
    /// # Errors
    /// When a folder has none of these. A file is opened when something of it is asked for.
    pub fn vae(path: &Path) -> Result<Self, WeightsError> {
        let name = path.display().to_string();
        let files = if !path.is_dir() {
            Files::Vae(LoneVae::at(path))
        } else if path.join("vae/config.json").is_file() {
            return Self::open(path);
        } else if path.join("config.json").is_file() {
            Files::Folder(Folder {
                path: path.to_owned(),
                stands_for: "vae/",
            })
        } else if let Some(tiny) = LoneVae::in_folder(path) {
            Files::Vae(tiny)
        } else {
            return Err(WeightsError::Missing {
                model: name,
                wanted: "`config.json` of a VAE".to_owned(),
                hint: ", and no files of a tiny autoencoder".to_owned(),
            });
        };
        Ok(Self {
            name,
            files,
            variant: None,
            progress: ReadProgress::default(),
        })
    }

    /// CLIP's image encoder alone, as the part `image_encoder` of a checkpoint that has nothing else: a folder with its
    /// configuration and weights in it, or in a folder `image_encoder` inside.
    ///
    /// # Errors
    /// When a folder has neither.
    pub fn image_encoder(folder: &Path) -> Result<Self, WeightsError> {
        Self::part_alone(folder, "image_encoder/", "an image encoder")
    }

    /// The reference safety checker alone, as the part `safety_checker` of a checkpoint that has nothing else: a folder with
    /// its configuration and weights in it, or in a folder `safety_checker` inside.
    ///
    /// # Errors
    /// When a folder has neither.
    pub fn safety_checker(folder: &Path) -> Result<Self, WeightsError> {
        Self::part_alone(folder, "safety_checker/", "a safety checker")
    }

    /// A language model alone that goes on with prompts, as the part `prompt_enhancer` of a checkpoint that has nothing else: a
    /// folder with its configuration, vocabulary and weights in it, or in a folder `prompt_enhancer` inside.
    ///
    /// # Errors
    /// When a folder has neither.
    pub fn prompt_enhancer(folder: &Path) -> Result<Self, WeightsError> {
        Self::part_alone(folder, "prompt_enhancer/", "a prompt enhancer")
    }

    /// `part` ends in a slash.
    fn part_alone(folder: &Path, part: &'static str, what: &str) -> Result<Self, WeightsError> {
        let name = folder.display().to_string();
        if folder.join(part).join("config.json").is_file() {
            return Self::open(folder);
        }
        if !folder.join("config.json").is_file() {
            return Err(WeightsError::Missing {
                model: name,
                wanted: format!("`config.json` of {what}"),
                hint: String::new(),
            });
        }
        Ok(Self {
            name,
            files: Files::Folder(Folder {
                path: folder.to_owned(),
                stands_for: part,
            }),
            variant: None,
            progress: ReadProgress::default(),
        })
    }

    /// A checkpoint in one file of the original layout (`.safetensors`, `.ckpt`). What such a file does not hold, the
    /// tokenizer's files, comes from `read`. The file is opened when something of it is asked for; whether it is a checkpoint
    /// of Stable Diffusion 1.x, 2.x or XL, or what it seems to be instead, is said then.
    pub fn single_file(path: &Path, read: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self {
            name: path.display().to_string(),
            files: Files::Single(SingleFile::at(path), Box::new(read)),
            variant: None,
            progress: ReadProgress::default(),
        }
    }

    /// A model whose files come from `read`: path inside the folder, with `/` between parts, to bytes.
    pub fn in_memory(
        name: impl Into<String>,
        read: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            files: Files::Memory(Box::new(read)),
            variant: None,
            progress: ReadProgress::default(),
        }
    }

    /// A model with the given configurations and tokenizer files whose weights are drawn from `seed`, as
    /// [`Component::seeded`] does: for tests and benches.
    pub fn seeded_random(
        name: impl Into<String>,
        files: impl IntoIterator<Item = (String, Vec<u8>)>,
        seed: u64,
    ) -> Self {
        Self {
            name: name.into(),
            files: Files::Seeded(files.into_iter().collect(), seed),
            variant: None,
            progress: ReadProgress::default(),
        }
    }

    /// Counts what is read from disk in `progress`, for somebody who watches from beside.
    #[must_use]
    pub fn counting(self, progress: &ReadProgress) -> Self {
        Self {
            progress: progress.clone(),
            ..self
        }
    }

    /// Takes the copies of this variant (`fp16` in `model.fp16.safetensors`) where a folder has them beside others.
    #[must_use]
    pub fn preferring(self, variant: Option<&str>) -> Self {
        Self {
            variant: variant.map(str::to_owned),
            ..self
        }
    }

    /// The folder or the given name, for messages and logs.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the file is there.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        is_inside(path)
            && match &self.files {
                Files::Folder(folder) => folder.join(path).is_file(),
                Files::Memory(read) => read(path).is_some(),
                Files::Seeded(files, _) => files.contains_key(path),
                Files::Single(file, read) => {
                    file.has(path, &self.progress) || read(&shared_tokenizer(path)).is_some()
                }
                Files::Vae(_) => path == lone_vae::CONFIG,
            }
    }

    /// All bytes of a small file.
    ///
    /// # Errors
    /// When it is missing, unreadable, not a regular file or larger than 16 MiB, or `path` would leave the folder.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, WeightsError> {
        if !is_inside(path) {
            return Err(WeightsError::ForeignPath {
                model: self.name.clone(),
                path: path.to_owned(),
            });
        }
        let found = match &self.files {
            Files::Folder(folder) => match read_regular(&folder.join(path), SMALL_FILE_BYTES) {
                Ok(bytes) => {
                    self.progress.add(bytes.len());
                    Some(bytes)
                }
                Err(fault) if fault.is_missing() => None,
                Err(fault) => return Err(WeightsError::file(&self.file_name(path), fault)),
            },
            Files::Memory(read) => read(path),
            Files::Seeded(files, _) => files.get(path).cloned(),
            Files::Single(file, read) => match file.read(path, &self.progress)? {
                Some(config) => Some(config),
                None => read(&shared_tokenizer(path)),
            },
            Files::Vae(vae) => vae.read(path, &self.progress)?,
        };
        found.ok_or_else(|| self.missing(format!("`{path}`"), String::new()))
    }

    /// A JSON file as `T`.
    ///
    /// # Errors
    /// As [`Self::read`]; when the content is not JSON or `T` refuses it.
    pub fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, WeightsError> {
        let bytes = self.read(path)?;
        serde_json::from_slice(&bytes).map_err(|source| WeightsError::Json {
            file: self.file_name(path),
            source,
        })
    }

    /// The weights of the component in folder `name` (`unet`, `vae`, `text_encoder`), whole or sharded, safetensors or
    /// pickles, in the given dtypes on `device`.
    ///
    /// # Errors
    /// When there are none, or when a file is no weights file.
    pub fn component(&self, name: &str, dtypes: Dtypes, device: &Device) -> Result<Component, WeightsError> {
        if let Files::Seeded(_, seed) = &self.files {
            return Ok(Component::seeded(*seed, dtypes, device));
        }
        if let Files::Single(file, _) = &self.files {
            return Component::from_files(vec![file.component(name, &self.progress)?], dtypes, device);
        }
        if let Files::Vae(vae) = &self.files {
            return Component::from_files(vae.files(&self.progress)?, dtypes, device);
        }
        for stored in self.places(name) {
            match stored {
                Stored::Whole(file) => {
                    if let Some(file) = self.tensor_file(&file)? {
                        return Component::from_files(vec![file], dtypes, device);
                    }
                }
                Stored::Index(index) => {
                    if self.has(&index) {
                        return Component::from_files(self.shards(name, &index)?, dtypes, device);
                    }
                }
            }
        }
        Err(self.no_weights(name))
    }

    /// Where the weights of a component may be, the preferred place first.
    fn places(&self, component: &str) -> impl Iterator<Item = Stored> {
        let copies = weights_copies(self.variant.as_deref()).into_iter();
        copies.flat_map(move |WeightsCopy { whole, indices, .. }| {
            let [one, other] = indices.map(|file| Stored::Index(format!("{component}/{file}")));
            [Stored::Whole(format!("{component}/{whole}")), one, other]
        })
    }

    fn no_weights(&self, name: &str) -> WeightsError {
        self.missing(
            format!("weights under `{name}/`"),
            "; they are looked for as `diffusion_pytorch_model` or `model`, `.safetensors` or `.bin`"
                .to_owned(),
        )
    }

    /// Which bytes the component `name` is made of: its small files at `small`, and its weights.
    ///
    /// # Errors
    /// When a file cannot be looked at, or there are no weights.
    pub fn component_identity(&self, name: &str, small: &[&str]) -> Result<FileIdentity, WeightsError> {
        let weights = match &self.files {
            Files::Folder(_) => self.weights_files(name)?,
            Files::Memory(_) | Files::Seeded(..) => Vec::new(),
            Files::Vae(vae) => return vae.identity(&self.progress),
            Files::Single(file, _) => {
                return Ok(FileIdentity {
                    contents: self.contents(small)?,
                    large: vec![file.stamp(name, &self.progress)?],
                });
            }
        };
        let weights: Vec<&str> = weights.iter().map(String::as_str).collect();
        self.identity(name, small, &weights)
    }

    /// Which bytes the part `name` is made of: small files are compared by what is in them, large ones by where they are,
    /// how long, and when they were changed. A file that is not there is no part of it.
    ///
    /// # Errors
    /// When a file cannot be looked at.
    pub fn identity(&self, name: &str, small: &[&str], large: &[&str]) -> Result<FileIdentity, WeightsError> {
        let (model, part) = (self.name.clone(), name.to_owned());
        let folder = match &self.files {
            Files::Folder(folder) => folder,
            Files::Memory(_) => return Ok(FileIdentity::fixed(FileStamp::InMemory { model, part })),
            Files::Seeded(_, seed) => {
                let seed = *seed;
                return Ok(FileIdentity::fixed(FileStamp::Seeded { model, part, seed }));
            }
            // What the file does not hold is the same for all such files, but for what stands in a small file.
            Files::Single(..) | Files::Vae(_) => {
                let model = "single file".to_owned();
                return Ok(FileIdentity {
                    contents: self.contents(small)?,
                    large: vec![FileStamp::InMemory { model, part }],
                });
            }
        };
        let stamps = large.iter().filter(|path| self.has(path));
        let stamps = stamps.map(|path| FileStamp::of(&folder.join(path)));
        Ok(FileIdentity {
            contents: self.contents(small)?,
            large: stamps.collect::<Result<_, _>>()?,
        })
    }

    /// The small files that are there, with what is in them.
    fn contents(&self, small: &[&str]) -> Result<Vec<(String, Vec<u8>)>, WeightsError> {
        let there = small.iter().filter(|path| self.has(path));
        there
            .map(|path| Ok(((*path).to_owned(), self.read(path)?)))
            .collect()
    }

    /// The files of a folder that [`Self::component`] would read.
    fn weights_files(&self, name: &str) -> Result<Vec<String>, WeightsError> {
        let is_there = |stored: &Stored| match stored {
            Stored::Whole(file) | Stored::Index(file) => self.has(file),
        };
        match self.places(name).find(is_there) {
            Some(Stored::Whole(file)) => Ok(vec![file]),
            Some(Stored::Index(index)) => {
                let shards: BTreeSet<String> = self.shard_index(&index)?.into_values().collect();
                let shards = shards.iter().map(|file| format!("{name}/{file}"));
                Ok(shards.chain([index]).collect())
            }
            None => Err(self.no_weights(name)),
        }
    }

    fn shards(&self, name: &str, index: &str) -> Result<Vec<TensorFile>, WeightsError> {
        let weight_map = self.shard_index(index)?;
        let mut shards: BTreeMap<&String, TensorFile> = BTreeMap::new();
        for (tensor, file) in &weight_map {
            if !shards.contains_key(file) {
                let path = format!("{name}/{file}");
                let shard = self
                    .tensor_file(&path)?
                    .ok_or_else(|| self.missing(format!("`{path}`"), format!(", which `{index}` names")))?;
                shards.insert(file, shard);
            }
            if !shards[file].tensors().contains_key(tensor) {
                return Err(WeightsError::Index {
                    file: self.file_name(index),
                    detail: format!("tensor `{tensor}` is not in `{file}`"),
                });
            }
        }
        Ok(shards.into_values().collect())
    }

    /// Tensor to file.
    fn shard_index(&self, index: &str) -> Result<BTreeMap<String, String>, WeightsError> {
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let Index { weight_map } = self.json(index)?;
        Ok(weight_map)
    }

    fn tensor_file(&self, path: &str) -> Result<Option<TensorFile>, WeightsError> {
        match &self.files {
            Files::Folder(folder) if is_inside(path) => {
                let path = folder.join(path);
                if path.try_exists().unwrap_or(true) {
                    TensorFile::open(&path, &self.progress).map(Some)
                } else {
                    Ok(None)
                }
            }
            Files::Folder(_) | Files::Memory(_) | Files::Seeded(..) | Files::Single(..) | Files::Vae(_) => {
                match self.read(path) {
                    Ok(bytes) => TensorFile::from_bytes(self.file_name(path), bytes).map(Some),
                    Err(WeightsError::Missing { .. }) => Ok(None),
                    Err(other) => Err(other),
                }
            }
        }
    }

    fn file_name(&self, path: &str) -> String {
        format!("{}/{path}", self.name)
    }

    fn missing(&self, wanted: String, hint: String) -> WeightsError {
        WeightsError::Missing {
            model: self.name.clone(),
            wanted,
            hint,
        }
    }
}

/// Both tokenizers of SDXL have one vocabulary.
fn shared_tokenizer(path: &str) -> Cow<'_, str> {
    match path.strip_prefix("tokenizer_2/") {
        Some(file) => Cow::Owned(format!("tokenizer/{file}")),
        None => Cow::Borrowed(path),
    }
}

/// A shard index is data from outside, so the files it names are checked like any path that is not ours.
fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.contains(['\\', '\0'])
        && Path::new(path)
            .components()
            .all(|part| matches!(part, PathPart::Normal(_)))
}

#[cfg(test)]
mod tests;
