//! Why an address could not be added or removed, and what to do about it.

use std::io;
use std::net::IpAddr;

pub use crate::rtnl::Refusal;

/// What was to be done with an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// It was to be added, or its lifetime to be prolonged.
    Add,
    /// It was to be removed.
    Remove,
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Action::Add => "add",
            Action::Remove => "remove",
        })
    }
}

/// An address is not as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// The address could never be added like that.
    #[error("cannot add {ip} to {interface}: {problem}")]
    Invalid {
        /// The address.
        ip: IpAddr,
        /// The interface asked for.
        interface: String,
        /// What is wrong with it, and what was expected.
        problem: String,
    },
    /// There is no such interface.
    #[error(
        "cannot add {ip}: this host has no interface {interface}; correct the VIP's interface, or make it"
    )]
    NoInterface {
        /// The address.
        ip: IpAddr,
        /// The interface asked for.
        interface: String,
    },
    /// The interface is down: IPv6 addresses would be lost when it comes up.
    #[error(
        "cannot add {ip}: interface {interface} is down (`ip link set {interface} up` sets it up)"
    )]
    InterfaceDown {
        /// The address.
        ip: IpAddr,
        /// The interface asked for.
        interface: String,
    },
    /// The interface does not carry the packet gate (yet): the address would be answered for whatever the lease says.
    #[error("cannot add {ip}: interface {interface} carries no packet gate yet")]
    NoGate {
        /// The address.
        ip: IpAddr,
        /// The interface asked for.
        interface: String,
    },
    /// It was told to be removed before it had been added.
    #[error("{ip} was not added to {interface}: it was given up meanwhile")]
    Withdrawn {
        /// The address.
        ip: IpAddr,
        /// The interface asked for.
        interface: String,
    },
    /// The kernel said no.
    #[error("cannot {action} {ip}/{prefix} on {interface}: the kernel says: {refusal}{}", hint(*action, refusal, interface))]
    Refused {
        /// What was to be done.
        action: Action,
        /// The address.
        ip: IpAddr,
        /// Its prefix length in bits.
        prefix: u8,
        /// The interface.
        interface: String,
        /// What the kernel said.
        refusal: Refusal,
    },
    /// The netlink socket failed; the address may be there or not. Its lifetime bounds the doubt.
    #[error("cannot {action} {ip} on {interface}: netlink failed: {problem}")]
    Netlink {
        /// What was to be done.
        action: Action,
        /// The address.
        ip: IpAddr,
        /// The interface.
        interface: String,
        /// What failed.
        problem: String,
    },
    /// Leftovers could not be looked for.
    #[error(
        "cannot read the addresses of this host: {problem}; those that a predecessor left go within {} s if it was buoy",
        super::VALID_LIFETIME
    )]
    Unreadable {
        /// What failed.
        problem: String,
    },
    /// The thread that keeps the addresses has ended. Addresses go with their lifetimes.
    #[error(
        "the address keeper has stopped; addresses go within {} s; restart buoy",
        super::VALID_LIFETIME
    )]
    Stopped,
}

/// Why addresses cannot be kept at all.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot {what}: {source}; buoy keeps addresses through route netlink and needs CAP_NET_ADMIN"
)]
pub struct StartError {
    pub(super) what: &'static str,
    pub(super) source: io::Error,
}

fn hint(action: Action, refusal: &Refusal, interface: &str) -> String {
    match refusal.errno {
        libc::EPERM => {
            "; buoy needs CAP_NET_ADMIN (run it as root or from its systemd unit)".into()
        }
        libc::EACCES if action == Action::Add => format!(
            "; IPv6 is switched off there (`sysctl net.ipv6.conf.{interface}.disable_ipv6=0` switches it on)"
        ),
        libc::ENODEV => "; the interface went away: make it, or correct the VIP's interface".into(),
        libc::EINVAL => {
            "; check the VIP's prefix length and label, and the interface's MTU (IPv6 needs 1280)"
                .into()
        }
        libc::ENOBUFS | libc::ENOMEM => "; the host is short of memory".into(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_address_interface_reason_and_remedy() {
        let refused = |errno| {
            AddressError::Refused {
                action: Action::Add,
                ip: "fd00::7".parse().expect("an address"),
                prefix: 128,
                interface: "eth0".to_owned(),
                refusal: Refusal { errno, words: None },
            }
            .to_string()
        };
        let said = refused(libc::EACCES);
        assert!(
            said.contains("cannot add fd00::7/128 on eth0: the kernel says: Permission denied"),
            "{said}"
        );
        assert!(said.contains("net.ipv6.conf.eth0.disable_ipv6=0"), "{said}");
        assert!(refused(libc::EPERM).contains("CAP_NET_ADMIN"));
        assert!(AddressError::Stopped.to_string().contains("within 3 s"));
    }
}
