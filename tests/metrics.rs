//! `/metrics`: a page that a strict reader takes, with the numbers of what has happened, and with no word of a caller in it.

use serde_json::json;

use crate::support::client::{generate, get, good_body, good_modelslab_body, http, send};
use crate::support::exposition::Exposition;
use crate::support::server::TestServer;
use crate::support::tests_folder;

const OPEN_METRICS: &str =
    "application/openmetrics-text; version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

async fn scrape(address: &str) -> Exposition {
    let reply = send(http().get(address).header("accept", OPEN_METRICS)).await;
    assert_eq!(reply.status, 200, "{}", reply.json());
    let kind = reply.headers["content-type"].to_str().unwrap();
    assert!(
        kind.starts_with("application/openmetrics-text; version=1.0.0"),
        "{kind}"
    );
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    Exposition::read(&text, true).unwrap_or_else(|problem| panic!("{problem}\n{text}"))
}

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::too_many_lines,
    reason = "one page, read from its beginning to its end"
)]
async fn what_has_happened_is_counted_and_no_word_of_a_caller_is_a_label() {
    let server = TestServer::start();
    let mut body = good_body();
    body["image_num"] = json!(2);
    assert_eq!(generate(&server, &body).await.status, 200);
    let enterprise = format!("{}/api/v6/images/img2img", server.base());
    let reply = send(http().post(&enterprise).json(&good_modelslab_body())).await;
    assert_eq!(reply.json()["status"], "success");

    // What hostile callers send: none of it may become a series.
    let marks = [
        "mark-in-a-path",
        "MARK-METHOD",
        "mark-in-a-model",
        "mark-in-a-query",
    ];
    for number in 0..40 {
        let address = format!("{}/v1/models/{}-{number}/x%22%0a", server.base(), marks[0]);
        get(&address).await;
        get(&format!("{}/{}-{number}?{}", server.base(), marks[0], marks[3])).await;
        let method = reqwest::Method::from_bytes(format!("{}-{number}", marks[1]).as_bytes()).unwrap();
        send(http().request(method, format!("{}/v3/model", server.base()))).await;
        let mut body = good_body();
        body["model_name"] = json!(format!("{}-{number}\"}} 1", marks[2]));
        assert_eq!(generate(&server, &body).await.status, 400);
    }

    let page = scrape(&format!("{}/metrics", server.base())).await;
    let value = |name: &str, labels: &[(&str, &str)]| {
        page.value(name, labels)
            .unwrap_or_else(|| panic!("there is no {name} {labels:?}"))
    };
    let ended = |dialect| {
        let labels = [("outcome", "succeeded"), ("kind", "none"), ("dialect", dialect)];
        value("pentimento_jobs_ended_total", &labels)
    };
    assert_eq!((ended("novita"), ended("modelslab")), (1.0, 1.0));
    assert_eq!(value("pentimento_job_wait_seconds_count", &[]), 2.0);
    assert_eq!(value("pentimento_vae_decode_seconds_count", &[]), 3.0);
    assert_eq!(value("pentimento_vae_encode_seconds_count", &[]), 2.0);
    assert!(value("pentimento_batch_rows_count", &[]) >= 2.0);
    assert!(
        value(
            "pentimento_evaluation_seconds_count",
            &[("base", "sd15"), ("size", "256")]
        ) >= 2.0
    );
    assert!(value("pentimento_device_seconds_total", &[("act", "denoise")]) > 0.0);
    assert_eq!(
        value("pentimento_model_loads_total", &[("result", "loaded")]),
        1.0
    );
    assert_eq!(value("pentimento_jobs", &[("state", "running")]), 0.0);
    assert_eq!(value("pentimento_ready", &[]), 1.0);
    assert_eq!(value("pentimento_models_resident", &[]), 1.0);
    assert!(value("pentimento_memory_held_bytes", &[("use", "weights")]) > 0.0);
    assert!(value("pentimento_memory_budget_bytes", &[("use", "bodies")]) > 0.0);
    let calls = |route, method, status| {
        let labels = [("route", route), ("method", method), ("status", status)];
        value("pentimento_http_requests_total", &labels)
    };
    assert_eq!(calls("/api/v1/enterprise/img2img", "POST", "200"), 1.0);
    assert_eq!(calls("/v3/lcm-img2img", "POST", "400"), 40.0);
    assert_eq!(calls("/v3/model", "other", "405"), 40.0);
    assert_eq!(calls("unknown", "GET", "404"), 80.0);
    assert_eq!(
        value("pentimento_http_refused_total", &[("kind", "invalid_input")]),
        40.0
    );
    assert_eq!(
        value("pentimento_build_info", &[("version", env!("CARGO_PKG_VERSION"))]),
        1.0
    );
    #[cfg(target_os = "linux")]
    {
        assert!(value("process_resident_memory_bytes", &[]) > 1e6);
        assert!(value("process_open_fds", &[]) > 3.0);
        assert!(value("process_cpu_seconds_total", &[]) > 0.0);
    }
    for sample in &page.samples {
        for text in sample.labels.values() {
            let text = text.to_ascii_lowercase();
            assert!(!text.contains("mark-"), "{sample:?}");
        }
    }
    assert!(page.samples.len() < 600, "{} series", page.samples.len());

    // The older format for whoever does not ask for the newer one, and the same numbers on the other listener.
    let plain = get(&format!("{}/metrics", server.admin_base())).await;
    assert_eq!(
        plain.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let text = String::from_utf8(plain.body.to_vec()).unwrap();
    let plain = Exposition::read(&text, false).unwrap_or_else(|problem| panic!("{problem}\n{text}"));
    assert_eq!(plain.value("pentimento_vae_decode_seconds_count", &[]), Some(3.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_keys_only_the_operator_reads_them_and_health_checks_show_them() {
    let server = TestServer::start_with(&["--key", "tests=sk_metrics_0123456789"], &[]);
    let address = format!("{}/metrics", server.base());
    assert_eq!(get(&address).await.status, 401);
    let wrong = send(http().get(&address).bearer_auth("sk_wrong")).await;
    assert_eq!(wrong.status, 401);
    let right = send(http().get(&address).bearer_auth("sk_metrics_0123456789")).await;
    assert_eq!(right.status, 200);
    assert!(
        !String::from_utf8_lossy(&right.body).contains("tests"),
        "a label of a key"
    );
    let admin = format!("{}/metrics", server.admin_base());
    scrape(&admin).await;
    // A page whose name was made to lead here must not read them.
    let rebound = send(http().get(&admin).header("host", "evil.example")).await;
    assert_eq!(rebound.status, 403);
}

/// Boards and alerts ask for numbers by name; one that does not exist would be empty, or never ring.
#[tokio::test(flavor = "multi_thread")]
async fn boards_and_alerts_name_metrics_that_exist() {
    let server = TestServer::start();
    // Series of jobs and calls begin with the first one.
    assert_eq!(generate(&server, &good_body()).await.status, 200);
    let page = scrape(&format!("{}/metrics", server.base())).await;
    let folder = tests_folder().join("../docs/observability");
    let mut named = 0;
    for file in ["grafana.json", "alerts.yaml"] {
        let text = fs_err::read_to_string(folder.join(file)).unwrap();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|word| {
            (word.starts_with("pentimento_") || word.starts_with("process_")) && !word.ends_with('_')
        }) {
            let family = ["_total", "_bucket", "_sum", "_count", "_info"]
                .iter()
                .find_map(|suffix| word.strip_suffix(suffix))
                .unwrap_or(word);
            assert!(
                page.families.contains(family) || page.families.contains(word),
                "{file}: there is no {word}"
            );
            named += 1;
        }
    }
    assert!(named > 20, "only {named} names were found");
    let _: serde_json::Value =
        serde_json::from_str(&fs_err::read_to_string(folder.join("grafana.json")).unwrap()).unwrap();
    let _: serde_json::Value =
        serde_yaml_ng::from_str(&fs_err::read_to_string(folder.join("alerts.yaml")).unwrap()).unwrap();
}
