//! Reads the golden files under `tests/golden`: safetensors written by the committed Python generator.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor, WithDType, safetensors};

/// The folder `tests/golden` of this repository.
#[must_use]
pub fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

/// The files of `tests/golden/<folder>` by name, in order.
///
/// # Panics
/// When the folder cannot be read: a test cannot go on without it.
#[must_use]
#[expect(clippy::expect_used, reason = "a helper for tests")]
pub fn golden_files(folder: &str) -> Vec<String> {
    let entries = fs_err::read_dir(golden_dir().join(folder)).expect("the golden files are committed");
    let names = entries.map(|entry| entry.expect("the folder is readable").file_name());
    let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// One test for each golden run of a folder, which calls `check` with the case's name, and one that no file is left out:
/// `golden_runs! { "folder", check; test_name => "case", … }`.
#[macro_export]
macro_rules! golden_runs {
    ($folder:literal, $check:ident; $($test:ident => $case:literal),+ $(,)?) => {
        $(#[test]
        fn $test() {
            $check($case);
        })+

        #[test]
        fn every_golden_file_has_a_test() {
            let mut known = vec![$(concat!($case, ".safetensors").to_owned()),+];
            known.sort();
            assert_eq!($crate::golden_files($folder), known);
        }
    };
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
