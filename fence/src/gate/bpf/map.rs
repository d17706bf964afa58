//! Maps in the kernel, with the sizes that every access to them must have.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use super::{
    ById, MAP_CREATE, MAP_DELETE_ELEM, MAP_GET_FD_BY_ID, MAP_LOOKUP_BATCH, MAP_LOOKUP_ELEM,
    MAP_UPDATE_ELEM, NAME_LEN, address_of, bpf, bpf_fd, from_kernel_name, kernel_name, object_info,
    raise_memlock,
};
use crate::gate::GateError;
use crate::gate::missing::explain;

/// A map update that fails if the key is there already.
pub(in crate::gate) const BPF_NOEXIST: u64 = 1;

/// Kinds of map that the gate uses (`enum bpf_map_type`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::gate) enum MapKind {
    Hash = 1,
    Array = 2,
    /// An array that can be mapped into memory (`BPF_F_MMAPABLE`, Linux 5.5).
    MappableArray = 3,
}

/// A map and the sizes that every access to it must have.
#[derive(Debug)]
pub(in crate::gate) struct Map {
    fd: OwnedFd,
    id: u32,
    name: String,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

#[repr(C)]
#[derive(Default)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    name: [u8; NAME_LEN],
}

#[repr(C)]
#[derive(Default)]
struct MapElement {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct MapBatch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    name: [u8; NAME_LEN],
}

impl Map {
    /// Makes a map. Kernels before 5.11 count it against RLIMIT_MEMLOCK, which is raised if it was too low.
    pub(in crate::gate) fn create(
        name: &str,
        kind: MapKind,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
    ) -> Result<Map, GateError> {
        const BPF_F_MMAPABLE: u32 = 1 << 10;
        let (kind, flags) = match kind {
            MapKind::MappableArray => (MapKind::Array as u32, BPF_F_MMAPABLE),
            other => (other as u32, 0),
        };
        let name = kernel_name(name);
        let create = || {
            let mut attr = MapCreate {
                kind,
                key_size,
                value_size,
                max_entries,
                flags,
                name,
                ..Default::default()
            };
            // SAFETY: MAP_CREATE follows no pointer.
            unsafe { bpf_fd(MAP_CREATE, &mut attr) }
        };
        let fd = match create() {
            Err(e) if e.raw_os_error() == Some(libc::EPERM) && raise_memlock() => create(),
            other => other,
        };
        let action = || format!("create its map {}", from_kernel_name(name));
        Map::from_fd(fd.map_err(|e| explain(action(), e))?).map_err(|e| explain(action(), e))
    }

    /// The map with this id, of whatever process. Needs CAP_SYS_ADMIN.
    pub(in crate::gate) fn by_id(id: u32) -> io::Result<Map> {
        // SAFETY: the command follows no pointer.
        Map::from_fd(unsafe {
            bpf_fd(
                MAP_GET_FD_BY_ID,
                &mut ById {
                    id,
                    ..Default::default()
                },
            )
        }?)
    }

    fn from_fd(fd: OwnedFd) -> io::Result<Map> {
        let mut info = MapInfo::default();
        object_info(fd.as_fd(), &mut info)?;
        let MapInfo {
            id,
            key_size,
            value_size,
            max_entries,
            name,
            ..
        } = info;
        Ok(Map {
            fd,
            id,
            name: from_kernel_name(name),
            key_size,
            value_size,
            max_entries,
        })
    }

    pub(in crate::gate) fn id(&self) -> u32 {
        self.id
    }

    pub(in crate::gate) fn name(&self) -> &str {
        &self.name
    }

    pub(in crate::gate) fn key_size(&self) -> u32 {
        self.key_size
    }

    pub(in crate::gate) fn value_size(&self) -> u32 {
        self.value_size
    }

    pub(in crate::gate) fn max_entries(&self) -> u32 {
        self.max_entries
    }

    pub(in crate::gate) fn update(&self, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
        self.check(key, value.len())?;
        let mut attr = self.element(key);
        attr.value = address_of(value);
        attr.flags = flags;
        // SAFETY: key and value have the map's sizes and are only read.
        unsafe { bpf(MAP_UPDATE_ELEM, &mut attr) }.map(drop)
    }

    /// Reads the value of a key; false if it is not there.
    pub(in crate::gate) fn lookup(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        self.check(key, value.len())?;
        let mut attr = self.element(key);
        attr.value = value.as_mut_ptr() as u64;
        // SAFETY: key and value have the map's sizes; the kernel writes the value, which is borrowed mutably.
        found(unsafe { bpf(MAP_LOOKUP_ELEM, &mut attr) })
    }

    /// Removes a key; false if it was not there.
    pub(in crate::gate) fn delete(&self, key: &[u8]) -> io::Result<bool> {
        self.check(key, self.value_size as usize)?;
        // SAFETY: the key has the map's size and is only read.
        found(unsafe { bpf(MAP_DELETE_ELEM, &mut self.element(key)) })
    }

    /// All pairs of a hash map with these sizes, in no order.
    pub(in crate::gate) fn dump<const K: usize, const V: usize>(
        &self,
    ) -> io::Result<Vec<([u8; K], [u8; V])>> {
        self.check(&[0; K], V)?;
        let room = self.max_entries as usize;
        let (mut keys, mut values) = (vec![[0u8; K]; room], vec![[0u8; V]; room]);
        // One position in the walk; the kernel writes 4 bytes for a hash.
        let mut position = [0u8; 64];
        let mut attr = MapBatch {
            out_batch: position.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: self.max_entries,
            map_fd: self.fd_field(),
            ..Default::default()
        };
        // SAFETY: keys and values have room for every entry that the map can hold, `position` for a position.
        match unsafe { bpf(MAP_LOOKUP_BATCH, &mut attr) } {
            Ok(_) => {}
            // The walk came to its end: `count` says how many there were.
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
            Err(e) => return Err(e),
        }
        Ok(keys
            .into_iter()
            .zip(values)
            .take(attr.count as usize)
            .collect())
    }

    fn check(&self, key: &[u8], value_len: usize) -> io::Result<()> {
        if key.len() != self.key_size as usize || value_len != self.value_size as usize {
            let message = format!(
                "map {}: {} byte keys and {value_len} byte values against its {} and {}",
                self.name,
                key.len(),
                self.key_size,
                self.value_size
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(())
    }

    fn element(&self, key: &[u8]) -> MapElement {
        MapElement {
            map_fd: self.fd_field(),
            key: address_of(key),
            ..Default::default()
        }
    }

    fn fd_field(&self) -> u32 {
        self.fd.as_raw_fd().cast_unsigned()
    }
}

impl AsRawFd for Map {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

fn found(result: io::Result<libc::c_long>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}
