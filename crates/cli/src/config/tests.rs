//! Precedence, and that every slip is an error which says where it stands and keeps secrets to itself.

use super::hub::HubVariables;
use super::*;

fn flags(listen: Option<&str>) -> Settings {
    Settings {
        listen: listen.map(|text| text.parse().unwrap()),
        ..Settings::default()
    }
}

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pentimento.toml");
    fs_err::write(&path, text).unwrap();
    (folder, path)
}

#[test]
fn flags_win_over_variables_over_the_file_over_defaults() {
    let (folder, path) = file("listen = \"127.0.0.1:3\"\ndata = \"d\"\ngrace_seconds = 7\nlog = \"debug\"\n");
    let variables = Environment::of(&[
        ("PENTIMENTO_LISTEN", "127.0.0.1:2"),
        ("PENTIMENTO_GRACE_SECONDS", "9"),
    ]);

    let all = Config::load(flags(Some("127.0.0.1:1")), Some(&path), &variables).unwrap();
    assert_eq!(all.http.listen.port(), 1);
    assert_eq!(all.grace, Duration::from_secs(9));
    assert_eq!(all.telemetry.filter, "debug");
    assert_eq!(all.data, folder.path().join("d"), "relative to the file");
    assert_eq!(all.file, Some(path.clone()));

    let no_flag = Config::load(flags(None), Some(&path), &variables).unwrap();
    assert_eq!(no_flag.http.listen.port(), 2);
    let only_file = Config::load(flags(None), Some(&path), &Environment::default()).unwrap();
    assert_eq!(only_file.http.listen.port(), 3);
    assert_eq!(only_file.link_ttl, Duration::from_secs(3600));

    let named = Environment::of(&[("PENTIMENTO_CONFIG", path.to_str().unwrap())]);
    assert_eq!(Config::load(flags(None), None, &named).unwrap(), only_file);
}

#[test]
fn memory_is_written_in_bytes_or_with_a_unit() {
    let (_folder, path) = file("body_memory = \"256 MiB\"\n");
    let load = |variables: &[(&str, &str)]| {
        Config::load(Settings::default(), Some(&path), &Environment::of(variables))
    };
    assert_eq!(load(&[]).unwrap().body_memory, Some(ByteSize(256 << 20)));
    for (text, bytes) in [("100000", 100_000), ("300 kib", 300 << 10), ("2GiB", 2 << 30)] {
        let config = load(&[("PENTIMENTO_BODY_MEMORY", text)]).unwrap();
        assert_eq!(config.body_memory, Some(ByteSize(bytes)), "{text}");
    }
    for wrong in ["", "MiB", "-1", "1.5 GiB", "12 MB", "99999999999 GiB"] {
        let error = load(&[("PENTIMENTO_BODY_MEMORY", wrong)])
            .unwrap_err()
            .to_string();
        assert!(error.contains("PENTIMENTO_BODY_MEMORY"), "{wrong}: {error}");
    }
    let (_folder, number) = file("body_memory = 65536\n");
    let config = Config::load(Settings::default(), Some(&number), &Environment::default()).unwrap();
    assert_eq!(config.body_memory, Some(ByteSize(65_536)));
}

#[test]
fn the_default_log_of_a_command_is_below_everything() {
    let (_folder, path) = file("log = \"trace\"\n");
    let quiet = Settings::with_default_log("warn");
    let environment = Environment::default();
    assert_eq!(
        Config::load(quiet.clone(), Some(&path), &environment)
            .unwrap()
            .telemetry
            .filter,
        "trace"
    );
    let (_folder, empty) = file("");
    assert_eq!(
        Config::load(quiet, Some(&empty), &environment)
            .unwrap()
            .telemetry
            .filter,
        "warn"
    );
}

#[test]
fn an_unknown_key_names_its_line_and_a_secret_stays_one() {
    let text = "# comment\nkeys = [\"a=hunter2\"]\n\nlisten_on = \"x\"\n";
    let (_folder, path) = file(text);
    let error = Config::load(flags(None), Some(&path), &Environment::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("line 4") && error.contains("listen_on"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");

    let (_folder, path) = file("keys = [\"hunter2\"]\n");
    let error = Config::load(flags(None), Some(&path), &Environment::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("line 1") && error.contains("label=secret"),
        "{error}"
    );
    assert!(!error.contains("hunter2"), "{error}");

    let (_folder, path) = file("keys = [\"a=hunter2\"]\n");
    let config = Config::load(flags(None), Some(&path), &Environment::default()).unwrap();
    assert_eq!(config.http.keys[0].secret.expose(), "hunter2");
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn variables_are_read_and_slips_are_errors() {
    let variables = Environment::of(&[
        ("PENTIMENTO_KEYS", "alice=s1, bob=s2,"),
        ("PENTIMENTO_DEVICE", "CPU"),
        ("PENTIMENTO_LOG_FORMAT", "json"),
        ("PENTIMENTO_PUBLIC_URL", "https://pictures.example/base"),
        ("PENTIMENTO_TRUST_FORWARDED", "true"),
    ]);
    let (_folder, empty) = file("");
    let config = Config::load(flags(None), Some(&empty), &variables).unwrap();
    assert_eq!(config.http.keys.len(), 2);
    assert_eq!(config.device, DeviceChoice::Cpu);
    assert!(config.http.trust_forwarded);

    for (name, value, says) in [
        ("PENTIMENTO_LISTNE", "x", "PENTIMENTO_LISTEN"),
        ("PENTIMENTO_LISTEN", "here", "PENTIMENTO_LISTEN"),
        ("PENTIMENTO_DEVICE", "tpu", "auto, cpu"),
        ("PENTIMENTO_KEYS", "a=x,a=y", "label `a`"),
        ("PENTIMENTO_KEYS", "a b=x", "label of a key"),
        ("PENTIMENTO_GRACE_SECONDS", "-1", "PENTIMENTO_GRACE_SECONDS"),
    ] {
        let error = Config::load(flags(None), Some(&empty), &Environment::of(&[(name, value)])).unwrap_err();
        assert!(error.to_string().contains(says), "{name}={value}: {error}");
    }
}

#[test]
fn without_keys_only_this_machine_may_be_listened_on() {
    let (_folder, empty) = file("");
    let load = |listen: &str, environment: &Environment| {
        let config = Config::load(flags(Some(listen)), Some(&empty), environment).unwrap();
        config.check_exposure(config.http.keys.is_empty())
    };
    let none = Environment::default();
    assert!(load("127.0.0.1:80", &none).is_ok());
    assert!(load("[::1]:80", &none).is_ok());
    for open in ["0.0.0.0:80", "[::]:80", "192.0.2.1:80"] {
        let error = load(open, &none).unwrap_err().to_string();
        assert!(
            error.contains("PENTIMENTO_KEYS") && error.contains("127.0.0.1:80"),
            "{error}"
        );
    }
    assert!(load("0.0.0.0:80", &Environment::of(&[("PENTIMENTO_KEYS", "a=b")])).is_ok());
}

#[test]
fn a_missing_settings_file_that_was_named_is_an_error() {
    let error = Config::load(
        flags(None),
        Some(Path::new("no/such.toml")),
        &Environment::default(),
    )
    .unwrap_err();
    assert!(error.to_string().contains("no/such.toml"), "{error}");
}

#[test]
fn the_bounds_of_models_and_prompts_are_settings() {
    let (_folder, path) = file("model_memory = \"6GiB\"\nmax_prompt_tokens = 150\n");
    let config = Config::load(Settings::default(), Some(&path), &Environment::default()).unwrap();
    assert_eq!(config.model_memory, Some(ByteSize(6 << 30)));
    assert_eq!(config.max_prompt_tokens, 150);
    let variables = Environment::of(&[
        ("PENTIMENTO_MODEL_MEMORY", "2GiB"),
        ("PENTIMENTO_MAX_PROMPT_TOKENS", "75"),
    ]);
    let config = Config::load(Settings::default(), Some(&path), &variables).unwrap();
    assert_eq!(
        (config.model_memory, config.max_prompt_tokens),
        (Some(ByteSize(2 << 30)), 75)
    );
}

#[test]
fn health_checks_are_next_to_the_server_unless_somebody_says_where() {
    let admin = |listen: &str, admin: Option<&str>| {
        let settings = Settings {
            admin_listen: admin.map(|text| text.parse().unwrap()),
            ..flags(Some(listen))
        };
        let config = Config::from_settings(
            settings,
            (HubConfig::of(&HubVariables::default()).unwrap(), None),
            None,
        )
        .unwrap();
        crate::admin_server::address(&config.http).map(|address| address.to_string())
    };
    assert_eq!(admin("0.0.0.0:8080", None).as_deref(), Some("127.0.0.1:8081"));
    assert_eq!(admin("127.0.0.1:0", None).as_deref(), Some("127.0.0.1:0"));
    assert_eq!(admin("127.0.0.1:65535", None), None);
    assert_eq!(admin("127.0.0.1:80", Some("[::1]:9")).as_deref(), Some("[::1]:9"));
    assert_eq!(admin("127.0.0.1:80", Some("none")), None);
}

#[test]
fn who_may_read_along_is_said() {
    let warning = |listen: &str, url: Option<&str>| {
        let settings = Settings {
            public_url: url.map(|text| text.parse().unwrap()),
            ..flags(Some(listen))
        };
        let config = Config::from_settings(
            settings,
            (HubConfig::of(&HubVariables::default()).unwrap(), None),
            None,
        )
        .unwrap();
        config.http.plain_text_warning()
    };
    assert_eq!(warning("127.0.0.1:80", None), None);
    assert!(warning("0.0.0.0:80", None).unwrap().contains("unencrypted"));
    assert!(warning("0.0.0.0:80", Some("http://a.example")).is_some());
    assert_eq!(warning("0.0.0.0:80", Some("https://a.example")), None);
}

#[test]
fn a_password_in_the_address_of_a_collector_is_refused_and_not_printed() {
    for address in [
        "http://me:sesame@127.0.0.1:4318",
        "https://me:sesame@collector.example",
    ] {
        let settings = Settings {
            otlp_endpoint: Some(address.parse().unwrap()),
            ..flags(None)
        };
        let hub = HubConfig::of(&HubVariables::default()).unwrap();
        let error = Config::from_settings(settings, (hub, None), None)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("otlp_endpoint") && !error.contains("sesame"),
            "{error}"
        );
    }
}

#[test]
fn the_page_of_settings_has_them_all_and_no_other() {
    let page = include_str!("../../../../docs/settings.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let written: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
    let mut known: Vec<String> = Settings::VARIABLES
        .iter()
        .map(|name| name.to_lowercase())
        .collect();
    let mut sorted: Vec<String> = written.into_iter().map(str::to_owned).collect();
    known.sort();
    sorted.sort();
    assert_eq!(sorted, known);
}

#[test]
fn a_bucket_takes_the_variables_of_aws_and_shows_none_of_them() {
    let load = |variables: &[(&str, &str)]| {
        Config::load(Settings::default(), None, &Environment::of(variables)).map(|config| config.images)
    };
    assert_eq!(
        load(&[("AWS_REGION", "eu-central-1")]).unwrap(),
        None,
        "not asked for"
    );
    let bucket = load(&[
        ("PENTIMENTO_IMAGES", "s3://pictures/of/mine"),
        ("AWS_SECRET_ACCESS_KEY", "hidden"),
        ("PENTIMENTO_IMAGES_LINKS", "stream"),
    ]);
    let shown = format!("{:?}", bucket.unwrap().unwrap());
    assert!(
        shown.contains("AWS_SECRET_ACCESS_KEY") && shown.contains("Stream"),
        "{shown}"
    );
    assert!(!shown.contains("hidden"), "{shown}");
    for wrong in ["pictures", "s3://", "s3://Pictures", "s3://pictures/../x"] {
        let error = load(&[("PENTIMENTO_IMAGES", wrong)]).unwrap_err().to_string();
        assert!(
            error.contains("images") && error.contains(wrong),
            "{wrong}: {error}"
        );
    }
}

#[test]
fn the_server_that_is_asked_is_the_one_of_the_same_settings() {
    let load = |variables: &[(&str, &str)]| {
        let config = Config::load(Settings::default(), None, &Environment::of(variables));
        let client = config.unwrap().client;
        (
            client.server.to_string(),
            client.key.map(|key| key.expose().to_owned()),
        )
    };
    let server = |address: &str| format!("http://{address}/");
    assert_eq!(load(&[]), (server("127.0.0.1:8080"), None));
    let keys = ("PENTIMENTO_KEYS", "a=sk-1,b=sk-2");
    let open = [("PENTIMENTO_LISTEN", "0.0.0.0:90"), keys];
    assert_eq!(load(&open), (server("127.0.0.1:90"), Some("sk-1".to_owned())));
    assert_eq!(load(&[("PENTIMENTO_LISTEN", "[::]:90")]).0, server("[::1]:90"));
    let named = [
        ("PENTIMENTO_SERVER", "https://a.example/base"),
        keys,
        ("PENTIMENTO_KEY", "sk-3"),
    ];
    assert_eq!(
        load(&named),
        ("https://a.example/base".to_owned(), Some("sk-3".to_owned()))
    );
    let wrong = Environment::of(&[("PENTIMENTO_SERVER", "ftp://a.example")]);
    assert!(Config::load(Settings::default(), None, &wrong).is_err());
}

#[test]
fn a_browser_is_opened_only_where_somebody_sees_it() {
    let at = |set: &[&str], always| is_at_a_screen(|name| set.contains(&name), always);
    for (set, always, seen) in [
        (&["DISPLAY"][..], false, true),
        (&["WAYLAND_DISPLAY"], false, true),
        (&[], true, true),
        (&[], false, false),
        (&["DISPLAY", "CI"], false, false),
        (&["CI"], true, false),
        (&["DISPLAY", "SSH_CONNECTION"], false, false),
    ] {
        assert_eq!(at(set, always), seen, "{set:?}");
    }
}

#[test]
fn what_signs_and_marks_pictures_is_checked_at_the_start() {
    let load = |variables: &[(&str, &str)]| {
        Config::load(Settings::default(), None, &Environment::of(variables))
            .map_err(|error| error.to_string())
    };
    let plain = load(&[]).unwrap();
    assert_eq!((plain.compliance, plain.c2pa), (Compliance::None, None));
    assert_eq!(plain.job_deadline, Duration::from_secs(86_400));
    let eu = ("PENTIMENTO_COMPLIANCE", "eu");
    assert!(load(&[eu]).unwrap().compliance.wants_watermark());
    let unmarked = ("PENTIMENTO_WRITE_SOURCE_TYPE", "false");
    assert!(!load(&[unmarked]).unwrap().write_source_type);
    let refused = load(&[eu, unmarked]).unwrap_err();
    assert!(
        refused.contains("write_source_type") && refused.contains("compliance"),
        "{refused}"
    );
    assert!(
        load(&[("PENTIMENTO_COMPLIANCE", "us")])
            .unwrap_err()
            .contains("none, eu")
    );
    let (chain, key) = (
        ("PENTIMENTO_C2PA_CERTIFICATES", "a.pem"),
        ("PENTIMENTO_C2PA_KEY", "b.pem"),
    );
    assert!(load(&[key]).unwrap_err().contains("c2pa_certificates"));
    if cfg!(feature = "c2pa") {
        assert_eq!(
            load(&[chain, key]).unwrap().c2pa,
            Some(("a.pem".into(), "b.pem".into()))
        );
        assert!(load(&[chain]).unwrap_err().contains("c2pa_key"));
    } else {
        assert!(load(&[chain, key]).unwrap_err().contains("--features c2pa"));
    }
    for bad in ["0", "31536001", "x"] {
        let refused = load(&[("PENTIMENTO_JOB_DEADLINE_SECONDS", bad)]).unwrap_err();
        assert!(
            refused.to_lowercase().contains("job_deadline_seconds"),
            "{refused}"
        );
    }
}

#[test]
fn a_cluster_wants_a_bucket_one_credential_and_nothing_without_its_broker() {
    const BROKER: (&str, &str) = ("PENTIMENTO_CLUSTER", "nats://a:4222, tls://b:4222");
    const BUCKET: (&str, &str) = ("PENTIMENTO_IMAGES", "s3://pictures");
    let load =
        |variables: &[(&str, &str)]| Config::load(Settings::default(), None, &Environment::of(variables));
    let refused = |variables: &[(&str, &str)]| load(variables).unwrap_err().to_string();
    assert!(refused(&[BROKER]).contains("s3://bucket"));
    let token = ("PENTIMENTO_CLUSTER_TOKEN", "hidden");
    let config = load(&[BROKER, BUCKET, token]).unwrap();
    let cluster = config.cluster.as_ref().unwrap();
    assert_eq!(
        (cluster.servers.len(), cluster.replicas, config.runs_jobs),
        (2, 1, true)
    );
    assert!(!format!("{config:?}").contains("hidden"));
    let two = refused(&[BROKER, BUCKET, token, ("PENTIMENTO_CLUSTER_NKEY_FILE", "nkey")]);
    assert!(two.contains("leave the others out"), "{two}");
    assert!(
        refused(&[BROKER, BUCKET, ("PENTIMENTO_CLUSTER_TOKEN", "")]).contains("PENTIMENTO_CLUSTER_TOKEN")
    );
    for alone in [
        token,
        ("PENTIMENTO_RUNS_JOBS", "false"),
        ("PENTIMENTO_CLUSTER_NAME", "x"),
        ("PENTIMENTO_CLUSTER_LEASE_SECONDS", "4"),
    ] {
        assert!(
            refused(&[alone]).contains("means nothing without a cluster"),
            "{alone:?}"
        );
    }
    assert_eq!(cluster.lease, Duration::from_secs(60));
    let short = ("PENTIMENTO_CLUSTER_LEASE_SECONDS", "4");
    let short = load(&[BROKER, BUCKET, token, short]).unwrap().cluster.unwrap();
    assert_eq!(short.lease, Duration::from_secs(4));
    for bad in ["1", "601"] {
        let why = refused(&[BROKER, BUCKET, token, ("PENTIMENTO_CLUSTER_LEASE_SECONDS", bad)]);
        assert!(why.contains("between 2 seconds and 600 seconds"), "{why}");
    }
    let front = load(&[BROKER, BUCKET, token, ("PENTIMENTO_RUNS_JOBS", "false")]).unwrap();
    assert!(!front.runs_jobs);
}

#[test]
fn devices_are_named_one_by_one_or_all_at_once() {
    let choice = |text: &str| text.parse::<DeviceChoice>();
    assert_eq!(choice("auto"), Ok(DeviceChoice::Auto));
    assert_eq!(choice(" CUDA "), Ok(DeviceChoice::AllCuda));
    assert_eq!(choice("cuda:1"), Ok(DeviceChoice::Cuda(vec![1])));
    assert_eq!(choice("cuda:2, 0"), Ok(DeviceChoice::Cuda(vec![2, 0])));
    assert_eq!(
        choice("emulated:none,lost@9"),
        Ok(DeviceChoice::Emulated(vec![None, Some("lost@9".to_owned())]))
    );
    for wrong in [
        "cuda:", "cuda:0,", "cuda:1,1", "cuda:64", "cuda:-1", "cpu:0", "gpu",
    ] {
        let why = choice(wrong).unwrap_err();
        assert!(why.contains("cuda:0,1"), "{wrong}: {why}");
    }
}
