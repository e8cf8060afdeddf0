//! The pictures that `--image` names: files, and folders for all pictures in them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use super::target::PIPE;

/// At most so many; more is a mistake.
const MOST: usize = 10_000;

/// Every file, in the order in which it was named; those of a folder by their names.
///
/// # Errors
/// When a folder cannot be read or has no picture, or the standard input is one of several.
pub(super) fn expanded(named: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut inputs = Vec::new();
    for path in named {
        if !path.is_dir() {
            inputs.push(path.clone());
            continue;
        }
        let mut found = pictures_in(path).with_context(|| format!("cannot look into {}", path.display()))?;
        ensure!(
            !found.is_empty(),
            "{} has no PNG, JPEG or WebP file in it",
            path.display()
        );
        found.sort();
        inputs.append(&mut found);
        ensure!(
            inputs.len() <= MOST,
            "more than {MOST} pictures are more than one call takes"
        );
    }
    let has_pipe = inputs.iter().any(|path| path == Path::new(PIPE));
    ensure!(
        !has_pipe || inputs.len() == 1,
        "the standard input is one picture; name it alone"
    );
    Ok(inputs)
}

fn pictures_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        let is_picture = ending.is_some_and(|ending| {
            let ending = ending.to_ascii_lowercase();
            matches!(ending.as_str(), "png" | "jpg" | "jpeg" | "webp")
        });
        if is_picture && path.is_file() {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stands_for_its_pictures() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.PNG", "a.webp", "notes.txt", "c.jpeg"] {
            fs_err::write(folder.path().join(name), b"").unwrap();
        }
        fs_err::create_dir(folder.path().join("d.png")).unwrap();
        let found = expanded(&[PathBuf::from("z.png"), folder.path().to_owned()]).unwrap();
        let names: Vec<String> = found
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["z.png", "a.webp", "b.PNG", "c.jpeg"]);
        let empty = folder.path().join("d.png");
        assert!(expanded(&[empty]).unwrap_err().to_string().contains("no PNG"));
        let piped = ["-", "a.png"].map(PathBuf::from);
        assert!(
            expanded(&piped)
                .unwrap_err()
                .to_string()
                .contains("standard input")
        );
        assert_eq!(expanded(&piped[..1]).unwrap().len(), 1);
    }
}
