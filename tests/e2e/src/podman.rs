//! Containers: a podman that keeps everything below a directory of the test's own.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use crate::{cgroup, require, scratch::Scratch};

/// Such a podman. Its containers and their cgroups go with it.
#[derive(Debug)]
pub struct Podman {
    scratch: Scratch,
    parent: String,
    program: PathBuf,
}

impl Podman {
    /// One without any image or container.
    ///
    /// # Panics
    /// If its files cannot be written.
    #[must_use]
    pub fn new() -> Self {
        let scratch = Scratch::new();
        let settings = "[containers]\ndefault_ulimits=[\"nofile=20000:20000\",\"nproc=4096:4096\"]\n";
        let settings = scratch.write("containers.conf", settings);
        let mut podman = Self {
            parent: format!("/observer-e2e-podman-{}", std::process::id()),
            program: scratch.file("podman"),
            scratch,
        };
        // Copies of whole images take minutes on a busy disk; where the test's own files lie on layers, there is no other way.
        podman.use_driver("overlay", &settings);
        if !podman.output(&["info"]).status.success() {
            podman.use_driver("vfs", &settings);
        }
        podman
    }

    /// Writes the program to call, for tools that call podman by themselves, too.
    fn use_driver(&mut self, driver: &str, settings: &Path) {
        let podman = require::tool("podman").expect("required");
        let place = |name: &str| self.scratch.file(driver).join(name).display().to_string();
        // Tags of logs are Docker's: this one's logs have none.
        let script = format!(
            "#!/bin/bash\nexport CONTAINERS_CONF={}\nwords=()\nfor word in \"$@\"; do\n  [[ $word == --log-opt=tag=* ]] || \
             words+=(\"$word\")\ndone\nexec {} --root {} --runroot {} --tmpdir {} --storage-driver {driver} \
             --cgroup-manager cgroupfs --runtime runc --events-backend file \"${{words[@]}}\"\n",
            settings.display(),
            podman.display(),
            place("root"),
            place("run"),
            place("tmp"),
        );
        fs::write(&self.program, script).expect("the test's own file");
        fs::set_permissions(&self.program, fs::Permissions::from_mode(0o755)).expect("the test's own file");
    }

    /// The program to call, for tools that do so.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The cgroup that its containers shall be in.
    #[must_use]
    pub fn cgroup_parent(&self) -> &str {
        &self.parent
    }

    /// Its files, for more of them.
    #[must_use]
    pub const fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// What came of a command.
    ///
    /// # Panics
    /// If podman cannot be started.
    #[must_use]
    pub fn output(&self, arguments: &[&str]) -> Output {
        Command::new(&self.program).args(arguments).output().expect("podman runs")
    }

    /// What a command printed that must succeed.
    ///
    /// # Panics
    /// If it fails.
    pub fn command(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "podman {arguments:?}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// `podman run` with these arguments, below a cgroup of the test's own: what it printed.
    pub fn run(&self, arguments: &[&str]) -> String {
        let parent = format!("--cgroup-parent={}", self.parent);
        self.command(&[&["run", &parent], arguments].concat())
    }

    /// Whether the health check of a container says that it is well.
    #[must_use]
    pub fn is_healthy(&self, container: &str) -> bool {
        self.output(&["healthcheck", "run", container]).status.success()
    }

    /// Programs, each at its path, with what they link, as a root file system of this name.
    ///
    /// # Panics
    /// If a file cannot be copied.
    #[must_use]
    pub fn root_file_system(&self, name: &str, programs: &[(&Path, &str)]) -> PathBuf {
        let root = self.scratch.file(name);
        for folder in ["proc", "sys", "dev", "etc", "run", "tmp"] {
            fs::create_dir_all(root.join(folder)).expect("writable");
        }
        for (program, place) in programs {
            copy(program, &root.join(place));
            let linked = Command::new("ldd").arg(program).output().expect("ldd runs");
            for word in String::from_utf8_lossy(&linked.stdout).split_ascii_whitespace() {
                if let Some(below) = word.strip_prefix('/') {
                    copy(Path::new(word), &root.join(below));
                }
            }
        }
        root
    }

    /// An image of this name: one program with its configuration's folders, and busybox, as images of Prometheus and its
    /// exporters have it.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn stand_in(&self, image: &str, program: &Path, place: &str, more: &[(&Path, &str)]) {
        let busybox = require::tool("busybox").expect("required");
        let name = place.replace('/', "-");
        let root = self.root_file_system(&name, &[(program, place), (&busybox, "bin/busybox")]);
        for (from, to) in more {
            copy(from, &root.join(to));
        }
        for applet in ["sh", "sed", "wget"] {
            symlink("busybox", root.join("bin").join(applet)).expect("writable");
        }
        let packed = self.scratch.file(&format!("{name}.tar"));
        let status = Command::new("tar").arg("-cf").arg(&packed).arg("-C").arg(&root).arg(".").status();
        assert!(status.expect("tar runs").success(), "packing {}", root.display());
        let entry = format!("ENTRYPOINT [\"/{place}\"]");
        self.command(&["import", "--quiet", "--change", &entry, packed.to_str().expect("a plain path"), image]);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().expect("below")).expect("writable");
    fs::copy(from, to).unwrap_or_else(|error| panic!("copying {}: {error}", from.display()));
}

impl Default for Podman {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let gone = self.output(&["rm", "--all", "--force", "--time", "1"]);
        assert!(gone.status.success() || std::thread::panicking(), "containers are left: {gone:?}");
        // Its storage is mounted on itself; that of vfs is not.
        let storage = self.scratch.file("overlay/root/overlay");
        let _unmounted = Command::new("umount").arg("--quiet").arg(storage).stderr(Stdio::null()).status();
        let roots = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
        for root in roots.chain(cgroup::root()) {
            let parent = root.join(self.parent.trim_start_matches('/'));
            for below in fs::read_dir(&parent).into_iter().flatten().flatten() {
                // Files stay: these are directories of a kernel file system.
                let _gone = fs::remove_dir(below.path());
            }
            let _gone = fs::remove_dir(parent);
        }
    }
}
