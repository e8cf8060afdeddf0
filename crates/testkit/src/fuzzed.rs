//! The corpus of the fuzz targets, which tests run as well, so that what was found once stays mended.

use std::path::Path;

/// Runs `target` on every file of `fuzz/corpus/<name>`.
///
/// # Panics
/// When there is none, or as `target` does; the name of the file is printed before.
#[expect(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "for tests, which fail by panicking"
)]
pub fn each_fuzzed(name: &str, target: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(name);
    let mut count = 0;
    for entry in fs_err::read_dir(&folder).expect("the corpus is committed") {
        let path = entry.expect("the corpus is readable").path();
        println!("{}", path.display());
        target(&fs_err::read(&path).expect("the corpus is readable"));
        count += 1;
    }
    assert!(count > 0, "{} is empty", folder.display());
}
