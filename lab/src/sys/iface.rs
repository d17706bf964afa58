//! Interface set-up inside the calling thread's network namespace: up, MAC, addresses, sysctls.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};

use super::cvt;

/// Longest interface name (IFNAMSIZ less the terminating NUL).
pub const MAX_NAME: usize = libc::IFNAMSIZ - 1;

/// Sets the interface up or down.
///
/// # Errors
/// No such interface, or no permission.
pub fn set_up(name: &str, up: bool) -> Result<()> {
    let socket = control_socket(libc::AF_INET)?;
    let mut request = request(name)?;
    ioctl(&socket, libc::SIOCGIFFLAGS, &mut request)
        .with_context(|| format!("read the flags of interface {name}"))?;
    // SAFETY: SIOCGIFFLAGS has filled `ifru_flags`, the union's member in use.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    #[expect(clippy::cast_possible_truncation, reason = "IFF_UP is bit 0")]
    let bit = libc::IFF_UP as libc::c_short;
    request.ifr_ifru.ifru_flags = if up { flags | bit } else { flags & !bit };
    ioctl(&socket, libc::SIOCSIFFLAGS, &mut request)
        .with_context(|| format!("set interface {name} {}", if up { "up" } else { "down" }))
}

/// Gives the interface a MAC address.
///
/// # Errors
/// No such interface, no permission, or a driver that refuses.
pub fn set_mac(name: &str, mac: [u8; 6]) -> Result<()> {
    let socket = control_socket(libc::AF_INET)?;
    let mut request = request(name)?;
    let mut data = [0; 14];
    for (to, from) in data.iter_mut().zip(mac) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_hwaddr = libc::sockaddr {
        sa_family: libc::ARPHRD_ETHER,
        sa_data: data,
    };
    ioctl(&socket, libc::SIOCSIFHWADDR, &mut request)
        .with_context(|| format!("set the MAC of interface {name}"))
}

/// Adds the interface's own address. An interface has one IPv4 address of this kind (a second call
/// replaces it) and any number of IPv6 addresses.
///
/// # Errors
/// No such interface, no permission, IPv6 disabled, or the address is there already (IPv6).
pub fn add_address(name: &str, address: IpAddr, prefix: u8) -> Result<()> {
    match address {
        IpAddr::V4(ip) => {
            ensure!(
                prefix <= 32,
                "prefix length {prefix} of {ip} is larger than 32"
            );
            let socket = control_socket(libc::AF_INET)?;
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            for (call, value) in [
                (libc::SIOCSIFADDR, u32::from(ip)),
                (libc::SIOCSIFNETMASK, mask),
            ] {
                let mut request = request(name)?;
                request.ifr_ifru.ifru_addr = ipv4_sockaddr(value);
                ioctl(&socket, call, &mut request)
                    .with_context(|| format!("add {ip}/{prefix} to interface {name}"))?;
            }
            Ok(())
        }
        IpAddr::V6(ip) => {
            ensure!(
                prefix <= 128,
                "prefix length {prefix} of {ip} is larger than 128"
            );
            let socket = control_socket(libc::AF_INET6)?;
            let mut request = In6Request {
                address: ip.octets(),
                prefix: u32::from(prefix),
                index: index(name)?,
            };
            ioctl(&socket, libc::SIOCSIFADDR, &mut request)
                .with_context(|| format!("add {ip}/{prefix} to interface {name}"))
        }
    }
}

/// Writes a network sysctl, e.g. `("net/ipv6/conf/all/accept_dad", "0")`.
///
/// # Errors
/// The kernel does not have it, or does not take the value.
pub fn sysctl(name: &str, value: &str) -> Result<()> {
    fs::write(format!("/proc/sys/{name}"), value)
        .with_context(|| format!("set sysctl {name} to {value}"))
}

/// `struct in6_ifreq` of the kernel.
#[repr(C)]
struct In6Request {
    address: [u8; 16],
    prefix: u32,
    index: libc::c_int,
}

pub(crate) fn index(name: &str) -> Result<libc::c_int> {
    let socket = control_socket(libc::AF_INET)?;
    let mut request = request(name)?;
    ioctl(&socket, libc::SIOCGIFINDEX, &mut request)
        .with_context(|| format!("find interface {name}"))?;
    // SAFETY: SIOCGIFINDEX has filled `ifru_ifindex`, the union's member in use.
    Ok(unsafe { request.ifr_ifru.ifru_ifindex })
}

fn ipv4_sockaddr(ip: u32) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data[2..].iter_mut().zip(ip.to_be_bytes()) {
        *to = from.cast_signed();
    }
    #[expect(clippy::cast_possible_truncation, reason = "AF_INET is 2")]
    let family = libc::AF_INET as libc::sa_family_t;
    libc::sockaddr {
        sa_family: family,
        sa_data: data,
    }
}

/// An `ifreq` that names the interface and is otherwise zero.
///
/// # Errors
/// The name is empty or too long.
pub(crate) fn request(name: &str) -> Result<libc::ifreq> {
    ensure!(
        (1..=MAX_NAME).contains(&name.len()),
        "interface name '{name}' must have 1 to {MAX_NAME} bytes"
    );
    // SAFETY: ifreq is plain data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

fn control_socket(family: libc::c_int) -> Result<OwnedFd> {
    // SAFETY: socket takes integers only.
    let fd = cvt(unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })
        .context("open a socket for interface requests")?;
    // SAFETY: `fd` was just created and is owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn ioctl<T>(
    socket: &impl AsRawFd,
    call: libc::Ioctl,
    argument: &mut T,
) -> io::Result<()> {
    // SAFETY: every caller passes the structure that `call` reads and writes.
    cvt(unsafe { libc::ioctl(socket.as_raw_fd(), call, std::ptr::from_mut(argument)) }).map(drop)
}
