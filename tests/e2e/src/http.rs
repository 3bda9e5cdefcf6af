//! A blocking HTTP/1.1 client that does what tests need: one request, one whole answer, on one connection.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::wait::SOON;

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header block, with its status line.
    pub head: String,
    /// Body, without transfer coding.
    pub body: Vec<u8>,
    /// Bytes of all of it on the wire.
    pub wire: usize,
}

impl Response {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Value of a header in a header block.
#[must_use]
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (its, value) = line.split_once(':')?;
        its.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// A connection that is kept alive.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Bytes taken so far.
    taken: usize,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, SOON)?;
        stream.set_nodelay(true)?;
        // Longer than any pause of our servers, so that a lost answer ends a test rather than hang it.
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { stream, buffer: Vec::new(), taken: 0 })
    }

    /// Waits so long for each part of an answer.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn patient(self, limit: Duration) -> io::Result<Self> {
        self.stream.set_read_timeout(Some(limit))?;
        Ok(self)
    }

    /// The client's own address.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// Sends bytes in one write, as far as the kernel takes them.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; 65_536];
        match self.stream.read(&mut chunk)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.buffer.extend_from_slice(&chunk[..count]);
                Ok(())
            }
        }
    }

    fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            self.fill()?;
        }
        let rest = self.buffer.split_off(count);
        self.taken += count;
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    fn take_through(&mut self, mark: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(mark.len()).position(|window| window == mark) {
                return self.take(at + mark.len());
            }
            self.fill()?;
        }
    }

    /// Receives one whole answer to a request with a method that has a body in its answer.
    ///
    /// # Errors
    /// What the kernel said, or that the answer is no HTTP/1.1.
    pub fn receive(&mut self) -> io::Result<Response> {
        let before = self.taken;
        let head = self.receive_head()?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| invalid("no status"))?;
        let mut body = Vec::new();
        if header(&head, "transfer-encoding").is_some() {
            loop {
                let line = String::from_utf8_lossy(&self.take_through(b"\r\n")?).into_owned();
                let size = usize::from_str_radix(line.trim(), 16).map_err(|_| invalid("no chunk size"))?;
                body.extend(self.take(size)?);
                let _crlf = self.take(2)?;
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = header(&head, "content-length") {
            body = self.take(length.parse().map_err(|_| invalid("no length"))?)?;
        } else {
            while self.fill().is_ok() {}
            body = self.take(self.buffer.len())?;
        }
        Ok(Response { status, head, body, wire: self.taken - before })
    }

    /// Receives the head of an answer that has no body, or whose body is taken otherwise.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn receive_head(&mut self) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.take_through(b"\r\n\r\n")?).into_owned())
    }

    /// Sends a request and receives its answer.
    ///
    /// # Errors
    /// What the kernel said, or that the answer is no HTTP/1.1.
    pub fn ask(&mut self, request: &[u8]) -> io::Result<Response> {
        self.send(request)?;
        self.receive()
    }
}

/// `GET path` on a connection of its own.
///
/// # Errors
/// What the kernel said, or that the answer is no HTTP/1.1.
pub fn get(address: SocketAddr, path: &str) -> io::Result<Response> {
    get_with(address, path, "")
}

/// As [`get`], with these header lines besides.
///
/// # Errors
/// What the kernel said, or that the answer is no HTTP/1.1.
pub fn get_with(address: SocketAddr, path: &str, headers: &str) -> io::Result<Response> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}\r\n");
    Client::connect(address)?.ask(request.as_bytes())
}
