//! A dense store with indices that stay, for what is found by index on the packet path.

/// Values at stable `u32` indices. A freed index is used again.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Slab {
            entries: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        if let Some(index) = self.free.pop() {
            self.entries[index as usize] = Some(value);
            return index;
        }
        self.entries.push(Some(value));
        (self.entries.len() - 1) as u32
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let value = self.entries.get_mut(index as usize)?.take()?;
        self.free.push(index);
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().flatten()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().flatten()
    }

    #[inline]
    /// As [`iter`](Slab::iter), with indices.
    pub(crate) fn indexed(&self) -> impl Iterator<Item = (u32, &T)> {
        let entries = (0..).zip(&self.entries);
        entries.filter_map(|(index, entry)| Some((index, entry.as_ref()?)))
    }

    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        self.entries.get(index as usize)?.as_ref()
    }

    /// Where the value of an index lies, or would. Reads nothing of it.
    #[inline]
    pub(crate) fn address(&self, index: u32) -> *const u8 {
        self.entries
            .get(index as usize)
            .map_or(std::ptr::null(), |entry| std::ptr::from_ref(entry).cast())
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.entries.get_mut(index as usize)?.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_stay_and_are_used_again() {
        let mut slab = Slab::new();
        let (a, b) = (slab.insert('a'), slab.insert('b'));
        assert_eq!(slab.remove(a), Some('a'));
        assert_eq!(slab.remove(a), None, "an index is freed once");
        assert_eq!((slab.len(), slab.get(b)), (1, Some(&'b')));
        let c = slab.insert('c');
        assert_eq!((c, slab.len()), (a, 2));
        assert_eq!((slab.iter().count(), slab.iter_mut().count()), (2, 2));
        assert_eq!((slab.get(a), slab.get(b)), (Some(&'c'), Some(&'b')));
    }
}
