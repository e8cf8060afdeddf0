//! Presets: a checkpoint with LoRAs, embeddings, a VAE and scheduler settings under one name, so that clients whose API has
//! no such field can use them.

/// What is used together with a checkpoint. All names are in the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Preset {
    /// The checkpoint whose files it has; None where the entry has a source of its own.
    pub checkpoint: Option<String>,
    /// Another VAE, unless the request names one.
    pub vae: Option<String>,
    /// LoRAs that come before those of the request.
    pub loras: Vec<LoraInPreset>,
    /// Embeddings beside those of the request.
    pub embeddings: Vec<String>,
}

/// A LoRA of a preset.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraInPreset {
    /// Its name in the catalogue.
    pub name: String,
    /// 1.0 applies it as trained.
    pub strength: f64,
}
