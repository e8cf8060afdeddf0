//! The doors for `fuzz/`, which are there when it builds this crate, and in tests, which run its corpus.

use crate::dialects::{a1111, modelslab, novita, openai};

/// A body for ModelsLab's calls; its first byte chooses the content type.
///
/// # Panics
/// When something that must hold for every body does not.
pub fn modelslab_body(bytes: &[u8]) {
    modelslab::fuzzing::body(bytes);
}

/// A body for Novita's call.
///
/// # Panics
/// When something that must hold for every body does not.
pub fn novita_body(bytes: &[u8]) {
    novita::fuzzing::body(bytes);
}

/// A body for OpenAI's calls; its first byte chooses the content type.
///
/// # Panics
/// When something that must hold for every body does not.
pub fn openai_body(bytes: &[u8]) {
    openai::fuzzing::body(bytes);
}

/// A body for the calls of A1111's web UI that make images.
///
/// # Panics
/// When something that must hold for every body does not.
pub fn a1111_body(bytes: &[u8]) {
    a1111::fuzzing::body(bytes);
}

#[cfg(test)]
mod tests {
    use pentimento_testkit::each_fuzzed;

    #[test]
    fn what_the_fuzzer_found_holds() {
        each_fuzzed("modelslab_body", super::modelslab_body);
        each_fuzzed("novita_body", super::novita_body);
        each_fuzzed("openai_body", super::openai_body);
        each_fuzzed("a1111_body", super::a1111_body);
    }
}
