//! Counters that the kernel side keeps, one slot of a per-CPU array each. Those named `lost` are
//! events that should have reached user space and did not.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $lost:literal;)+) => {
        /// One counter of the kernel side.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Counter { $($(#[doc = $doc])+ $variant),+ }

        impl Counter {
            /// All of them, in slot order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// Its name in metrics.
            #[must_use]
            pub const fn name(self) -> &'static str { match self { $(Self::$variant => $name),+ } }
            /// Whether it counts lost events, rather than events.
            #[must_use]
            pub const fn is_loss(self) -> bool { match self { $(Self::$variant => $lost),+ } }
            /// Its slot.
            #[must_use]
            pub const fn slot(self) -> u32 { self as u32 }
        }
    };
}

counters! {
    /// Data events sent to the ring.
    Data = "data", false;
    /// Connections that became known.
    Open = "open", false;
    /// State changes sent to the ring.
    State = "state", false;
    /// Arrival events sent to the ring.
    Arrivals = "arrivals", false;
    /// Listening ports learnt.
    Listen = "listen", false;
    /// Connections that processes of this host made to candidate ports.
    Connect = "connect", false;
    /// Wake-ups of user space that the fill mark forced.
    Wakeup = "wakeup", false;
    /// Data events for which the ring had no room.
    DataRingFull = "data_ring_full", true;
    /// Other events for which the ring had no room.
    OtherRingFull = "other_ring_full", true;
    /// Sockets whose state could not be stored (out of memory).
    StateStorage = "state_storage", true;
    /// Clients that could not be remembered until their connection was established (out of memory).
    ClientStorage = "client_storage", true;
    /// Stretches of received bytes without an arrival stamp, since their socket's own ring had no room: known to
    /// matter only if another request begins in them.
    Unstamped = "unstamped", false;
    /// Data events without payload, because the registers were not the call's.
    NoPayload = "no_payload", false;
    /// Data events whose payload could not be read from user memory.
    PayloadFault = "payload_fault", true;
    /// Processes that could not be added to the pid scope.
    ScopePidInsert = "scope_pid_insert", true;
    /// Processes that could not be added to their workload.
    MemberInsert = "member_insert", true;
    /// Threads of workloads whose state could not be stored (out of memory): their times are missing.
    ThreadStorage = "thread_storage", true;
    /// Requests to block devices whose end was not seen, as it turns out when the kernel uses their memory again.
    BlockEnd = "block_end", true;
    /// Requests to block devices that could not be followed: too many were under way.
    BlockRequestInsert = "block_request_insert", true;
    /// Requests to block devices that were not counted: too many workloads use too many devices.
    BlockTargetInsert = "block_target_insert", true;
    /// Connections on candidate ports that speak something else and are left alone.
    NotHttp = "not_http", false;
    /// Calls on connections to ports that are left alone because they serve much of something else.
    IgnoredPort = "ignored_port", false;
}

/// Slots of the counter array.
pub const COUNTERS: u32 = Counter::ALL.len() as u32;
