//! Socket cookie -> connection, bounded.

use hashbrown::HashMap;

use crate::{event::Cookie, time::KernelTime};

#[derive(Debug)]
struct Entry<T> {
    value: T,
    used: KernelTime,
}

/// What is known of each connection, by the kernel's socket cookie.
#[derive(Debug)]
pub struct Table<T> {
    entries: HashMap<Cookie, Entry<T>>,
    capacity: usize,
}

impl<T> Table<T> {
    /// An empty table for at most `capacity` connections (at least one).
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), capacity: capacity.max(1) }
    }

    /// Connections in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Makes room for one more: removes the connections that were idle for longest. Some at a time, because finding
    /// them looks at all.
    pub fn make_room(&mut self, mut removed: impl FnMut(T)) {
        if self.entries.len() < self.capacity {
            return;
        }
        let surplus = self.entries.len() - self.capacity + 1 + self.capacity / 64;
        let mut by_use: Vec<_> = self.entries.iter().map(|(cookie, entry)| (entry.used, *cookie)).collect();
        let count = surplus.min(by_use.len());
        if count < by_use.len() {
            by_use.select_nth_unstable(count);
        }
        for (_, cookie) in &by_use[..count] {
            if let Some(entry) = self.entries.remove(cookie) {
                removed(entry.value);
            }
        }
    }

    /// Adds a connection. [`Self::make_room`] comes first.
    pub fn insert(&mut self, cookie: Cookie, value: T, now: KernelTime) -> Option<T> {
        self.entries.insert(cookie, Entry { value, used: now }).map(|entry| entry.value)
    }

    /// The connection, marked as used.
    pub fn touch(&mut self, cookie: Cookie, now: KernelTime) -> Option<&mut T> {
        let entry = self.entries.get_mut(&cookie)?;
        entry.used = entry.used.max(now);
        Some(&mut entry.value)
    }

    /// The connection.
    pub fn get_mut(&mut self, cookie: Cookie) -> Option<&mut T> {
        self.entries.get_mut(&cookie).map(|entry| &mut entry.value)
    }

    /// Removes the connection.
    pub fn remove(&mut self, cookie: Cookie) -> Option<T> {
        self.entries.remove(&cookie).map(|entry| entry.value)
    }

    /// Removes connections that were last used before `since` and that `expires` holds for.
    pub fn expire(&mut self, since: KernelTime, expires: impl Fn(&T) -> bool, mut removed: impl FnMut(T)) {
        for (_, entry) in self.entries.extract_if(|_, entry| entry.used < since && expires(&entry.value)) {
            removed(entry.value);
        }
    }

    /// All connections, in no order.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.values().map(|entry| &entry.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_idlest_makes_room() {
        let time = KernelTime::from_nanos;
        let mut table = Table::new(2);
        for n in [1, 2] {
            table.make_room(|_| panic!("there is room"));
            table.insert(Cookie(n), n, time(n));
        }
        table.touch(Cookie(1), time(3));
        let mut removed = Vec::new();
        table.make_room(|value| removed.push(value));
        assert_eq!(removed, [2]);
        table.insert(Cookie(3), 3, time(4));
        assert_eq!(table.len(), 2);
        table.expire(time(4), |_| true, |value| removed.push(value));
        assert_eq!(removed, [2, 1]);
    }
}
