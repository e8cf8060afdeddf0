//! IP-Adapter files in the layout of <https://github.com/tencent-ailab/IP-Adapter>: two groups of tensors, `image_proj` for what
//! turns a picture into tokens, and `ip_adapter` for each cross-attention's keys and values of them.
//!
//! Of which kind an adapter is, and how large its parts are, is found from the shapes of its tensors: no file says it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Device;

use crate::container::{StoredTensor, TensorFile, below};
use crate::identity::FileStamp;
use crate::{Component, Dtypes, FileIdentity, ReadProgress, WeightsError, kind};

/// The most tokens that a picture may become; those that are published have 4 or 16.
const MOST_TOKENS: usize = 256;
/// The most layers of a resampler; those that are published have 4.
const MOST_LAYERS: usize = 64;
/// The most numbers of any width.
const MOST_WIDTH: usize = 1 << 16;
/// How wide a head of a resampler is, in all that are published.
const HEAD_WIDTH: usize = 64;

/// What an adapter takes of the image encoder, and the sizes of what it makes tokens with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpAdapterKind {
    /// A matrix and a norm, from the image embedding.
    Projection {
        /// Width of the embedding.
        embedding: usize,
    },
    /// Learned queries that attend to the states before the encoder's last layer: the "plus" adapters.
    Resampler {
        /// Width of the states.
        states: usize,
        /// Width of the queries.
        hidden: usize,
        /// Heads of each attention.
        heads: usize,
        /// Number of layers.
        depth: usize,
        /// Width inside the feed-forward layers.
        inner: usize,
    },
}

/// What the shapes of an adapter's tensors say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpAdapterAbout {
    /// How it makes tokens.
    pub kind: IpAdapterKind,
    /// How many it makes of a picture.
    pub tokens: usize,
    /// Width of a token, which is that of the text states of its base.
    pub width: usize,
    /// The numbers of its layers, with the width of each.
    pub layers: BTreeMap<usize, usize>,
}

impl IpAdapterAbout {
    /// The base whose text states are as wide: `sd15`, `sd2` or `sdxl`.
    #[must_use]
    pub const fn base(&self) -> Option<&'static str> {
        match self.width {
            768 => Some("sd15"),
            1024 => Some("sd2"),
            2048 => Some("sdxl"),
            _ => None,
        }
    }
}

/// An opened adapter: names and shapes are known, and no number has been read.
#[derive(Debug)]
pub struct IpAdapterFile {
    path: PathBuf,
    file: TensorFile,
    about: IpAdapterAbout,
}

impl IpAdapterFile {
    /// Opens safetensors or a pickle of two dictionaries. What is read from disk is counted in `progress`.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, is something else, which is named, or an adapter of another kind.
    pub fn open(path: &Path, progress: &ReadProgress) -> Result<Self, WeightsError> {
        let file = TensorFile::open(path, progress)?;
        let about = about(&file)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            about,
        })
    }

    /// What it is.
    #[must_use]
    pub const fn about(&self) -> &IpAdapterAbout {
        &self.about
    }

    /// Which bytes it is made of.
    ///
    /// # Errors
    /// When the file is not there any more.
    pub fn identity(&self) -> Result<FileIdentity, WeightsError> {
        Ok(FileIdentity {
            contents: Vec::new(),
            large: vec![FileStamp::of(&self.path)?],
        })
    }

    /// Its tensors, under the names that the file has.
    ///
    /// # Errors
    /// As [`Component`]'s.
    pub fn into_component(self, dtypes: Dtypes, device: &Device) -> Result<Component, WeightsError> {
        Component::from_files(vec![self.file], dtypes, device)
    }
}

/// What the shapes say.
pub(crate) fn about(file: &TensorFile) -> Result<IpAdapterAbout, WeightsError> {
    let other = |found: &str| WeightsError::OtherKind {
        file: file.name().to_owned(),
        found: found.to_owned(),
        wanted: "an IP-Adapter with a projection or a resampler",
    };
    match kind::named(file) {
        Some(kind::IP_ADAPTER) => {}
        what => return Err(other(what.unwrap_or("a file without a tensor of an IP-Adapter"))),
    }
    if let Some(what) = unsupported(file) {
        return Err(other(what));
    }
    let shapes = Shapes(file);
    let is_resampler = file.tensors().contains_key("image_proj.latents");
    let (kind, tokens, width) = if is_resampler {
        resampler(&shapes)?
    } else {
        projection(&shapes)?
    };
    Ok(IpAdapterAbout {
        kind,
        tokens,
        width,
        layers: layers(&shapes, width)?,
    })
}

/// A kind of adapter that needs another encoder, or that is made for another thing.
fn unsupported(file: &TensorFile) -> Option<&'static str> {
    let tensors = file.tensors();
    let has = |name: &str| tensors.contains_key(name);
    let has_below = |prefix: &str| below(tensors, prefix).next().is_some();
    if has_below("image_proj.perceiver_resampler.")
        || has("image_proj.proj.2.weight") && has("image_proj.norm.weight")
        || tensors.keys().any(|name| name.contains(".to_k_lora."))
    {
        return Some("a FaceID adapter, which needs a face recogniser and is not supported,");
    }
    if has("image_proj.proj.3.weight") {
        return Some("a full-face adapter, which is not supported,");
    }
    (!has_below("image_proj.")).then_some("the layers of an IP-Adapter without its `image_proj`")
}

/// The shapes of a file's tensors, with an error for each that is missing or out of bounds.
struct Shapes<'a>(&'a TensorFile);

impl Shapes<'_> {
    fn of<const N: usize>(&self, name: &str) -> Result<[usize; N], WeightsError> {
        let stored: Option<&StoredTensor> = self.0.tensors().get(name);
        let Some(stored) = stored else {
            return Err(WeightsError::MissingTensor {
                file: self.0.name().to_owned(),
                tensor: name.to_owned(),
                expected: Vec::new(),
            });
        };
        let shape = <[usize; N]>::try_from(stored.shape.as_slice()).ok();
        let fits = |shape: &[usize; N]| shape.iter().all(|size| (1..=MOST_WIDTH).contains(size));
        shape
            .filter(fits)
            .ok_or_else(|| self.wrong(&format!("`{name}` has shape {:?}", stored.shape)))
    }

    fn wrong(&self, detail: &str) -> WeightsError {
        WeightsError::NotAModel {
            file: self.0.name().to_owned(),
            detail: format!("no IP-Adapter that can be used: {detail}"),
        }
    }

    fn tokens(&self, tokens: usize) -> Result<usize, WeightsError> {
        if (1..=MOST_TOKENS).contains(&tokens) {
            return Ok(tokens);
        }
        Err(self.wrong(&format!(
            "it makes {tokens} tokens of a picture, and at most {MOST_TOKENS} are taken"
        )))
    }
}

fn projection(shapes: &Shapes<'_>) -> Result<(IpAdapterKind, usize, usize), WeightsError> {
    let [outputs, embedding] = shapes.of("image_proj.proj.weight")?;
    let [width] = shapes.of("image_proj.norm.weight")?;
    if outputs % width != 0 {
        return Err(shapes.wrong(&format!(
            "`image_proj.proj.weight` makes {outputs} numbers, which are no tokens of {width}"
        )));
    }
    let kind = IpAdapterKind::Projection { embedding };
    Ok((kind, shapes.tokens(outputs / width)?, width))
}

fn resampler(shapes: &Shapes<'_>) -> Result<(IpAdapterKind, usize, usize), WeightsError> {
    let [_, tokens, hidden] = shapes.of("image_proj.latents")?;
    let [_, states] = shapes.of("image_proj.proj_in.weight")?;
    let [width, _] = shapes.of("image_proj.proj_out.weight")?;
    let [inner, _] = shapes.of("image_proj.layers.0.1.1.weight")?;
    let [heads_width, _] = shapes.of("image_proj.layers.0.0.to_q.weight")?;
    if heads_width % HEAD_WIDTH != 0 {
        return Err(shapes.wrong(&format!(
            "`image_proj.layers.0.0.to_q.weight` has {heads_width} outputs, which are no heads of {HEAD_WIDTH}"
        )));
    }
    let tensors = shapes.0.tensors();
    let has_layer = |i: &usize| {
        below(tensors, &format!("image_proj.layers.{i}."))
            .next()
            .is_some()
    };
    let depth = (0..=MOST_LAYERS).take_while(has_layer).count();
    if depth > MOST_LAYERS {
        return Err(shapes.wrong(&format!("its resampler has more than {MOST_LAYERS} layers")));
    }
    let kind = IpAdapterKind::Resampler {
        states,
        hidden,
        heads: heads_width / HEAD_WIDTH,
        depth,
        inner,
    };
    Ok((kind, shapes.tokens(tokens)?, width))
}

/// Number and width of each layer.
fn layers(shapes: &Shapes<'_>, width: usize) -> Result<BTreeMap<usize, usize>, WeightsError> {
    let mut layers = BTreeMap::new();
    for (rest, _) in below(shapes.0.tensors(), "ip_adapter.") {
        let number = rest.strip_suffix(".to_k_ip.weight");
        let Some(number) = number.and_then(|number| number.parse().ok()) else {
            continue;
        };
        let name = format!("ip_adapter.{rest}");
        let [outputs, inputs] = shapes.of(&name)?;
        if inputs != width {
            return Err(shapes.wrong(&format!(
                "`{name}` takes tokens of {inputs} numbers, and `image_proj` makes tokens of {width}"
            )));
        }
        layers.insert(number, outputs);
    }
    if layers.is_empty() {
        return Err(shapes.wrong("it has no `ip_adapter.N.to_k_ip.weight`"));
    }
    Ok(layers)
}

#[cfg(test)]
mod tests;
