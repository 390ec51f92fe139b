//! Storage in pieces of one size, so that a table of a million entries grows without ever copying or
//! doubling.

/// Entries in one chunk.
pub(crate) const CHUNK_ENTRIES: usize = 1024;

/// One piece of a table. The fixed size lets the compiler see that an offset is within bounds.
pub(crate) type Chunk<T> = Box<[T; CHUNK_ENTRIES]>;

/// A chunk whose entry at each offset is `entry(offset)`, built in place on the heap.
pub(crate) fn chunk<T>(entry: impl FnMut(usize) -> T) -> Chunk<T> {
    let entries: Box<[T]> = (0..CHUNK_ENTRIES).map(entry).collect();
    match entries.try_into() {
        Ok(chunk) => chunk,
        Err(_) => unreachable!("collected from a range of CHUNK_ENTRIES"),
    }
}

/// The number of the chunk that holds `index`, and the offset in it.
pub(crate) const fn split(index: u32) -> (usize, usize) {
    (index as usize / CHUNK_ENTRIES, index as usize % CHUNK_ENTRIES)
}

/// The inverse of [`split`].
pub(crate) const fn join(chunk: usize, offset: usize) -> u32 {
    (chunk * CHUNK_ENTRIES + offset) as u32
}
