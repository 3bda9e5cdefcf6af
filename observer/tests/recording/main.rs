//! Recordings: the file, and what stays in it of what was said.

mod file;
mod text;

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use observer::{
    event::{Cookie, Open},
    time::KernelTime,
};

#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panicked with it").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn at(milliseconds: u64) -> KernelTime {
    KernelTime::from_nanos(1_000_000_000_000 + milliseconds * 1_000_000)
}

pub(crate) fn open(cookie: u64) -> Open {
    Open {
        cookie: Cookie(cookie),
        time: at(1),
        established: None,
        pid: 42,
        server: Some(([127, 0, 0, 1], 8000).into()),
        client: Some(([127, 0, 0, 1], 50000).into()),
        cgroup: 0,
        send_sequence: None,
        receive_sequence: None,
        comm: "vllm".to_owned(),
        late: false,
        mid_request: false,
        opaque: None,
    }
}
