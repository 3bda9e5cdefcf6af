//! Sockets and the ordinary calls on them.

use std::{
    io,
    mem::{size_of, zeroed},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    thread,
    time::Duration,
};

use crate::{
    clock::{Mark, timed},
    wait::SOON,
};

/// A connected socket.
#[derive(Debug)]
pub struct Socket(OwnedFd);

/// A connection, both ends in this process.
#[derive(Debug)]
pub struct Link {
    /// The client's end.
    pub client: Socket,
    /// The server's end.
    pub server: Socket,
    /// The client's address.
    pub from: SocketAddr,
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    connect_to: SocketAddr,
}

/// A request that was read.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Its bytes, and any that followed it in the same read.
    pub bytes: Vec<u8>,
    /// The read that returned its first byte.
    pub first: Mark,
    /// The read that returned its last byte.
    pub last: Mark,
}

/// Turns the result of a system call into Rust's.
pub(super) fn checked(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Whether a request (with `content-length`, if it has a body) is whole.
#[must_use]
pub fn whole(bytes: &[u8]) -> bool {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let length = crate::http::header(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    bytes.len() >= end + 4 + length
}

fn multipath_socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, libc::IPPROTO_MPTCP) };
    // SAFETY: the descriptor, if it is one, is new and owned by nobody else.
    if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { OwnedFd::from_raw_fd(fd) }) }
}

fn ipv4(address: SocketAddr) -> libc::sockaddr_in {
    // SAFETY: zeroes are a valid address.
    let mut plain: libc::sockaddr_in = unsafe { zeroed() };
    plain.sin_family = libc::AF_INET as libc::sa_family_t;
    plain.sin_port = address.port().to_be();
    plain.sin_addr.s_addr = std::net::Ipv4Addr::LOCALHOST.to_bits().to_be();
    plain
}

impl Listener {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn v4() -> Self {
        let connect_to = crate::net::free_address();
        Self { listener: TcpListener::bind(connect_to).expect("the port is free"), connect_to }
    }

    /// Listens on a free port of ::1.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn v6() -> Self {
        let connect_to = SocketAddr::new([0, 0, 0, 0, 0, 0, 0, 1_u16].into(), crate::net::free_port());
        Self { listener: TcpListener::bind(connect_to).expect("the port is free"), connect_to }
    }

    /// Listens on a free port of 127.0.0.1 with an IPv6 socket: connections have v4-mapped addresses.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn mapped() -> Self {
        let connect_to = crate::net::free_address();
        let mapped = [0, 0, 0, 0, 0, 0xffff, 0x7f00, 1_u16];
        let listener = TcpListener::bind(SocketAddr::new(mapped.into(), connect_to.port()));
        Self { listener: listener.expect("the port is free"), connect_to }
    }

    /// Listens on a free port of 127.0.0.1 with Multipath TCP, as Go's servers do unless told otherwise.
    ///
    /// # Errors
    /// If this kernel has none.
    ///
    /// # Panics
    /// If it has, and still fails.
    pub fn multipath() -> io::Result<Self> {
        let connect_to = crate::net::free_address();
        let socket = multipath_socket()?;
        let address = ipv4(connect_to);
        // SAFETY: the descriptor is open, the address valid for its size.
        let bound = unsafe {
            libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as libc::socklen_t)
        };
        assert_eq!(bound, 0, "bind: {}", io::Error::last_os_error());
        // SAFETY: the descriptor is open.
        assert_eq!(unsafe { libc::listen(socket.as_raw_fd(), 16) }, 0, "listen: {}", io::Error::last_os_error());
        Ok(Self { listener: socket.into(), connect_to })
    }

    /// As [`Self::link`], with a client that speaks Multipath TCP.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn multipath_link(&self) -> Link {
        let socket = multipath_socket().expect("this kernel has Multipath TCP");
        let address = ipv4(self.connect_to);
        // SAFETY: the descriptor is open, the address valid for its size.
        let connected = unsafe {
            libc::connect(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as libc::socklen_t)
        };
        assert_eq!(connected, 0, "connect: {}", io::Error::last_os_error());
        self.accept(socket.into())
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.connect_to.port()
    }

    /// The address that clients connect to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.connect_to
    }

    /// Makes a connection and takes both of its ends.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn link(&self) -> Link {
        self.accept(TcpStream::connect_timeout(&self.connect_to, SOON).expect("connecting"))
    }

    fn accept(&self, client: TcpStream) -> Link {
        let (server, _) = self.listener.accept().expect("a connection waits");
        let from = client.local_addr().expect("it has an address");
        for stream in [&client, &server] {
            stream.set_nodelay(true).expect("TCP_NODELAY");
            stream.set_read_timeout(Some(SOON)).expect("SO_RCVTIMEO");
            stream.set_write_timeout(Some(SOON)).expect("SO_SNDTIMEO");
        }
        Link { client: Socket(client.into()), server: Socket(server.into()), from }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

impl Socket {
    /// A second descriptor of the same socket, for another thread.
    ///
    /// # Panics
    /// If the kernel refuses.
    #[must_use]
    pub fn another(&self) -> Self {
        Self(self.0.try_clone().expect("dup"))
    }

    /// `send(2)`.
    ///
    /// # Errors
    /// As the call.
    pub fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        // SAFETY: the buffer is valid for its length. MSG_NOSIGNAL: a closed peer is an error, not a signal.
        checked(unsafe { libc::send(self.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) })
    }

    /// `send(2)` of all bytes in one call.
    ///
    /// # Panics
    /// If the kernel takes fewer.
    pub fn send(&self, bytes: &[u8]) -> Mark {
        let (sent, mark) = timed(|| self.try_send(bytes));
        assert_eq!(sent.expect("send"), bytes.len(), "a short send");
        mark
    }

    /// `write(2)` of all bytes in one call.
    ///
    /// # Panics
    /// If the kernel takes fewer.
    pub fn write(&self, bytes: &[u8]) -> Mark {
        // SAFETY: the buffer is valid for its length.
        let call = || checked(unsafe { libc::write(self.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) });
        let (sent, mark) = timed(call);
        assert_eq!(sent.expect("write"), bytes.len(), "a short write");
        mark
    }

    /// `recv(2)` of at most `count` bytes, with these flags.
    ///
    /// # Errors
    /// As the call.
    pub fn recv_with(&self, count: usize, flags: i32) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; count];
        // SAFETY: the buffer is valid and writable for its length.
        let call = unsafe { libc::recv(self.as_raw_fd(), buffer.as_mut_ptr().cast(), count, flags) };
        buffer.truncate(checked(call)?);
        Ok(buffer)
    }

    /// `recv(2)` of at most `count` bytes.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn recv(&self, count: usize) -> Vec<u8> {
        self.recv_with(count, 0).expect("recv")
    }

    /// `read(2)` of at most `count` bytes.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn read(&self, count: usize) -> Vec<u8> {
        let mut buffer = vec![0; count];
        // SAFETY: the buffer is valid and writable for its length.
        let call = unsafe { libc::read(self.as_raw_fd(), buffer.as_mut_ptr().cast(), count) };
        buffer.truncate(checked(call).expect("read"));
        buffer
    }

    /// `recv(2)` that throws away exactly `count` bytes (`MSG_TRUNC`), given a buffer that holds `decoy` before and,
    /// since the kernel copies nothing, after.
    ///
    /// # Panics
    /// If it fails.
    pub fn discard(&self, count: usize, decoy: &[u8]) {
        let mut buffer = decoy.to_vec();
        buffer.resize(count.max(decoy.len()), b' ');
        // SAFETY: the buffer is valid and writable for `count`.
        let call = unsafe { libc::recv(self.as_raw_fd(), buffer.as_mut_ptr().cast(), count, libc::MSG_TRUNC) };
        assert_eq!(checked(call).expect("recv with MSG_TRUNC"), count);
        assert!(buffer.starts_with(decoy));
    }

    /// Reads a whole request with calls of `reader`, which returns what one read returned.
    ///
    /// # Panics
    /// If the stream ends first.
    pub fn take_with(&self, mut reader: impl FnMut(&Self, usize) -> Vec<u8>) -> Taken {
        let (mut bytes, mut first) = (Vec::new(), None);
        loop {
            let so_far = bytes.len();
            let (some, last) = timed(|| reader(self, so_far));
            assert!(!some.is_empty(), "the stream ended within a request: {}", String::from_utf8_lossy(&bytes));
            bytes.extend(some);
            let first = *first.get_or_insert(last);
            if whole(&bytes) {
                return Taken { bytes, first, last };
            }
        }
    }

    /// Reads a whole request as plain servers do.
    #[must_use]
    pub fn take(&self) -> Taken {
        self.take_with(|socket, _| socket.recv(65_536))
    }

    /// Reads the rest of a request of which these bytes were read before; [`Taken::first`] is of this rest.
    ///
    /// # Panics
    /// If the stream ends first.
    #[must_use]
    pub fn take_rest(&self, before: Vec<u8>) -> Taken {
        let mut known = Some(before);
        self.take_with(|socket, _| {
            let mut bytes = known.take().unwrap_or_default();
            bytes.extend(socket.recv(65_536));
            bytes
        })
    }

    /// Receives exactly `count` bytes.
    ///
    /// # Panics
    /// If the stream ends first.
    pub fn drain(&self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let some = self.recv((count - bytes.len()).min(65_536));
            assert!(!some.is_empty(), "the stream ended after {} of {count} bytes", bytes.len());
            bytes.extend(some);
        }
        bytes
    }

    fn option<T>(&self, level: i32, name: i32, value: &T) {
        let size = size_of::<T>() as libc::socklen_t;
        // SAFETY: the value is valid for its size.
        let result = unsafe { libc::setsockopt(self.as_raw_fd(), level, name, (&raw const *value).cast(), size) };
        assert_eq!(result, 0, "setsockopt {level} {name}: {}", io::Error::last_os_error());
    }

    /// `SO_SNDBUF`.
    pub fn set_send_buffer(&self, bytes: i32) {
        self.option(libc::SOL_SOCKET, libc::SO_SNDBUF, &bytes);
    }

    /// `SO_RCVBUF`.
    pub fn set_receive_buffer(&self, bytes: i32) {
        self.option(libc::SOL_SOCKET, libc::SO_RCVBUF, &bytes);
    }

    /// Whether what is written is held back until this is set to false again (`TCP_CORK`).
    pub fn set_cork(&self, on: bool) {
        self.option(libc::IPPROTO_TCP, libc::TCP_CORK, &i32::from(on));
    }

    /// Makes calls fail with EAGAIN rather than wait.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn set_nonblocking(&self) {
        // SAFETY: plain flags of a descriptor that is ours.
        let result = unsafe { libc::fcntl(self.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        assert_eq!(result, 0, "fcntl: {}", io::Error::last_os_error());
    }

    /// Waits, at most for `limit`, until it can be written to.
    #[must_use]
    pub fn writable(&self, limit: Duration) -> bool {
        poll(self.as_raw_fd(), libc::POLLOUT, limit)
    }

    /// `shutdown(2)` of its sending side: FIN, while it still receives.
    ///
    /// # Panics
    /// If it fails.
    pub fn finish(&self) -> Mark {
        // SAFETY: the descriptor is ours.
        let (result, mark) = timed(|| unsafe { libc::shutdown(self.as_raw_fd(), libc::SHUT_WR) });
        assert_eq!(result, 0, "shutdown: {}", io::Error::last_os_error());
        mark
    }

    /// Closes it in order: FIN, if everything received was read.
    pub fn close(self) -> Mark {
        timed(|| drop(self)).1
    }

    /// Closes it with a reset.
    pub fn reset(self) -> Mark {
        self.option(libc::SOL_SOCKET, libc::SO_LINGER, &libc::linger { l_onoff: 1, l_linger: 0 });
        timed(|| drop(self)).1
    }
}

/// Waits, at most for `limit`, until a descriptor is ready for `events`.
#[must_use]
pub fn poll(fd: i32, events: i16, limit: Duration) -> bool {
    // SAFETY: zeroes are a valid pollfd.
    let mut wanted: libc::pollfd = unsafe { zeroed() };
    wanted.fd = fd;
    wanted.events = events;
    // SAFETY: one valid pollfd.
    unsafe { libc::poll(&raw mut wanted, 1, limit.as_millis() as i32) == 1 }
}

/// Sleeps: for traffic that needs a pause of known length.
pub fn pause(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}
