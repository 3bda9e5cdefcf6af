//! Bytes of connections that become no events, as the kernel side counts them.

use aya::maps::{MapData, PerCpuArray};
use observer_common::{content, event as wire};

use super::{
    error::{KernelError, map_error, missing},
    loader::Kernel,
};
use crate::event::{Content, Direction};

const MAP: &str = "BYTES";

const CONTENTS: [(u32, Content); content::CONTENTS as usize] = [
    (content::UNDECIDED, Content::Undecided),
    (content::NOT_HTTP, Content::NotHttp),
    (content::TLS, Content::Tls),
    (content::KTLS, Content::Ktls),
    (content::HTTP2, Content::Http2),
    (content::MPTCP, Content::Mptcp),
    (content::UNREADABLE, Content::Unreadable),
];

const DIRECTIONS: [(u8, Direction); 2] =
    [(wire::DIRECTION_SEND, Direction::Send), (wire::DIRECTION_RECEIVE, Direction::Receive)];

impl Kernel {
    /// Bytes that became no events, by what they are, summed over CPUs.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn bytes(&self) -> Result<Vec<(Content, Direction, u64)>, KernelError> {
        let map = self.ebpf.map(MAP).ok_or_else(|| missing(MAP))?;
        let map: PerCpuArray<&MapData, u64> = PerCpuArray::try_from(map).map_err(|error| map_error(MAP, &error))?;
        let mut found = Vec::new();
        for (number, content) in CONTENTS {
            for (direction, seen) in DIRECTIONS {
                let values = map.get(&content::slot(number, direction), 0).map_err(|error| map_error(MAP, &error))?;
                found.push((content, seen, values.iter().sum()));
            }
        }
        Ok(found)
    }
}
