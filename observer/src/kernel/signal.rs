//! What is measured of workloads besides their requests: by which setting, and what it reads of the kernel.

use serde::Serialize;

use crate::config::{IoMode, Signals};

/// Something that is measured of workloads besides their requests, and can be switched off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// `signals.scheduler`.
    Scheduler,
    /// `signals.tcp`.
    Tcp,
    /// `signals.io`: calls that read or write.
    Io,
    /// `signals.io`: what comes into the page cache.
    PageCache,
    /// `signals.block`.
    Block,
}

impl Signal {
    /// Its setting.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Scheduler => "signals.scheduler",
            Self::Tcp => "signals.tcp",
            Self::Io | Self::PageCache => "signals.io",
            Self::Block => "signals.block",
        }
    }

    pub(super) const fn is_on(self, signals: Signals) -> bool {
        match self {
            Self::Scheduler => signals.scheduler,
            Self::Tcp => signals.tcp,
            Self::Io | Self::PageCache => !matches!(signals.io, IoMode::Off),
            Self::Block => signals.block,
        }
    }

    /// What its setting is when it is off.
    pub(super) const fn off(self) -> &'static str {
        match self {
            Self::Scheduler | Self::Tcp | Self::Block => "false",
            Self::Io | Self::PageCache => "off",
        }
    }

    /// Structures and members of the kernel that it reads.
    pub(super) const fn needs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Scheduler => &[
                ("task_struct", "__state"),
                ("task_struct", "start_time"),
                ("task_struct", "se.sum_exec_runtime"),
                ("task_struct", "sched_info.run_delay"),
                ("task_struct", "min_flt"),
                ("task_struct", "maj_flt"),
            ],
            Self::Tcp => &[
                ("sock", "__sk_common.skc_state"),
                ("sock", "sk_drops"),
                ("tcp_sock", "srtt_us"),
                ("tcp_sock", "snd_wnd"),
                ("tcp_sock", "total_retrans"),
            ],
            Self::Io => &[
                ("task_struct", "files"),
                ("files_struct", "fdt"),
                ("fdtable", "max_fds"),
                ("fdtable", "fd"),
                ("file", "f_inode"),
                ("file", "f_path.dentry"),
                ("inode", "i_mode"),
                ("dentry", "d_name.hash_len"),
                ("dentry", "d_name.name"),
                ("dentry", "d_parent"),
            ],
            Self::PageCache => &[
                ("folio", "mapping"),
                ("folio", "flags"),
                ("address_space", "host"),
                ("inode", "i_dentry"),
                ("dentry", "d_u.d_alias"),
                ("dentry", "d_name.hash_len"),
                ("dentry", "d_name.name"),
                ("dentry", "d_parent"),
            ],
            Self::Block => observer_common::block::BlockConfig::NEEDS,
        }
    }
}
