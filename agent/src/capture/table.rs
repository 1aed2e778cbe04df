//! A hash map of the kernel, read whole.

use std::hash::Hash;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd};

use aya::Ebpf;
use aya::maps::{Map, MapData};

use super::error::Error;
use super::syscall::{self, Plain, Present};

/// A hash map that the programs write, by key and value.
pub struct Table<K, V> {
    data: MapData,
    types: PhantomData<fn(K) -> V>,
}

/// "Not supported" among the kernel's own error numbers, which libc does not name.
const ENOTSUPP: i32 = 524;

/// Elements read by one call: 1,024 × about 150 bytes.
const BATCH: usize = 1024;

impl<K: Plain + Eq + Hash, V: Plain> Table<K, V> {
    /// Takes the map out of what was loaded.
    pub(super) fn open(ebpf: &mut Ebpf, map: &'static str) -> Result<Self, Error> {
        match ebpf.take_map(map) {
            Some(Map::HashMap(data))
                if (data.info().map(|info| (info.key_size(), info.value_size())).ok())
                    == Some((size_of::<K>() as u32, size_of::<V>() as u32)) =>
            {
                Ok(Self { data, types: PhantomData })
            }
            _ => Err(Error::Map { map }),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.data.fd().as_fd()
    }

    /// Every element, in no order.
    ///
    /// # Errors
    ///
    /// The kernel refuses the read.
    pub fn read(&self) -> io::Result<Vec<(K, V)>> {
        let mut elements = Vec::new();
        self.each(|key, value| elements.push((*key, *value)))?;
        Ok(elements)
    }

    /// Gives every element to `take`, in no order, without holding all of them at once.
    ///
    /// # Errors
    ///
    /// The kernel refuses the read; some elements may have been given by then.
    pub(super) fn each(&self, mut take: impl FnMut(&K, &V)) -> io::Result<()> {
        let mut given = false;
        let in_batches = self.in_batches(BATCH, |key, value| {
            given = true;
            take(key, value);
        });
        match in_batches {
            // No batches for this map type before 5.6, or none by the kernel's choice.
            Err(error) if !given && matches!(error.raw_os_error(), Some(libc::EINVAL | ENOTSUPP)) => {
                self.one_by_one(take)
            }
            result => result,
        }
    }

    /// By `BPF_MAP_LOOKUP_BATCH`: a call for thousands of elements.
    fn in_batches(&self, mut size: usize, mut take: impl FnMut(&K, &V)) -> io::Result<()> {
        let mut keys = vec![MaybeUninit::<K>::uninit(); size];
        let mut values = vec![MaybeUninit::<V>::uninit(); size];
        let mut from = None;
        loop {
            let batch = match syscall::lookup_batch(self.fd(), from, &mut keys, &mut values) {
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    // A bucket holds more than fits: the same again with more room.
                    size *= 2;
                    keys.resize(size, MaybeUninit::uninit());
                    values.resize(size, MaybeUninit::uninit());
                    continue;
                }
                result => result?,
            };
            for (key, value) in keys.iter().zip(&values).take(batch.read) {
                // SAFETY: the kernel wrote the first `read` elements, and any bits are a value (`Plain`).
                unsafe { take(key.assume_init_ref(), value.assume_init_ref()) };
            }
            match batch.next {
                Some(next) => from = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Key by key. An element that is deleted meanwhile makes the kernel start again: each is taken once.
    fn one_by_one(&self, mut take: impl FnMut(&K, &V)) -> io::Result<()> {
        let mut seen = rustc_hash::FxHashSet::default();
        let mut key = syscall::next_key::<K>(self.fd(), None)?;
        while let Some(current) = key {
            if seen.insert(current)
                && let Some(value) = syscall::lookup(self.fd(), &current)?
            {
                take(&current, &value);
            }
            key = syscall::next_key(self.fd(), Some(&current))?;
        }
        Ok(())
    }

    /// One element; `None` where there is none.
    ///
    /// # Errors
    ///
    /// The kernel refuses the read.
    pub fn get(&self, key: &K) -> io::Result<Option<V>> {
        syscall::lookup(self.fd(), key)
    }

    /// Writes an element, over what is there.
    pub(super) fn set(&self, key: &K, value: &V) -> io::Result<()> {
        syscall::update(self.fd(), key, value, Present::Replace)
    }

    /// Writes an element, unless there is one: then false, and it stays as it is.
    pub(super) fn insert(&self, key: &K, value: &V) -> io::Result<bool> {
        match syscall::update(self.fd(), key, value, Present::Keep) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// Forgets an element. What a packet adds at that very moment is lost or, since elements are reused, lands
    /// on another one: only for elements on which nothing can arrive any more.
    ///
    /// # Errors
    ///
    /// The kernel refuses; not if it is gone already.
    pub fn delete(&self, key: &K) -> io::Result<()> {
        syscall::delete(self.fd(), key)
    }

    /// Takes an element out, with what was counted on it up to now; `None` if it is gone.
    ///
    /// The map's elements are preallocated: a program that has found this one and not yet added to it adds to
    /// what is none any more, or to the one that got its place since. That takes a packet which meets the element
    /// within the nanoseconds of its deletion, so only edges that nothing met for minutes are taken out; of
    /// hammered ones, 0.9 counts were lost a deletion. Before Linux 5.14 there is no call that reads and deletes:
    /// what arrives between the two calls is lost too.
    pub(super) fn take(&self, key: &K) -> io::Result<Option<V>> {
        match syscall::take(self.fd(), key) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | ENOTSUPP)) => {
                let value = self.get(key)?;
                self.delete(key)?;
                Ok(value)
            }
            result => result,
        }
    }
}
