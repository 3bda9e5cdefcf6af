//! The body of a streamed answer: frames at their times, one write each.

use std::{
    fmt,
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{behaviour::Plan, render::Frames};
use crate::random::Random;

/// The error that makes hyper close the connection before the terminator.
#[derive(Debug)]
pub(super) struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("asked to cut the stream")
    }
}

impl std::error::Error for Cut {}

/// What comes next.
#[derive(Clone, Copy, Debug)]
enum Next {
    Opening,
    Event(u32),
    Closing(usize),
    AfterError,
    End,
}

/// A [`Body`] that hands out each frame when it is due.
#[derive(Debug)]
pub(super) struct TokenBody {
    plan: Plan,
    frames: Frames,
    random: Random,
    next: Next,
    /// When `next` is due.
    due: Instant,
    /// When the request had been read.
    start: Instant,
    timer: Pin<Box<Sleep>>,
    /// A frame was handed out and hyper has had no chance to write it: it writes when this body is not ready.
    unwritten: bool,
}

impl TokenBody {
    pub(super) fn new(plan: Plan, frames: Frames, random: Random) -> Self {
        let start = Instant::now();
        let (next, due) = if frames.opening.is_some() {
            (Next::Opening, start + plan.role)
        } else {
            (Self::first(&plan), start + plan.ttft)
        };
        let timer = Box::pin(sleep_until(due));
        Self { plan, frames, random, next, due, start, timer, unwritten: false }
    }

    fn first(plan: &Plan) -> Next {
        if plan.events == 0 && !plan.stops_at(0) { Next::Closing(0) } else { Next::Event(0) }
    }

    /// Token event `index` begins a write of its own.
    fn begins_write(&self, index: u32) -> bool {
        index.is_multiple_of(self.plan.events_per_write)
    }

    fn schedule(&mut self, next: Next, due: Instant) {
        self.next = next;
        self.due = due;
        self.timer.as_mut().reset(due);
    }

    fn after_event(&mut self, index: u32) {
        let following = index + 1;
        if following == self.plan.events {
            // The error and the cut can stand at the very end, too.
            self.next = if self.plan.stops_at(following) { Next::Event(following) } else { Next::Closing(0) };
        } else if self.begins_write(following) {
            let pause = self.random.around(self.plan.interval, self.plan.jitter);
            self.schedule(Next::Event(following), self.due + pause);
        } else {
            self.next = Next::Event(following);
        }
    }
}

impl Body for TokenBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = self.get_mut();
        let own_write =
            matches!(this.next, Next::Event(index) if this.plan.stops_at(index) || this.begins_write(index));
        if own_write && this.unwritten {
            // Not ready, for once: hyper writes what it has. A late stream thus keeps one event to a write.
            this.unwritten = false;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let timed = matches!(this.next, Next::Opening | Next::Event(_) | Next::Closing(0));
        if timed && this.timer.as_mut().poll(cx).is_pending() {
            this.unwritten = false;
            return Poll::Pending;
        }
        let frame = match this.next {
            Next::Opening => {
                let due = this.start + this.plan.ttft;
                this.schedule(Self::first(&this.plan), due.max(this.due));
                this.frames.opening.clone().unwrap_or_default()
            }
            Next::Event(index) if this.plan.cut_after == Some(index) => {
                this.next = Next::End;
                return Poll::Ready(Some(Err(Cut)));
            }
            Next::Event(index) if this.plan.error_after == Some(index) => {
                this.next = Next::AfterError;
                this.frames.error.clone()
            }
            Next::Event(index) => {
                this.after_event(index);
                this.frames.event(&this.plan, index)
            }
            Next::Closing(index) => match this.frames.closing.get(index) {
                Some(frame) => {
                    this.next = Next::Closing(index + 1);
                    frame.clone()
                }
                None => return Poll::Ready(None),
            },
            Next::AfterError => {
                this.next = Next::End;
                match this.frames.after_error.clone() {
                    Some(frame) => frame,
                    None => return Poll::Ready(None),
                }
            }
            Next::End => return Poll::Ready(None),
        };
        this.unwritten = true;
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }
}
