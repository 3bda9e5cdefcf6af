//! What the cgroups of a process say of it: the container and the systemd unit that it runs in.
//!
//! Paths are read, never the file system: they are the same on cgroup v2, v1 and where both are mounted, and whether
//! they begin at the host's root or at some other place (a reader in a cgroup namespace sees `/../..` in front).

/// What made a container, as far as its cgroup shows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Runtime {
    /// Docker.
    Docker,
    /// containerd, for Kubernetes or nerdctl.
    Containerd,
    /// CRI-O.
    Crio,
    /// Podman.
    Podman,
    /// The cgroup has its id alone.
    Unknown,
}

/// A container.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Container {
    /// What made it.
    pub(super) runtime: Runtime,
    /// Its whole id: 64 hexadecimal digits.
    pub(super) id: Box<str>,
    /// The Kubernetes pod that it belongs to.
    pub(super) pod_uid: Option<Box<str>>,
}

/// What the cgroups of a process say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Place {
    /// The innermost container.
    pub(super) container: Option<Container>,
    /// The innermost systemd service; of a container's process perhaps the one that holds the container.
    pub(super) unit: Option<Box<str>>,
    /// The cgroup of the container, else of the service, else of the process.
    pub(super) cgroup: Box<str>,
    /// Hierarchy that `cgroup` is in: empty for v2, else the controllers as `/proc/PID/cgroup` has them.
    pub(super) hierarchy: Box<str>,
}

/// Units that unrelated programs run in, each started by somebody else: such a unit is nobody's workload.
const SHARED_UNITS: &[&str] = &[
    "user@",
    "ssh.service",
    "sshd.service",
    "ssh@",
    "sshd@",
    "getty@",
    "serial-getty@",
    "console-getty.service",
    "cron.service",
    "crond.service",
    "atd.service",
    "supervisor.service",
    "supervisord.service",
];

/// One line of `/proc/PID/cgroup`, read.
struct Line<'a> {
    hierarchy: &'a str,
    path: &'a str,
    container: Option<Found<Container>>,
    unit: Option<Found<&'a str>>,
}

/// Something, and the path of the cgroup that shows it.
struct Found<T> {
    what: T,
    /// Bytes of the path up to the end of that component.
    end: usize,
}

impl Place {
    /// Reads the text of `/proc/PID/cgroup`. Of several hierarchies v2 is asked first, then systemd's own, then the
    /// others as they come; who runs no systemd may have containers in some of them only.
    #[must_use]
    pub(super) fn parse(text: &str) -> Self {
        let mut lines: Vec<Line<'_>> = text.lines().filter_map(Line::parse).collect();
        lines.sort_by_key(|line| match line.hierarchy {
            "" => 0,
            "name=systemd" => 1,
            _ => 2,
        });
        let place = |line: &Line<'_>, end: usize| (line.path[..end].into(), line.hierarchy.into());
        let unit = lines.iter().find_map(|line| Some((line, line.unit.as_ref()?)));
        let name = unit.map(|(_, found)| found.what.into());
        if let Some((line, found)) = lines.iter().find_map(|line| Some((line, line.container.as_ref()?))) {
            let (cgroup, hierarchy) = place(line, found.end);
            return Self { container: Some(found.what.clone()), unit: name, cgroup, hierarchy };
        }
        if let Some((line, found)) = unit {
            let (cgroup, hierarchy) = place(line, found.end);
            return Self { container: None, unit: name, cgroup, hierarchy };
        }
        // v2 says nothing of a process where all controllers are v1's.
        let telling = lines.iter().find(|line| line.path != "/").or(lines.first());
        let (cgroup, hierarchy) = telling.map_or(("", ""), |line| (line.path, line.hierarchy));
        Self { container: None, unit: None, cgroup: cgroup.into(), hierarchy: hierarchy.into() }
    }
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (_, rest) = line.split_once(':')?;
        let (hierarchy, path) = rest.split_once(':')?;
        // What a removed cgroup is shown as while its last process ends.
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        let (mut container, mut unit, mut pod) = (None, None, None);
        let mut parent = "";
        let mut end = 0;
        for component in path.split('/') {
            end += component.len();
            if let Some(uid) = pod_of(component, parent) {
                pod = Some(uid);
            }
            if let Some((runtime, id, its_pod)) = container_of(component, parent) {
                let pod_uid = its_pod.or_else(|| pod.clone());
                container = Some(Found { what: Container { runtime, id: id.into(), pod_uid }, end });
            } else if is_unit(component) {
                unit = Some(Found { what: component, end });
            } else if component.ends_with(".scope") {
                // A session, or whatever a terminal started: not the service around it.
                unit = None;
            }
            parent = component;
            end += 1;
        }
        // Inside a user's manager there are that user's own services, and nothing else is a service.
        let unit = unit.filter(|found: &Found<&str>| !is_shared(found.what));
        Some(Self { hierarchy, path, container, unit })
    }
}

fn is_unit(component: &str) -> bool {
    component.len() > ".service".len() && component.ends_with(".service")
}

fn is_shared(unit: &str) -> bool {
    SHARED_UNITS.iter().any(|shared| if shared.ends_with('@') { unit.starts_with(shared) } else { unit == *shared })
}

/// 64 hexadecimal digits.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// The container that a component of a path stands for. What belongs to a container's keeper (`crio-conmon-`,
/// `libpod-conmon-`) is no container.
fn container_of<'a>(component: &'a str, parent: &str) -> Option<(Runtime, &'a str, Option<Box<str>>)> {
    // containerd with one driver and the kubelet with the other: `kubepods-podUID.slice:cri-containerd:ID`.
    if let Some((before, id)) = component.rsplit_once(':') {
        let (slice, prefix) = before.rsplit_once(':').unwrap_or((before, ""));
        return is_id(id).then(|| (runtime_of(prefix), id, pod_of(slice, "")));
    }
    let name = component.strip_suffix(".scope").unwrap_or(component);
    if is_id(name) {
        let runtime = match parent {
            "docker" => Runtime::Docker,
            "libpod_parent" => Runtime::Podman,
            _ => Runtime::Unknown,
        };
        return Some((runtime, name, None));
    }
    let (prefix, id) = name.rsplit_once('-')?;
    let runtime = runtime_of(prefix);
    (is_id(id) && runtime != Runtime::Unknown).then_some((runtime, id, None))
}

fn runtime_of(prefix: &str) -> Runtime {
    match prefix {
        "docker" => Runtime::Docker,
        "cri-containerd" | "nerdctl" | "containerd" => Runtime::Containerd,
        "crio" => Runtime::Crio,
        "libpod" | "libpod-payload" => Runtime::Podman,
        _ => Runtime::Unknown,
    }
}

/// The uid of the pod that a component stands for: `podUID` below `kubepods`, or a slice, where dashes are written as
/// underscores. A static pod's uid is a hash without either.
fn pod_of(component: &str, parent: &str) -> Option<Box<str>> {
    let uid = match component.strip_suffix(".slice") {
        Some(slice) => slice.contains("kubepods").then(|| slice.rsplit_once("-pod"))??.1,
        None => component.strip_prefix("pod").filter(|_| matches!(parent, "kubepods" | "burstable" | "besteffort"))?,
    };
    let is_uid = |text: &str| {
        text.len() >= 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'-' | b'_'))
    };
    is_uid(uid).then(|| uid.replace('_', "-").into())
}
