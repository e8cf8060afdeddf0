//! Reads the golden files under `tests/golden`: safetensors written by the committed Python generator.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor, WithDType, safetensors};

/// The folder `tests/golden` of this repository.
#[must_use]
pub fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

/// One golden file: named tensors and the JSON text under `about` in its metadata.
#[derive(Debug)]
pub struct Golden {
    path: PathBuf,
    tensors: HashMap<String, Tensor>,
    about: serde_json::Value,
}

impl Golden {
    /// Reads `tests/golden/<name>`.
    ///
    /// # Panics
    /// When the file is missing or is not safetensors: a test cannot go on without it.
    #[must_use]
    #[expect(clippy::panic, reason = "a helper for tests")]
    #[expect(
        clippy::disallowed_methods,
        reason = "testkit stays without fs_err; the panic names the path"
    )]
    pub fn open(name: &str) -> Self {
        let path = golden_dir().join(name);
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let tensors = safetensors::load_buffer(&bytes, &Device::Cpu)
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let about = ::safetensors::SafeTensors::read_metadata(&bytes)
            .ok()
            .and_then(|(_, metadata)| metadata.metadata().clone())
            .and_then(|map| map.get("about").cloned())
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or(serde_json::Value::Null);
        Self { path, tensors, about }
    }

    /// The tensor of that name.
    ///
    /// # Panics
    /// When the file has none.
    #[must_use]
    #[expect(clippy::panic, reason = "a helper for tests")]
    pub fn tensor(&self, name: &str) -> &Tensor {
        self.tensors
            .get(name)
            .unwrap_or_else(|| panic!("{} has no tensor {name}", self.path.display()))
    }

    /// The tensor of that name, if there is one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Everything in the tensor of that name, in order, for crates that know no tensors.
    ///
    /// # Panics
    /// When the file has none, or one of another type.
    #[must_use]
    #[expect(clippy::panic, reason = "a helper for tests")]
    pub fn values<T: WithDType>(&self, name: &str) -> Vec<T> {
        let flat = self.tensor(name).flatten_all();
        flat.and_then(|tensor| tensor.to_vec1())
            .unwrap_or_else(|e| panic!("{}: {name}: {e}", self.path.display()))
    }

    /// The shape of the tensor of that name.
    ///
    /// # Panics
    /// When the file has none.
    #[must_use]
    pub fn shape(&self, name: &str) -> &[usize] {
        self.tensor(name).dims()
    }

    /// All names, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.tensors.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// What the generator wrote about the file: arguments, versions, configuration.
    #[must_use]
    pub fn about(&self) -> &serde_json::Value {
        &self.about
    }
}
