//! What can be wrong with a model's files. Texts name file, tensor, expected and found.

use pentimento_types::{ErrorKind, FileFault, HasKind};

/// An error of this crate. Paths are shown as the caller gave the folder; the boundary decides what a client may see.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The folder is not there or is not a folder.
    #[error("{folder}: not a model folder")]
    NotAFolder {
        /// The folder.
        folder: String,
    },
    /// A file of the folder could not be read.
    #[error("{file}: cannot be read")]
    Unreadable {
        /// The file.
        file: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A file that must be there is not.
    #[error("{model}: has no {wanted}{hint}")]
    Missing {
        /// The model's folder or name.
        model: String,
        /// What was looked for.
        wanted: String,
        /// Empty, or what is there instead.
        hint: String,
    },
    /// A path that would leave the model's folder.
    #[error("{model}: `{path}` is not a path inside a model")]
    ForeignPath {
        /// The model's folder or name.
        model: String,
        /// The path.
        path: String,
    },
    /// A JSON file that does not say what we need.
    #[error("{file}: not a valid configuration")]
    Json {
        /// The file.
        file: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// No weights file, or a damaged one.
    #[error("{file}: not a model: {detail}")]
    NotAModel {
        /// The file.
        file: String,
        /// What it is instead, or where the damage is.
        detail: String,
    },
    /// A file that was written to while it was being read.
    #[error("{file}: changed while it was being read")]
    Changed {
        /// The file.
        file: String,
    },
    /// The system has no memory for one tensor.
    #[error("{file}: there is no memory for a tensor of {bytes} bytes")]
    NoMemory {
        /// The file.
        file: String,
        /// What the tensor takes.
        bytes: u64,
    },
    /// The network needs a tensor that no file has.
    #[error("{file}: tensor `{tensor}` is missing, expected shape {expected:?}")]
    MissingTensor {
        /// The file or files looked in.
        file: String,
        /// The tensor's name.
        tensor: String,
        /// Its shape in the network.
        expected: Vec<usize>,
    },
    /// A tensor has another shape than the network.
    #[error("{file}: tensor `{tensor}` has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The file.
        file: String,
        /// The tensor's name.
        tensor: String,
        /// Its shape in the network.
        expected: Vec<usize>,
        /// Its shape in the file.
        found: Vec<usize>,
    },
    /// A tensor of a kind that no weight has.
    #[error("{file}: tensor `{tensor}` has dtype {found}, expected F32, F16, BF16 or F64")]
    Dtype {
        /// The file.
        file: String,
        /// The tensor's name.
        tensor: String,
        /// Its dtype in the file.
        found: String,
    },
    /// Tensors that the network did not ask for: the file belongs to another architecture.
    #[error("{file}: {count} tensors are not part of the expected network, first `{}`", first.join("`, `"))]
    ExtraTensors {
        /// The file or files.
        file: String,
        /// How many.
        count: usize,
        /// The first few names in alphabetical order.
        first: Vec<String>,
    },
    /// A weights file of another kind than the one asked for.
    #[error("{file}: {found} instead of {wanted}")]
    OtherKind {
        /// The file.
        file: String,
        /// What it is, with an article.
        found: String,
        /// What was asked for.
        wanted: &'static str,
    },
    /// A LoRA that does not fit the checkpoint.
    #[error("{file}: {detail}")]
    OtherBase {
        /// The file.
        file: String,
        /// How many modules fit and do not, and which base they seem to be for.
        detail: String,
    },
    /// The change of a layer could not be computed.
    #[error("the change of layer `{layer}` cannot be computed")]
    Change {
        /// The layer.
        layer: String,
        /// The cause.
        #[source]
        source: Box<candle_core::Error>,
    },
    /// Two shards claim the same tensor, or the index names a tensor that its shard lacks.
    #[error("{file}: {detail}")]
    Index {
        /// The index file.
        file: String,
        /// What is wrong.
        detail: String,
    },
}

impl WeightsError {
    /// Why the file of this name is not read.
    pub(crate) fn file(name: &str, fault: FileFault) -> Self {
        let file = name.to_owned();
        match fault {
            FileFault::Io(source) => Self::Unreadable { file, source },
            FileFault::NotRegular { .. } | FileFault::TooLarge { .. } => Self::NotAModel {
                file,
                detail: fault.to_string(),
            },
        }
    }

    /// Whether reading the same files again gives the same error.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        match self {
            Self::Unreadable { .. } | Self::Changed { .. } | Self::NoMemory { .. } | Self::Change { .. } => {
                false
            }
            Self::NotAFolder { .. }
            | Self::Missing { .. }
            | Self::ForeignPath { .. }
            | Self::Json { .. }
            | Self::NotAModel { .. }
            | Self::MissingTensor { .. }
            | Self::Shape { .. }
            | Self::Dtype { .. }
            | Self::ExtraTensors { .. }
            | Self::OtherKind { .. }
            | Self::OtherBase { .. }
            | Self::Index { .. } => true,
        }
    }
}

impl HasKind for WeightsError {
    /// A broken checkpoint is the operator's fault and not the caller's; two good files that do not fit each other are named
    /// together by the caller.
    fn kind(&self) -> ErrorKind {
        if let Self::OtherBase { .. } = self {
            ErrorKind::InvalidInput
        } else if self.is_permanent() {
            ErrorKind::BadModel
        } else {
            ErrorKind::Unavailable
        }
    }
}
