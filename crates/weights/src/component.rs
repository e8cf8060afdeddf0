//! One component of a checkpoint (UNet, VAE, text encoder): it answers a network's questions for tensors, remembers
//! what was asked, and complains about what nobody asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};

use crate::container::{ReadError, TensorFile};
use crate::seeded::SeededWeights;
use crate::{Dtypes, WeightsError, naming};

/// Named tensors for one network, on one device.
///
/// Build the network from [`Component::var_builder`], then call [`Component::finish`].
#[derive(Debug)]
pub struct Component {
    source: Source,
    dtypes: Dtypes,
    device: Device,
}

#[derive(Clone, Debug)]
enum Source {
    Files(Arc<ComponentFiles>),
    Seeded(SeededWeights),
}

impl Component {
    pub(crate) fn from_files(
        files: Vec<TensorFile>,
        dtypes: Dtypes,
        device: &Device,
    ) -> Result<Self, WeightsError> {
        let files = ComponentFiles::index(files)?;
        Ok(Self {
            source: Source::Files(Arc::new(files)),
            dtypes,
            device: device.clone(),
        })
    }

    /// A component that answers every question with seeded random weights of unit gain: variance 1 / fan-in for
    /// matrices and kernels, about 1 for norms, small for biases; f32, unless `dtypes` says otherwise. The same seed, name
    /// and shape give the same values.
    #[must_use]
    pub fn seeded(seed: u64, dtypes: Dtypes, device: &Device) -> Self {
        Self {
            source: Source::Seeded(SeededWeights::new(seed)),
            dtypes,
            device: device.clone(),
        }
    }

    /// The tensors, for a network's constructor. A failing question is a candle error that wraps [`WeightsError`].
    #[must_use]
    pub fn var_builder(&self) -> VarBuilder<'static> {
        let backend: Box<dyn SimpleBackend> = match &self.source {
            Source::Files(files) => Box::new(FileBackend(Arc::clone(files), self.dtypes)),
            Source::Seeded(seeded) => Box::new(*seeded),
        };
        // Only the seeded weights go by the builder's dtype.
        let dtype = match self.dtypes {
            Dtypes::Stored => DType::F32,
            Dtypes::All(dtype) => dtype,
        };
        VarBuilder::from_backend(backend, dtype, self.device.clone())
    }

    /// The last question that had no answer, which says what a network's constructor failed of: candle keeps only the
    /// text of such an error.
    #[must_use]
    pub fn take_fault(&self) -> Option<WeightsError> {
        match &self.source {
            Source::Files(files) => files.fault().take(),
            Source::Seeded(_) => None,
        }
    }

    /// Checks that nobody wrote to its files meanwhile, for who wants only some of their tensors.
    ///
    /// # Errors
    /// [`WeightsError::Changed`].
    pub fn finish_partly(&self) -> Result<(), WeightsError> {
        match &self.source {
            Source::Files(files) => files.files.iter().try_for_each(TensorFile::check_unchanged),
            Source::Seeded(_) => Ok(()),
        }
    }

    /// Name and shape of every tensor, as the files have them; of seeded weights there is no list.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize])> {
        let files = match &self.source {
            Source::Files(files) => files.files.as_slice(),
            Source::Seeded(_) => &[],
        };
        let tensors = files.iter().flat_map(|file| file.tensors());
        tensors.map(|(name, stored)| (name.as_str(), stored.shape.as_slice()))
    }

    /// Checks that the network asked for every tensor that its files have, and that nobody wrote to them meanwhile.
    ///
    /// # Errors
    /// [`WeightsError::ExtraTensors`] with the first names; known harmless extras do not count.
    /// [`WeightsError::Changed`].
    pub fn finish(self) -> Result<(), WeightsError> {
        self.finish_partly()?;
        match self.source {
            Source::Files(files) => files.check_all_used(),
            Source::Seeded(_) => Ok(()),
        }
    }
}

/// The files of one component and the merged index of their tensors.
struct ComponentFiles {
    files: Vec<TensorFile>,
    /// Name to the number of its file.
    index: BTreeMap<String, usize>,
    used: Mutex<BTreeSet<String>>,
    fault: Mutex<Option<WeightsError>>,
}

impl fmt::Debug for ComponentFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ComponentFiles")
            .field("files", &self.names())
            .field("tensors", &self.index.len())
            .finish_non_exhaustive()
    }
}

impl ComponentFiles {
    fn index(files: Vec<TensorFile>) -> Result<Self, WeightsError> {
        let mut index = BTreeMap::new();
        for (number, file) in files.iter().enumerate() {
            for name in file.tensors().keys() {
                if let Some(other) = index.insert(name.clone(), number) {
                    return Err(WeightsError::Index {
                        file: file.name().to_owned(),
                        detail: format!("tensor `{name}` is also in {}", files[other].name()),
                    });
                }
            }
        }
        Ok(Self {
            files,
            index,
            used: Mutex::default(),
            fault: Mutex::default(),
        })
    }

    fn names(&self) -> String {
        let names: Vec<_> = self.files.iter().map(TensorFile::name).collect();
        names.join(", ")
    }

    fn used(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self) -> MutexGuard<'_, Option<WeightsError>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name under which the files keep `wanted`.
    fn resolve(&self, wanted: &str) -> Option<String> {
        if self.index.contains_key(wanted) {
            return Some(wanted.to_owned());
        }
        naming::aliases(wanted)
            .into_iter()
            .find(|alias| self.index.contains_key(alias))
    }

    /// As candle wants it. What is wrong is kept, too.
    fn answer(
        &self,
        wanted: &str,
        shape: Option<&Shape>,
        target: (Dtypes, &Device),
    ) -> candle_core::Result<Tensor> {
        self.get(wanted, shape, target).map_err(|error| match error {
            ReadError::Device(error) => error,
            ReadError::Weights(error) => {
                let text = error.to_string();
                *self.fault() = Some(error);
                candle_core::Error::Wrapped(Box::new(text))
            }
        })
    }

    fn get(
        &self,
        wanted: &str,
        shape: Option<&Shape>,
        target: (Dtypes, &Device),
    ) -> Result<Tensor, ReadError> {
        let name = self.resolve(wanted).ok_or_else(|| WeightsError::MissingTensor {
            file: self.names(),
            tensor: wanted.to_owned(),
            expected: shape.map(|s| s.dims().to_vec()).unwrap_or_default(),
        })?;
        let file = &self.files[self.index[&name]];
        let stored = &file.tensors()[&name];
        let expected = shape.map_or(stored.shape.as_slice(), Shape::dims);
        if !same_shape(&name, expected, &stored.shape) {
            return Err(ReadError::Weights(WeightsError::Shape {
                file: file.name().to_owned(),
                tensor: name,
                expected: expected.to_vec(),
                found: stored.shape.clone(),
            }));
        }
        let tensor = file.read(&name, stored, expected, target)?;
        self.used().insert(name);
        Ok(tensor)
    }

    fn check_all_used(&self) -> Result<(), WeightsError> {
        const SHOWN: usize = 5;
        let used = self.used();
        let unused = |name: &&String| !used.contains(*name) && !naming::is_harmless_extra(name);
        let extra: Vec<&String> = self.index.keys().filter(unused).collect();
        if extra.is_empty() {
            return Ok(());
        }
        Err(WeightsError::ExtraTensors {
            file: self.files[self.index[extra[0]]].name().to_owned(),
            count: extra.len(),
            first: extra.into_iter().take(SHOWN).cloned().collect(),
        })
    }
}

/// Equal, or one of them is the 1x1 convolution form of the other.
fn same_shape(name: &str, expected: &[usize], found: &[usize]) -> bool {
    fn matrix(shape: &[usize]) -> &[usize] {
        match shape {
            [_, _, 1, 1] => &shape[..2],
            other => other,
        }
    }
    expected == found || naming::may_be_pointwise_convolution(name) && matrix(expected) == matrix(found)
}

/// candle's view of the files.
struct FileBackend(Arc<ComponentFiles>, Dtypes);

impl SimpleBackend for FileBackend {
    fn get(&self, s: Shape, name: &str, _: Init, _: DType, dev: &Device) -> candle_core::Result<Tensor> {
        self.0.answer(name, Some(&s), (self.1, dev))
    }

    fn get_unchecked(&self, name: &str, _: DType, dev: &Device) -> candle_core::Result<Tensor> {
        self.0.answer(name, None, (self.1, dev))
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.resolve(name).is_some()
    }
}
