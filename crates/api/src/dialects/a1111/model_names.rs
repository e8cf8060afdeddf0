//! How the web UI writes the names of models.

use pentimento_service::ModelEntry;

/// A checkpoint's name and the beginning of its hash, as clients show and send it.
pub(super) fn title(entry: &ModelEntry) -> String {
    match short_hash(entry) {
        Some(hash) => format!("{} [{hash}]", entry.name),
        None => entry.name.clone(),
    }
}

/// The beginning of its sha256, where the catalogue has one.
pub(super) fn short_hash(entry: &ModelEntry) -> Option<&str> {
    entry.sha256.as_deref()?.get(..10)
}

/// Without its ending, as prompts name it.
pub(super) fn plain_name(entry: &ModelEntry) -> &str {
    let endings = [".safetensors", ".ckpt", ".pt"];
    let without = endings.iter().find_map(|ending| entry.name.strip_suffix(ending));
    without.unwrap_or(&entry.name)
}

/// A title without the hash that the web UI puts behind it.
pub(super) fn without_hash(name: &str) -> &str {
    let Some((before, hash)) = name.strip_suffix(']').and_then(|name| name.rsplit_once(" [")) else {
        return name;
    };
    let is_hash = !hash.is_empty() && hash.len() <= 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hash { before } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_a_name_with_its_hash() {
        assert_eq!(without_hash("demo.safetensors [0123abcdef]"), "demo.safetensors");
        for name in ["demo", "demo [best]", "demo []", "[abc]"] {
            assert_eq!(without_hash(name), name);
        }
    }
}
