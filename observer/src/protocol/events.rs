//! What the parsers of event streams hand out, whatever separates the events.

/// Most bytes of one event that are kept; the rest of it is not looked at.
pub const EVENT_MAX: usize = 64 << 10;

/// What a parser found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// An event with data ended, or one that a gap cut.
    Event(Event<'a>),
    /// Bytes were not captured: they may hold any number of events. What was seen of the event that they cut; its data
    /// are empty where nothing was.
    Gap(Event<'a>),
}

/// An event, or what was seen of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event<'a> {
    /// Its `event` field; empty: none.
    pub name: &'a [u8],
    /// Its data.
    pub data: &'a [u8],
    /// It was longer than what is kept: `data` is a prefix.
    pub partial: bool,
    /// It follows a gap, which may be where it began: `data` are the bytes as they came after that, field names and
    /// all.
    pub rest: bool,
}
