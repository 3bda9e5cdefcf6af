//! What must be right of what servers and clients put on the wire, case by case; each case also with every call split
//! in two at every byte.
//!
//! | case | what |
//! |---|---|
//! | 1 | the first read is 24 bytes |
//! | 2 | head and body of a request in many reads, on several threads |
//! | 3 | model and stream lie in what is not captured |
//! | 4 | a model in a prompt's text |
//! | 5, 6 | the role is no token, however long before the first one it comes |
//! | 7 | the role comes with each token |
//! | 8 | pings |
//! | 9 | progress of the prefill |
//! | 10 | two events in one write |
//! | 11 | reasoning first |
//! | 12 | calls of tools only |
//! | 13 | tokens are not events |
//! | 14 | `"usage": null` on all events but the last |
//! | 15 | token counts on each event |
//! | 16 | the last token, the usage, the end |
//! | 17 | the end in one write or three |
//! | 18 | an error in the stream |
//! | 19 | the client leaves |
//! | 20 | `MSG_PEEK` |
//! | 21 | a one-byte read begins the next request |
//! | 22 | requests in one read; the next one begins anew |
//! | 23 | an interim response |
//! | 24 | lines of JSON |
//! | 25 | short writes, blocked writes, bytes that say nothing to us |

mod ends;
mod lines;
mod opaque;
mod requests;
mod tokens;
mod usage;

use std::time::Duration;

use observer::request::record::RequestRecord;

/// Time to first token.
fn ttft(record: &RequestRecord) -> Duration {
    let (start, first) = (record.timeline.start(), record.timeline.first);
    first.zip(start).and_then(|(first, start)| first.since(start)).unwrap_or(Duration::MAX)
}
