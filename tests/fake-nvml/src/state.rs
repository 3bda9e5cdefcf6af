//! What the file says, what the library remembers, and what every call does first.

use std::{
    collections::HashMap,
    ffi::{CStr, OsStr, OsString},
    fs,
    io::Write as _,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

use crate::{INVALID_ARGUMENT, MISMATCH, OK, UNINITIALIZED};

/// What is remembered between `nvmlInit` and `nvmlShutdown`.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Calls of `nvmlInit` that no `nvmlShutdown` has undone.
    users: u64,
    /// The last XID told, by GPU.
    pub(crate) told: HashMap<u32, u64>,
    /// GPUs with events.
    pub(crate) registered: Vec<u32>,
}

static MEMORY: Mutex<Option<Memory>> = Mutex::new(None);
/// The driver this library belongs to: the one that was there when it was loaded.
static DRIVER: OnceLock<String> = OnceLock::new();

pub(crate) fn memory() -> MutexGuard<'static, Option<Memory>> {
    MEMORY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The file, read.
#[derive(Clone, Debug, Default)]
pub(crate) struct State(Arc<HashMap<String, String>>);

/// Inode, size, time of change.
type Stamp = (u64, u64, i64);
/// The file as it was read last.
static LAST: Mutex<Option<(Stamp, State)>> = Mutex::new(None);

fn path() -> Option<&'static Path> {
    static PATH: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        if let Some(path) = std::env::var_os("FAKE_NVML_STATE") {
            return Some(path.into());
        }
        let mut info = libc::Dl_info {
            dli_fname: std::ptr::null(),
            dli_fbase: std::ptr::null_mut(),
            dli_sname: std::ptr::null(),
            dli_saddr: std::ptr::null_mut(),
        };
        // SAFETY: any address may be asked for, and `info` is valid.
        if unsafe { libc::dladdr((&raw const MEMORY).cast(), &raw mut info) } == 0 || info.dli_fname.is_null() {
            return None;
        }
        // SAFETY: the loader's own string, which lives as long as the library.
        let name = unsafe { CStr::from_ptr(info.dli_fname) };
        let mut path = OsString::from(OsStr::from_bytes(name.to_bytes()));
        path.push(".state");
        Some(path.into())
    };
    PATH.get_or_init(find).as_deref()
}

impl State {
    /// As the file is now; it is read when it is another one than before.
    pub(crate) fn now() -> Self {
        let Some(path) = path() else { return Self::default() };
        let Ok(data) = fs::metadata(path) else { return Self::default() };
        let stamp = (data.ino(), data.size(), data.mtime() * 1_000_000_000 + data.mtime_nsec());
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, state)) = &*last
            && *of == stamp
        {
            return state.clone();
        }
        let state = Self::read(path);
        *last = Some((stamp, state.clone()));
        state
    }

    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.split('#').next()?.split_once('='));
        Self(Arc::new(lines.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect()))
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    pub(crate) fn number<T: FromStr>(&self, key: &str, default: T) -> T {
        self.text(key).and_then(|text| text.parse().ok()).unwrap_or(default)
    }

    pub(crate) fn driver(&self) -> &str {
        self.text("driver").unwrap_or("580.95.05")
    }

    fn code(&self, key: &str) -> Option<nvmlReturn_t> {
        self.text(key).map(|text| text.parse().unwrap_or(999))
    }

    fn delay(&self, function: &str) -> Duration {
        Duration::from_millis(self.number(&format!("{function}.delay_ms"), 0))
    }

    fn is_mismatched(&self) -> bool {
        DRIVER.get_or_init(|| self.driver().to_owned()) != self.driver()
    }
}

/// A GPU or a MIG device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) gpu: u32,
    pub(crate) mig: Option<u32>,
}

/// Handles are numbers that no caller looks into.
const BASE: usize = 0x6e76_0000;
const MIG_MAX: u32 = 8;

impl Device {
    pub(crate) const fn gpu(gpu: u32) -> Self {
        Self { gpu, mig: None }
    }

    pub(crate) fn handle(self) -> nvmlDevice_t {
        let number = self.gpu * (MIG_MAX + 1) + self.mig.map_or(0, |mig| mig + 1);
        (BASE + number as usize) as nvmlDevice_t
    }

    fn of(handle: nvmlDevice_t) -> Option<Self> {
        let number = u32::try_from((handle as usize).checked_sub(BASE)?).ok()?;
        Some(Self { gpu: number / (MIG_MAX + 1), mig: (number % (MIG_MAX + 1)).checked_sub(1) })
    }

    /// What its keys begin with.
    pub(crate) fn name(self) -> String {
        let Self { gpu, mig } = self;
        mig.map_or_else(|| format!("gpu{gpu}"), |mig| format!("gpu{gpu}.mig{mig}"))
    }
}

/// A call that goes on.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) state: State,
    pub(crate) device: Device,
    name: String,
}

impl Call {
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.state.text(&format!("{}.{key}", self.name))
    }

    pub(crate) fn number<T: FromStr>(&self, key: &str, default: T) -> T {
        self.state.number(&format!("{}.{key}", self.name), default)
    }
}

/// Waits as long as the file says, as long as it says so.
fn linger(function: &str) -> State {
    let start = Instant::now();
    loop {
        let state = State::now();
        let left = state.delay(function).saturating_sub(start.elapsed());
        if left.is_zero() {
            return state;
        }
        thread::sleep(left.min(Duration::from_millis(10)));
    }
}

fn log(state: &State, function: &str) {
    if let Some(path) = state.text("log")
        && let Ok(mut file) = fs::File::options().append(true).create(true).open(path)
    {
        // A log that cannot be written fails the test that reads it.
        let _written = writeln!(file, "{function}");
    }
}

/// What every call does first: waits, then fails if it is to fail.
pub(crate) fn enter(function: &'static str, handle: Option<nvmlDevice_t>) -> Result<Call, nvmlReturn_t> {
    let state = linger(function);
    log(&state, function);
    if memory().is_none() {
        return Err(UNINITIALIZED);
    }
    if state.is_mismatched() {
        return Err(MISMATCH);
    }
    if let Some(code) = state.code(&format!("{function}.ret")) {
        return Err(code);
    }
    let Some(handle) = handle else {
        return Ok(Call { state, device: Device::gpu(0), name: String::new() });
    };
    let device = Device::of(handle).ok_or(INVALID_ARGUMENT)?;
    if device.gpu >= state.number("gpus", 2) {
        return Err(INVALID_ARGUMENT);
    }
    let (gpu, name) = (Device::gpu(device.gpu).name(), device.name());
    for key in ["all.ret".to_owned(), format!("{gpu}.ret"), format!("{name}.{function}.ret")] {
        if let Some(code) = state.code(&key) {
            return Err(code);
        }
    }
    Ok(Call { state, device, name })
}

/// `nvmlInit_v2`.
pub(crate) fn init() -> nvmlReturn_t {
    let state = linger("nvmlInit_v2");
    log(&state, "nvmlInit_v2");
    if state.is_mismatched() {
        return MISMATCH;
    }
    if let Some(code) = state.code("init.ret").filter(|code| *code != OK) {
        return code;
    }
    memory().get_or_insert_default().users += 1;
    OK
}

/// `nvmlShutdown`.
pub(crate) fn shutdown() -> nvmlReturn_t {
    log(&linger("nvmlShutdown"), "nvmlShutdown");
    let mut memory = memory();
    let Some(known) = memory.as_mut() else { return UNINITIALIZED };
    known.users -= 1;
    if known.users == 0 {
        *memory = None;
    }
    OK
}

/// Microseconds since 1970, as NVML's time stamps are.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(0))
}
