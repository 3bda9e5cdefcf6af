//! What bytes that were not captured may have held.

/// What bytes that were not captured of a stream may have held. They were handed over by a call that was seen, so
/// that only what they were is not known, and not when they came.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hidden {
    /// The latest call that may have handed over a token event, and did not for certain.
    pub(super) token: Option<u64>,
    /// An error.
    pub(super) error: bool,
    /// The mark that the stream is complete.
    pub(super) done: bool,
    /// Newer token counts.
    pub(super) usage: bool,
    /// How far generation came, since this call.
    pub(super) progress: Option<u64>,
    /// The first event that is not reasoning.
    pub(super) content: Content,
    /// What was known before the latest hole, while it may turn out to hide nothing but the inside of one event.
    pub(super) before: Option<Before>,
}

/// What was known before a hole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    pub(super) counts_tokens: bool,
    pub(super) token: Option<u64>,
    pub(super) error: bool,
    pub(super) done: bool,
    pub(super) content: Content,
}

/// Whether the first token event that is not reasoning can be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Content {
    #[default]
    Known,
    /// If this call hands one over for certain.
    In(u64),
    Unknown,
}

impl Content {
    pub(super) fn may_be_in(self, call: u64) -> bool {
        match self {
            Self::Known => true,
            Self::In(only) => only == call,
            Self::Unknown => false,
        }
    }
}
