//! What a configuration says against what this machine has: VIPs lie within a prefix of their interface.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use buoy_core::spec::{NodeSpec, Role, VipAddress, VipSpec};
use ipnet::IpNet;

use super::Config;
use super::places::Places;
use super::problem::{ConfigErrors, Problem, Problems};

/// A network interface of this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostInterface {
    /// Its name.
    pub name: String,
    /// Its addresses with their prefix lengths.
    pub prefixes: Vec<IpNet>,
}

/// Checks that every VIP that this node may own lies within a prefix of its interface, and that its own
/// prefix is not the wider one. Returns things to know: interfaces that do not exist or have no address (yet).
///
/// # Errors
/// VIPs outside every prefix, or with too wide a prefix, with their place in the file.
pub fn check_against_host(
    config: &Config,
    interfaces: &[HostInterface],
) -> Result<Vec<String>, ConfigErrors> {
    let mut problems = Problems::default();
    let notes = compare(
        &config.me,
        &config.vips,
        &config.places,
        interfaces,
        &mut problems,
    );
    problems.into_errors(&config.source)?;
    Ok(notes)
}

/// Compares the VIPs that `me` may own with the machine, as far as they could be read: about broken parts nothing is said.
/// Returns things to know.
pub(super) fn compare(
    me: &NodeSpec,
    vips: &[VipSpec],
    places: &Places,
    interfaces: &[HostInterface],
    problems: &mut Problems,
) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    if me.role == Role::Witness {
        return notes;
    }
    let ours: Vec<IpAddr> = vips
        .iter()
        .flat_map(|v| v.addresses.iter().map(|a| a.ip))
        .collect();
    for (index, vip) in vips.iter().enumerate() {
        let place = |field: &str| places.get(&format!("vips[{index}].{field}"));
        let may_own = match vip.placement.priority.get(&me.name) {
            Some(priority) => *priority > 0,
            // A priority that could not be read may have been meant to keep the VIP away.
            None => !places.has(&format!("vips[{index}].placement.priority.{}", me.name)),
        };
        let Some(interface_place) = place("interface").filter(|_| may_own) else {
            continue;
        };
        let Some(interface) = interfaces.iter().find(|i| i.name == vip.interface) else {
            let note = format!(
                "this machine has no interface {}: VIP {} cannot be up here until there is one",
                vip.interface, vip.name
            );
            notes.push(note);
            continue;
        };
        // A VIP that is up here now has a prefix of its own, which proves nothing.
        let prefixes: Vec<IpNet> = interface
            .prefixes
            .iter()
            .copied()
            .filter(|p| !ours.contains(&p.addr()))
            .collect();
        for (k, address) in vip.addresses.iter().enumerate() {
            let Some(address_place) = place(&format!("addresses[{k}]")) else {
                continue;
            };
            match fit(address, &prefixes) {
                Fit::Fits => {}
                Fit::NoAddress => notes.push(format!(
                    "{} has no {} address (yet): VIP {} cannot be up here until it has one of the network of {}",
                    vip.interface,
                    family(address.ip),
                    vip.name,
                    address.ip
                )),
                Fit::Outside => problems.push(
                    Problem::new(
                        address_place,
                        format!("{} is outside every prefix of {}", address.ip, vip.interface),
                        networks(&vip.interface, address.ip, &prefixes),
                    )
                    .other(interface_place.clone(), "the interface")
                    .hint("neighbours would not find it there: correct the address or the interface, or give the interface an address of that network first"),
                ),
                Fit::TooWide(own) => problems.push(
                    Problem::new(
                        address_place,
                        format!("{}/{} is wider than the network of {}", address.ip, address.prefix, vip.interface),
                        format!("{} has {}", vip.interface, own.trunc()),
                    )
                    .hint(format!(
                        "the owner would send packets for other networks out there: write {0}/{1}, or {0} alone",
                        address.ip,
                        own.prefix_len()
                    )),
                ),
            }
        }
    }
    notes
}

/// How an address suits the prefixes of its interface.
enum Fit {
    /// It lies within one of them.
    Fits,
    /// The interface has no address of its family that could tell.
    NoAddress,
    /// It lies outside all of them.
    Outside,
    /// It lies within this one, and brings a wider prefix of its own.
    TooWide(IpNet),
}

fn fit(address: &VipAddress, prefixes: &[IpNet]) -> Fit {
    let around = prefixes.iter().filter(|p| p.contains(&address.ip));
    if let Some(widest) = around.min_by_key(|p| p.prefix_len()) {
        return match address.prefix < widest.prefix_len() {
            true => Fit::TooWide(*widest),
            false => Fit::Fits,
        };
    }
    // IPv6 interfaces have a link-local address long before they have another one.
    let tells = |p: &IpNet| {
        p.addr().is_ipv4() == address.ip.is_ipv4()
            && (!is_link_local(p.addr()) || is_link_local(address.ip))
    };
    match prefixes.iter().any(tells) {
        true => Fit::Outside,
        false => Fit::NoAddress,
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The networks that an interface has, of the family of `ip`.
fn networks(interface: &str, ip: IpAddr, prefixes: &[IpNet]) -> String {
    let mut networks: Vec<String> = prefixes
        .iter()
        .filter(|p| p.addr().is_ipv4() == ip.is_ipv4())
        .map(|p| p.trunc().to_string())
        .collect();
    networks.sort();
    networks.dedup();
    format!("{interface} has {}", networks.join(", "))
}

/// The interfaces of this machine, in order of name.
///
/// # Errors
/// What the kernel said.
pub fn interfaces() -> io::Result<Vec<HostInterface>> {
    let mut list = IfAddrs::get()?.collect();
    list.sort_by(|a: &HostInterface, b| a.name.cmp(&b.name));
    Ok(list)
}

/// The kernel's list, freed when dropped.
struct IfAddrs(*mut libc::ifaddrs);

impl Drop for IfAddrs {
    fn drop(&mut self) {
        // SAFETY: the list came from getifaddrs and is freed once.
        unsafe { libc::freeifaddrs(self.0) }
    }
}

impl IfAddrs {
    fn get() -> io::Result<IfAddrs> {
        let mut first = std::ptr::null_mut();
        // SAFETY: `first` is a valid place for the pointer.
        if unsafe { libc::getifaddrs(&mut first) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(IfAddrs(first))
    }

    fn collect(&self) -> Vec<HostInterface> {
        let mut list: Vec<HostInterface> = Vec::new();
        let mut at = self.0;
        // SAFETY: `at` is null or an element of the list, which lives as long as `self`.
        while let Some(entry) = unsafe { at.as_ref() } {
            at = entry.ifa_next;
            // SAFETY: the kernel's names end with a zero.
            let name = unsafe { std::ffi::CStr::from_ptr(entry.ifa_name) };
            let name = name.to_string_lossy();
            // A label (eth0:web) is no interface.
            let name = name.split(':').next().unwrap_or_default();
            let found = match list.iter().position(|i| i.name == name) {
                Some(index) => index,
                None => {
                    list.push(HostInterface {
                        name: name.to_owned(),
                        prefixes: Vec::new(),
                    });
                    list.len() - 1
                }
            };
            // SAFETY: both are null or point to a sockaddr of the family that it names.
            let (ip, mask) = unsafe { (address(entry.ifa_addr), address(entry.ifa_netmask)) };
            let net = ip
                .zip(mask)
                .and_then(|(ip, mask)| IpNet::with_netmask(ip, mask).ok());
            list[found].prefixes.extend(net);
        }
        list
    }
}

/// The IP address in a socket address; `None` for null and other families.
///
/// # Safety
/// `at` is null, or points to a socket address as large as its family says.
unsafe fn address(at: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: not null inside the closure; the caller vouches for the rest.
    let family = unsafe { at.as_ref() }?.sa_family;
    match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is a sockaddr_in; read_unaligned needs no alignment.
            let v4 = unsafe { at.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that it is a sockaddr_in6; read_unaligned needs no alignment.
            let v6 = unsafe { at.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(v6.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found() {
        let lo = interfaces()
            .unwrap()
            .into_iter()
            .find(|i| i.name == "lo")
            .unwrap();
        assert!(
            lo.prefixes.contains(&"127.0.0.1/8".parse().unwrap()),
            "{lo:?}"
        );
    }
}
