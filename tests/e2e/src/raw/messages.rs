//! Calls that scatter, gather, batch or bypass user memory.

use std::{fs::File, io, mem::zeroed, os::fd::AsRawFd, ptr};

use super::socket::{Socket, checked};
use crate::clock::{Mark, timed};

fn gather(parts: &[&[u8]]) -> Vec<libc::iovec> {
    let part = |part: &&[u8]| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() };
    parts.iter().map(part).collect()
}

fn scatter(buffers: &mut [Vec<u8>]) -> Vec<libc::iovec> {
    let part = |buffer: &mut Vec<u8>| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    buffers.iter_mut().map(part).collect()
}

fn header(vectors: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: zeroes are a valid msghdr.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = vectors.len();
    message
}

fn joined(buffers: &[Vec<u8>], count: usize) -> Vec<u8> {
    let mut bytes = buffers.concat();
    bytes.truncate(count);
    bytes
}

/// Cuts bytes into `count` parts of nearly one size, none of them empty.
///
/// # Panics
/// If there are fewer bytes than parts.
#[must_use]
pub fn cut(bytes: &[u8], count: usize) -> Vec<&[u8]> {
    assert!(bytes.len() >= count);
    (0..count).map(|index| &bytes[bytes.len() * index / count..bytes.len() * (index + 1) / count]).collect()
}

impl Socket {
    /// `writev(2)` of all parts in one call.
    ///
    /// # Panics
    /// If the kernel takes fewer bytes.
    pub fn writev(&self, parts: &[&[u8]]) -> Mark {
        let vectors = gather(parts);
        // SAFETY: the vectors describe valid buffers.
        let call = || checked(unsafe { libc::writev(self.as_raw_fd(), vectors.as_ptr(), vectors.len() as i32) });
        let (sent, mark) = timed(call);
        assert_eq!(sent.expect("writev"), parts.iter().map(|part| part.len()).sum::<usize>(), "a short writev");
        mark
    }

    /// `readv(2)` into buffers of these sizes.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn readv(&self, sizes: &[usize]) -> Vec<u8> {
        let mut buffers: Vec<Vec<u8>> = sizes.iter().map(|size| vec![0; *size]).collect();
        let vectors = scatter(&mut buffers);
        // SAFETY: the vectors describe valid, writable buffers.
        let call = unsafe { libc::readv(self.as_raw_fd(), vectors.as_ptr(), vectors.len() as i32) };
        joined(&buffers, checked(call).expect("readv"))
    }

    /// `sendmsg(2)` of all parts in one call.
    ///
    /// # Panics
    /// If the kernel takes fewer bytes.
    pub fn sendmsg(&self, parts: &[&[u8]]) -> Mark {
        let mut vectors = gather(parts);
        let message = header(&mut vectors);
        // SAFETY: the message describes valid buffers.
        let call = || checked(unsafe { libc::sendmsg(self.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) });
        let (sent, mark) = timed(call);
        assert_eq!(sent.expect("sendmsg"), parts.iter().map(|part| part.len()).sum::<usize>(), "a short sendmsg");
        mark
    }

    /// `recvmsg(2)` into buffers of these sizes.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn recvmsg(&self, sizes: &[usize]) -> Vec<u8> {
        let mut buffers: Vec<Vec<u8>> = sizes.iter().map(|size| vec![0; *size]).collect();
        let mut vectors = scatter(&mut buffers);
        let mut message = header(&mut vectors);
        // SAFETY: the message describes valid, writable buffers.
        let call = unsafe { libc::recvmsg(self.as_raw_fd(), &raw mut message, 0) };
        joined(&buffers, checked(call).expect("recvmsg"))
    }

    /// `sendmmsg(2)`: each part is a message of its own.
    ///
    /// # Panics
    /// If the kernel takes fewer messages.
    pub fn sendmmsg(&self, parts: &[&[u8]]) -> Mark {
        let mut vectors: Vec<Vec<libc::iovec>> = parts.iter().map(|part| gather(&[*part])).collect();
        let message = |vectors: &mut Vec<libc::iovec>| libc::mmsghdr { msg_hdr: header(vectors), msg_len: 0 };
        let mut messages: Vec<libc::mmsghdr> = vectors.iter_mut().map(message).collect();
        let count = messages.len() as u32;
        // SAFETY: the messages describe valid buffers.
        let call = || unsafe { libc::sendmmsg(self.as_raw_fd(), messages.as_mut_ptr(), count, 0) };
        let (sent, mark) = timed(call);
        assert_eq!(sent, count as i32, "sendmmsg: {}", io::Error::last_os_error());
        mark
    }

    /// `recvmmsg(2)` of one message of at most `size` bytes.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn recvmmsg(&self, size: usize) -> Vec<u8> {
        let mut buffers = [vec![0; size]];
        let mut vectors = scatter(&mut buffers);
        let mut message = libc::mmsghdr { msg_hdr: header(&mut vectors), msg_len: 0 };
        // SAFETY: the message describes a valid, writable buffer.
        let got = unsafe { libc::recvmmsg(self.as_raw_fd(), &raw mut message, 1, 0, ptr::null_mut()) };
        assert_eq!(got, 1, "recvmmsg: {}", io::Error::last_os_error());
        joined(&buffers, message.msg_len as usize)
    }

    /// `sendfile(2)` of a whole file.
    ///
    /// # Panics
    /// If the kernel sends less.
    pub fn sendfile(&self, file: &File, count: usize) -> Mark {
        let mut offset = 0;
        let call =
            // SAFETY: both descriptors are open, the offset is valid.
            || checked(unsafe { libc::sendfile(self.as_raw_fd(), file.as_raw_fd(), &raw mut offset, count) });
        let (sent, mark) = timed(call);
        assert_eq!(sent.expect("sendfile"), count, "a short sendfile");
        mark
    }

    /// `splice(2)` of bytes that lie in a pipe.
    ///
    /// # Panics
    /// If the kernel sends less.
    pub fn splice(&self, bytes: &[u8]) -> Mark {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        io::Write::write_all(&mut writer, bytes).expect("the pipe has room");
        let (from, to) = (reader.as_raw_fd(), self.as_raw_fd());
        let call =
            // SAFETY: both descriptors are open; no offsets are given.
            || checked(unsafe { libc::splice(from, ptr::null_mut(), to, ptr::null_mut(), bytes.len(), 0) });
        let (sent, mark) = timed(call);
        assert_eq!(sent.expect("splice"), bytes.len(), "a short splice");
        mark
    }
}
