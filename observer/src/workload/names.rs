//! Names of containers, from files that runtimes keep on the host: no daemon is asked, and a name that cannot be read is
//! no error.
//!
//! | source | where | what |
//! |---|---|---|
//! | Docker | `/var/lib/docker/containers/ID/config.v2.json` | labels of Kubernetes and Compose, the name |
//! | containerd | `/run/containerd/io.containerd.runtime.v2.task/NAMESPACE/ID/config.json` | annotations of CRI and nerdctl |
//! | CRI-O, Podman | `…/containers/storage/*-containers/ID/userdata/config.json`, `…/*-containers/containers.json` | annotations; names |
//! | kubelet | `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log` | its name |
//! | conmon | its command line | `-n NAME` |

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::root::Root;

/// Most bytes read of a file.
const MOST_BYTES: u64 = 1024 * 1024;
/// Longest name.
const LONGEST: usize = 256;

/// Where a runtime's files may be.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin {
    /// Roots of file systems, the most telling first.
    pub(super) roots: Vec<Root>,
    /// Users that may have containers of their own.
    pub(super) users: Vec<u32>,
    /// Command line of the process that keeps the container.
    pub(super) keeper: Vec<String>,
}

type Texts = HashMap<String, String>;

/// The name that people know a container by: `POD/CONTAINER`, the service of a Compose file, else the container's own.
pub(super) fn container(id: &str, origin: &Origin) -> Option<String> {
    let in_root = |root: &Root| {
        docker(id, root, &origin.users)
            .or_else(|| containerd(id, root))
            .or_else(|| storage(id, root, &origin.users))
            .or_else(|| kubelet(id, root))
    };
    origin.roots.iter().find_map(in_root).or_else(|| conmon(&origin.keeper)).filter(|name| is_sound(name))
}

fn is_sound(name: &str) -> bool {
    !name.is_empty() && name.len() <= LONGEST && !name.chars().any(char::is_control)
}

/// By labels or annotations, of whatever runtime.
fn by_labels(labels: &Texts) -> Option<String> {
    let first = |keys: &[&str]| keys.iter().find_map(|key| labels.get(*key)).filter(|value| !value.is_empty());
    let pod = first(&["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"]);
    let container = first(&["io.kubernetes.cri.container-name", "io.kubernetes.container.name"]);
    if let (Some(pod), Some(container)) = (pod, container) {
        return Some(format!("{pod}/{container}"));
    }
    first(&["com.docker.compose.service", "io.podman.compose.service", "nerdctl/name"]).cloned()
}

/// A container's own name. The kubelet's are `k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT`.
fn own_name(name: &str) -> String {
    let name = name.trim_start_matches('/');
    let mut parts = name.split('_');
    match (parts.next(), parts.next(), parts.next(), parts.count()) {
        (Some("k8s"), Some(container), Some(pod), 3) => format!("{pod}/{container}"),
        _ => name.to_owned(),
    }
}

fn json<T: for<'a> Deserialize<'a>>(root: &Root, path: impl AsRef<Path>) -> Option<T> {
    serde_json::from_str(&root.text(path, MOST_BYTES)?).ok()
}

fn docker(id: &str, root: &Root, users: &[u32]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct State {
        #[serde(default)]
        name: String,
        #[serde(default)]
        config: Option<Settings>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Settings {
        #[serde(default)]
        labels: Option<Texts>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Daemon {
        data_root: PathBuf,
    }
    let configured = json::<Daemon>(root, "etc/docker/daemon.json").map(|daemon| daemon.data_root);
    let usual = ["var/lib/docker", "var/snap/docker/common/var-lib-docker"].map(PathBuf::from);
    let rootless = users.iter().filter_map(|user| Some(home(root, *user)?.join(".local/share/docker")));
    configured.into_iter().chain(usual).chain(rootless).find_map(|folder| {
        let state: State = json(root, folder.join("containers").join(id).join("config.v2.json"))?;
        let labels = state.config.and_then(|config| config.labels).unwrap_or_default();
        by_labels(&labels).or_else(|| Some(own_name(&state.name)).filter(|name| !name.is_empty()))
    })
}

/// The part of an OCI bundle's `config.json` that matters here.
fn annotations(root: &Root, bundle: &Path) -> Option<Texts> {
    #[derive(Deserialize)]
    struct Bundle {
        #[serde(default)]
        annotations: Texts,
    }
    Some(json::<Bundle>(root, bundle.join("config.json"))?.annotations)
}

fn containerd(id: &str, root: &Root) -> Option<String> {
    let states = ["run/containerd", "run/k3s/containerd", "var/snap/microk8s/common/run/containerd"];
    states.iter().find_map(|state| {
        let tasks = Path::new(state).join("io.containerd.runtime.v2.task");
        root.names(&tasks).iter().find_map(|namespace| by_labels(&annotations(root, &tasks.join(namespace).join(id))?))
    })
}

fn storage(id: &str, root: &Root, users: &[u32]) -> Option<String> {
    #[derive(Deserialize)]
    struct Stored {
        id: String,
        #[serde(default)]
        names: Vec<String>,
    }
    let usual = ["var/lib/containers/storage", "run/containers/storage"].map(PathBuf::from);
    let rootless = users.iter().flat_map(|user| {
        let home = home(root, *user).map(|home| home.join(".local/share/containers/storage"));
        home.into_iter().chain([PathBuf::from(format!("run/user/{user}/containers"))])
    });
    usual.into_iter().chain(rootless).find_map(|folder| {
        ["overlay-containers", "vfs-containers", "btrfs-containers"].iter().find_map(|driver| {
            let folder = folder.join(driver);
            let labelled = || by_labels(&annotations(root, &folder.join(id).join("userdata"))?);
            let listed = |list: &&str| {
                let stored = json::<Vec<Stored>>(root, folder.join(list))?;
                stored.into_iter().find(|stored| stored.id == id)?.names.first().map(|name| own_name(name))
            };
            labelled().or_else(|| ["containers.json", "volatile-containers.json"].iter().find_map(listed))
        })
    })
}

fn kubelet(id: &str, root: &Root) -> Option<String> {
    let end = format!("-{id}.log");
    root.names("var/log/containers").iter().find_map(|name| {
        // None of the three may contain an underscore.
        let mut parts = name.to_str()?.strip_suffix(&end)?.split('_');
        let (pod, _namespace, container) = (parts.next()?, parts.next()?, parts.next()?);
        Some(format!("{pod}/{container}"))
    })
}

fn conmon(words: &[String]) -> Option<String> {
    if !words.first()?.ends_with("conmon") {
        return None;
    }
    let at = words.iter().position(|word| word == "-n" || word == "--name")?;
    words.get(at + 1).map(|name| own_name(name))
}

/// The home directory of a user of the host.
fn home(root: &Root, user: u32) -> Option<PathBuf> {
    let users = root.text("etc/passwd", MOST_BYTES)?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        (fields.next()?.parse() == Ok(user)).then(|| fields.nth(2).map(PathBuf::from))?
    })
}
