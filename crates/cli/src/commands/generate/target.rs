//! Where the pictures go: a file, a folder for those of several inputs, or the standard output.

use std::collections::HashSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use pentimento_types::ImageFormat;

use crate::args::{DEFAULT_OUT, GenerateArgs};
use crate::config::ConfigError;
use crate::output;

/// The standard input or output, where a file name is asked for.
pub(super) const PIPE: &str = "-";

/// Where the pictures go, and in which format.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    path: PathBuf,
    pub(super) format: ImageFormat,
}

impl Target {
    /// One for each input.
    pub(super) fn of_each(args: &GenerateArgs, inputs: &[PathBuf]) -> Result<Vec<Self>, ConfigError> {
        let is_folder = inputs.len() > 1 || args.images.iter().any(|path| path.is_dir()) || args.out.is_dir();
        if !is_folder || inputs.is_empty() {
            return Ok(vec![Self::of(args)?]);
        }
        let wrong = |problem: String| ConfigError::Arguments { problem };
        let folder = args.out_folder();
        if !folder.is_dir() {
            let shown = folder.display();
            return Err(wrong(format!(
                "for several inputs --out is a folder, and there is none at {shown}"
            )));
        }
        let format = args.format.unwrap_or_default();
        // Everything that is read, by its true name, and everything that is written.
        let read = inputs.iter().chain(&args.mask).chain(&args.ip_adapter_image);
        let read: HashSet<PathBuf> = read.filter_map(|path| fs_err::canonicalize(path).ok()).collect();
        let folder = fs_err::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
        let mut written = HashSet::new();
        let mut targets: Vec<Self> = Vec::new();
        for input in inputs {
            let stem = input.file_stem().unwrap_or_default().to_string_lossy();
            let path = args.out_folder().join(format!("{stem}.{}", format.extension()));
            let target = Self { path, format };
            for index in 0..args.count {
                let name = target.path_of(index);
                let place = folder.join(name.file_name().unwrap_or_default());
                if read.contains(&place) || !written.insert(place) {
                    let shown = name.display();
                    return Err(wrong(format!(
                        "{shown} would be written over; choose another folder for --out"
                    )));
                }
            }
            targets.push(target);
        }
        Ok(targets)
    }

    /// Everything that can be wrong about it is found before a model is loaded.
    fn of(args: &GenerateArgs) -> Result<Self, ConfigError> {
        let wrong = |problem: &str| ConfigError::Arguments {
            problem: problem.to_owned(),
        };
        let path = if args.out.is_dir() {
            args.out.join(DEFAULT_OUT)
        } else {
            args.out.clone()
        };
        let is_pipe = path == Path::new(PIPE);
        if is_pipe && args.count > 1 {
            return Err(wrong(
                "the standard output takes one picture; use --out FILE with --count",
            ));
        }
        let ending = path.extension().and_then(|ending| ending.to_str());
        let format = match (args.format, ending) {
            (Some(format), _) => format,
            (None, None) => ImageFormat::default(),
            (None, Some(ending)) => ImageFormat::parse(ending).ok_or_else(|| {
                wrong("the ending of --out is no picture format; use .png, .jpeg or .webp, or --format")
            })?,
        };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if !is_pipe && folder.is_some_and(|folder| !folder.is_dir()) {
            return Err(wrong("the folder of --out does not exist"));
        }
        Ok(Self { path, format })
    }

    pub(super) fn is_pipe(&self) -> bool {
        self.path == Path::new(PIPE)
    }

    /// The name of picture `index`: the first has the plain one.
    fn path_of(&self, index: u32) -> PathBuf {
        if index == 0 {
            return self.path.clone();
        }
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        let ending = self
            .path
            .extension()
            .map_or_else(String::new, |ending| format!(".{}", ending.to_string_lossy()));
        self.path.with_file_name(format!("{stem}-{index}{ending}"))
    }

    pub(super) fn write(&self, index: u32, bytes: &[u8]) -> anyhow::Result<()> {
        if self.is_pipe() {
            let mut out = std::io::stdout().lock();
            out.write_all(bytes)
                .and_then(|()| out.flush())
                .context("cannot write to the standard output")?;
            return Ok(());
        }
        let path = self.path_of(index);
        fs_err::write(&path, bytes)?;
        output::line(path.display());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Args, Command};

    fn target(more: &[&str]) -> Result<Target, ConfigError> {
        let all = ["pentimento", "generate", "--image", "x.png", "--prompt", "p"];
        let args = Args::try_parse_from(all.iter().chain(more)).unwrap();
        let Command::Generate(args) = args.command else {
            panic!("another command")
        };
        Target::of(&args)
    }

    #[test]
    fn the_format_is_what_was_asked_for_then_what_the_ending_says() {
        assert_eq!(target(&["--out", "a.webp"]).unwrap().format, ImageFormat::Webp);
        assert_eq!(
            target(&["--out", "a.webp", "--format", "jpg"]).unwrap().format,
            ImageFormat::Jpeg
        );
        assert_eq!(target(&["--out", "-"]).unwrap().format, ImageFormat::Png);
        assert!(
            target(&["--out", "a.tiff"])
                .unwrap_err()
                .to_string()
                .contains("--format")
        );
        assert!(target(&["--out", "no/such/folder/a.png"]).is_err());
        assert!(
            target(&["--out", "-", "--count", "2"])
                .unwrap_err()
                .to_string()
                .contains("--count")
        );
    }

    #[test]
    fn several_inputs_go_into_a_folder_under_their_names_and_over_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        for (place, name) in [(&from, "a.jpg"), (&from, "b.png"), (&to, "kept.txt")] {
            fs_err::create_dir_all(place).unwrap();
            fs_err::write(place.join(name), b"").unwrap();
        }
        let counted = |out: &Path, inputs: &[&str], count: &str| {
            let inputs: Vec<PathBuf> = inputs.iter().map(|name| from.join(name)).collect();
            let image = from.to_str().unwrap();
            let all = [
                "pentimento",
                "generate",
                "--prompt",
                "p",
                "--image",
                image,
                "--out",
                out.to_str().unwrap(),
                "--count",
                count,
            ];
            let Command::Generate(args) = Args::try_parse_from(all).unwrap().command else {
                panic!("another command")
            };
            Target::of_each(&args, &inputs)
        };
        let targets = |out: &Path, inputs: &[&str]| counted(out, inputs, "1");
        let found = targets(&to, &["a.jpg", "b.png"]).unwrap();
        let found: Vec<&Path> = found.iter().map(|target| target.path.as_path()).collect();
        assert_eq!(found, [to.join("a.png"), to.join("b.png")]);
        // An input, or one picture for two inputs.
        for inputs in [["a.jpg", "b.png"], ["a.jpg", "a.webp"]] {
            let out = if inputs[1] == "b.png" { &from } else { &to };
            let error = targets(out, &inputs).unwrap_err().to_string();
            assert!(error.contains("written over"), "{error}");
        }
        // The second picture of one has the name of another's first.
        let inputs = ["a.jpg", "a-1.jpg"];
        assert!(targets(&to, &inputs).is_ok());
        let error = counted(&to, &inputs, "2").unwrap_err().to_string();
        assert!(error.contains("a-1.png would be written over"), "{error}");
        let error = targets(&folder.path().join("nowhere"), &["a.jpg", "b.png"]).unwrap_err();
        assert!(error.to_string().contains("folder"), "{error}");
    }

    #[test]
    fn further_pictures_are_numbered() {
        let target = target(&["--out", "a.b.png"]).unwrap();
        assert_eq!(target.path_of(0), Path::new("a.b.png"));
        assert_eq!(target.path_of(2), Path::new("a.b-2.png"));
    }
}
