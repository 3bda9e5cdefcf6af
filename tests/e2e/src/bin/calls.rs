//! Makes calls so many times, and says how many nanoseconds each kind takes: a read of 4 KiB of a cached file, `getppid`, a
//! write and read on loopback TCP, a page that is new to the page cache.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::fs::FileExt,
    process::ExitCode,
    time::Instant,
};

use observer_e2e::{scratch::Scratch, signals::pin};

const PAGE: usize = 4096;

/// Nanoseconds per call: a low quantile of batches, each shorter than a turn of the scheduler, since whatever disturbs a
/// batch makes it longer.
fn per_call(calls: u32, batch: u32, mut call: impl FnMut(u32)) -> f64 {
    let mut times: Vec<f64> = (0..(calls / batch).max(10))
        .map(|_| {
            let begun = Instant::now();
            (0..batch).for_each(&mut call);
            begun.elapsed().as_nanos() as f64 / f64::from(batch)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 10]
}

fn main() -> ExitCode {
    let Some(count) = std::env::args().nth(1).and_then(|text| text.parse::<u32>().ok()) else {
        println!("usage: calls COUNT");
        return ExitCode::FAILURE;
    };
    pin();
    let folder = Scratch::new();
    let mut page = [1; PAGE];
    let path = folder.path().join("read");
    fs::write(&path, page).expect("a file");
    let file = File::open(&path).expect("it was just made");
    let read = per_call(count, 500, |_| file.read_exact_at(&mut page, 0).expect("a page"));
    let getppid = per_call(count, 2000, |_| {
        // SAFETY: getppid takes nothing and cannot fail.
        std::hint::black_box(unsafe { libc::getppid() });
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (mut server, _) = listener.accept().expect("a connection waits");
    client.set_nodelay(true).expect("TCP_NODELAY");
    let socket = per_call(count / 4, 40, |_| {
        client.write_all(&page[..100]).expect("the peer lives");
        server.read_exact(&mut page[..100]).expect("the peer lives");
    });
    let file = File::create(folder.path().join("fill")).expect("a file");
    let fill = per_call(count / 4, 256, |number| {
        if number == 0 {
            file.set_len(0).expect("a file");
        }
        file.write_all_at(&page, u64::from(number) * PAGE as u64).expect("room");
    });
    println!("{read:.1} {getppid:.1} {socket:.1} {fill:.1}");
    ExitCode::SUCCESS
}
