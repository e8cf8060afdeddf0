//! Runs all scenarios of a folder against one server, and reports those that failed together.

use std::fmt::Write as _;

use super::scenario::Scenario;
use super::server::TestServer;
use super::tests_folder;

/// Runs `tests/scenarios/<folder>`, which has more than `at_least` files.
pub(crate) async fn run(server: &mut TestServer, folder: &str, at_least: usize) {
    let scenarios = Scenario::all(&tests_folder().join("scenarios").join(folder));
    assert!(scenarios.len() > at_least, "the scenarios were not found");
    let mut report = String::new();
    let mut failed = 0;
    for (file, scenario) in &scenarios {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let faults = scenario.run(server).await;
        println!(
            "{} {name}: {}",
            if faults.is_empty() { "ok  " } else { "FAIL" },
            scenario.about
        );
        if !faults.is_empty() {
            failed += 1;
            let _ = writeln!(
                report,
                "{name}: {}\n  ({})\n    {}",
                scenario.about,
                scenario.source,
                faults.join("\n    ")
            );
        }
        assert!(
            server.is_alive(),
            "the server died in scenario {name}; its log:\n{}",
            server.log()
        );
    }
    assert!(
        failed == 0,
        "{failed} of {} scenarios failed:\n{report}",
        scenarios.len()
    );
}
