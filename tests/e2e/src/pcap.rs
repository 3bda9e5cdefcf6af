//! Capture files: nanosecond pcap of Ethernet frames that hold TCP over IPv4 or IPv6.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// A TCP segment as it passed.
#[derive(Clone, Debug)]
pub struct Packet {
    /// When, in nanoseconds of `CLOCK_REALTIME`.
    pub time: u64,
    /// Whence.
    pub source: SocketAddr,
    /// Whither.
    pub destination: SocketAddr,
    /// Sequence number of its first byte (of SYN, where that is set).
    pub sequence: u32,
    /// SYN.
    pub syn: bool,
    /// FIN.
    pub fin: bool,
    /// RST.
    pub rst: bool,
    /// Data.
    pub data: Vec<u8>,
}

const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const LINK_ETHERNET: u32 = 1;

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn big16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Reads a capture file whole.
///
/// # Panics
/// If it is not such a file, or a packet was cut short.
#[must_use]
pub fn read(file: &[u8]) -> Vec<Packet> {
    assert!(file.len() >= 24 && word(file, 0) == MAGIC_NANOSECONDS, "not a nanosecond capture of this machine");
    assert_eq!(word(file, 20), LINK_ETHERNET, "not a capture of Ethernet frames");
    let (mut packets, mut at) = (Vec::new(), 24);
    while at + 16 <= file.len() {
        let time = u64::from(word(file, at)) * 1_000_000_000 + u64::from(word(file, at + 4));
        let (captured, length) = (word(file, at + 8) as usize, word(file, at + 12) as usize);
        assert_eq!(captured, length, "a packet was cut short");
        packets.extend(packet(time, &file[at + 16..at + 16 + captured]));
        at += 16 + captured;
    }
    assert_eq!(at, file.len(), "the file ends within a packet");
    packets
}

/// Reads an Ethernet frame; `None`: not TCP.
fn packet(time: u64, frame: &[u8]) -> Option<Packet> {
    let ip = &frame[14..];
    let (source, destination, tcp) = match big16(frame, 12) {
        0x0800 => {
            let header = usize::from(ip[0] & 15) * 4;
            // A length of 0 stands for a segment too large for the field.
            let length = match usize::from(big16(ip, 2)) {
                0 => ip.len(),
                length => length,
            };
            let address = |at: usize| IpAddr::from([ip[at], ip[at + 1], ip[at + 2], ip[at + 3]]);
            (ip[9] == 6).then(|| (address(12), address(16), &ip[header..length]))?
        }
        0x86dd => {
            let length = match usize::from(big16(ip, 4)) {
                0 => ip.len(),
                length => 40 + length,
            };
            let address =
                |at: usize| IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).expect("16 bytes")));
            (ip[6] == 6).then(|| (address(8), address(24), &ip[40..length]))?
        }
        _ => return None,
    };
    let flags = tcp[13];
    Some(Packet {
        time,
        source: SocketAddr::new(source, big16(tcp, 0)),
        destination: SocketAddr::new(destination, big16(tcp, 2)),
        sequence: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
        syn: flags & 2 != 0,
        fin: flags & 1 != 0,
        rst: flags & 4 != 0,
        data: tcp[usize::from(tcp[12] >> 4) * 4..].to_vec(),
    })
}
