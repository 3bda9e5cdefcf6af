//! How much memory a target holds.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, which counts the bytes that each thread holds.
pub struct Counting;

// SAFETY: everything is the system allocator's; counting allocates nothing and has no other effect.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size().cast_signed());
        // SAFETY: the caller's obligations are passed on as they are.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        add(-layout.size().cast_signed());
        // SAFETY: `pointer` came from `System`, in `alloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(size.cast_signed() - layout.size().cast_signed());
        // SAFETY: `pointer` came from `System`, in `alloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn add(bytes: isize) {
    // A thread that is ending counts no more.
    let _ending = LIVE.try_with(|live| live.set(live.get() + bytes));
}

/// Bytes that this thread allocated and nobody freed, less those of others that it freed.
pub fn live() -> isize {
    LIVE.with(Cell::get)
}
