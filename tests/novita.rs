//! Novita's dialect: every scenario of `tests/scenarios/novita` against the real binary.

use std::fmt::Write as _;

use crate::support::scenario::Scenario;
use crate::support::server::TestServer;
use crate::support::tests_folder;

#[tokio::test(flavor = "multi_thread")]
async fn every_scenario_is_answered_as_it_says() {
    let mut server = TestServer::start();
    let scenarios = Scenario::all(&tests_folder().join("scenarios/novita"));
    assert!(scenarios.len() > 50, "the scenarios were not found");
    let mut report = String::new();
    let mut failed = 0;
    for (file, scenario) in &scenarios {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let faults = scenario.run(&server).await;
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
