//! Servers under observation: the workspace's sample server, the Python stacks that real servers are built on, and
//! servers that others wrote.

use std::{fmt, net::SocketAddr, path::Path, process::Command, time::Duration};

use crate::{
    http,
    net::free_address,
    process::Process,
    require,
    scratch::Scratch,
    wait::{self, SOON},
};

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    /// Its process.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
}

/// What carries the tests' Python application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    /// uvicorn with uvloop and httptools: what vLLM, SGLang and LiteLLM run on.
    Uvloop,
    /// uvicorn with asyncio and h11: what llama-cpp-python runs on.
    H11,
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uvloop => "uvicorn+uvloop+httptools",
            Self::H11 => "uvicorn+asyncio+h11",
        })
    }
}

/// The tests' Python files.
#[must_use]
pub fn scripts() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/python"))
}

/// The tests' files for Node.
#[must_use]
pub fn node_scripts() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/node"))
}

impl Server {
    /// The sample server, with these further arguments.
    ///
    /// # Panics
    /// If it does not listen soon.
    #[must_use]
    pub fn sample(arguments: &[&str]) -> Self {
        Self::sample_at("127.0.0.1:0", arguments)
    }

    /// The sample server on this address, with these further arguments.
    ///
    /// # Panics
    /// If it does not listen soon.
    #[must_use]
    pub fn sample_at(listen: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(require::sample());
        command.args(["serve", "--listen", listen]).args(arguments);
        let mut process = Process::spawn("sample-llm", command);
        let address = listening(&mut process);
        Self { process, address }
    }

    /// The sample server on an AF_UNIX socket.
    ///
    /// # Panics
    /// If it does not listen soon.
    #[must_use]
    pub fn sample_unix(path: &Path) -> Process {
        let mut command = Command::new(require::sample());
        command.args(["serve", "--unix"]).arg(path);
        let process = Process::spawn("sample-llm", command);
        wait::until("the sample server's socket", SOON, || path.exists().then_some(()));
        process
    }

    /// The OpenAI-compatible Python application on one of its stacks.
    #[must_use]
    pub fn python(stack: Stack) -> Self {
        Self::application("app:app", stack, &[])
    }

    /// The same, with a middleware that measures it by `prometheus_client`.
    #[must_use]
    pub fn measured(stack: Stack) -> Self {
        Self::application("measured:app", stack, &[])
    }

    /// The Python application that speaks as other engines do.
    #[must_use]
    pub fn engines(stack: Stack) -> Self {
        Self::application("engines:app", stack, &[])
    }

    /// A proxy, on uvloop, in front of the server at `backend`. `pass_ids`: it passes on the headers that name a request.
    ///
    /// # Panics
    /// If it does not answer soon.
    #[must_use]
    pub fn proxy(backend: &str, pass_ids: bool) -> Self {
        let backend = format!("http://{backend}");
        let passes = if pass_ids { "1" } else { "" };
        Self::application("proxy:app", Stack::Uvloop, &[("BACKEND", &backend), ("PASS_IDS", passes)])
    }

    fn application(name: &str, stack: Stack, settings: &[(&str, &str)]) -> Self {
        let address = free_address();
        let mut command = Command::new(require::python());
        command.current_dir(scripts()).env("PYTHONDONTWRITEBYTECODE", "1");
        command.envs(settings.iter().copied());
        command.args(["-m", "uvicorn", name, "--log-level", "warning", "--host", "127.0.0.1", "--port"]);
        command.arg(address.port().to_string());
        command.args(match stack {
            Stack::Uvloop => ["--loop", "uvloop", "--http", "httptools"],
            Stack::H11 => ["--loop", "asyncio", "--http", "h11"],
        });
        // Importing it takes seconds on a loaded machine.
        Self::answering(Process::spawn(&stack.to_string(), command), address)
    }

    /// aimock, a Node server, with these fixtures; it waits `latency` milliseconds before each event, which carry
    /// `size` characters each.
    #[must_use]
    pub fn aimock(fixtures: &Path, latency: u64, size: usize) -> Self {
        let address = free_address();
        let mut command = Command::new(require::tool("node").expect("required"));
        command.arg(require::aimock()).args(["--host", "127.0.0.1", "--port", &address.port().to_string()]);
        command.args(["--log-level", "warn", "--strict", "--fixtures"]).arg(fixtures);
        command.args(["--latency", &latency.to_string(), "--chunk-size", &size.to_string()]);
        Self::answering(Process::spawn("aimock", command), address)
    }

    /// llmposter, which fails as its fixtures say.
    #[must_use]
    pub fn llmposter(fixtures: &Path) -> Self {
        let address = free_address();
        let mut command = Command::new(require::tool("llmposter").expect("required"));
        command.args(["--port", &address.port().to_string(), "--fixtures"]).arg(fixtures);
        Self::answering(Process::spawn("llmposter", command), address)
    }

    /// nginx in front of `backend`, in one process of the test's own. `settings` go into the location.
    #[must_use]
    pub fn nginx(backend: SocketAddr, settings: &str, scratch: &Scratch) -> Self {
        let address = free_address();
        let folder = scratch.path().display();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {folder}/{name};"))
            .join(" ");
        let configuration = format!(
            "daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;\n\
             events {{ worker_connections 256; }}\n\
             http {{\n access_log off; {temporary}\n\
             upstream backend {{ server {backend}; keepalive 8; }}\n\
             server {{\n listen {address};\n location / {{\n proxy_pass http://backend; proxy_http_version 1.1;\n\
             proxy_set_header Connection \"\"; {settings}\n }}\n }}\n}}\n"
        );
        let file = scratch.write("nginx.conf", &configuration);
        let mut command = Command::new(require::tool("nginx").expect("required"));
        command.arg("-p").arg(scratch.path()).arg("-c").arg(file).args(["-e", "stderr"]);
        Self::answering(Process::spawn("nginx", command), address)
    }

    /// Waits until it answers.
    fn answering(mut process: Process, address: SocketAddr) -> Self {
        wait::until("a server to answer", Duration::from_secs(60), || {
            assert!(process.exited().is_none(), "a server ended: {:#?}", process.output());
            http::get(address, "/health").ok()
        });
        Self { process, address }
    }

    /// `http://` and its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.address.port()
    }
}

/// A shell that starts the sample server once it is told to: for tests that name a process, or its cgroup, before
/// there is a server.
#[derive(Debug)]
pub struct Parent {
    /// The shell.
    pub process: Process,
    scratch: Scratch,
}

/// How a server descends from its [`Parent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descent {
    /// A grandchild.
    Straight,
    /// A grandchild whose parent has ended, so that by now it is some other process's child.
    Orphaned,
}

impl Parent {
    /// A shell that waits.
    #[must_use]
    pub fn new(descent: Descent) -> Self {
        // `timeout` bounds the server's life even if the shell is killed, and hands signals on.
        let run = "timeout --kill-after=1 60 \"$1\" serve --listen 127.0.0.1:0 >&3 2>&3 &";
        let start = match descent {
            Descent::Straight => format!("{run} pid=$!"),
            Descent::Orphaned => format!("pid=$( ({run} echo $!) )"),
        };
        let script = format!(
            "exec 3>&1; while [ ! -e \"$0\" ]; do sleep 0.02; done\n{start}\ntrap 'kill $pid; exit 0' TERM\n\
             while kill -0 $pid 2>&-; do sleep 0.1; done"
        );
        let scratch = Scratch::new();
        let mut command = Command::new("sh");
        command.args(["-c", &script]).arg(scratch.file("go")).arg(require::sample());
        Self { process: Process::spawn("sh", command), scratch }
    }

    /// Has it start the server, and tells where that listens.
    ///
    /// # Panics
    /// If it does not listen soon.
    pub fn serve(&mut self) -> SocketAddr {
        let _go = self.scratch.write("go", "");
        listening(&mut self.process)
    }
}

/// Waits for a sample server to say where it listens.
///
/// # Panics
/// If it does not say so soon.
pub fn listening(process: &mut Process) -> SocketAddr {
    let line = process.line(SOON, |line| line.contains("listening on "));
    let address = line.rsplit("listening on ").next().and_then(|text| text.trim().parse().ok());
    address.unwrap_or_else(|| panic!("no address in {line}"))
}
