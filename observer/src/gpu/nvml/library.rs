//! Where the driver's library lies.

use std::path::{Path, PathBuf};

use nvml_wrapper::{Nvml as Library, error::NvmlError};
use nvml_wrapper_sys::bindings::NvmlLib;

use super::errors;
use crate::gpu::Trouble;

/// By this name the loader finds it where the driver is installed in the usual way.
const NAME: &str = "libnvidia-ml.so.1";
/// Where a driver container has its driver, below a host's root.
const DRIVER_CONTAINER: &str = "run/nvidia/driver";
const FOLDERS: [&str; 5] = [
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/lib",
    // Hosts whose own file system is read-only.
    "usr/local/nvidia/lib64",
];

/// Libraries to try, in this order: the one that was asked for and no other; else a driver container's, what the loader
/// finds, and the host's. The host's file system may be our own; mounted where `host_root` says, or at `/host`; or what its
/// first process sees.
#[must_use]
pub fn candidates(setting: Option<&Path>, host_root: Option<&Path>) -> Vec<PathBuf> {
    if let Some(path) = setting {
        return vec![path.to_owned()];
    }
    let roots = [Path::new("/"), host_root.unwrap_or(Path::new("/host")), Path::new("/proc/1/root")];
    let in_folders = |root: PathBuf| FOLDERS.iter().map(move |folder| root.join(folder).join(NAME));
    let containers = roots.iter().flat_map(|root| in_folders(root.join(DRIVER_CONTAINER)));
    let hosts = roots[1..].iter().flat_map(|root| in_folders(root.to_path_buf()));
    let there = |path: &PathBuf| path.is_file();
    containers.filter(there).chain([PathBuf::from(NAME)]).chain(hosts.filter(there)).collect()
}

/// Whether it can be loaded, and has what cannot be done without: letting go of a library that has no `nvmlShutdown`
/// would end this process.
pub(super) fn check(path: &Path) -> Result<(), Trouble> {
    // SAFETY: it is NVIDIA's library, or what the operator named as such: it may be loaded and unloaded.
    let library = unsafe { NvmlLib::new(path) }.map_err(|error| Trouble::Absent(first_line(&error.to_string())))?;
    let missing = [("nvmlInit_v2", library.nvmlInit_v2.is_err()), ("nvmlShutdown", library.nvmlShutdown.is_err())];
    match missing.iter().find(|(_, missing)| *missing) {
        Some((name, _)) => Err(Trouble::Absent(format!("it has no {name}: not NVML, or too old"))),
        None => Ok(()),
    }
}

/// Opens the driver by this library.
pub(super) fn open(path: &Path) -> Result<Library, Trouble> {
    Library::builder().lib_path(path.as_os_str()).init().map_err(|error| trouble(&error))
}

fn trouble(error: &NvmlError) -> Trouble {
    match error {
        NvmlError::LibloadingError(_) | NvmlError::DriverNotLoaded | NvmlError::LibraryNotFound => {
            Trouble::Absent(error.to_string())
        }
        NvmlError::UnexpectedVariant(errors::NO_GPU) => Trouble::Absent("the driver has no GPU".to_owned()),
        NvmlError::NoPermission => {
            Trouble::Failed(format!("{error}: access to /dev/nvidiactl and /dev/nvidia* is needed"))
        }
        NvmlError::LibRmVersionMismatch => Trouble::Failed(format!(
            "{error}: the driver was upgraded and not loaded anew; `observer gpu release` lets it go, a reboot helps in \
             any case"
        )),
        _ => Trouble::Failed(error.to_string()),
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// A version of CUDA, as 13.0.
pub(super) fn cuda(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_the_only_candidate() {
        assert_eq!(candidates(Some(Path::new("/x.so")), None), [PathBuf::from("/x.so")]);
        assert!(candidates(None, None).contains(&PathBuf::from(NAME)));
    }

    #[test]
    fn a_driver_container_goes_before_the_loader_and_the_host_after_it() {
        let root = std::env::temp_dir().join(format!("observer-host-root-{}", std::process::id()));
        let places = ["run/nvidia/driver/usr/lib/x86_64-linux-gnu", "usr/lib64"].map(|folder| root.join(folder));
        for place in &places {
            std::fs::create_dir_all(place).unwrap();
            std::fs::write(place.join(NAME), "").unwrap();
        }
        let found = candidates(None, Some(&root));
        std::fs::remove_dir_all(&root).unwrap();
        let at = |path: &Path| found.iter().position(|found| found == path);
        let (container, loader, host) = (at(&places[0].join(NAME)), at(Path::new(NAME)), at(&places[1].join(NAME)));
        assert!(container.is_some() && container < loader && loader < host, "{found:?}");
    }

    #[test]
    fn what_is_no_library_is_absence() {
        let Err(Trouble::Absent(reason)) = check(Path::new("/no/such/library.so")) else { panic!() };
        assert!(reason.contains("/no/such/library.so"), "{reason}");
        // A library, but not this one.
        let Err(Trouble::Absent(reason)) = check(Path::new("libc.so.6")) else { panic!() };
        assert_eq!(reason, "it has no nvmlInit_v2: not NVML, or too old");
    }
}
