//! Prints `docs/image-parity.md`: how far decoded, turned and resized images are from Pillow's.
//!
//! ```text
//! cargo run -p pentimento-service --example image_parity > docs/image-parity.md
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a command of the workbench that prints"
)]

#[path = "../tests/support/pillow.rs"]
mod pillow;

use std::collections::BTreeMap;

use pillow::{Case, Difference};

const HEAD: &str = "# Images beside Pillow

Made by `cargo run -p pentimento-service --example image_parity > docs/image-parity.md`; do not edit.

Differences from Pillow 13 in levels of 0 to 255, over the files under `tests/golden/images`.
The tests in `crates/service/tests/pillow.rs` hold them; [images.md](images.md) says what was decided and why.";

fn main() {
    println!("{HEAD}");
    table(
        "JPEG files, by sampling and layout",
        &pillow::jpeg_files(),
        |name| {
            let words: Vec<&str> = name.split('-').collect();
            match words[..] {
                // The smallest pictures are a group of their own.
                [_, _, "tiny", _] => "up to 17 pixels".to_owned(),
                ["grey", ..] => "grey".to_owned(),
                ["cmyk", ..] => "CMYK".to_owned(),
                ["ycck", ..] => "YCCK".to_owned(),
                ["rgb" | "ycc", ..] => "three components, marked in every way".to_owned(),
                [sampling, layout, ..] => format!("{sampling} {layout}"),
                _ => name.to_owned(),
            }
        },
    );
    table("Orientation, by format", &pillow::turned_files(), |name| {
        name.split('-').next().unwrap_or_default().to_owned()
    });
    table(
        "Resizing, by mode and content",
        &pillow::resized_pictures(),
        |name| name.split('-').take(2).collect::<Vec<_>>().join(" "),
    );
}

fn table(title: &str, cases: &[Case], group: impl Fn(&str) -> String) {
    println!(
        "\n## {title}\n\n| | files | refused or of another size | largest | mean |\n|---|---|---|---|---|"
    );
    let mut groups: BTreeMap<String, Vec<&Case>> = BTreeMap::new();
    for case in cases {
        groups.entry(group(&case.name)).or_default().push(case);
    }
    groups.insert("**all**".to_owned(), cases.iter().collect());
    for (name, cases) in groups {
        let found: Vec<Difference> = cases
            .iter()
            .filter_map(|case| case.difference.clone().ok())
            .collect();
        let largest = found.iter().map(|found| found.largest).max().unwrap_or_default();
        println!(
            "| {name} | {} | {} | {largest} | {:.4} |",
            cases.len(),
            cases.len() - found.len(),
            Difference::mean(&found)
        );
    }
}
