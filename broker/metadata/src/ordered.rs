//! An ordered map that is cheap to clone: sorted chunks behind `Arc`s, copied only where a clone shares them.
//!
//! The image is cloned for every change that readers may see. With this map a clone is one reference count, and
//! a change afterwards copies one chunk and the list of chunks, not the whole map: with 50,000 topics some 800
//! pointers instead of 50,000 entries.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

/// A chunk is split in two when it has more entries than this.
const CHUNK_MAX: usize = 128;

type Chunk<K, V> = Vec<(K, V)>;

/// See the module's head.
pub struct OrderedMap<K, V> {
    /// Never holds an empty chunk; keys rise within and across chunks.
    chunks: Arc<Vec<Arc<Chunk<K, V>>>>,
    len: usize,
}

impl<K, V> Clone for OrderedMap<K, V> {
    fn clone(&self) -> Self {
        Self { chunks: self.chunks.clone(), len: self.len }
    }
}

impl<K, V> Default for OrderedMap<K, V> {
    fn default() -> Self {
        Self { chunks: Arc::default(), len: 0 }
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for OrderedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.entries().eq(other.entries())
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for OrderedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.entries()).finish()
    }
}

impl<K, V> OrderedMap<K, V> {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries()
    }

    fn entries(&self) -> impl Iterator<Item = (&K, &V)> {
        self.chunks.iter().flat_map(|chunk| chunk.iter().map(|(k, v)| (k, v)))
    }
}

impl<K: Ord + Clone, V: Clone> OrderedMap<K, V> {
    /// Entries from `start` on, in order.
    pub fn range_from<'a, Q: Ord + ?Sized>(
        &'a self,
        start: Bound<&Q>,
    ) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V, Q>
    where
        K: Borrow<Q>,
    {
        let below = |key: &K| match start {
            Bound::Included(at) => key.borrow() < at,
            Bound::Excluded(at) => key.borrow() <= at,
            Bound::Unbounded => false,
        };
        let chunk = self.chunks.partition_point(|chunk| chunk.last().is_some_and(|(k, _)| below(k)));
        let skip = self.chunks.get(chunk).map_or(0, |chunk| chunk.partition_point(|(k, _)| below(k)));
        self.chunks[chunk..].iter().flat_map(|chunk| chunk.iter().map(|(k, v)| (k, v))).skip(skip)
    }

    /// The value of `key`.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (chunk, at) = self.find(key).ok()?;
        self.chunks.get(chunk)?.get(at).map(|(_, value)| value)
    }

    /// Whether `key` is there.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).is_ok()
    }

    /// The value of `key`, to be changed in place; copies what clones of the map share.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let (chunk, at) = self.find(key).ok()?;
        let chunk = Arc::make_mut(Arc::make_mut(&mut self.chunks).get_mut(chunk)?);
        chunk.get_mut(at).map(|(_, value)| value)
    }

    /// Sets the value of `key` and returns the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let found = self.find(&key);
        let chunks = Arc::make_mut(&mut self.chunks);
        let (chunk, at) = match found {
            Ok((chunk, at)) => {
                let slot = &mut Arc::make_mut(&mut chunks[chunk])[at];
                return Some(std::mem::replace(&mut slot.1, value));
            }
            Err(place) => place,
        };
        self.len += 1;
        let Some(place) = chunks.get_mut(chunk) else {
            chunks.push(Arc::new(vec![(key, value)]));
            return None;
        };
        let entries = Arc::make_mut(place);
        entries.insert(at, (key, value));
        if entries.len() > CHUNK_MAX {
            // Keys that come in rising order fill the chunks instead of leaving them half empty.
            let keep = if at + 1 == entries.len() { CHUNK_MAX } else { CHUNK_MAX / 2 };
            let rest = entries.split_off(keep);
            chunks.insert(chunk + 1, Arc::new(rest));
        }
        None
    }

    /// Removes `key` and returns its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (chunk, at) = self.find(key).ok()?;
        let chunks = Arc::make_mut(&mut self.chunks);
        let entries = Arc::make_mut(&mut chunks[chunk]);
        let (_, value) = entries.remove(at);
        if entries.is_empty() {
            chunks.remove(chunk);
        }
        self.len -= 1;
        Some(value)
    }

    /// Where `key` is, or where it belongs.
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<(usize, usize), (usize, usize)>
    where
        K: Borrow<Q>,
    {
        let after = self.chunks.partition_point(|chunk| chunk.first().is_some_and(|(k, _)| k.borrow() <= key));
        let chunk = after.saturating_sub(1);
        let Some(entries) = self.chunks.get(chunk) else { return Err((0, 0)) };
        match entries.binary_search_by(|(k, _)| k.borrow().cmp(key)) {
            Ok(at) => Ok((chunk, at)),
            Err(at) => Err((chunk, at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_btree_map(steps in proptest::collection::vec((any::<bool>(), 0..600u16, any::<u8>()), 0..1500)) {
            let mut map = OrderedMap::default();
            let mut model = BTreeMap::new();
            let mut old = (map.clone(), model.clone());
            for (i, (insert, key, value)) in steps.into_iter().enumerate() {
                if insert {
                    prop_assert_eq!(map.insert(key, value), model.insert(key, value));
                } else {
                    prop_assert_eq!(map.remove(&key), model.remove(&key));
                }
                if let Some(value) = map.get_mut(&(key / 2)) {
                    *value = value.wrapping_add(1);
                    *model.get_mut(&(key / 2)).unwrap() = *value;
                }
                prop_assert_eq!(map.len(), model.len());
                prop_assert_eq!(map.get(&key), model.get(&key));
                if i % 100 == 0 {
                    prop_assert!(old.0.iter().eq(old.1.iter()), "a clone changed");
                    old = (map.clone(), model.clone());
                    for bound in [Bound::Included(&key), Bound::Excluded(&key), Bound::Unbounded] {
                        prop_assert!(map.range_from(bound).eq(model.range((bound, Bound::Unbounded))));
                    }
                }
            }
            prop_assert!(map.iter().eq(model.iter()));
        }
    }

    #[test]
    fn rising_keys_fill_their_chunks() {
        let mut map = OrderedMap::default();
        for key in 0..10_000 {
            map.insert(key, ());
        }
        assert!(map.chunks.len() <= 10_000 / CHUNK_MAX + 1, "{}", map.chunks.len());
    }
}
