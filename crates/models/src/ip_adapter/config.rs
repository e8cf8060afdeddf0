//! Sizes of an IP-Adapter. No file has them in a configuration: they are read from the shapes of its tensors.

/// Sizes of an IP-Adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpAdapterConfig {
    /// Tokens N that a picture becomes: 4 of a projection, 16 of a resampler.
    pub tokens: usize,
    /// Width D of a token, which is that of the text states.
    pub width: usize,
    /// How a picture becomes tokens.
    pub projection: ImageProjectionConfig,
}

/// How a picture becomes tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageProjectionConfig {
    /// From the image embedding, by a matrix and a norm.
    Linear {
        /// Width P of the embedding.
        embedding: usize,
    },
    /// From the states before the encoder's last layer, to which learned queries attend (the "plus" adapters).
    Resampler {
        /// Width of the states.
        states: usize,
        /// Width of the queries.
        hidden: usize,
        /// Heads of each attention, which are 64 wide.
        heads: usize,
        /// Number of layers.
        depth: usize,
        /// Width inside the feed-forward layers.
        inner: usize,
    },
}

impl ImageProjectionConfig {
    /// Width of each head of a resampler, in all that are published.
    pub const HEAD_WIDTH: usize = 64;
}
