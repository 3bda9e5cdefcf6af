//! Starts so many processes that end at once, one after another, and says how many a second that were.

use std::{process::ExitCode, time::Instant};

fn main() -> ExitCode {
    let Some(count) = std::env::args().nth(1).and_then(|text| text.parse::<u32>().ok()) else {
        println!("usage: forks COUNT");
        return ExitCode::FAILURE;
    };
    let begun = Instant::now();
    for _ in 0..count {
        // SAFETY: this process has one thread, and the child only ends.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: ends this process, nothing else.
            unsafe { libc::_exit(0) };
        }
        // SAFETY: no pointers but a null one, which is allowed.
        if pid < 0 || unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) } != pid {
            println!("fork or wait failed: {}", std::io::Error::last_os_error());
            return ExitCode::FAILURE;
        }
    }
    println!("{:.0} processes a second", f64::from(count) / begun.elapsed().as_secs_f64());
    ExitCode::SUCCESS
}
