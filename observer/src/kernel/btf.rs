//! Just enough of the kernel's own type information: where a member lies in a structure.

use std::{collections::HashMap, fs, path::Path};

use super::error::KernelError;

/// Where the kernel publishes it.
pub(super) const PATH: &str = "/sys/kernel/btf/vmlinux";

const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_FUNCTION: u32 = 12;
/// typedef, volatile, const, restrict, type_tag: the same layout under another name.
const TRANSPARENT: [u32; 5] = [8, 9, 10, 11, 18];

/// The type section and string section of a BTF blob, indexed by type id and structure name.
pub(super) struct Btf {
    data: Vec<u8>,
    strings: usize,
    types: Vec<usize>,
    structures: HashMap<String, usize>,
}

impl Btf {
    /// Reads the running kernel's.
    pub(super) fn from_kernel() -> Result<Self, KernelError> {
        let data = fs::read(Path::new(PATH)).map_err(|error| KernelError::NoBtf { error })?;
        Self::parse(data).ok_or(KernelError::BadBtf)
    }

    /// `None`: not BTF of a layout that we know.
    fn parse(data: Vec<u8>) -> Option<Self> {
        let word =
            |offset: usize| -> Option<u32> { Some(u32::from_le_bytes(data.get(offset..offset + 4)?.try_into().ok()?)) };
        if word(0)? & 0xffff != 0xeb9f {
            return None;
        }
        let header = word(4)? as usize;
        let (types_at, types_size) = (header + word(8)? as usize, word(12)? as usize);
        let strings = header + word(16)? as usize;
        let (mut position, end) = (types_at, types_at + types_size);
        let mut types = vec![0];
        while position < end {
            types.push(position);
            let info = word(position + 4)?;
            let members = (info & 0xffff) as usize;
            position += 12
                + match (info >> 24) & 31 {
                    1 | 14 | 17 => 4,
                    3 => 12,
                    4 | 5 | 15 | 19 => 12 * members,
                    6 | 13 => 8 * members,
                    _ => 0,
                };
        }
        let mut btf = Self { data, strings, types, structures: HashMap::new() };
        for id in 1..btf.types.len() {
            if btf.kind(id)? == KIND_STRUCT {
                let name = btf.name(btf.word(btf.types[id])?)?.to_owned();
                btf.structures.entry(name).or_insert(id);
            }
        }
        Some(btf)
    }

    fn word(&self, offset: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.data.get(offset..offset + 4)?.try_into().ok()?))
    }

    fn name(&self, offset: u32) -> Option<&str> {
        let bytes = self.data.get(self.strings + offset as usize..)?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(&bytes[..end]).ok()
    }

    fn kind(&self, id: usize) -> Option<u32> {
        Some((self.word(self.types.get(id)? + 4)? >> 24) & 31)
    }

    /// The structure or union behind typedefs and qualifiers.
    fn resolve(&self, mut id: usize) -> Option<usize> {
        for _ in 0..32 {
            let kind = self.kind(id)?;
            if !TRANSPARENT.contains(&kind) {
                return (kind == KIND_STRUCT || kind == KIND_UNION).then_some(id);
            }
            id = self.word(self.types[id] + 8)? as usize;
        }
        None
    }

    /// Byte offset and type of a member; looks into anonymous members.
    fn member(&self, id: usize, name: &str) -> Option<(u32, usize)> {
        let id = self.resolve(id)?;
        let at = self.types[id];
        let info = self.word(at + 4)?;
        let bitfields = info >> 31 != 0;
        for index in 0..(info & 0xffff) as usize {
            let entry = at + 12 + 12 * index;
            let bits = self.word(entry + 8)? & if bitfields { 0x00ff_ffff } else { u32::MAX };
            let (member_name, member_type) = (self.name(self.word(entry)?)?, self.word(entry + 4)? as usize);
            if member_name == name {
                return Some((bits / 8, member_type));
            }
            if member_name.is_empty()
                && let Some((offset, found)) = self.member(member_type, name)
            {
                return Some((bits / 8 + offset, found));
            }
        }
        None
    }

    /// Byte offset of a member, named by a dotted path, in a structure.
    pub(super) fn offset(&self, structure: &'static str, path: &'static str) -> Result<u32, KernelError> {
        let missing = KernelError::NoMember { structure, path };
        let Some(mut id) = self.structures.get(structure).copied() else { return Err(missing) };
        let mut total = 0;
        for name in path.split('.') {
            let Some((offset, found)) = self.member(id, name) else { return Err(missing) };
            total += offset;
            id = found;
        }
        Ok(total)
    }

    /// Whether there is a tracepoint with typed arguments of this name.
    pub(super) fn has_tracepoint(&self, name: &str) -> bool {
        self.types.iter().skip(1).any(|at| {
            let found = self.word(*at).and_then(|offset| self.name(offset)?.strip_prefix("btf_trace_"));
            found == Some(name) && self.word(at + 4).map(|info| (info >> 24) & 31) == Some(KIND_TYPEDEF)
        })
    }

    /// How many arguments a function has.
    pub(super) fn arguments(&self, name: &str) -> Option<u32> {
        let is_it = |at: &&usize| {
            self.word(**at + 4).map(|info| (info >> 24) & 31) == Some(KIND_FUNCTION)
                && self.word(**at).and_then(|offset| self.name(offset)) == Some(name)
        };
        let prototype = self.word(self.types.iter().skip(1).find(is_it)? + 8)? as usize;
        Some(self.word(self.types.get(prototype)? + 4)? & 0xffff)
    }

    /// Value of a member of an enumeration.
    pub(super) fn enumerator(&self, enumeration: &str, name: &str) -> Option<u32> {
        let named = |id: &usize| {
            self.kind(*id) == Some(KIND_ENUM)
                && self.word(self.types[*id]).and_then(|at| self.name(at)) == Some(enumeration)
        };
        let at = self.types[(1..self.types.len()).find(named)?];
        let members = (self.word(at + 4)? & 0xffff) as usize;
        (0..members)
            .map(|index| at + 12 + 8 * index)
            .find(|entry| self.word(*entry).and_then(|at| self.name(at)) == Some(name))
            .and_then(|entry| self.word(entry + 4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_no_btf() {
        assert!(Btf::parse(Vec::new()).is_none());
        assert!(Btf::parse(vec![0x9f, 0xeb, 1, 0, 24, 0, 0, 0]).is_none());
        assert!(Btf::parse(vec![7; 4096]).is_none());
    }

    #[test]
    fn offsets_of_this_kernel_are_plausible() {
        let Ok(btf) = Btf::from_kernel() else {
            println!("skipped: this kernel publishes no BTF");
            return;
        };
        let offset = |structure, path| btf.offset(structure, path).expect("present in every kernel");
        // `skc_dport` and `skc_num` share one word, and `skc_daddr` begins every socket.
        assert_eq!(offset("sock", "__sk_common.skc_daddr"), 0);
        assert_eq!(offset("sock", "__sk_common.skc_num"), offset("sock", "__sk_common.skc_dport") + 2);
        assert!(offset("tcp_sock", "write_seq") > 100);
        assert!(btf.enumerator("pageflags", "PG_head").is_some_and(|bit| (1..32).contains(&bit)));
        assert!(btf.enumerator("pageflags", "PG_no_such").is_none() && btf.enumerator("no_such", "PG_head").is_none());
        assert!(btf.has_tracepoint("sched_switch") && !btf.has_tracepoint("no_such_tracepoint"));
        assert_eq!((btf.arguments("tcp_sendmsg"), btf.arguments("no_such_function")), (Some(3), None));
        assert!(btf.arguments("tcp_recvmsg").is_some_and(|count| (4..=6).contains(&count)));
        // A typedef, but of no tracepoint; and a structure.
        assert!(!btf.has_tracepoint("u32") && !btf.has_tracepoint("sock"));
        assert!(btf.offset("sock", "no_such_member").is_err());
        assert!(btf.offset("no_such_structure", "x").is_err());
    }
}
