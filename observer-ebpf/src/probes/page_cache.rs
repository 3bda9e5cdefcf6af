//! What comes into the page cache on behalf of workloads.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::{io, kernel::field, maps::host, registers::is_writing};

const PAGE: u64 = 4096;

/// `void mm_filemap_add_to_page_cache(struct folio *folio)`, a `struct page *` before 5.18. It runs where the folio is
/// read for: in a call that reads, in readahead, which the reader does itself, or in a page fault.
#[btf_tracepoint(function = "mm_filemap_add_to_page_cache")]
pub fn obs_page_fill(ctx: BtfTracePointContext) -> i32 {
    let Some(member) = io::current_member() else { return 0 };
    // What the process itself wrote was not fetched.
    if is_writing() {
        return 0;
    }
    let folio: *const u8 = ctx.arg(0);
    // SAFETY: a trusted folio, in its mapping by now; see `field`.
    let (pages, weights) = unsafe { (pages(folio), is_weights(folio)) };
    io::filled(member, weights, pages * PAGE);
    0
}

#[inline(always)]
unsafe fn pages(folio: *const u8) -> u64 {
    // SAFETY: see `field`. Of a single page the order is another structure's.
    unsafe {
        let flags: u64 = field(folio, host!(folio_flags));
        if flags >> (host!(page_head) & 63) & 1 == 0 {
            return 1;
        }
        1 << (field::<u8>(folio, host!(folio_order)) & 31)
    }
}

#[inline(always)]
unsafe fn is_weights(folio: *const u8) -> bool {
    // SAFETY: see `field`; pointers read from a trusted structure may be followed after a null check.
    unsafe {
        let mapping: *const u8 = field(folio, host!(folio_mapping));
        if mapping.is_null() {
            return false;
        }
        let inode: *const u8 = field(mapping, host!(mapping_host));
        if inode.is_null() {
            return false;
        }
        // Where a file has several names, the latest that was looked up.
        let alias: u64 = field(inode, host!(inode_dentries));
        alias != 0 && io::names_weights(alias.wrapping_sub(u64::from(host!(dentry_alias))))
    }
}
