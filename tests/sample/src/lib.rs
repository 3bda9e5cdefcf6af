//! A sample LLM server and a load generator, made for one another and for the observer's tests.
//!
//! - [`serve`]: the APIs of many engines with made-up text at a chosen pace; a request may ask for its own behaviour (errors,
//!   cuts, reasoning) in the field `sample` of its body.
//! - [`load`]: a bounded HTTP/1.1 client for loopback targets; its log says, request by request, what a client saw.

pub mod api;
pub mod load;
pub mod random;
pub mod serve;

/// Raises the soft limit of open files to the hard one: a thousand streams need more than the usual 1024.
/// Failure is no error: the limit then shows where it bites.
pub fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls only access `limit`, which lives across them.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}
