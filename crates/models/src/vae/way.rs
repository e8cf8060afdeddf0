//! The two ways through an autoencoder.

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Encode,
    Decode,
}

impl Way {
    /// What it does, for errors.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Encode => "encoding an image",
            Self::Decode => "decoding an image",
        }
    }
}
