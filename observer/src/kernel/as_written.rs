//! Loads programs as they were compiled, where aya would not.
//!
//! Under `lockdown=confidentiality` the kernel bars `bpf_probe_read_kernel` and `bpf_probe_read`, and still lets tracing
//! programs read user memory with `bpf_probe_read_user` (`bpf_base_func_proto` in `kernel/bpf/helpers.c`). aya takes
//! the absence of the first for a kernel older than 5.5, which has only `bpf_probe_read`, and makes every call that one.
//! So there the programs that read user memory are loaded by this module, from the same object and with the same maps;
//! aya then attaches them.

use std::{
    collections::HashSet,
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use aya::{
    Btf, Ebpf,
    maps::Map,
    programs::{BtfTracePoint, FExit, Program, ProgramError, loaded_programs},
};
use aya_obj::{
    Function, Object, VerifierLog,
    btf::BtfKind,
    generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_func_id, bpf_insn, bpf_prog_type},
};

use super::error::{KernelError, chain};

/// `BPF_JMP | BPF_CALL`: the code of an instruction that calls. Those of a helper have no source register.
const CALL: u8 = 0x85;
/// What the verifier may say of a program that it refuses, in bytes.
const LOG_BYTES: usize = 1 << 20;
/// `BPF_LOG_LEVEL1`.
const LOG_LEVEL: u32 = 1;

/// The object, with the maps of the one that aya has loaded.
#[derive(Debug)]
pub(super) struct AsWritten {
    object: Object,
    /// Its types, in the kernel.
    types: OwnedFd,
}

/// Whether aya changes programs on this kernel.
pub(super) fn is_needed() -> bool {
    !aya::features().bpf_probe_read_kernel()
}

impl AsWritten {
    /// Prepares the programs of an object; `ebpf` is the same object as aya has loaded it, with all its maps.
    ///
    /// # Errors
    /// What aya would say of the object, or the kernel of its types.
    pub(super) fn new(object: &[u8], ebpf: &Ebpf) -> Result<Self, KernelError> {
        fn failed(error: impl std::error::Error) -> KernelError {
            KernelError::Load { reason: chain(&error) }
        }
        let mut object = Object::parse(object).map_err(failed)?;
        let features = aya::features().btf().ok_or(KernelError::BadBtf)?;
        let types = object.fixup_and_sanitize_btf(features).map_err(failed)?.ok_or(KernelError::BadBtf)?;
        let types = load_types(&types.to_bytes()).map_err(failed)?;
        if object.has_btf_relocations() {
            object.relocate_btf(&Btf::from_sys_fs().map_err(failed)?).map_err(failed)?;
        }
        let maps: Vec<_> = object.maps.drain().collect();
        let maps = maps.iter().filter_map(|(name, map)| Some((name.as_str(), descriptor(ebpf.map(name)?)?, map)));
        let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        object.relocate_maps(maps, &sections).map_err(failed)?;
        object.relocate_calls(&sections).map_err(failed)?;
        Ok(Self { object, types })
    }

    /// Whether aya would change this program, so that it could not be loaded.
    pub(super) fn has(&self, name: &str) -> bool {
        self.function(name).is_some_and(|function| function.instructions.iter().any(is_read_of_user))
    }

    fn function(&self, name: &str) -> Option<&Function> {
        self.object.functions.get(&self.object.programs.get(name)?.function_key())
    }

    /// Loads the program of this name, and has it take the place of `program`, which is aya's of the same name, not
    /// loaded. The object and its maps must still be open.
    ///
    /// # Errors
    /// As aya's `load`. Finding what was loaded takes `CAP_SYS_ADMIN`.
    pub(super) fn load(
        &self,
        program: &mut Program,
        name: &'static str,
        target: &str,
        btf: &Btf,
    ) -> Result<(), ProgramError> {
        let (kind, attach_type, target) = match program {
            Program::BtfTracePoint(_) => {
                (BtfKind::Typedef, bpf_attach_type::BPF_TRACE_RAW_TP, format!("btf_trace_{target}"))
            }
            Program::FExit(_) => (BtfKind::Func, bpf_attach_type::BPF_TRACE_FEXIT, target.to_owned()),
            _ => return Err(ProgramError::UnexpectedProgramType),
        };
        let target = btf.id_by_type_name_kind(&target, kind)?;
        let loaded = self.load_program(name, target, attach_type)?;
        let info = program_id(&loaded).and_then(|id| {
            let mut programs = loaded_programs().filter_map(Result::ok);
            let not_found = "not permitted: finding a program that was not loaded by aya takes CAP_SYS_ADMIN";
            programs.find(|info| info.id() == id).ok_or_else(|| io::Error::other(not_found))
        });
        let info = info.map_err(ProgramError::IOError)?;
        // SAFETY: it was loaded as what `program` is.
        unsafe {
            match program {
                Program::BtfTracePoint(program) => *program = BtfTracePoint::from_program_info(info, name.into())?,
                Program::FExit(program) => *program = FExit::from_program_info(info, name.into())?,
                _ => return Err(ProgramError::UnexpectedProgramType),
            }
        }
        Ok(())
    }

    fn load_program(&self, name: &str, target: u32, attach_type: bpf_attach_type) -> Result<OwnedFd, ProgramError> {
        let program = self.object.programs.get(name).ok_or(ProgramError::NotLoaded)?;
        let function = self.function(name).ok_or(ProgramError::NotLoaded)?;
        let functions = function.func_info.func_info_bytes();
        let lines = function.line_info.line_info_bytes();
        let mut log = Vec::new();
        loop {
            let mut attributes = no_attributes();
            // SAFETY: the fields of this command; all other bytes are zero.
            let load = unsafe { &mut attributes.__bindgen_anon_3 };
            load.prog_type = bpf_prog_type::BPF_PROG_TYPE_TRACING as u32;
            load.expected_attach_type = attach_type as u32;
            load.attach_btf_id = target;
            for (to, from) in load.prog_name.iter_mut().take(15).zip(name.bytes()) {
                *to = from as std::ffi::c_char;
            }
            load.insns = function.instructions.as_ptr() as u64;
            load.insn_cnt = function.instructions.len() as u32;
            load.license = program.license.as_ptr() as u64;
            load.prog_btf_fd = self.types.as_raw_fd() as u32;
            load.func_info = functions.as_ptr() as u64;
            load.func_info_cnt = function.func_info.len() as u32;
            load.func_info_rec_size = function.func_info_rec_size as u32;
            load.line_info = lines.as_ptr() as u64;
            load.line_info_cnt = function.line_info.len() as u32;
            load.line_info_rec_size = function.line_info_rec_size as u32;
            if !log.is_empty() {
                load.log_level = LOG_LEVEL;
                load.log_buf = log.as_mut_ptr() as u64;
                load.log_size = log.len() as u32;
            }
            match bpf(bpf_cmd::BPF_PROG_LOAD, &mut attributes) {
                Ok(loaded) => return Ok(loaded),
                // Once more, for the reason.
                Err(_) if log.is_empty() => log = vec![0; LOG_BYTES],
                Err(io_error) => {
                    let said = String::from_utf8_lossy(&log);
                    let said = said.trim_end_matches(['\0', '\n']).to_owned();
                    return Err(ProgramError::LoadError { io_error, verifier_log: VerifierLog::new(said) });
                }
            }
        }
    }
}

/// Whether it calls what aya would replace by `bpf_probe_read` and the kernel permits.
fn is_read_of_user(instruction: &bpf_insn) -> bool {
    instruction.code == CALL
        && instruction.src_reg() == 0
        && instruction.imm == bpf_func_id::BPF_FUNC_probe_read_user as i32
}

/// A map's file.
fn descriptor(map: &Map) -> Option<RawFd> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::Queue(data)
        | Map::RingBuf(data)
        | Map::SkStorage(data)
        | Map::Unsupported(data) => Some(data.fd().as_fd().as_raw_fd()),
        // A program that uses one of another kind is not loaded: it has no file for it.
        _ => None,
    }
}

fn load_types(types: &[u8]) -> io::Result<OwnedFd> {
    let mut attributes = no_attributes();
    // SAFETY: the fields of this command; all other bytes are zero.
    let load = unsafe { &mut attributes.__bindgen_anon_7 };
    load.btf = types.as_ptr() as u64;
    load.btf_size = types.len() as u32;
    bpf(bpf_cmd::BPF_BTF_LOAD, &mut attributes)
}

/// Attributes of a command, none of them set.
pub(super) fn no_attributes() -> bpf_attr {
    // SAFETY: a union of integers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

/// A command that opens something.
pub(super) fn bpf(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are valid and writable for the size given, and what they point to outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_long, &raw mut *attributes, size_of::<bpf_attr>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it for this call; file numbers are small.
    Ok(unsafe { OwnedFd::from_raw_fd(result as RawFd) })
}

/// The kernel's number of a loaded program.
fn program_id(program: &OwnedFd) -> io::Result<u32> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()))?;
    let id = text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok());
    id.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        config::{Signals, SocketHook},
        kernel::loader::{Kernel, OBJECT, Options},
    };

    /// Not a matter of lockdown: they can be loaded so on every kernel.
    #[test]
    fn programs_that_read_user_memory_are_loaded_and_attached() {
        let options = Options {
            ring_bytes: 1 << 16,
            wakeup_ratio: 0.5,
            log: false,
            signals: Signals::default(),
            socket_hook: SocketHook::Tracepoint,
        };
        let mut kernel = match Kernel::load(options, SocketHook::Tracepoint) {
            Ok(kernel) => kernel,
            Err(error) => {
                println!("skipped: {error}");
                return;
            }
        };
        let written = AsWritten::new(OBJECT, &kernel.ebpf).unwrap();
        let reading: BTreeSet<&str> =
            kernel.ebpf.programs().map(|(name, _)| name).filter(|name| written.has(name)).collect();
        assert!(reading.contains("obs_sock_send") && reading.contains("obs_sock_recv"), "{reading:?}");
        assert!(!reading.contains("obs_fork"), "{reading:?}");
        let btf = Btf::from_sys_fs().unwrap();
        for (name, target) in [("obs_sock_send", "sock_send_length"), ("obs_sock_recv", "sock_recv_length")] {
            let program = kernel.ebpf.program_mut(name).unwrap();
            written.load(program, name, target, &btf).unwrap();
            let Program::BtfTracePoint(program) = program else { panic!("{name}") };
            program.attach().unwrap();
            assert_eq!(program.info().unwrap().name_as_str(), Some(name));
            // It is in the kernel already.
            assert!(matches!(program.load(target, &btf), Err(ProgramError::AlreadyLoaded)));
        }
        // What the verifier says of one that it refuses is told: this target has other arguments.
        let program = kernel.ebpf.program_mut("obs_sock_send").unwrap();
        let error = written.load(program, "obs_sock_send", "no_such_tracepoint", &btf).unwrap_err();
        assert!(chain(&error).contains("no_such_tracepoint"), "{error}");
        let error = written.load(program, "obs_sock_send", "sched_process_exit", &btf).unwrap_err();
        assert!(
            matches!(&error, ProgramError::LoadError { verifier_log, .. } if verifier_log.to_string().len() > 20),
            "{error}"
        );
    }
}
