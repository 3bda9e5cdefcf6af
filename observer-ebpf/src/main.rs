//! The kernel side of observer. See `observer-common` for what it writes and reads.
#![no_std]
#![no_main]

mod capture;
mod emit;
mod filter;
mod kernel;
mod maps;
mod registers;
mod socket;

mod probes {
    mod process;
    mod socket_io;
    mod socket_life;
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

// An endless loop, which the verifier rejects if a panic can be reached at all.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
