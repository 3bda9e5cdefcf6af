//! All TCP sockets of a network namespace, as the kernel side finds them when it is asked.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::AsRawFd,
    sync::mpsc,
    thread,
};

use aya::programs::{Iter, iter::IterLink};
use observer_common::host::SeenSocket;

use super::{
    error::{KernelError, chain},
    loader::Kernel,
    probes::PROBES,
    signal::Signal,
};
use crate::config::SocketHook;

/// The probe.
const PROBE: &str = "tcp_sockets";

/// Goes over all TCP sockets of one network namespace when it is read: whoever holds the kernel's lock need not wait
/// for that.
#[derive(Debug)]
pub struct TcpSockets(File);

impl Kernel {
    /// Starts the thread that enters network namespaces, which does `begin` first. Without this it is started when it is
    /// needed.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_entering(&mut self, begin: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.entering = Some(Entering::start(begin)?);
        Ok(())
    }

    /// The TCP sockets of a network namespace (a file such as `/proc/PID/ns/net`), or of the observer's own. `None`: the
    /// probe is not attached, or shed.
    ///
    /// # Errors
    /// If the kernel refuses, or the namespace cannot be entered.
    pub fn tcp_sockets(&mut self, namespace: Option<&File>) -> Result<Option<TcpSockets>, KernelError> {
        if !self.runs(PROBE) || self.is_shed(Signal::Tcp) {
            return Ok(None);
        }
        let failed = |reason: String| KernelError::Look { what: "TCP sockets", reason };
        let cannot = |error: io::Error| failed(error.to_string());
        let program =
            PROBES.iter().find(|probe| probe.name == PROBE).and_then(|probe| self.ebpf.program_mut(probe.program));
        let Some(program) = program else { return Ok(None) };
        let program: &mut Iter = program.try_into().map_err(|error| failed(chain(&error)))?;
        let link = program.attach().map_err(|error| failed(chain(&error)))?;
        let link = program.take_link(link).map_err(|error| failed(chain(&error)))?;
        let file = match namespace {
            None => open(link).map_err(failed)?,
            Some(namespace) => {
                let namespace = namespace.try_clone().map_err(cannot)?;
                if self.entering.is_none() {
                    self.start_entering(|| ()).map_err(cannot)?;
                }
                self.entering
                    .as_ref()
                    .map_or_else(|| Err(GONE.to_owned()), |entering| entering.open(namespace, link))
                    .map_err(failed)?
            }
        };
        Ok(Some(TcpSockets(file)))
    }

    /// Where sockets are told apart by their cookies, gives one to each connection of the observer's network namespace
    /// that is there already: so they are known by the same to all probes.
    pub(super) fn make_cookies(&mut self) {
        if self.socket_hook() != SocketHook::SysExit {
            return;
        }
        // Without it the end of these connections is not seen, nor when their requests arrived.
        match self.tcp_sockets(None).map(|sockets| sockets.map(TcpSockets::look)) {
            Ok(Some(Ok(_))) => {}
            Ok(None) => tracing::warn!(
                "connections that are older than the observer are not looked at, and their end is not seen: the probe \
                 {PROBE} is not attached (signals.tcp)"
            ),
            Ok(Some(Err(error))) => {
                tracing::warn!("cannot look at connections that are older than the observer: {error}")
            }
            Err(error) => tracing::warn!("cannot look at connections that are older than the observer: {error}"),
        }
    }
}

/// Of the network namespace of this thread.
fn open(link: IterLink) -> Result<File, String> {
    link.into_file().map_err(|error| chain(&error))
}

const GONE: &str = "the thread that enters network namespaces is gone";

/// The thread that enters network namespaces: good for nothing else then, and the only one that needs `CAP_SYS_ADMIN`.
#[derive(Debug)]
pub(super) struct Entering(mpsc::Sender<Question>);

struct Question {
    namespace: File,
    link: IterLink,
    answer: mpsc::SyncSender<Result<File, String>>,
}

impl Entering {
    /// Starts it; it ends when this goes.
    fn start(begin: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (sender, questions) = mpsc::channel::<Question>();
        thread::Builder::new().name("observer-netns".to_owned()).spawn(move || {
            begin();
            // Left again at once: a namespace goes when nobody is in it.
            let own = File::open("/proc/thread-self/ns/net");
            for Question { namespace, link, answer } in questions {
                let file = enter(&namespace).map_err(|error| error.to_string()).and_then(|()| open(link));
                if let Ok(own) = &own
                    && let Err(error) = enter(own)
                {
                    tracing::warn!("cannot leave a network namespace: {error}");
                }
                // Who asked may have given up.
                let _gone = answer.send(file);
            }
        })?;
        Ok(Self(sender))
    }

    fn open(&self, namespace: File, link: IterLink) -> Result<File, String> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.0.send(Question { namespace, link, answer }).map_err(|_| GONE.to_owned())?;
        answered.recv().unwrap_or_else(|_| Err(GONE.to_owned()))
    }
}

fn enter(namespace: &File) -> io::Result<()> {
    // SAFETY: a descriptor that is open, and no pointers.
    let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl TcpSockets {
    /// Goes over all of them: those worth telling.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn look(mut self) -> io::Result<Vec<SeenSocket>> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 8192];
        loop {
            match self.0.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => bytes.extend_from_slice(&buffer[..length]),
                // After a million sockets of which nothing is to be told it wants to be asked again.
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(bytes.as_chunks().0.iter().map(SeenSocket::from_bytes).collect())
    }
}
