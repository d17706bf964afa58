//! bpf(2): the call itself, and the types behind which it is used.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

mod map;
mod program;

pub(super) use map::{BPF_NOEXIST, Map, MapKind};
pub(super) use program::Program;

// enum bpf_cmd
const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const PROG_LOAD: libc::c_int = 5;
const PROG_TEST_RUN: libc::c_int = 10;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const MAP_GET_FD_BY_ID: libc::c_int = 14;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const MAP_LOOKUP_BATCH: libc::c_int = 24;

const NAME_LEN: usize = 16;

/// One call of bpf(2). `attr` must be the `union bpf_attr` member of that command.
///
/// # Safety
/// Every pointer in `attr` must be valid for what the command does with it.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is valid for its own size; its pointers are the caller's promise.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if rc < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(rc)
    }
}

/// As [`bpf`], for commands that answer with a new descriptor.
///
/// # Safety
/// As [`bpf`].
unsafe fn bpf_fd<T>(command: libc::c_int, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(command, attr)? };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel made this descriptor for us just now.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn address_of<T>(slice: &[T]) -> u64 {
    slice.as_ptr() as u64
}

fn kernel_name(name: &str) -> [u8; NAME_LEN] {
    let mut field = [0; NAME_LEN];
    let len = name.len().min(NAME_LEN - 1);
    field[..len].copy_from_slice(&name.as_bytes()[..len]);
    field
}

fn from_kernel_name(field: [u8; NAME_LEN]) -> String {
    let len = field.iter().position(|&b| b == 0).unwrap_or(NAME_LEN);
    String::from_utf8_lossy(&field[..len]).into_owned()
}

/// Fills `info`, whose pointers (if any) must be valid for writing what their counts say.
fn object_info<T>(fd: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    #[repr(C)]
    struct GetInfo {
        fd: u32,
        len: u32,
        info: u64,
    }
    let mut attr = GetInfo {
        fd: fd.as_raw_fd().cast_unsigned(),
        len: size_of::<T>() as u32,
        info: std::ptr::from_mut(info) as u64,
    };
    // SAFETY: `info` is valid for writing its own size.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }.map(drop)
}

/// Raises RLIMIT_MEMLOCK as far as this process may; false if it could not be raised.
fn raise_memlock() -> bool {
    let mut now = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `now` is valid for writing.
    if unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut now) } != 0
        || now.rlim_cur == libc::RLIM_INFINITY
    {
        return false;
    }
    let all = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    let up_to_hard = libc::rlimit {
        rlim_cur: now.rlim_max,
        rlim_max: now.rlim_max,
    };
    // SAFETY: both are valid for reading.
    unsafe {
        libc::setrlimit(libc::RLIMIT_MEMLOCK, &all) == 0
            || (now.rlim_cur < now.rlim_max
                && libc::setrlimit(libc::RLIMIT_MEMLOCK, &up_to_hard) == 0)
    }
}

/// Attribute of the commands that open an object by its id.
#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}
