//! Counts how many pictures of a folder the embedded safety checker takes for unsafe, at several thresholds and every level:
//! `cargo run --release -p pentimento-service --example false_positives -- <folder>`. `benches/safety/harmless.py` makes the
//! pictures of docs/safety-checker.md. The names of pictures are grouped by what stands before the first hyphen.

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a program for a developer's terminal"
)]

use std::collections::BTreeMap;

use pentimento_engine::{SafetyChecker, SafetyScores};
use pentimento_service::{InputLimits, image_codec};
use pentimento_types::SafetyLevel;

const LIMITS: InputLimits = InputLimits {
    max_side: 1 << 14,
    max_pixels: 1 << 26,
    max_bytes: 1 << 26,
};
const THRESHOLDS: [f32; 5] = [0.3, 0.5, 0.7, 0.8, 0.9];
const LEVELS: [SafetyLevel; 3] = [
    SafetyLevel::Explicit,
    SafetyLevel::Suggestive,
    SafetyLevel::Revealing,
];

fn main() {
    let folder = std::env::args().nth(1).expect("usage: false_positives <folder>");
    let checker = SafetyChecker::embedded().expect("the binary is whole");
    let entries = fs_err::read_dir(&folder).expect("the folder can be read");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let mut groups: BTreeMap<String, Vec<(String, SafetyScores)>> = BTreeMap::new();
    for path in paths {
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let bytes = fs_err::read(&path).expect("a picture can be read");
        let picture = image_codec::decode(&bytes, LIMITS).expect("it is a picture");
        let scores = checker.scores(&picture).expect("the network runs");
        let group = name.split('-').next().unwrap_or(&name).to_owned();
        groups.entry(group).or_default().push((name, scores));
    }
    for (group, pictures) in &groups {
        println!("{group}: {} pictures", pictures.len());
        for level in LEVELS {
            let share = |scores: &SafetyScores| scores.unsafe_share(level);
            let counts = THRESHOLDS.map(|threshold| {
                let found = pictures.iter().filter(|(_, scores)| share(scores) >= threshold);
                format!("{} at {threshold}", found.count())
            });
            let most = pictures.iter().max_by(|a, b| share(&a.1).total_cmp(&share(&b.1)));
            let most = most.map(|(name, scores)| format!("{name} {:.3}", share(scores)));
            println!(
                "  {level:?}: {}; highest {}",
                counts.join(", "),
                most.unwrap_or_default()
            );
        }
    }
}
