"""Reads and writes in known amounts, for `work.py`: what each function does, and how often, is in its first line."""

import mmap
import os
import socket
import threading
import time


def make(folder, name, size):
    """A file of that size, on the disk."""
    path = os.path.join(folder, name)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    for _ in range(size // 65536):
        os.write(descriptor, b"x" * 65536)
    os.fsync(descriptor)
    return descriptor


def forget(descriptor):
    """Has the kernel drop the file's pages."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


class Work:
    def __init__(self, folder):
        self.folder = folder

    def write_file(self, count):
        """4 calls that write 1000 bytes to a file."""
        file = make(self.folder, "data.json", 0)
        for _ in range(count):
            os.write(file, b"x" * 1000)
            os.pwrite(file, b"x" * 1000, 0)
            os.writev(file, [b"x" * 400, b"x" * 600])
            os.pwritev(file, [b"x" * 400, b"x" * 600], 0)
        os.close(file)

    def read_file(self, count):
        """4 calls that read 1000 bytes of a file; before them 1 that makes it, after them 1 that reads to its end."""
        file = make(self.folder, "data.json", 65536)
        parts = [bytearray(400), bytearray(600)]
        for _ in range(count):
            os.lseek(file, 0, os.SEEK_SET)
            os.read(file, 1000)
            os.pread(file, 1000, 0)
            os.readv(file, parts)
            os.preadv(file, parts, 0)
        os.lseek(file, 0, os.SEEK_END)
        os.read(file, 1000)
        os.close(file)

    def read_weights(self, count):
        """1 call that reads 10000 bytes of a file of weights, and one that reads 1000 of another file."""
        files = [make(self.folder, "model.safetensors", 65536), make(self.folder, "model.safetensors.index", 65536)]
        for _ in range(count):
            os.pread(files[0], 10000, 0)
            os.pread(files[1], 1000, 0)
        for file in files:
            os.close(file)

    def read_blob(self, count):
        """1 call that reads 10000 bytes of what a model store keeps under its hash."""
        os.makedirs(os.path.join(self.folder, "blobs"), exist_ok=True)
        file = make(self.folder, "blobs/" + "0123456789abcdef" * 4, 65536)
        for _ in range(count):
            os.pread(file, 10000, 0)
        os.close(file)

    def pipe(self, count):
        """1 call that writes 100 bytes to a pipe, 1 that reads them, 1 that would have to wait."""
        read, write = os.pipe()
        os.set_blocking(read, False)
        for _ in range(count):
            os.write(write, b"x" * 100)
            os.read(read, 1000)
            try:
                os.read(read, 1000)
            except BlockingIOError:
                pass
        os.close(read)
        os.close(write)

    def late_pipe(self, count):
        """1 call that reads from a pipe into which nothing is written for 20 ms. The answer: all their seconds."""
        read, write = os.pipe()

        def writer():
            for _ in range(count):
                time.sleep(0.02)
                os.write(write, b"x")

        thread = threading.Thread(target=writer)
        thread.start()
        seconds = 0
        for _ in range(count):
            begun = time.monotonic()
            os.read(read, 1)
            seconds += time.monotonic() - begun
        thread.join()
        os.close(read)
        os.close(write)
        return b"%f" % seconds

    def socket(self, count):
        """3 calls that write 300 bytes to a socket, 3 that read them, 1 that only looks."""
        one, other = socket.socketpair()
        for _ in range(count):
            one.send(b"x" * 300)
            other.recv(300, socket.MSG_PEEK)
            other.recv(1000)
            os.write(one.fileno(), b"x" * 300)
            os.read(other.fileno(), 1000)
            one.sendmsg([b"x" * 300])
            other.recvmsg(1000)
        one.close()
        other.close()

    def device(self, count):
        """1 call that reads 1000 bytes of no file, pipe or socket, and one that writes as many."""
        zero, null = os.open("/dev/zero", os.O_RDONLY), os.open("/dev/null", os.O_WRONLY)
        for _ in range(count):
            os.write(null, os.read(zero, 1000))
        os.close(zero)
        os.close(null)

    def map_weights(self, pages):
        """Touches each page of a mapped file of weights that is not in the page cache."""
        self.mapped("mapped.gguf", pages)

    def map_others(self, pages):
        """The same of another file."""
        self.mapped("mapped.dat", pages)

    def mapped(self, name, pages):
        file = make(self.folder, name, pages * mmap.PAGESIZE)
        forget(file)
        with mmap.mmap(file, 0, prot=mmap.PROT_READ) as memory:
            sum(memory[page * mmap.PAGESIZE] for page in range(pages))
        os.close(file)

    def load_weights(self, pages):
        """Reads a file of weights that is not in the page cache, in calls of 64 KiB."""
        file = make(self.folder, "loaded.bin", pages * mmap.PAGESIZE)
        forget(file)
        os.lseek(file, 0, os.SEEK_SET)
        while os.read(file, 65536):
            pass
        os.close(file)

    def all(self):
        names = [name for name in vars(Work) if not name.startswith("_") and name not in ("all", "mapped")]
        return {name: getattr(self, name) for name in names}
