//! The kernel side of observer. See `observer-common` for what it writes and reads.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod call;
mod capture;
mod emit;
mod filter;
mod io;
mod kernel;
mod maps;
mod registers;
mod socket;
mod task;
mod tcp;

mod probes {
    mod block;
    mod file_io;
    mod page_cache;
    mod process;
    mod scheduler;
    mod socket_io;
    mod socket_life;
    mod tcp;
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

// An endless loop, which the verifier rejects if a panic can be reached at all.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
