use std::{ffi::OsString, path::PathBuf};

use super::*;

fn scratch(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("observer-config-{}-{name}.toml", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path
}

fn sources(file: Option<&PathBuf>, environment: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Sources {
    Sources {
        file: file.cloned(),
        environment: environment.iter().map(|(k, v)| (OsString::from(k), OsString::from(v))).collect(),
        flags: flags.iter().map(|(key, value)| Flag { key, value: (*value).to_owned() }).collect(),
    }
}

fn error(file: Option<&PathBuf>, environment: &[(&str, &str)], flags: &[(&'static str, &str)]) -> String {
    load(&sources(file, environment, flags)).unwrap_err().to_string()
}

#[test]
fn later_sources_win() {
    let file = scratch(
        "precedence",
        "listen = \"127.0.0.1:1\"\n[scope]\nports = [1, 2]\npids = [7]\n[log]\nlevel = \"warn\"\n",
    );
    let environment = [("OBSERVER_LISTEN", "127.0.0.1:2"), ("OBSERVER_PORTS", "3, 4"), ("PATH", "/bin")];
    let loaded = load(&sources(Some(&file), &environment, &[("listen", "[::1]:3")])).unwrap();
    assert_eq!(loaded.config.listen, "[::1]:3".parse().unwrap());
    assert_eq!(loaded.config.scope.ports, [3, 4], "a list replaces the earlier one");
    assert_eq!(loaded.config.scope.pids, [7]);
    assert_eq!(loaded.config.request_log.queue, 8192);
    assert_eq!(loaded.origin("listen"), "flag --listen");
    assert_eq!(loaded.origin("scope.ports"), "environment OBSERVER_PORTS");
    assert_eq!(loaded.origin("log.level"), format!("file {}", file.display()));
    assert_eq!(loaded.origin("metrics.max_models"), "default");
}

#[test]
fn the_file_can_be_named_by_the_environment() {
    let file = scratch("by-env", "[metrics]\nmax_models = 3\nseries_ttl = \"1h\"\n");
    let path = file.to_str().unwrap();
    let loaded = load(&sources(None, &[("OBSERVER_CONFIG", path)], &[])).unwrap();
    assert_eq!(loaded.config.metrics.max_models, 3);
    assert_eq!(loaded.config.metrics.series_ttl, Duration::from_secs(3600));
    assert_eq!(load(&sources(None, &[("OBSERVER_CONFIG", "")], &[])).unwrap().config, Config::default());
}

#[test]
fn every_setting_has_a_value_and_a_variable_that_works() {
    let shown = load(&Sources::default()).unwrap().print();
    for setting in settings::SETTINGS {
        let text = match setting.key {
            "listen" => "127.0.0.1:1",
            "log.format" => "json",
            "log.level" => "debug",
            "metrics.series_ttl" => "20m",
            "kernel.ring_bytes" => "65536",
            "gpu.mode" => "require",
            "kernel.socket_hook" => "fexit",
            "signals.io" => "on",
            "governor.interval" | "gpu.interval" => "2s",
            "governor.restore_after" => "3s",
            "gpu.slow_interval" => "20s",
            "gpu.processes" | "gpu.gpm" | "security.sandbox" => "false",
            _ => match setting.kind {
                settings::Kind::Text | settings::Kind::Texts => "/x",
                // Signals are on by themselves.
                settings::Kind::Bool if setting.key.starts_with("signals.") => "false",
                settings::Kind::Bool => "true",
                settings::Kind::Number => "0.5",
                settings::Kind::Numbers => "1,2.5",
                settings::Kind::Integer | settings::Kind::Integers => "5",
                settings::Kind::Objectives => "fast:ttft:0.5,whole:duration:30",
                settings::Kind::HeaderLabels => "x-tenant,x-team:team:8:true",
            },
        };
        let loaded = load(&sources(None, &[(setting.env, text)], &[])).unwrap();
        assert_ne!(loaded.config, Config::default(), "{} has no effect", setting.env);
        assert_eq!(loaded.origin(setting.key), format!("environment {}", setting.env));
        assert!(shown.contains(setting.help));
    }
}

#[test]
fn unknown_names_are_errors_that_name_the_nearest() {
    let file = scratch("unknown", "listen = \"127.0.0.1:1\"\n\n[scope]\nport = [1]\n");
    let message = error(Some(&file), &[], &[]);
    assert!(message.contains(":4: unknown key `scope.port`; did you mean `scope.ports`?"), "{message}");
    let file = scratch("section", "[scoop]\nports = [1]\n");
    let message = error(Some(&file), &[], &[]);
    assert!(message.contains(":1: unknown key `scoop`; did you mean `scope`?"), "{message}");
    let file = scratch("not-a-section", "scope = 3\n");
    assert!(error(Some(&file), &[], &[]).contains(":1: scope: is a section"));
    let file = scratch("in-list", "[[slo.objectives]]\nname = \"a\"\nkind = \"ttft\"\nsecond = 1\n");
    assert!(error(Some(&file), &[], &[]).contains("second"));

    for (name, nearest) in [
        ("OBSERVER_LISTENS", "OBSERVER_LISTEN"),
        ("OBSERVER_SCOPE_PORTS", "OBSERVER_PORTS"),
        ("OBSERVER_REQUEST_LOG", "OBSERVER_REQUEST_LOG_PATH"),
        ("OBSERVER_LOGLEVEL", "OBSERVER_LOG_LEVEL"),
    ] {
        let message = error(None, &[(name, "1")], &[]);
        assert_eq!(message, format!("environment: unknown variable `{name}`; did you mean `{nearest}`?"));
    }
    assert!(error(None, &[("OBSERVER_XYZZY", "1")], &[]).contains("--print-config"));
}

#[test]
fn variables_of_tests_and_of_container_platforms_are_no_settings() {
    let environment = [
        ("OBSERVER_REQUIRE", "all"),
        ("OBSERVER_BPF_OBJECT", "/x"),
        ("OBSERVER_SERVICE_HOST", "10.0.0.1"),
        ("OBSERVER_SERVICE_PORT_HTTP", "9478"),
        ("OBSERVER_PORT", "tcp://10.0.0.1:9478"),
        ("OBSERVER_PORT_9478_TCP_ADDR", "10.0.0.1"),
        ("OBSERVER_GATEWAY_PORT_80_TCP", "tcp://10.0.0.1:80"),
    ];
    load(&sources(None, &environment, &[])).unwrap();
    assert!(error(None, &[("OBSERVER_PORT", "8000")], &[]).contains("did you mean `OBSERVER_PORTS`"));
}

#[test]
fn bad_values_say_where_they_stand_and_what_is_right() {
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[("OBSERVER_PORTS", "80a0")], "environment OBSERVER_PORTS: scope.ports: `80a0` is not a whole number"),
        (&[("OBSERVER_PORTS", "70000")], "environment OBSERVER_PORTS: scope.ports"),
        (&[("OBSERVER_PORTS", "0")], "environment OBSERVER_PORTS: scope.ports: 0 is no port"),
        (&[("OBSERVER_CGROUPS", "system.slice")], "not an absolute path"),
        (&[("OBSERVER_LISTEN", "localhost")], "environment OBSERVER_LISTEN: listen: "),
        (&[("OBSERVER_LOG_FORMAT", "xml")], "log.format: `xml` is not one of text, json"),
        (&[("OBSERVER_LOG_LEVEL", "a=b=c")], "log.level"),
        (&[("OBSERVER_LOG_KERNEL", "maybe")], "neither true nor false"),
        (&[("OBSERVER_METRICS_SERIES_TTL", "ten")], "metrics.series_ttl: `ten` is not a duration"),
        (&[("OBSERVER_METRICS_BUCKETS_GAP", "2,1")], "ascending order"),
        (&[("OBSERVER_METRICS_MAX_MODELS", "0")], "from 1 to"),
        (&[("OBSERVER_KERNEL_RING_BYTES", "100000")], "power of two"),
        (
            &[("OBSERVER_GPU_MODE", "on")],
            "environment OBSERVER_GPU_MODE: gpu.mode: `on` is not one of auto, off, require",
        ),
        (&[("OBSERVER_GOVERNOR_BUDGET", "-1")], "governor.budget: must be from 0 (no governor) to 1024 cores"),
        (&[("OBSERVER_GOVERNOR_INTERVAL", "1s")], "governor.interval: must be from 2s to 1h"),
        (&[("OBSERVER_GOVERNOR_RESTORE_AFTER", "2days")], "governor.restore_after: must be from 1s to 24h"),
        (&[("OBSERVER_GPU_INTERVAL", "100ms")], "gpu.interval: must be from 200ms to 60s"),
        (&[("OBSERVER_GPU_SLOW_INTERVAL", "500ms")], "gpu.slow_interval: must be from gpu.interval to 10m"),
        (&[("OBSERVER_SLO_OBJECTIVES", "fast")], "name:kind:seconds"),
        (&[("OBSERVER_SLO_OBJECTIVES", "fast:ttfb:1")], "`ttfb` is not one of ttft, tpot, duration"),
        (&[("OBSERVER_SLO_OBJECTIVES", "a:ttft:1,a:tpot:1")], "a name of its own"),
        (
            &[("OBSERVER_METRICS_HEADER_LABELS", "Authorization:tenant:8:true")],
            "environment OBSERVER_METRICS_HEADER_LABELS: metrics.header_labels: header `Authorization` may carry a secret",
        ),
        (&[("OBSERVER_METRICS_HEADER_LABELS", "a,b,c,d")], "4 headers are too many"),
        (&[("OBSERVER_METRICS_HEADER_LABELS", "x:y:many")], "`many` is not a whole number"),
        (&[("OBSERVER_METRICS_HEADER_LABELS", "x:y:1:maybe")], "`maybe` is neither true nor false"),
        (&[("OBSERVER_METRICS_HEADER_LABELS", "x:y:1:true:z")], "form header:label:max_values:hash"),
        (&[("OBSERVER_METRICS_HEADER_LABELS", ":y")], "header `` is not a name of a header"),
    ];
    for (environment, expected) in cases {
        let message = error(None, environment, &[]);
        assert!(message.contains(expected), "{environment:?}: {message}");
    }
    let file = scratch("type", "[metrics]\nmax_models = \"many\"\n");
    let message = error(Some(&file), &[], &[]);
    assert!(message.contains("type.toml: metrics.max_models: found string \"many\""), "{message}");
    let file = scratch("syntax", "listen = \"127.0.0.1:1\"\n\nscope = [\n");
    assert!(
        error(Some(&file), &[], &[]).contains("syntax.toml:3: not valid TOML")
            || error(Some(&file), &[], &[]).contains("syntax.toml:4: not valid TOML")
    );
    assert!(
        error(Some(&PathBuf::from("/no/such/file")), &[], &[])
            .contains("cannot read the configuration file /no/such/file")
    );
    assert!(error(None, &[], &[("scope.pids", "x")]).starts_with("flag --pids: scope.pids: `x`"));
}

#[test]
fn labels_from_headers_in_a_variable_and_in_a_file() {
    let variable = [("OBSERVER_METRICS_HEADER_LABELS", "X-Tenant, x-team:team:8:true,x-tier::2")];
    let expected = [
        HeaderLabel::of("X-Tenant"),
        HeaderLabel { label: "team".to_owned(), max_values: 8, hash: true, ..HeaderLabel::of("x-team") },
        HeaderLabel { max_values: 2, ..HeaderLabel::of("x-tier") },
    ];
    assert_eq!(load(&sources(None, &variable, &[])).unwrap().config.metrics.header_labels, expected);
    let file = scratch(
        "header-labels",
        "[[metrics.header_labels]]\nheader = \"X-Tenant\"\n[[metrics.header_labels]]\nheader = \"x-team\"\n\
         label = \"team\"\nmax_values = 8\nhash = true\n[[metrics.header_labels]]\nheader = \"x-tier\"\n\
         max_values = 2\n",
    );
    assert_eq!(load(&sources(Some(&file), &[], &[])).unwrap().config.metrics.header_labels, expected);
    let file = scratch("header-label", "[[metrics.header_labels]]\nheader = \"x\"\nhashed = true\n");
    assert!(error(Some(&file), &[], &[]).contains("hashed"));
}

#[test]
fn keys_of_hashes_are_read_and_checked() {
    let key = |path: PathBuf| MetricsConfig { hash_key_file: Some(path), ..MetricsConfig::default() }.hash_key();
    assert_eq!(MetricsConfig::default().hash_key().unwrap(), None);
    assert_eq!(key(scratch("key", "0123456789abcdef\r\n")).unwrap(), Some(b"0123456789abcdef".to_vec()));
    let message = key(scratch("short-key", "0123456789abcde\n")).unwrap_err().to_string();
    assert!(message.contains("short-key.toml: metrics.hash_key_file: a key of 15 bytes is too short"), "{message}");
    let message = key("/no/such/key".into()).unwrap_err().to_string();
    assert!(message.starts_with("/no/such/key: metrics.hash_key_file: cannot read it: "), "{message}");
}

#[test]
fn an_empty_path_takes_a_request_log_back() {
    let file = scratch("path", "[request_log]\npath = \"/x\"\n");
    let loaded = load(&sources(Some(&file), &[("OBSERVER_REQUEST_LOG_PATH", "")], &[])).unwrap();
    assert_eq!(loaded.config.request_log.path, None);
}

#[test]
fn what_is_printed_can_be_read_back() {
    let environment = [
        ("OBSERVER_SLO_OBJECTIVES", "fast:ttft:0.5,whole:duration:30"),
        ("OBSERVER_PORTS", "8000,8001"),
        ("OBSERVER_REQUEST_LOG_PATH", "-"),
        ("OBSERVER_METRICS_HEADER_LABELS", "x-tenant,x-team:team:8:true"),
    ];
    let loaded = load(&sources(None, &environment, &[])).unwrap();
    let printed = loaded.print();
    assert!(printed.contains("# From: environment OBSERVER_PORTS\nports = [8000, 8001]\n"), "{printed}");
    let file = scratch("printed", &printed);
    assert_eq!(load(&sources(Some(&file), &[], &[])).unwrap().config, loaded.config);
    let defaults = load(&Sources::default()).unwrap();
    assert_eq!(
        load(&sources(Some(&scratch("defaults", &defaults.print())), &[], &[])).unwrap().config,
        Config::default()
    );
}

#[test]
fn the_scope_in_words() {
    assert_eq!(Scope::default().describe(), "everything on this host");
    let scope = Scope { ports: vec![8000, 8001], cgroups: vec!["/a".into()], ..Scope::default() };
    assert_eq!(scope.describe(), "ports 8000, 8001; cgroups /a");
}

#[test]
fn docs_of_configuration_are_current() {
    crate::docs::assert_current("configuration.md", &document());
}
