//! An array of u64 shared with the gate's program: mapped into memory where the kernel allows it.

use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::bpf::Map;

// A deadline must never be seen half written.
#[cfg(not(target_pointer_width = "64"))]
compile_error!(
    "the packet gate needs 64-bit loads and stores that are atomic in the kernel's JIT too"
);

/// A fixed number of u64, each read and written in one piece.
pub(super) struct Table {
    len: u32,
    backing: Backing,
}

enum Backing {
    /// The kernel's array itself.
    Mapped(Mapping),
    /// The kernel's array, by a bpf(2) call each time.
    Called(Arc<Map>),
    /// No kernel behind it.
    Memory(Box<[AtomicU64]>),
}

struct Mapping {
    start: NonNull<AtomicU64>,
    bytes: usize,
    // Keeps the kernel's array alive as long as the mapping.
    _map: Arc<Map>,
}

// SAFETY: the mapping is shared memory that is only read and written through atomics, and it is
// unmapped only by the one owner's drop.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(map: Arc<Map>) -> io::Result<Mapping> {
        let bytes = map.max_entries() as usize * size_of::<AtomicU64>();
        // SAFETY: a new shared mapping of the array's own length at a place of the kernel's choice.
        let start = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                protection,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start =
            NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mmap gave address 0"))?;
        Ok(Mapping {
            start,
            bytes,
            _map: map,
        })
    }

    fn cells(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has `bytes` bytes, is page aligned, lives as long as `self`, and is
        // written by others (the kernel) only in whole u64.
        unsafe {
            std::slice::from_raw_parts(self.start.as_ptr(), self.bytes / size_of::<AtomicU64>())
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; no reference into it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

impl Table {
    /// A kernel array of u64, mapped if it was made for that.
    pub(super) fn of_map(map: Arc<Map>, mapped: bool) -> io::Result<Table> {
        debug_assert_eq!(map.value_size(), 8);
        let len = map.max_entries();
        let backing = if mapped {
            Backing::Mapped(Mapping::new(map)?)
        } else {
            Backing::Called(map)
        };
        Ok(Table { len, backing })
    }

    /// Plain memory, all zero.
    pub(super) fn in_memory(len: u32) -> Table {
        let cells = (0..len).map(|_| AtomicU64::new(0)).collect();
        Table {
            len,
            backing: Backing::Memory(cells),
        }
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// Writes one cell in one piece.
    pub(super) fn store(&self, at: u32, value: u64) -> io::Result<()> {
        if let Backing::Called(map) = &self.backing {
            return map.update(&at.to_ne_bytes(), &value.to_ne_bytes(), 0);
        }
        self.cell(at)?.store(value, Ordering::SeqCst);
        Ok(())
    }

    /// Reads one cell in one piece.
    pub(super) fn load(&self, at: u32) -> io::Result<u64> {
        if let Backing::Called(map) = &self.backing {
            let mut value = [0; 8];
            return match map.lookup(&at.to_ne_bytes(), &mut value)? {
                true => Ok(u64::from_ne_bytes(value)),
                false => Err(out_of_range(at, self.len)),
            };
        }
        Ok(self.cell(at)?.load(Ordering::SeqCst))
    }

    fn cell(&self, at: u32) -> io::Result<&AtomicU64> {
        let cells = match &self.backing {
            Backing::Mapped(mapping) => mapping.cells(),
            Backing::Memory(cells) => cells,
            Backing::Called(_) => &[],
        };
        cells
            .get(at as usize)
            .ok_or_else(|| out_of_range(at, self.len))
    }
}

fn out_of_range(at: u32, len: u32) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("no cell {at} in a table of {len}"),
    )
}
