//! The files of a machine: an archive that the kernel unpacks into memory. Programs lie where they lie here.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Read as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use cpio::newc;

use super::plan::Plan;
use crate::{
    paths,
    process::{output, run as execute},
    setup::vm::Kernel,
};

/// Programs that tests call, if they are there: networks, and what loads modules of the kernel.
const TOOLS: [&str; 7] = ["ip", "ss", "tc", "nft", "nstat", "unshare", "setpriv"];
/// Below `kernel/` of a kernel's modules: networks and what filters them.
const MODULES: [&str; 7] = [
    "drivers/net/veth.ko",
    "net/sched",
    "net/netfilter",
    "net/ipv4/netfilter",
    // Without these `ss` knows no round-trip times.
    "net/ipv4/inet_diag.ko",
    "net/ipv4/tcp_diag.ko",
    "lib",
];
/// Binaries of the workspace.
const BINARIES: [&str; 5] = ["observer", "sample-llm", "calls", "forks", "switches"];

enum Entry {
    Folder,
    /// A file of this machine.
    Copy(PathBuf),
    Text(Vec<u8>),
}

/// By path, thus folders before what is in them.
#[derive(Default)]
struct Files(BTreeMap<PathBuf, Entry>);

/// Writes it.
pub(super) fn write(to: &Path, kernel: Kernel, plan: &Plan) -> Result<()> {
    let mut files = Files::default();
    for folder in ["proc", "sys", "dev", "run", "tmp", "etc"] {
        files.put(&Path::new("/").join(folder), Entry::Folder);
    }
    files.put(Path::new("/etc/hosts"), Entry::Text(b"127.0.0.1 localhost\n".to_vec()));
    files.put(Path::new("/plan.json"), Entry::Text(serde_json::to_vec_pretty(&plan.json())?));
    files.program(Path::new("/init"), &paths::release("vm-init"))?;
    for name in BINARIES {
        files.here(&paths::release(name))?;
    }
    for program in plan.programs() {
        files.here(program)?;
    }
    for program in TOOLS.iter().filter_map(|name| paths::find(name)) {
        files.here(&program)?;
    }
    for folder in ["tests/e2e/python", "tests/e2e/fixtures"] {
        files.tree(&paths::root().join(folder))?;
    }
    modules(&mut files, kernel)?;
    files.write(to).with_context(|| format!("write {}", to.display()))
}

/// Modules, their lists, and the program that the kernel calls to load one.
fn modules(files: &mut Files, kernel: Kernel) -> Result<()> {
    let modules = kernel.modules()?;
    let release = modules.file_name().context("modules are below a release")?.to_string_lossy().into_owned();
    if !modules.join("modules.dep").is_file() {
        let depmod = paths::find("depmod").context("depmod is not in PATH")?;
        execute(Command::new(depmod).arg("--basedir").arg(kernel.folder()).arg(&release))?;
    }
    let modprobe = paths::find("modprobe").context("modprobe is not in PATH")?;
    files.program(Path::new("/sbin/modprobe"), &modprobe)?;
    let target = Path::new("/lib/modules").join(&release);
    for entry in fs::read_dir(&modules).context("list what depmod wrote")? {
        let file = entry?.path();
        if let (true, Some(name)) = (file.is_file(), file.file_name()) {
            files.put(&target.join(name), Entry::Copy(file.clone()));
        }
    }
    for name in MODULES {
        // Compressed ones end so; the kernel's loader knows.
        for name in [name.to_owned(), format!("{name}.xz")] {
            let (from, to) = (modules.join("kernel").join(&name), target.join("kernel").join(&name));
            if from.exists() {
                files.copy_tree(&from, &to)?;
            }
        }
    }
    Ok(())
}

impl Files {
    fn put(&mut self, path: &Path, entry: Entry) {
        for folder in path.ancestors().skip(1).filter(|folder| folder.parent().is_some()) {
            self.0.entry(folder.to_owned()).or_insert(Entry::Folder);
        }
        self.0.insert(path.to_owned(), entry);
    }

    /// A program with the libraries it is linked with, where it lies here.
    fn here(&mut self, program: &Path) -> Result<()> {
        self.program(program, program)
    }

    fn program(&mut self, path: &Path, program: &Path) -> Result<()> {
        self.put(path, Entry::Copy(program.to_owned()));
        // It fails for programs that are linked with nothing.
        for library in libraries(&output("ldd", &[&program.to_string_lossy()]).unwrap_or_default()) {
            self.put(&library, Entry::Copy(library.clone()));
        }
        Ok(())
    }

    /// All below a folder, where it lies here.
    fn tree(&mut self, folder: &Path) -> Result<()> {
        self.copy_tree(folder, folder)
    }

    fn copy_tree(&mut self, from: &Path, to: &Path) -> Result<()> {
        if !from.is_dir() {
            self.put(to, Entry::Copy(from.to_owned()));
            return Ok(());
        }
        for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
            let entry = entry?;
            self.copy_tree(&entry.path(), &to.join(entry.file_name()))?;
        }
        Ok(())
    }

    fn write(&self, to: &Path) -> Result<()> {
        let mut archive = BufWriter::new(File::create(to)?);
        for (number, (path, entry)) in (1..).zip(&self.0) {
            let name = path.strip_prefix("/").unwrap_or(path).to_string_lossy();
            let builder = newc::Builder::new(&name).ino(number);
            let (builder, contents) = match entry {
                Entry::Folder => (builder.mode(0o040_755), Vec::new()),
                Entry::Text(text) => (builder.mode(0o100_644), text.clone()),
                Entry::Copy(file) => {
                    let mut opened = File::open(file).with_context(|| format!("open {}", file.display()))?;
                    let metadata = opened.metadata()?;
                    let mut contents = Vec::new();
                    opened.read_to_end(&mut contents).with_context(|| format!("read {}", file.display()))?;
                    // Python's compiled files know their sources by their times.
                    let time = u32::try_from(metadata.mtime()).unwrap_or(0);
                    (builder.mode(metadata.mode()).mtime(time), contents)
                }
            };
            let Ok(length) = u32::try_from(contents.len()) else { bail!("{} is too long", path.display()) };
            let mut writer = builder.write(&mut archive, length);
            writer.write_all(&contents)?;
            writer.finish()?;
        }
        newc::trailer(&mut archive)?.flush()?;
        Ok(())
    }
}

/// From what ldd prints: the loader, and what it finds.
fn libraries(ldd: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let line = line.split(" (").next().unwrap_or(line);
        let path = line.rsplit(" => ").next().unwrap_or(line).trim();
        path.starts_with('/').then(|| PathBuf::from(path))
    };
    ldd.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read() {
        let text = "\tlinux-vdso.so.1 (0x0)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x1)\n\t/lib64/ld.so.2 (0x2)\n\tlibz.so => not found\n";
        assert_eq!(libraries(text), [PathBuf::from("/lib/x/libc.so.6"), PathBuf::from("/lib64/ld.so.2")]);
    }
}
