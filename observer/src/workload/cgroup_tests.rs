use super::cgroup::{Container, Place, Runtime};

const ID: &str = "3f7a0c9be1d24c5f8a6b7c8d9e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b";
const OUTER: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const POD: &str = "8c5a1f0e-6a3b-4f0e-9d53-0c2f6c1d7b44";
const POD_SLICE: &str = "8c5a1f0e_6a3b_4f0e_9d53_0c2f6c1d7b44";

fn place(text: &str) -> Place {
    let text = text.replace("ID", ID).replace("OUTER", OUTER).replace("PODS", POD_SLICE).replace("POD", POD);
    Place::parse(&text)
}

fn container(runtime: Runtime, pod: bool) -> Container {
    Container { runtime, id: ID.into(), pod_uid: pod.then(|| POD.into()) }
}

#[test]
fn containers_of_every_layout() {
    use Runtime::{Containerd, Crio, Docker, Podman, Unknown};
    for (path, runtime, pod) in [
        // Docker, with each driver, rootless, and with a parent of the user's choice.
        ("/docker/ID", Docker, false),
        ("/system.slice/docker-ID.scope", Docker, false),
        ("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope", Docker, false),
        ("/models.slice/docker-ID.scope", Docker, false),
        // Kubernetes with containerd: both drivers, all classes, the kubelet's own root, mixed drivers.
        ("/kubepods/podPOD/ID", Unknown, true),
        ("/kubepods/burstable/podPOD/ID", Unknown, true),
        ("/kubepods/besteffort/podPOD/ID", Unknown, true),
        ("/kubepods.slice/kubepods-podPODS.slice/cri-containerd-ID.scope", Containerd, true),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podPODS.slice/cri-containerd-ID.scope",
            Containerd,
            true,
        ),
        (
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/\
             kubelet-kubepods-besteffort-podPODS.slice/cri-containerd-ID.scope",
            Containerd,
            true,
        ),
        ("/system.slice/containerd.service/kubepods-burstable-podPODS.slice:cri-containerd:ID", Containerd, true),
        // Kubernetes with Docker below it.
        ("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podPODS.slice/docker-ID.scope", Docker, true),
        // nerdctl.
        ("/system.slice/nerdctl-ID.scope", Containerd, false),
        ("/default/ID", Unknown, false),
        // CRI-O, with the child that crun makes.
        ("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podPODS.slice/crio-ID.scope", Crio, true),
        ("/kubepods.slice/kubepods-podPODS.slice/crio-ID.scope/container", Crio, true),
        ("/kubepods/besteffort/podPOD/crio-ID", Crio, true),
        // Podman: as root, rootless, in a pod, with its own driver, in a unit of Quadlet.
        ("/machine.slice/libpod-ID.scope/container", Podman, false),
        ("/machine.slice/libpod-ID.scope", Podman, false),
        ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container", Podman, false),
        ("/machine.slice/machine-libpod_pod_OUTER.slice/libpod-ID.scope/container", Podman, false),
        ("/libpod_parent/libpod-ID", Podman, false),
        ("/system.slice/vllm.service/libpod-payload-ID", Podman, false),
        // Nested ones: the innermost.
        ("/docker/OUTER/docker/ID", Docker, false),
        (
            "/system.slice/docker-OUTER.scope/kubelet.slice/kubelet-kubepods.slice/\
             kubelet-kubepods-podPODS.slice/cri-containerd-ID.scope",
            Containerd,
            true,
        ),
        // Seen from a cgroup namespace, and about to be removed.
        ("/../../system.slice/docker-ID.scope", Docker, false),
        ("/../libpod-ID.scope/container", Podman, false),
        ("/system.slice/docker-ID.scope (deleted)", Docker, false),
    ] {
        let expected = Some(container(runtime, pod));
        let found = place(&format!("0::{path}\n"));
        assert_eq!(found.container, expected, "v2 {path}");
        assert!(found.cgroup.contains(ID) && !found.cgroup.ends_with("/container"), "{}", found.cgroup);
        assert_eq!(&*found.hierarchy, "");
        // The same as one of several hierarchies of v1, and beside an empty v2.
        for text in [
            format!("12:pids:{path}\n11:memory:{path}\n1:name=systemd:{path}\n"),
            format!("12:cpu,cpuacct:{path}\n1:name=systemd:{path}\n0::/\n"),
            format!("4:memory:{path}\n3:cpuset:/\n1:name=systemd:/init.scope\n0::/init.scope\n"),
        ] {
            assert_eq!(place(&text).container, expected, "{text}");
        }
    }
}

#[test]
fn keepers_of_containers_and_look_alikes_are_none() {
    for path in [
        "/",
        "/machine.slice/libpod-conmon-ID.scope",
        "/kubepods.slice/kubepods-podPODS.slice/crio-conmon-ID.scope",
        "/kubepods.slice/kubepods-podPODS.slice",
        "/kubepods/burstable/podPOD",
        "/docker/buildkit",
        "/docker/3f7a0c9be1d2",
        "/process_api/bded18da5a8a148ed0db3fddd8b92931",
        "/some-ID.d",
    ] {
        let found = place(&format!("0::{path}\n"));
        assert_eq!((found.container, found.unit), (None, None), "{path}");
    }
}

#[test]
fn units_of_every_layout() {
    for (path, unit, cgroup) in [
        ("/system.slice/vllm.service", "vllm.service", "/system.slice/vllm.service"),
        ("/system.slice/vllm.service/worker/0", "vllm.service", "/system.slice/vllm.service"),
        (
            "/system.slice/system-vllm.slice/vllm@qwen3.service",
            "vllm@qwen3.service",
            "/system.slice/system-vllm.slice/vllm@qwen3.service",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/ollama.service",
            "ollama.service",
            "/user.slice/user-1000.slice/user@1000.service/app.slice/ollama.service",
        ),
        ("/../../system.slice/ollama.service", "ollama.service", "/../../system.slice/ollama.service"),
        ("/lxc.payload.box/system.slice/tgi.service", "tgi.service", "/lxc.payload.box/system.slice/tgi.service"),
    ] {
        for text in [
            format!("0::{path}\n"),
            format!("11:memory:{path}\n1:name=systemd:{path}\n"),
            format!("11:memory:/x\n1:name=systemd:{path}\n0::/\n"),
        ] {
            let found = place(&text);
            assert_eq!((found.container, found.unit.as_deref(), &*found.cgroup), (None, Some(unit), cgroup), "{text}");
        }
    }
}

#[test]
fn sessions_slices_and_shared_units_are_none() {
    for path in [
        "/user.slice/user-1000.slice/session-3.scope",
        "/user.slice/user-1000.slice/user@1000.service/init.scope",
        "/user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-0a1b.scope",
        "/user.slice/user-1000.slice/user@1000.service/app.slice",
        "/system.slice",
        "/init.scope",
        "/system.slice/ssh.service",
        "/system.slice/system-getty.slice/getty@tty1.service",
        "/system.slice/cron.service",
        "/.service",
    ] {
        let found = place(&format!("0::{path}\n"));
        assert_eq!((found.container, found.unit, &*found.cgroup), (None, None, path), "{path}");
    }
}

#[test]
fn a_container_in_a_unit_has_both() {
    let found = place("0::/system.slice/vllm.service/libpod-payload-ID\n");
    assert_eq!(found.container, Some(container(Runtime::Podman, false)));
    assert_eq!(found.unit.as_deref(), Some("vllm.service"));
    assert_eq!(*found.cgroup, format!("/system.slice/vllm.service/libpod-payload-{ID}"));
}

#[test]
fn what_tells_nothing_has_the_cgroup_that_tells_most() {
    let found = place("8:pids:/\n4:memory:/jobs/7\n0::/\n");
    assert_eq!((&*found.cgroup, &*found.hierarchy), ("/jobs/7", "memory"));
    assert_eq!(place("0::/\n").cgroup, "/".into());
    assert_eq!(place(""), Place::default());
    assert_eq!(place("nonsense\n::\n").container, None);
}
