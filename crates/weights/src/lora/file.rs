//! An opened LoRA file: its modules by name and shape. Numbers are read when it is laid beside a checkpoint.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use pentimento_types::read_regular;

use super::about::{self, LoraAbout};
use super::change::{BiasChange, LayerChange};
use super::form::{Form, Matrix, Side};
use super::layers::Layers;
use super::module::{Module, Parts, Place, assemble, count};
use super::names::{Part, address, split};
use super::peft::{self, PeftConfig, PeftConfigs};
use super::{FitLayer, LoraFit, LoraNetwork, LoraTarget, ResolvedLora};
use crate::container::{Dtypes, ReadError, StoredTensor, TensorFile};
use crate::embedding_file::{self, Embedding, Places};
use crate::identity::FileStamp;
use crate::{FileIdentity, ReadProgress, WeightsError, kind};

/// The names of the weights in a folder that PEFT or diffusers wrote.
const IN_FOLDER: [&str; 4] = [
    "adapter_model.safetensors",
    "adapter_model.bin",
    "pytorch_lora_weights.safetensors",
    "pytorch_lora_weights.bin",
];
/// PEFT's configuration beside them.
const CONFIG: &str = "adapter_config.json";
/// The most bytes of the configuration.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// A LoRA file of any format, opened: names, shapes and metadata are known, and no number has been read.
#[derive(Debug)]
pub struct LoraFile {
    path: PathBuf,
    file: TensorFile,
    /// By the name that the file has for a module.
    modules: BTreeMap<String, Parts>,
    /// Tensors that are no part of a module.
    strangers: Vec<String>,
    embeddings: Places,
    configs: PeftConfigs,
}

impl LoraFile {
    /// Opens safetensors, a pickle, or a folder with `adapter_model.*` and `adapter_config.json` as PEFT writes it, or with
    /// diffusers' `pytorch_lora_weights.*`.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or is something else, which is named.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        Self::open_counting(path, &ReadProgress::default())
    }

    /// As [`Self::open`], and what is read from disk is counted in `progress`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_counting(path: &Path, progress: &ReadProgress) -> Result<Self, WeightsError> {
        if !path.is_dir() {
            let file = TensorFile::open(path, progress)?;
            return Self::of(path.to_owned(), file, None);
        }
        let weights = IN_FOLDER
            .iter()
            .map(|name| path.join(name))
            .find(|path| path.exists());
        let weights = weights.ok_or_else(|| WeightsError::Missing {
            model: path.display().to_string(),
            wanted: "LoRA".to_owned(),
            hint: format!("; it is looked for as `{}`", IN_FOLDER.join("`, `")),
        })?;
        let config = match read_regular(&path.join(CONFIG), MAX_CONFIG_BYTES) {
            Ok(bytes) => Some(bytes),
            Err(fault) if fault.is_missing() => None,
            Err(fault) => {
                return Err(WeightsError::file(
                    &path.join(CONFIG).display().to_string(),
                    fault,
                ));
            }
        };
        let file = TensorFile::open(&weights, progress)?;
        Self::of(weights, file, config.as_deref())
    }

    /// Takes an opened file and the bytes of its configuration.
    pub(crate) fn of(path: PathBuf, file: TensorFile, config: Option<&[u8]>) -> Result<Self, WeightsError> {
        let configs = configs(&file, config)?;
        let mut modules: BTreeMap<String, Parts> = BTreeMap::new();
        let (mut strangers, mut embeddings) = (Vec::new(), Places::new());
        for (key, stored) in file.tensors() {
            if let Some((token, slot)) = embedding_file::bundled(key) {
                embeddings
                    .entry(Some(token))
                    .or_default()
                    .push((slot, key.clone()));
            } else if let Some((module, part)) = split(key)
                && let parts = modules.entry(module).or_default()
                && !parts.contains_key(&part)
            {
                let (key, shape) = (key.clone(), stored.shape.clone());
                parts.insert(part, Place { key, shape });
            } else {
                strangers.push(key.clone());
            }
        }
        let found = Self {
            path,
            file,
            modules,
            strangers,
            embeddings,
            configs,
        };
        match kind::instead_of_lora(&found.file, found.has_module()) {
            None => Ok(found),
            Some(what) => Err(WeightsError::OtherKind {
                file: found.file.name().to_owned(),
                found: what.to_owned(),
                wanted: "a LoRA",
            }),
        }
    }

    /// Whether any tensor is one that LoRA files alone have: a plain weight or bias is none.
    fn has_module(&self) -> bool {
        let only_here = |part: &Part| !matches!(part, Part::Weight | Part::UpBias | Part::Alpha);
        self.modules.values().any(|parts| parts.keys().any(only_here))
    }

    /// What the file says of itself.
    #[must_use]
    pub fn about(&self) -> LoraAbout {
        about::of(&self.file, &self.modules, &self.configs, &self.embeddings)
    }

    /// The embeddings that it bundles, whatever the checkpoint.
    ///
    /// # Errors
    /// When one has a shape that no embedding has, or the file can no longer be read.
    pub fn embeddings(&self) -> Result<Vec<Embedding>, WeightsError> {
        let embeddings = embedding_file::read(&self.file, self.embeddings.clone())?;
        self.file.check_unchanged()?;
        Ok(embeddings)
    }

    /// Which bytes it is made of, with its configuration.
    ///
    /// # Errors
    /// When the file can no longer be looked at.
    pub fn identity(&self) -> Result<FileIdentity, WeightsError> {
        let config = self.path.parent().map(|folder| folder.join(CONFIG));
        let beside = config.filter(|_| !self.configs.is_empty());
        let bytes = beside.and_then(|config| read_regular(&config, MAX_CONFIG_BYTES).ok());
        Ok(FileIdentity {
            contents: bytes
                .map(|bytes| (CONFIG.to_owned(), bytes))
                .into_iter()
                .collect(),
            large: vec![FileStamp::of(&self.path)?],
        })
    }

    /// About what [`Self::resolve`] makes in memory: all tensors in f32.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let numbers = |stored: &StoredTensor| stored.shape.iter().map(|size| *size as u64).product::<u64>();
        let numbers: u64 = self.file.tensors().values().map(numbers).sum();
        numbers.saturating_mul(size_of::<f32>() as u64)
    }

    /// Gives every tensor to a layer of a checkpoint, or lists it. Networks that the checkpoint lacks are not in `targets`.
    ///
    /// # Errors
    /// [`WeightsError::OtherBase`] when no module fits, or one is for a layer of another size; what [`Self::open`] may say of
    /// tensors that are read only now.
    pub fn resolve(&self, targets: &[(LoraNetwork, Vec<LoraTarget>)]) -> Result<ResolvedLora, WeightsError> {
        self.resolve_where(targets, |_| true)
    }

    /// As [`Self::resolve`], with the changes of one network alone: no number of another one's is read. `targets` are those of
    /// all networks nevertheless, since which layer a module is for depends on what the others have.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn resolve_one(
        &self,
        targets: &[(LoraNetwork, Vec<LoraTarget>)],
        network: LoraNetwork,
    ) -> Result<ResolvedLora, WeightsError> {
        self.resolve_where(targets, |of| of == network)
    }

    fn resolve_where(
        &self,
        targets: &[(LoraNetwork, Vec<LoraTarget>)],
        is_wanted: impl Fn(LoraNetwork) -> bool,
    ) -> Result<ResolvedLora, WeightsError> {
        let mut changes = Vec::new();
        let unmatched = self.lay(targets, &mut |name, module, (network, target), placed| {
            if is_wanted(network) {
                let change = self.read_change(name, module, target, placed)?;
                changes.push((network, target.name.clone(), change));
            }
            Ok(())
        })?;
        self.file.check_unchanged()?;
        Ok(ResolvedLora { changes, unmatched })
    }

    /// What [`Self::resolve`] would give, told from names and shapes alone: no number is read.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn fit(&self, targets: &[(LoraNetwork, Vec<LoraTarget>)]) -> Result<LoraFit, WeightsError> {
        let mut layers = Vec::new();
        let unmatched = self.lay(targets, &mut |_, module, (network, target), placed| {
            let is_matrix = matches!(*target.weight_dims, [_, _] | [_, _, 1, 1]);
            let is_plain = is_matrix && module.magnitude.is_none() && !placed.has_bias;
            layers.push(FitLayer {
                network,
                layer: target.name.clone(),
                weight_dims: target.weight_dims.clone(),
                branch_rank: match &module.form {
                    Form::Sum(Matrix::Product(_, down)) if is_plain => down.shape.first().copied(),
                    Form::Sum(_)
                    | Form::Hadamard(..)
                    | Form::Kronecker(..)
                    | Form::Scaling { .. }
                    | Form::Nothing => None,
                },
            });
            Ok(())
        })?;
        Ok(LoraFit { layers, unmatched })
    }

    /// Calls `take` with every module and the layer that it is for, and lists the tensors that no layer has a use for.
    fn lay<'a>(
        &self,
        targets: &'a [(LoraNetwork, Vec<LoraTarget>)],
        take: &mut Take<'a, '_>,
    ) -> Result<Vec<String>, WeightsError> {
        let layers = Layers::of(targets);
        let (mut unmatched, mut taken) = (self.strangers.clone(), 0);
        let mut misfits = Vec::new();
        for (name, parts) in &self.modules {
            let keys = || parts.values().map(|place| place.key.clone());
            let place = address(name);
            let meant = layers.meant(name, &place);
            let Some(module) = assemble(parts.clone()).filter(|_| !meant.is_empty()) else {
                unmatched.extend(keys());
                continue;
            };
            let config = self.config_of(name);
            let placed = meant.iter().find_map(|(network, target)| {
                Some((*network, *target, self.place(&module, target, config)?))
            });
            let Some((network, target, placed)) = placed else {
                let (_, target) = meant[0];
                // A first convolution of another number of channels is another variant of the same base.
                if target.name != "conv_in" {
                    misfits.push(misfit(name, &module, target));
                }
                unmatched.extend(keys());
                continue;
            };
            unmatched.extend(module.idle.iter().cloned());
            unmatched.extend(placed.left_over.iter().cloned());
            take(name, module, (network, target), placed)?;
            taken += 1;
        }
        self.check_patterns(&mut unmatched);
        if !misfits.is_empty() || taken == 0 && self.has_module() {
            return Err(self.other_base(taken, &misfits));
        }
        unmatched.sort();
        Ok(unmatched)
    }

    /// The configuration of a module, which is in a network's part of the metadata or is for all.
    fn config_of(&self, module: &str) -> Option<&PeftConfig> {
        peft::of_module(&self.configs, module)
    }

    /// How a module lies in a layer; None where it does not fit.
    fn place(&self, module: &Module, target: &LoraTarget, config: Option<&PeftConfig>) -> Option<Placed> {
        let (&outputs, rest) = target.weight_dims.split_first()?;
        let inputs = rest.first().copied().unwrap_or(1);
        let columns: usize = rest.iter().product();
        if module.size.is_some_and(|size| size != (outputs, columns)) {
            return None;
        }
        let mut placed = Placed::default();
        if let Form::Scaling { by, from_one, .. } = &module.form {
            let side = if *from_one {
                peft_side(by, (outputs, inputs), config, &target.name)
            } else {
                self.on_input(module)
            };
            placed.scaling = side;
            let expected = if side == Side::Outputs { outputs } else { inputs };
            if count(by) != Some(expected) {
                return None;
            }
        }
        if let Some((lengths, of_outputs)) = &module.magnitude {
            let is_input = !of_outputs && lengths.shape.len() > 1 && lengths.shape[0] == 1 && outputs != 1;
            placed.magnitude = if is_input { Side::Inputs } else { Side::Outputs };
            if count(lengths) != Some(if is_input { inputs } else { outputs }) {
                return None;
            }
        }
        if let Some(bias) = &module.bias {
            placed.has_bias = target.has_bias && count(bias) == Some(outputs);
            if !placed.has_bias {
                placed.left_over.push(bias.key.clone());
            }
        }
        Some(placed)
    }

    /// LyCORIS says in a tensor which side (IA)³ is of.
    fn on_input(&self, module: &Module) -> Side {
        let flag = module.on_input.as_ref().and_then(|place| {
            let stored = self.file.tensors().get(&place.key)?;
            self.file.number(&place.key, stored).ok().flatten()
        });
        if flag.is_some_and(|flag| flag != 0.0) {
            Side::Inputs
        } else {
            Side::Outputs
        }
    }

    fn read_change(
        &self,
        name: &str,
        module: Module,
        target: &LoraTarget,
        placed: Placed,
    ) -> Result<LayerChange, WeightsError> {
        let scale = self.scale(name, &module)?;
        let scales_bias = module.bias_scales;
        let mut form = module.form;
        if let Form::Scaling { by, side, .. } = &mut form {
            by.shape = vec![count(by).unwrap_or(0)];
            *side = placed.scaling;
        }
        let form = form.try_map(&mut |place| self.read(&place))?;
        let magnitude = module.magnitude.map(|(lengths, _)| self.read(&listed(lengths)));
        let bias = module.bias.filter(|_| placed.has_bias);
        let mut bias = bias
            .map(|bias| self.read(&listed(bias)))
            .transpose()?
            .map(|by| BiasChange::Sum(by, if scales_bias { scale } else { 1.0 }));
        // PEFT scales what comes out of the layer, its bias too.
        if let Form::Scaling {
            by,
            side: Side::Outputs,
            from_one: true,
        } = &form
            && target.has_bias
        {
            bias = Some(BiasChange::Scaling(by.clone()));
        }
        Ok(LayerChange {
            layer: target.name.clone(),
            dims: target.weight_dims.clone(),
            form,
            scale,
            magnitude: magnitude.transpose()?.map(|lengths| (lengths, placed.magnitude)),
            bias,
        })
    }

    /// alpha / rank: of the module's own alpha, or by PEFT's configuration; alpha missing is the rank.
    fn scale(&self, name: &str, module: &Module) -> Result<f64, WeightsError> {
        let alpha = match (&module.alpha, module.rank) {
            (Some(alpha), Some(rank)) => {
                let stored = self.file.tensors().get(&alpha.key);
                let number = stored
                    .map(|stored| self.file.number(&alpha.key, stored))
                    .transpose()?;
                number.flatten().zip(Some(rank))
            }
            _ => None,
        };
        let config = self.config_of(name);
        let is_lokr = config.and_then(|config| config.peft_type.as_deref()) == Some("LOKR");
        #[expect(clippy::cast_precision_loss, reason = "a rank is small")]
        let scale = match (alpha, config) {
            (Some((alpha, rank)), _) => alpha / rank as f64,
            (None, Some(config)) if module.rank.is_some() || is_lokr => {
                config.scale(plain(name), module.rank).unwrap_or(1.0)
            }
            (None, _) => 1.0,
        };
        if scale.is_finite() {
            Ok(scale)
        } else {
            Err(WeightsError::NotAModel {
                file: self.file.name().to_owned(),
                detail: format!("alpha of module `{name}` is not a number"),
            })
        }
    }

    /// A tensor in f32.
    fn read(&self, place: &Place) -> Result<Tensor, WeightsError> {
        let file = self.file.name();
        let missing = || WeightsError::MissingTensor {
            file: file.to_owned(),
            tensor: place.key.clone(),
            expected: place.shape.clone(),
        };
        let stored = self.file.tensors().get(&place.key).ok_or_else(missing)?;
        let place_in = (Dtypes::All(DType::F32), &Device::Cpu);
        let read = self.file.read(&place.key, stored, &place.shape, place_in);
        read.map_err(|error| match error {
            ReadError::Weights(error) => error,
            ReadError::Device(error) => WeightsError::NotAModel {
                file: file.to_owned(),
                detail: format!("tensor `{}`: {error}", place.key),
            },
        })
    }

    /// A pattern that no module goes by may be one that was not understood.
    fn check_patterns(&self, unmatched: &mut Vec<String>) {
        for (network, config) in &self.configs {
            let modules = self
                .modules
                .keys()
                .filter(|name| name.starts_with(network.as_str()));
            let idle = config.idle_patterns(modules.map(|name| plain(name)));
            unmatched.extend(idle.iter().map(|pattern| format!("alpha_pattern `{pattern}`")));
        }
    }

    fn other_base(&self, matched: usize, misfits: &[String]) -> WeightsError {
        let total = self.modules.len();
        let seems = match self.about().base {
            Some(base) => format!("; it seems to be for {base}"),
            None => String::new(),
        };
        let detail = match misfits.first() {
            Some(first) => {
                let count = misfits.len();
                format!("{count} of its {total} modules do not fit this checkpoint, {first}{seems}")
            }
            None => format!("{matched} of its {total} modules are for layers of this checkpoint{seems}"),
        };
        WeightsError::OtherBase {
            file: self.file.name().to_owned(),
            detail,
        }
    }
}

/// Takes a module by its name in the file, beside the layer that it is for.
type Take<'a, 'f> =
    dyn FnMut(&str, Module, (LoraNetwork, &'a LoraTarget), Placed) -> Result<(), WeightsError> + 'f;

/// A module's name as PEFT's patterns have it.
fn plain(module: &str) -> &str {
    module.strip_prefix("base_model.model.").unwrap_or(module)
}

/// What is known of a module beside a layer.
#[derive(Debug)]
struct Placed {
    scaling: Side,
    magnitude: Side,
    has_bias: bool,
    left_over: Vec<String>,
}

impl Default for Placed {
    fn default() -> Self {
        Self {
            scaling: Side::Outputs,
            magnitude: Side::Outputs,
            has_bias: false,
            left_over: Vec::new(),
        }
    }
}

/// `lora_adapter_metadata` of the header, or the configuration beside the file.
fn configs(file: &TensorFile, config: Option<&[u8]>) -> Result<PeftConfigs, WeightsError> {
    if let Some(bytes) = config {
        let config: PeftConfig = serde_json::from_slice(bytes).map_err(|source| WeightsError::Json {
            file: format!("{CONFIG} of {}", file.name()),
            source,
        })?;
        return Ok(vec![(String::new(), config)]);
    }
    match file.notes().get("lora_adapter_metadata") {
        None => Ok(PeftConfigs::new()),
        Some(text) => peft::from_metadata(text).ok_or_else(|| WeightsError::NotAModel {
            file: file.name().to_owned(),
            detail: "`lora_adapter_metadata` in its header is not PEFT's configuration".to_owned(),
        }),
    }
}

/// PEFT: (1, inputs) of a feed-forward layer, (outputs, 1) else; of a convolution always (1, channels, 1, 1).
fn peft_side(
    by: &Place,
    (outputs, inputs): (usize, usize),
    config: Option<&PeftConfig>,
    layer: &str,
) -> Side {
    let is_input = match *by.shape {
        [1, count] => count == inputs,
        [1, count, ..] if outputs != inputs => count == inputs,
        [1, ..] => config.is_some_and(|config| config.is_feedforward(layer)),
        _ => false,
    };
    if is_input { Side::Inputs } else { Side::Outputs }
}

/// The same as a list.
fn listed(place: Place) -> Place {
    let numbers = count(&place).unwrap_or(0);
    Place {
        shape: vec![numbers],
        ..place
    }
}

/// What does not fit, for a message.
fn misfit(name: &str, module: &Module, target: &LoraTarget) -> String {
    let found = match module.size {
        Some((outputs, columns)) => format!("{outputs}x{columns}"),
        None => "another size".to_owned(),
    };
    let dims = &target.weight_dims;
    format!("first `{name}`, which is {found} and the layer {dims:?}")
}
