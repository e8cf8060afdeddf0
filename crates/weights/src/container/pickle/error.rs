//! Why a pickle is not read.

use pentimento_types::FileFault;

use crate::WeightsError;

/// What is wrong with a pickle or with the tensors in it.
#[derive(Debug, thiserror::Error)]
pub(in crate::container) enum PickleProblem {
    /// It wants to call something that is no part of PyTorch's format; nothing was called.
    #[error(
        "it calls `{name}`, which is more than data; only tensors and plain containers are read. Convert it to safetensors \
         where you trust it"
    )]
    Call { name: String },
    #[error("it is cut short")]
    Truncated,
    #[error("it is more than {} MiB of pickle beside its tensors", limit >> 20)]
    TooLarge { limit: u64 },
    #[error("it holds more than {limit} values")]
    TooMany { limit: usize },
    #[error("it is not a well-formed pickle: {0}")]
    Malformed(&'static str),
    #[error("it uses the pickle operation {0:#04x}, which no file of PyTorch has")]
    Operation(u8),
    #[error("tensor `{tensor}` {detail}")]
    Tensor { tensor: String, detail: String },
    #[error("{0}")]
    Container(String),
    #[error("cannot be read")]
    Io(#[source] std::io::Error),
}

impl PickleProblem {
    /// The error of this crate, for a file of this name.
    pub(in crate::container) fn of_file(self, name: &str) -> WeightsError {
        let Self::Io(error) = self else {
            return WeightsError::NotAModel {
                file: name.to_owned(),
                detail: self.to_string(),
            };
        };
        // What the file's own reader has found comes back out of the stream.
        match error.downcast::<WeightsError>() {
            Ok(found) => found,
            Err(error) => WeightsError::file(name, FileFault::Io(error)),
        }
    }
}

impl From<std::io::Error> for PickleProblem {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::UnexpectedEof {
            Self::Truncated
        } else {
            Self::Io(error)
        }
    }
}
