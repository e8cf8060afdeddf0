//! What can go wrong in a network: a tensor operation, an input of the wrong shape, a tokenizer's files.

use pentimento_kernels::KernelError;
use pentimento_types::{ErrorKind, HasKind};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A tensor could not be loaded or computed. While loading, the source names file, tensor, expected and found.
    #[error("{during}")]
    Tensor {
        /// What was being done, such as "loading the unet".
        during: &'static str,
        /// What failed.
        #[source]
        source: KernelError,
    },
    /// An input does not fit the network.
    #[error("{tensor} has shape {found:?}, expected {expected}")]
    Shape {
        /// Which input.
        tensor: &'static str,
        /// Its shape.
        found: Vec<usize>,
        /// What the network takes, with this crate's letters for free sizes.
        expected: String,
    },
    /// An input is there that the architecture of this network has no use for.
    #[error("this {network} takes no {input}")]
    NotTaken {
        /// Which network.
        network: &'static str,
        /// Which input.
        input: &'static str,
    },
    /// A pass in slices was gone on with after its end, or after one of its slices had failed.
    #[error("{what} has ended before")]
    Spent {
        /// What it was doing.
        what: &'static str,
    },
    /// More layers are to be skipped than the text encoder has.
    #[error("clip_skip is {found}, expected 1 to {most}")]
    ClipSkip {
        /// The value.
        found: usize,
        /// The largest this network allows.
        most: usize,
    },
    /// The tokenizer's files do not describe CLIP's tokenizer.
    #[error("{file}: {detail}")]
    TokenizerFile {
        /// Which file.
        file: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// A text could not be cut into tokens.
    #[error("the text cannot be tokenized: {detail}")]
    Tokenize {
        /// The tokenizer's own text.
        detail: String,
    },
}

impl ModelError {
    /// Whether it is the network's device that failed, and not what it was given.
    #[must_use]
    pub const fn is_of_device(&self) -> bool {
        matches!(
            self,
            Self::Tensor {
                source: KernelError::Gpu(error),
                ..
            } if !matches!(error.kind(), ErrorKind::Internal)
        )
    }

    /// Whether nothing will run on the network's device any more.
    #[must_use]
    pub const fn is_device_lost(&self) -> bool {
        matches!(
            self,
            Self::Tensor {
                source: KernelError::Gpu(error),
                ..
            } if error.is_lost()
        )
    }
}

impl HasKind for ModelError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Tensor {
                source: KernelError::Gpu(error),
                ..
            } => error.kind(),
            Self::Tensor { .. } | Self::Shape { .. } | Self::Spent { .. } => ErrorKind::Internal,
            Self::NotTaken { .. } | Self::ClipSkip { .. } | Self::Tokenize { .. } => ErrorKind::InvalidInput,
            Self::TokenizerFile { .. } => ErrorKind::BadModel,
        }
    }
}

/// Says what was being done when a tensor operation failed.
pub(crate) trait During<T> {
    fn during(self, what: &'static str) -> Result<T, ModelError>;
}

impl<T, E: Into<KernelError>> During<T> for Result<T, E> {
    fn during(self, during: &'static str) -> Result<T, ModelError> {
        self.map_err(|error| ModelError::Tensor {
            during,
            source: error.into(),
        })
    }
}
