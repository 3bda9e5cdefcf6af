//! What tests steer the fake with: copies of the library, each with a state of its own.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// The library that cargo built for the running test.
///
/// # Errors
/// If it is not where cargo puts it.
pub fn library() -> io::Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let folders = exe.ancestors().skip(1).take(2);
    let mut candidates =
        folders.flat_map(|folder| [folder.join("libfake_nvml.so"), folder.join("deps/libfake_nvml.so")]);
    candidates.find(|path| path.is_file()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, "libfake_nvml.so is not beside the test: cargo build -p fake-nvml")
    })
}

/// A host of its own: a copy of the library, and what it answers.
#[derive(Debug)]
pub struct Fake {
    library: PathBuf,
    values: BTreeMap<String, String>,
}

impl Fake {
    /// A copy in `folder`, which must exist and not have one yet.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(folder: &Path) -> io::Result<Self> {
        Self::without(folder, &[])
    }

    /// A copy in which these symbols cannot be found, as in a driver that is older than they are.
    ///
    /// # Errors
    /// If it cannot be made, or has no such symbol.
    pub fn without(folder: &Path, symbols: &[&str]) -> io::Result<Self> {
        let fake = Self { library: folder.join("libnvidia-ml.so.1"), values: BTreeMap::new() };
        let mut bytes = fs::read(library()?)?;
        for symbol in symbols {
            rename(&mut bytes, symbol)?;
        }
        // Whoever has the old one loaded keeps it.
        fs::write(folder.join("new"), bytes)?;
        fs::rename(folder.join("new"), &fake.library)?;
        fake.write()?;
        Ok(fake)
    }

    /// The library.
    #[must_use]
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// Its state.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        let mut path = self.library.clone().into_os_string();
        path.push(".state");
        path.into()
    }

    /// Sets keys, all at once for whoever reads. An empty value takes a key away.
    ///
    /// # Errors
    /// If the state cannot be written.
    pub fn set(&mut self, values: &[(&str, &str)]) -> io::Result<()> {
        for (key, value) in values {
            if value.is_empty() {
                self.values.remove(*key);
            } else {
                self.values.insert((*key).to_owned(), (*value).to_owned());
            }
        }
        self.write()
    }

    fn write(&self) -> io::Result<()> {
        let text: String = self.values.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        let new = self.library.with_extension("new");
        fs::write(&new, text)?;
        fs::rename(new, self.state())
    }
}

/// Renames a symbol where the loader looks names up, so that its own name leads nowhere.
fn rename(bytes: &mut [u8], symbol: &str) -> io::Result<()> {
    let name: Vec<u8> = [&[0], symbol.as_bytes(), &[0]].concat();
    let places: Vec<_> =
        (0..bytes.len().saturating_sub(name.len())).filter(|at| bytes[*at..].starts_with(&name)).collect();
    if places.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("the library has no symbol {symbol}")));
    }
    for at in places {
        bytes[at + 1] = b'X';
    }
    Ok(())
}
