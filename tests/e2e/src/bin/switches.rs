//! Two processes on one CPU hand a byte back and forth so many times, and the first says how many nanoseconds one switch
//! from one to the other takes.

use std::{process::ExitCode, time::Instant};

use observer_e2e::signals;

fn pipe() -> [i32; 2] {
    let mut ends = [0; 2];
    // SAFETY: room for both ends.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    ends
}

/// Takes a byte from one pipe and puts one into another. `false`: the other side is gone.
fn pass(from: i32, to: i32) -> bool {
    let mut byte = 0_u8;
    // SAFETY: one byte each.
    unsafe { libc::read(from, (&raw mut byte).cast(), 1) == 1 && libc::write(to, (&raw const byte).cast(), 1) == 1 }
}

fn main() -> ExitCode {
    let Some(count) = std::env::args().nth(1).and_then(|text| text.parse::<u32>().ok()) else {
        println!("usage: switches COUNT");
        return ExitCode::FAILURE;
    };
    // With it those that it starts.
    signals::pin();
    let (there, back) = (pipe(), pipe());
    // SAFETY: this process has one thread.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: descriptors of this process alone.
        unsafe { libc::close(there[1]) };
        while pass(there[0], back[1]) {}
        // SAFETY: ends this process, nothing else.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: one byte.
    assert_eq!(unsafe { libc::write(there[1], [0_u8].as_ptr().cast(), 1) }, 1);
    // Batches that are shorter than a turn of the scheduler: whatever disturbs one makes it longer.
    let batch = 500;
    let mut times: Vec<f64> = (0..count / (2 * batch))
        .map(|_| {
            let begun = Instant::now();
            assert!((0..batch).all(|_| pass(back[0], there[1])));
            begun.elapsed().as_nanos() as f64 / f64::from(2 * batch)
        })
        .collect();
    // SAFETY: descriptors of this process, and its child.
    unsafe {
        libc::close(there[1]);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
    times.sort_by(f64::total_cmp);
    println!("{:.1}", times[times.len() / 10]);
    ExitCode::SUCCESS
}
