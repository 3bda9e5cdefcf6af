//! The chart and the plain manifests, by Helm's own library and the schemas of Kubernetes.

use std::{collections::BTreeMap, fs, process::Command};

use observer_e2e::{deploy, require, scratch::Scratch, servers};
use serde_json::{Value, json};

/// Older and newer than what clusters run.
const VERSIONS: [&str; 2] = ["1.28", "1.34"];
const UPDATE: &str = "UPDATE_DEPLOY";

fn helm(request: &Value) -> Value {
    let script = servers::scripts().join("helm.py");
    let output = deploy::python("python", &[deploy::plain(&script)], &request.to_string());
    serde_json::from_str(&deploy::success("Helm", &output)).expect("JSON")
}

/// The values that every installation has, and these.
fn values(more: Value) -> Value {
    let mut values = json!({"image": {"repository": "ghcr.io/owner/observer"}});
    let Value::Object(more) = more else { panic!("no object: {more}") };
    values.as_object_mut().expect("an object").extend(more);
    values
}

/// What Helm makes of the chart with these values: texts by the names of their templates; or what it says against it.
fn try_render(values: &Value) -> Result<BTreeMap<String, String>, String> {
    let chart = deploy::path("helm/observer");
    let request = json!({"chart": chart, "values": values, "name": "observer", "namespace": "observer"});
    let answer = helm(&request);
    if let Some(error) = answer["error"].as_str() {
        return Err(error.to_owned());
    }
    let rendered: BTreeMap<String, String> = serde_json::from_value(answer).expect("texts");
    let name = |path: &str| path.trim_start_matches("observer/templates/").to_owned();
    Ok(rendered.into_iter().map(|(path, text)| (name(&path), text)).collect())
}

fn render(values: &Value) -> BTreeMap<String, String> {
    try_render(values).unwrap_or_else(|error| panic!("{values}: {error}"))
}

fn everything() -> Value {
    json!({"podMonitor": {"enabled": true}, "prometheusRule": {"enabled": true}, "dashboards": {"enabled": true}})
}

fn restricted(more: Value) -> Value {
    let mut values = values(more);
    values["profile"] = "restricted".into();
    values
}

/// The container of a rendered DaemonSet, and its pod.
fn pod(rendered: &BTreeMap<String, String>) -> (Value, Value) {
    let set = deploy::yaml(&rendered["daemonset.yaml"]).remove(0);
    let pod = set["spec"]["template"]["spec"].clone();
    assert_eq!(pod["containers"].as_array().map(Vec::len), Some(1));
    (pod["containers"][0].clone(), pod)
}

fn variable(container: &Value, name: &str) -> String {
    let variables = container["env"].as_array().expect("a list");
    let found = variables.iter().find(|variable| variable["name"] == name);
    found.unwrap_or_else(|| panic!("no {name}: {variables:?}"))["value"].as_str().expect("a text").to_owned()
}

/// Schemas of the Prometheus operator are not Kubernetes': what is of those is left out.
fn validate(texts: &[&str]) {
    let scratch = Scratch::new();
    let documents = texts.iter().flat_map(|text| deploy::yaml(text));
    let of_kubernetes =
        documents.filter(|one| !one["apiVersion"].as_str().expect("a text").starts_with("monitoring.coreos.com/"));
    let files: Vec<_> = of_kubernetes
        .enumerate()
        .map(|(number, document)| scratch.write(&format!("{number}.yaml"), &document.to_string()))
        .collect();
    assert!(!files.is_empty());
    for version in VERSIONS {
        let options = ["--strict", "--kubernetes-version", version];
        let files = files.iter().map(|file| deploy::plain(file));
        let arguments: Vec<_> = options.into_iter().chain(files).collect();
        let _said = deploy::success("validation", &deploy::python("kubernetes-validate", &arguments, ""));
    }
}

#[test]
fn the_chart_renders_what_kubernetes_takes() {
    require!(python);
    let chart = deploy::path("helm/observer");
    for values in [values(json!({})), values(everything()), restricted(everything())] {
        let lint = helm(&json!({"lint": chart, "values": values}));
        assert_eq!(lint["errors"], json!([]), "{lint}");
        let rendered = render(&values);
        for (name, text) in rendered.iter().filter(|(name, _)| *name != "NOTES.txt") {
            let documents = deploy::yaml(text);
            assert!(
                documents.iter().all(|one| one["kind"].is_string() && one["metadata"]["name"].is_string()),
                "{name}"
            );
        }
        let texts: Vec<_> = rendered.iter().filter(|(name, _)| *name != "NOTES.txt").map(|(_, text)| &**text).collect();
        validate(&texts);
        assert!(rendered["NOTES.txt"].contains("observer doctor"), "{}", rendered["NOTES.txt"]);
    }
    let bare = render(&values(json!({"service": {"enabled": false}, "networkPolicy": {"enabled": false}})));
    for name in ["service.yaml", "networkpolicy.yaml", "podmonitor.yaml", "prometheusrule.yaml", "dashboards.yaml"] {
        assert!(deploy::yaml(&bare[name]).is_empty(), "{name}");
    }
}

#[test]
fn profiles_differ_in_privileges_only() {
    require!(python);
    let (all, pod_of_all) = pod(&render(&values(json!({}))));
    let (few, pod_of_few) = pod(&render(&restricted(json!({}))));
    assert_eq!(all["securityContext"]["privileged"], true);
    let context = &few["securityContext"];
    assert_eq!(context["privileged"], false);
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["readOnlyRootFilesystem"], true);
    let compose = deploy::document("compose/compose.restricted.yaml");
    let compose = &compose["services"]["observer"];
    assert_eq!(compose["security_opt"], json!(["no-new-privileges:true", "apparmor=unconfined"]));
    for (values, profile) in [(values(json!({})), Value::Null), (restricted(json!({})), "unconfined".into())] {
        let set = &deploy::yaml(&render(&values)["daemonset.yaml"])[0];
        let annotations = &set["spec"]["template"]["metadata"]["annotations"];
        assert_eq!(annotations["container.apparmor.security.beta.kubernetes.io/observer"], profile);
    }
    assert_eq!(context["capabilities"], json!({"drop": compose["cap_drop"], "add": compose["cap_add"]}));
    let without = |mut container: Value| {
        container["securityContext"].take();
        container
    };
    assert_eq!(without(all), without(few));
    for pod in [pod_of_all, pod_of_few] {
        assert_eq!((&pod["hostPID"], &pod["hostNetwork"]), (&true.into(), &Value::Null));
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(
            pod["volumes"],
            json!([{"name": "config", "configMap": {"name": "observer"}}]),
            "nothing of the host"
        );
        assert_eq!(pod["nodeSelector"], json!({"nvidia.com/gpu.present": "true"}));
        assert_eq!(pod["tolerations"][0]["key"], "nvidia.com/gpu");
    }
}

#[test]
fn gpus_in_the_chart() {
    require!(python);
    let (container, plain) = pod(&render(&values(json!({}))));
    assert_eq!(plain["runtimeClassName"], Value::Null);
    assert_eq!(variable(&container, "NVIDIA_VISIBLE_DEVICES"), "all");
    assert_eq!(variable(&container, "NVIDIA_DRIVER_CAPABILITIES"), "utility");
    let (_, with) = pod(&render(&values(json!({"gpu": {"runtimeClassName": "nvidia"}}))));
    assert_eq!(with["runtimeClassName"], "nvidia");
    let (off, _) = pod(&render(&values(json!({"gpu": {"mode": "off"}}))));
    assert_eq!(
        (variable(&off, "NVIDIA_VISIBLE_DEVICES").as_str(), &*variable(&off, "OBSERVER_GPU_MODE")),
        ("void", "off")
    );
}

#[test]
fn values_that_cannot_be_meant_are_refused() {
    require!(python);
    for (wrong, named) in [
        (json!({}), "image.repository is not set"),
        (values(json!({"profile": "other"})), "profile"),
        (values(json!({"prot": 1})), "prot"),
        (values(json!({"port": 80})), "port"),
        (values(json!({"gpu": {"mode": "on"}})), "mode"),
        (values(json!({"podMonitor": {"interval": "15"}})), "interval"),
        (json!({"image": {"repository": "ghcr.io/OWNER/observer"}}), "repository"),
    ] {
        let error = try_render(&wrong).expect_err(&wrong.to_string());
        assert!(error.contains(named), "{wrong}: {error}");
    }
    let image = json!({"image": {"repository": "r/o", "tag": "2", "digest": format!("sha256:{}", "0".repeat(64))}});
    assert!(pod(&render(&image)).0["image"].as_str().is_some_and(|image| image.starts_with("r/o@sha256:000")));
}

/// The configuration in the chart, and what its environment adds, is one that the observer takes.
#[test]
fn the_observer_takes_what_the_chart_configures() {
    require!(python, observer);
    let rendered = render(&values(json!({})));
    let config = deploy::yaml(&rendered["configmap.yaml"]).remove(0);
    let scratch = Scratch::new();
    let file = scratch.write("observer.toml", config["data"]["observer.toml"].as_str().expect("a text"));
    let (container, _) = pod(&rendered);
    let mut command = Command::new(require::observer());
    command.env_clear().args(["run", "--print-config"]);
    for name in ["OBSERVER_LISTEN", "OBSERVER_GPU_MODE"] {
        command.env(name, variable(&container, name));
    }
    assert_eq!(variable(&container, "OBSERVER_CONFIG"), "/etc/observer/observer.toml");
    let said = deploy::success("the observer", &command.env("OBSERVER_CONFIG", file).output().expect("it runs"));
    for wanted in ["0.0.0.0:9478", "format = \"json\"", "path = \"-\""] {
        assert!(said.contains(wanted), "no {wanted}: {said}");
    }
}

#[test]
fn rules_in_the_chart_are_the_rules() {
    require!(python, promtool);
    let rendered = render(&values(everything()));
    let rule = deploy::yaml(&rendered["prometheusrule.yaml"]).remove(0);
    let mut groups = Vec::new();
    let folder = fs::read_dir(deploy::path("prometheus/rules")).expect("it is there");
    let mut files: Vec<_> =
        folder.map(|entry| entry.expect("readable").file_name().into_string().expect("text")).collect();
    files.sort();
    for file in files.iter().filter(|name| name.ends_with(".yml") && !name.ends_with(".test.yml")) {
        let document = deploy::document(&format!("prometheus/rules/{file}"));
        groups.extend(document["groups"].as_array().expect("groups").clone());
    }
    assert!(!groups.is_empty());
    assert_eq!(rule["spec"]["groups"], Value::Array(groups));
    let scratch = Scratch::new();
    let file = scratch.write("rules.yml", &rule["spec"].to_string());
    let mut command = Command::new(require::tool("promtool").expect("required"));
    let _said = deploy::success("promtool", &command.args(["check", "rules"]).arg(file).output().expect("it runs"));
    let monitor = deploy::yaml(&rendered["podmonitor.yaml"]).remove(0);
    let set = deploy::yaml(&rendered["daemonset.yaml"]).remove(0);
    let labels = set["spec"]["template"]["metadata"]["labels"].as_object().expect("labels").clone();
    for (name, value) in monitor["spec"]["selector"]["matchLabels"].as_object().expect("labels") {
        assert_eq!(labels.get(name), Some(value), "{name}");
    }
    assert_eq!(monitor["spec"]["jobLabel"], "app.kubernetes.io/name");
    assert_eq!(labels["app.kubernetes.io/name"], "observer");
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["port"], "metrics");
}

/// Templates in this order, as one file.
fn manifest(rendered: &BTreeMap<String, String>, templates: &[&str], about: &str) -> String {
    let mut text = format!(
        "# {about}\n# Made from the chart: `{UPDATE}=1 cargo test --release -p observer-e2e --test deploy_kubernetes plain` \
         makes it anew.\n"
    );
    for template in templates {
        // Whose release it is says nothing here.
        let lines = rendered[*template].lines().filter(|line| {
            !["app.kubernetes.io/managed-by:", "helm.sh/chart:"]
                .iter()
                .any(|label| line.trim_start().starts_with(label))
        });
        let body = lines.map(str::trim_end).collect::<Vec<_>>().join("\n");
        // No name that somebody could have: whoever forgets to fill it in gets nothing, rather than something.
        let body = body.replace("ghcr.io/owner/", "ghcr.io/OWNER/");
        text.push_str(&format!("---\n{}\n", body.trim()));
    }
    text
}

#[test]
fn plain_manifests_are_the_charts() {
    require!(python);
    let core = ["serviceaccount.yaml", "configmap.yaml", "daemonset.yaml", "service.yaml", "networkpolicy.yaml"];
    let monitoring = ["podmonitor.yaml", "prometheusrule.yaml"];
    let (all, few) = (render(&values(everything())), render(&restricted(everything())));
    let manifests = [
        ("observer.yaml", manifest(&all, &core, "The observer on every GPU node, privileged.")),
        ("observer-restricted.yaml", manifest(&few, &core, "The observer on every GPU node, with five capabilities.")),
        ("monitoring.yaml", manifest(&all, &monitoring, "For the Prometheus operator.")),
    ];
    let namespace = deploy::text("kubernetes/namespace.yaml");
    validate(&[&manifests[0].1, &manifests[1].1, &namespace]);
    let mut drifted = Vec::new();
    for (name, text) in manifests {
        let path = deploy::path("kubernetes").join(name);
        if std::env::var_os(UPDATE).is_some() {
            fs::write(&path, &text).expect("writable");
        } else if fs::read_to_string(&path).ok().as_deref() != Some(&text) {
            drifted.push(name);
        }
    }
    assert!(drifted.is_empty(), "not what the chart makes (set {UPDATE}=1): {drifted:?}");
    let kustomization = deploy::document("kubernetes/kustomization.yaml");
    let image = kustomization["images"][0]["name"].as_str().expect("a name");
    assert!(deploy::text("kubernetes/observer.yaml").contains(&format!("image: {image}:")));
    for file in deploy::texts(&kustomization["resources"]) {
        assert!(deploy::path("kubernetes").join(&file).is_file(), "{file}");
    }
}
