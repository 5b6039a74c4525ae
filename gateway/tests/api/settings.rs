//! Settings out of flags, the environment and a file, as the program reads them.

use std::path::Path;
use std::process::{Command, Stdio};

/// Runs `sluice-gateway --check` with nothing in the environment but where ONNX Runtime is, and
/// `variables`. Gives whether the settings are fine, and what is said about them.
pub(crate) fn check(arguments: &[&str], variables: &[(&str, &str)]) -> (bool, String) {
    let runtime = ["SLUICE_ONNXRUNTIME", "ORT_DYLIB_PATH"];
    let runtime = runtime.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    let output = Command::new(env!("CARGO_BIN_EXE_sluice-gateway"))
        .env_clear()
        .envs(runtime)
        .envs(variables.iter().copied())
        .arg("--check")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

fn write(folder: &Path, text: &str) -> String {
    let path = folder.join("sluice.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The one that loses is of no use, so that it would be complained about.
#[test]
fn a_source_of_models_wins_over_the_other_one_further_down() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().to_str().unwrap();
    let url = "http://localhost:5000";
    let lost_registry = write(folder.path(), "registry = \"gone\"\n");
    let both = "model_repository and registry are both set";
    for (arguments, variables, says) in [
        (vec!["--model-repository", models], vec![("SLUICE_REGISTRY", "gone")], None),
        (vec!["--registry", url], vec![("SLUICE_MODEL_REPOSITORY", "/gone")], None),
        (vec!["--config", &lost_registry], vec![("SLUICE_MODEL_REPOSITORY", models)], None),
        (vec!["--model-repository", models, "--config", &lost_registry], vec![], None),
        (vec!["--model-repository", models, "--registry", url], vec![], Some(both)),
        (vec![], vec![("SLUICE_MODEL_REPOSITORY", models), ("SLUICE_REGISTRY", url)], Some(both)),
        (vec![], vec![("SLUICE_REGISTRY", "localhost:5000")], Some("http://localhost:5000")),
        (vec![], vec![], Some("name --model-repository DIR or --registry URL")),
    ] {
        let (fine, said) = check(&arguments, &variables);
        assert_eq!(fine, says.is_none(), "{arguments:?} {variables:?}: {said}");
        assert!(said.contains(says.unwrap_or_default()), "{arguments:?} {variables:?}: {said}");
    }
}

/// KServe's names for them count, and ours win.
#[test]
fn what_events_are_signed_with_must_fit_into_a_header() {
    let folder = tempfile::tempdir().unwrap();
    let models = ["--model-repository", folder.path().to_str().unwrap()];
    let flag = [&models[..], &["--ce-source", "a\nb"]].concat();
    let merge = [&models[..], &["--ce-merge", "--serve-metrics"]].concat();
    for (arguments, variables, says) in [
        (&models[..], vec![("CE_TYPE", "io.example"), ("CE_MERGE", "True")], None),
        (&merge, vec![], None),
        (&flag, vec![], Some("--ce-source \"a\\nb\" must be printable ASCII")),
        (&models[..], vec![("CE_TYPE", "")], None),
        (&models, vec![("CE_TYPE", "é")], Some("--ce-type")),
        (&models, vec![("CE_TYPE", "é"), ("SLUICE_CE_TYPE", "io.example")], None),
    ] {
        let (fine, said) = check(arguments, &variables);
        assert_eq!(fine, says.is_none(), "{arguments:?} {variables:?}: {said}");
        assert!(said.contains(says.unwrap_or_default()), "{arguments:?} {variables:?}: {said}");
    }
}

/// What OpenTelemetry's variables lead to is what there is to log.
#[test]
fn the_file_says_how_to_log_unless_a_flag_or_the_environment_does() {
    let folder = tempfile::tempdir().unwrap();
    let unusable = ("OTEL_EXPORTER_OTLP_ENDPOINT", "unix:/traces");
    let run = |text: &str, flags: &[&str], variables: &[(&str, &str)]| {
        let text = format!("registry = \"http://localhost:5000\"\n{text}");
        let file = write(folder.path(), &text);
        check(&[&["--config", &file], flags].concat(), &[&[unusable], variables].concat())
    };
    let is_json = |said: &str| said.starts_with('{') && said.contains("\"reason\":\"OTEL_");

    let (fine, said) = run("", &[], &[]);
    assert!(fine && said.contains(unusable.0) && !is_json(&said), "{said}");
    let json = "log_format = \"json\"\n";
    let (fine, said) = run(json, &[], &[]);
    assert!(fine && is_json(&said), "{said}");
    let (_, said) = run(json, &["--log-format", "text"], &[]);
    assert!(said.contains(unusable.0) && !is_json(&said), "{said}");
    let (_, said) = run(json, &[], &[("SLUICE_LOG_FORMAT", "text")]);
    assert!(said.contains(unusable.0) && !is_json(&said), "{said}");
    assert_eq!(run("log = \"error\"\n", &[], &[]), (true, String::new()));

    for (text, says) in [("log_format = \"xml\"\n", "xml"), ("log = \"x=y=z\"\n", "x=y=z")] {
        let (fine, said) = run(text, &[], &[]);
        assert!(!fine && said.contains(says), "{said}");
    }
}

/// A key that nothing reads would leave a door open that its writer has closed.
#[test]
fn a_key_that_looks_like_a_known_one_is_a_mistake() {
    let folder = tempfile::tempdir().unwrap();
    for (text, says) in [
        (
            "admin_tokens_file = \"t\"",
            "sluice.toml: line 2: unknown key \"admin_tokens_file\"; is \"admin_token_file\" meant?",
        ),
        (
            "[tls]\ncertificate = \"c\"",
            "line 2: unknown key \"tls\"; keys are not grouped in tables: write tls_certificate",
        ),
        ("admin_token = \"t\"", "unknown key \"admin_token\"; is \"admin_token_file\" meant?"),
        ("colour = \"blue\"", ""),
        ("trace_level = \"ALL\"", "line 2: trace_level: unknown variant `ALL`"),
        ("metric_names = [\"triton\", \"sluice\"]\ntrace_level = \"OFF\"", ""),
        ("metric_names = \"prometheus\"", "line 2: metric_names: unknown variant `prometheus`"),
    ] {
        let file = write(folder.path(), &format!("registry = \"http://localhost:5000\"\n{text}\n"));
        let (fine, said) = check(&["--config", &file], &[]);
        assert_eq!(fine, says.is_empty(), "{text}: {said}");
        assert!(said.contains(says), "{text}: {said}");
    }
}

/// As manifests have them that fill some of them in. What closes doors must be said or left out.
#[test]
fn an_empty_variable_says_nothing_unless_it_closes_a_door() {
    let registry = ["--registry=http://localhost:5000"];
    for variable in [
        "CE_TYPE",
        "CE_SOURCE",
        "CE_MERGE",
        "SLUICE_CE_TYPE",
        "SLUICE_CORES",
        "SLUICE_MODEL_REPOSITORY",
        "SLUICE_CONFIG",
        "SLUICE_METRICS",
        "SLUICE_SERVE_CONTROL",
        "SLUICE_MAX_BODY",
        "SLUICE_LOG",
        "SLUICE_LOG_FORMAT",
    ] {
        let (fine, said) = check(&registry, &[(variable, "")]);
        assert!(fine && !said.contains("WARN"), "{variable}: {said}");
    }
    for variable in [
        "SLUICE_ADMIN_TOKEN_FILE",
        "SLUICE_INFERENCE_TOKEN_FILE",
        "SLUICE_TLS_KEY",
        "SLUICE_RESTRICT",
    ] {
        let (fine, said) = check(&registry, &[(variable, "")]);
        assert!(!fine, "{variable}: {said}");
    }
    // With a value they are what they were.
    assert!(!check(&registry, &[("SLUICE_CORES", "two")]).0);
}

#[test]
fn flags_that_are_true_or_false_have_one_form() {
    let registry = "--registry=http://localhost:5000";
    for flag in ["--shared-memory", "--serve-metrics", "--grpc-compress-replies", "--ce-merge"] {
        let equals = |value: &str| format!("{flag}={value}");
        let (yes, no) = (equals("true"), equals("false"));
        for (form, expected) in [
            (vec![flag], true),
            (vec![flag, "true"], true),
            (vec![flag, "false"], true),
            (vec![&*yes], true),
            (vec![&*no], true),
            (vec![flag, "maybe"], false),
        ] {
            let (fine, said) = check(&[&[registry], &form[..]].concat(), &[]);
            assert_eq!(fine, expected, "{form:?}: {said}");
        }
    }
}

#[test]
fn sizes_have_units_and_a_body_has_some_size() {
    let registry = "--registry=http://localhost:5000";
    for (flag, says) in [
        ("--max-body=64MiB", ""),
        ("--max-body=1", ""),
        ("--max-body=0", "--max-body must be at least 1"),
        ("--max-body=1.5GiB", "\"1.5GiB\" is no size"),
        ("--compress-replies=2KiB", ""),
        ("--response-cache=1GB", ""),
    ] {
        let (fine, said) = check(&[registry, flag], &[]);
        assert_eq!(fine, says.is_empty(), "{flag}: {said}");
        assert!(said.contains(says), "{flag}: {said}");
    }
}

/// What a start would fail with is found beforehand.
#[test]
fn a_check_opens_onnx_runtime_and_the_definitions() {
    let folder = tempfile::tempdir().unwrap();
    let features = folder.path().join("features.toml");
    std::fs::write(&features, "format = 1\n[entity.store]\ncolour = 3\n").unwrap();
    let features = format!("--features={}", features.display());
    let wrong = ["--registry=http://localhost:5000", "--onnxruntime=/gone/lib.so", &features];
    let (fine, said) = check(&wrong, &[]);
    assert!(!fine && said.contains("/gone/lib.so"), "{said}");
    assert!(
        said.contains(&format!("--features {}", features.trim_start_matches("--features="))),
        "{said}"
    );
}

/// Those are said to all processes of a machine at once, so they are no mistake of this one.
#[test]
fn variables_of_opentelemetry_never_stop_the_start() {
    let arguments = ["--registry=http://localhost:5000", "--trace-level=TIMESTAMPS"];
    let (fine, said) = check(&arguments, &[]);
    assert!(!fine && said.contains("name the collector as well"), "{said}");
    let collector = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
    for (variable, value) in [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "unix:/traces"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ] {
        let (fine, said) = check(&arguments, &[collector, (variable, value)]);
        assert!(fine && said.contains("WARN") && said.contains(variable), "{variable}: {said}");
    }
    let (fine, said) = check(&arguments[..1], &[("OTEL_SDK_DISABLED", "true")]);
    assert!(fine && !said.contains("WARN"), "{said}");
}

#[test]
fn how_http_is_served() {
    let registry = "--registry=http://localhost:5000";
    for (flag, says) in [
        ("--base-path=/a/b", ""),
        ("--base-path=/a/", ""),
        ("--base-path=/", ""),
        ("--base-path=a", "--base-path a: must be a path that begins with a slash"),
        ("--base-path=/a?b", "must be a path"),
        ("--base-path=/v2x/v2", ""),
        ("--base-path=/v2", "--base-path /v2: /v2 is answered already"),
        ("--base-path=/V1/a", "/V1 is answered already"),
        ("--base-path=/metrics", "/metrics is answered already"),
        ("--base-path=/openapi.json/", "/openapi.json is answered already"),
        ("--compress-replies=0", ""),
        ("--compress-replies=1024", ""),
        ("--compress-replies=10", "--compress-replies must be 0 or at least 1024"),
    ] {
        let (fine, said) = check(&[registry, flag], &[]);
        assert_eq!(fine, says.is_empty(), "{flag}: {said}");
        assert!(said.contains(says), "{flag}: {said}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "base_path = \"a\"\ncompress_replies = 10\n");
    let (fine, said) = check(&[registry, "--config", &file], &[]);
    assert!(
        !fine && said.contains("--base-path a") && said.contains("--compress-replies"),
        "{said}"
    );
    let variables = [("SLUICE_BASE_PATH", "/a"), ("SLUICE_COMPRESS_REPLIES", "0")];
    let (fine, said) = check(&[registry, "--config", &file], &variables);
    assert!(fine, "{said}");
}

#[test]
fn what_makes_models_come_and_go_is_one_thing() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().to_str().unwrap();
    let file = write(
        folder.path(),
        "model_control = \"explicit\"\nload_model = [\"a\", \"b\"]\nserve_control = [\"model-repository\", \"shared-memory\"]\n",
    );
    let repository = ["--model-repository", models];
    let registry = ["--registry", "http://localhost:5000"];
    let needs_explicit = "--load-model goes with --model-control explicit";
    for (source, arguments, variables, says) in [
        (repository, vec!["--model-control", "poll"], vec![], None),
        (repository, vec!["--model-control", "none"], vec![], None),
        (repository, vec!["--model-control", "explicit"], vec![], None),
        (repository, vec!["--config", &file], vec![], None),
        (repository, vec![], vec![("SLUICE_MODEL_CONTROL", "explicit")], None),
        (
            repository,
            vec!["--config", &file, "--model-control", "poll"],
            vec![],
            Some(needs_explicit),
        ),
        (repository, vec!["--load-model", "a"], vec![], Some(needs_explicit)),
        (repository, vec!["--model-control=none", "--load-model=*"], vec![], Some(needs_explicit)),
        (
            repository,
            vec!["--model-control=explicit", "--load-model=a", "--load-model=*"],
            vec![],
            None,
        ),
        (
            repository,
            vec!["--model-control=explicit", "--load-model=a,../b"],
            vec![],
            Some("\"../b\""),
        ),
        (repository, vec!["--model-control=sometimes"], vec![], Some("explicit")),
        (repository, vec!["--serve-control=logging,trace"], vec![], None),
        (
            repository,
            vec![],
            vec![("SLUICE_SERVE_CONTROL", "everything")],
            Some("model-repository"),
        ),
        (registry, vec!["--model-control=explicit"], vec![], Some("of a registry come and go")),
    ] {
        let arguments = [&source[..], &arguments[..]].concat();
        let (fine, said) = check(&arguments, &variables);
        assert_eq!(fine, says.is_none(), "{arguments:?} {variables:?}: {said}");
        assert!(said.contains(says.unwrap_or_default()), "{arguments:?} {variables:?}: {said}");
    }
}
