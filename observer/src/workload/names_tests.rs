use std::{fs, os::unix::fs::symlink, path::Path};

use super::{
    fixture::{ID, Scratch},
    names::{Origin, container},
    root::Root,
};

fn origin(root: &Path) -> Origin {
    Origin { roots: vec![Root::new(root)], users: vec![0, 1000], keeper: Vec::new() }
}

/// The name that one file of the host gives.
fn named(file: &str, text: &str) -> Option<String> {
    let root = Scratch::new();
    root.write("etc/passwd", "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000:,,,:/srv/ann:/bin/zsh\n");
    root.write(&file.replace("ID", ID), &text.replace("ID", ID));
    container(ID, &origin(root.path()))
}

#[test]
fn docker_by_labels_and_by_name() {
    let file = "var/lib/docker/containers/ID/config.v2.json";
    let state = |name: &str, labels: &str| {
        format!(r#"{{"StreamConfig":{{}},"ID":"ID","Config":{{"Hostname":"h","Labels":{labels}}},"Name":"{name}"}}"#)
    };
    for (name, labels, expected) in [
        ("/vllm", "{}", Some("vllm")),
        ("/quirky_tesla", "null", Some("quirky_tesla")),
        (
            "/models-vllm-1",
            r#"{"com.docker.compose.project":"models","com.docker.compose.service":"vllm"}"#,
            Some("vllm"),
        ),
        (
            "/k8s_server_vllm-0_prod_8c5a1f0e-6a3b-4f0e-9d53-0c2f6c1d7b44_2",
            r#"{"io.kubernetes.pod.name":"vllm-0","io.kubernetes.container.name":"server"}"#,
            Some("vllm-0/server"),
        ),
        ("/k8s_server_vllm-0_prod_8c5a1f0e-6a3b-4f0e-9d53-0c2f6c1d7b44_2", "{}", Some("vllm-0/server")),
        ("", "{}", None),
    ] {
        assert_eq!(named(file, &state(name, labels)).as_deref(), expected, "{name} {labels}");
    }
    let rootless = "srv/ann/.local/share/docker/containers/ID/config.v2.json";
    assert_eq!(named(rootless, &state("/mine", "{}")).as_deref(), Some("mine"));
}

#[test]
fn docker_elsewhere() {
    let root = Scratch::new();
    root.write("etc/docker/daemon.json", r#"{"data-root": "/data/docker", "debug": true}"#);
    root.write(&format!("data/docker/containers/{ID}/config.v2.json"), r#"{"Name":"/tgi"}"#);
    assert_eq!(container(ID, &origin(root.path())).as_deref(), Some("tgi"));
}

#[test]
fn containerd_by_annotations() {
    let cri = r#"{"ociVersion":"1.1.0","annotations":{"io.kubernetes.cri.container-name":"server",
        "io.kubernetes.cri.sandbox-name":"vllm-7c9f-x2x","io.kubernetes.cri.sandbox-namespace":"prod"}}"#;
    let file =
        |state: &str, namespace: &str| format!("{state}/io.containerd.runtime.v2.task/{namespace}/ID/config.json");
    for state in ["run/containerd", "run/k3s/containerd"] {
        assert_eq!(named(&file(state, "k8s.io"), cri).as_deref(), Some("vllm-7c9f-x2x/server"));
    }
    let nerdctl = r#"{"annotations":{"nerdctl/name":"box","nerdctl/namespace":"default"}}"#;
    assert_eq!(named(&file("run/containerd", "default"), nerdctl).as_deref(), Some("box"));
    // Docker's own bundles say nothing.
    assert_eq!(named(&file("run/containerd", "moby"), r#"{"ociVersion":"1.1.0"}"#), None);
}

#[test]
fn storage_of_crio_and_podman() {
    let bundle = "var/lib/containers/storage/overlay-containers/ID/userdata/config.json";
    let crio = r#"{"annotations":{"io.kubernetes.container.name":"server","io.kubernetes.pod.name":"vllm-0",
        "io.kubernetes.pod.namespace":"prod"}}"#;
    assert_eq!(named(bundle, crio).as_deref(), Some("vllm-0/server"));
    assert_eq!(named(bundle, r#"{"annotations":{"io.container.manager":"libpod"}}"#), None);
    let list = r#"[{"id":"other","names":["x"]},{"id":"ID","names":["vllm"],"image":"i","metadata":"{}"}]"#;
    for file in [
        "var/lib/containers/storage/overlay-containers/containers.json",
        "var/lib/containers/storage/vfs-containers/containers.json",
        "var/lib/containers/storage/overlay-containers/volatile-containers.json",
        "srv/ann/.local/share/containers/storage/overlay-containers/containers.json",
    ] {
        assert_eq!(named(file, list).as_deref(), Some("vllm"), "{file}");
    }
}

#[test]
fn the_kubelets_logs_and_the_keepers_command() {
    let root = Scratch::new();
    fs::create_dir_all(root.path().join("var/log/containers")).expect("writable");
    let link = |name: String| symlink("/nowhere", root.path().join("var/log/containers").join(name)).expect("writable");
    link(format!("vllm-0_prod_server-{ID}.log"));
    link(format!("other_prod_x-{}.log", ID.replace('a', "b")));
    assert_eq!(container(ID, &origin(root.path())).as_deref(), Some("vllm-0/server"));

    let keeper = |text: &str| {
        let keeper = text.split(' ').map(str::to_owned).collect();
        container(ID, &Origin { keeper, ..Origin::default() })
    };
    assert_eq!(keeper("/usr/bin/conmon --api-version 1 -c 3f7a -n vllm --exit-dir /run").as_deref(), Some("vllm"));
    let kubernetes = "/usr/bin/conmon -c 3f7a -n k8s_server_vllm-0_prod_8c5a1f0e-6a3b-4f0e-9d53-0c2f6c1d7b44_0";
    assert_eq!(keeper(kubernetes).as_deref(), Some("vllm-0/server"));
    assert_eq!(keeper("/usr/bin/python3 -n vllm"), None);
    assert_eq!(keeper("/usr/bin/conmon -n"), None);
}

#[test]
fn what_cannot_be_read_is_no_name() {
    let file = "var/lib/docker/containers/ID/config.v2.json";
    for text in
        ["", "{", "[]", r#"{"Name":7}"#, r#"{"Name":"/a\u0007b"}"#, &format!(r#"{{"Name":"{}"}}"#, "x".repeat(300))]
    {
        assert_eq!(named(file, text), None, "{text}");
    }
    let large = format!(r#"{{"Name":"/vllm","Filler":"{}"}}"#, "x".repeat(1 << 20));
    assert_eq!(named(file, &large), None);
}
