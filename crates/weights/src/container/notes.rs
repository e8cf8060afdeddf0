//! What a weights file says beside its tensors.

use std::collections::BTreeMap;

/// The metadata of a safetensors header, or the plain values of a pickle's outermost dictionary.
pub(crate) type Notes = BTreeMap<String, String>;
