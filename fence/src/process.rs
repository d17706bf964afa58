//! What this process may ask of the kernel, and which kernel it is.

/// A capability (capabilities(7)): its bit in `CapEff`, and its name.
pub type Capability = (u32, &'static str);

/// Addresses, interfaces and filters.
pub const CAP_NET_ADMIN: Capability = (12, "CAP_NET_ADMIN");
/// Raw and packet sockets.
pub const CAP_NET_RAW: Capability = (13, "CAP_NET_RAW");
/// Locked memory beyond RLIMIT_MEMLOCK.
pub const CAP_IPC_LOCK: Capability = (14, "CAP_IPC_LOCK");
/// Among much else, everything that CAP_BPF permits.
pub const CAP_SYS_ADMIN: Capability = (21, "CAP_SYS_ADMIN");
/// Realtime scheduling beyond RLIMIT_RTPRIO.
pub const CAP_SYS_NICE: Capability = (23, "CAP_SYS_NICE");
/// bpf(2), since Linux 5.8.
pub const CAP_BPF: Capability = (39, "CAP_BPF");

/// Is a capability among these?
pub fn holds(held: u64, (bit, _): Capability) -> bool {
    held & (1 << bit) != 0
}

/// The effective capabilities of this process; `None` where they cannot be read.
pub fn effective_capabilities() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(field.trim(), 16).ok()
}

/// The kernel's release, for people (`6.1.0-13-amd64`).
pub fn release() -> String {
    match std::fs::read_to_string("/proc/sys/kernel/osrelease") {
        Ok(text) => text.trim().to_string(),
        Err(_) => "of unknown version".to_string(),
    }
}
