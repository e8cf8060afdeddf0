//! Novita's dialect: every scenario of `tests/scenarios/novita` against the real binary.

use crate::support::server::TestServer;
use crate::support::suite;

#[tokio::test(flavor = "multi_thread")]
async fn every_scenario_is_answered_as_it_says() {
    let mut server = TestServer::start_with(&["--cors-origins", "*"], &[]);
    suite::run(&mut server, "novita", 50).await;
}
