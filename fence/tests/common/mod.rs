//! Network namespaces for tests: nameless, so nothing is left behind even by a test that is killed.
#![allow(
    dead_code,
    reason = "every test file compiles its own copy and uses a part of it"
)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A network namespace that lives as long as this guard (and the threads and processes inside it). No
/// file and no name of it exists outside this process.
pub struct NetNs {
    /// `buoy-<pid>-<n>-<prefix>`, for messages and thread names.
    pub name: String,
    handle: File,
}

impl NetNs {
    /// A new namespace with `lo` up.
    ///
    /// # Panics
    /// When the namespace cannot be made; call [`skip_without_root`] first.
    pub fn new(prefix: &str) -> NetNs {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("buoy-{}-{count}-{prefix}", std::process::id());
        let made = std::thread::spawn(|| {
            // SAFETY: plain call; it changes this thread only, which ends here.
            let rc = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            assert_eq!(
                rc,
                0,
                "unshare(CLONE_NEWNET): {}",
                std::io::Error::last_os_error()
            );
            File::open("/proc/thread-self/ns/net").expect("the new namespace")
        });
        let handle = made.join().expect("the thread that makes the namespace");
        let ns = NetNs { name, handle };
        ns.ip("link set lo up");
        ns
    }

    /// Runs `f` on a thread of its own inside the namespace and gives back its result; a panic of `f`
    /// is a panic here. Sockets opened and processes started by `f` stay in the namespace.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = move || {
                // SAFETY: plain call; it changes this thread only.
                let rc = unsafe { libc::setns(self.handle.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(rc, 0, "setns: {}", std::io::Error::last_os_error());
                f()
            };
            let builder = std::thread::Builder::new().name(self.name.clone());
            let thread = builder.spawn_scoped(scope, inside).expect("a thread");
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs `ip ARGS` inside; panics with its words if it fails. Gives its output.
    pub fn ip(&self, args: &str) -> String {
        self.tool("ip", args)
    }

    /// As [`NetNs::ip`] for any program; arguments are split at spaces.
    pub fn tool(&self, program: &str, args: &str) -> String {
        self.run(|| {
            let done = Command::new(program).args(args.split_whitespace()).output();
            let done = done.unwrap_or_else(|e| panic!("{program}: {e}"));
            let words = String::from_utf8_lossy(&done.stderr);
            assert!(
                done.status.success(),
                "{}: {program} {args}: {words}",
                self.name
            );
            String::from_utf8_lossy(&done.stdout).into_owned()
        })
    }

    /// A cable: device `here` in this namespace, `there` in the other, both up. Both have a carrier on return.
    pub fn veth(&self, here: &str, other: &NetNs, there: &str) {
        let path = format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            other.handle.as_raw_fd()
        );
        self.ip(&format!(
            "link add {here} type veth peer name {there} netns {path}"
        ));
        self.ip(&format!("link set {here} up"));
        other.ip(&format!("link set {there} up"));
        for (ns, device) in [(self, here), (other, there)] {
            wait_until("the cable has a carrier", || {
                ns.ip(&format!("link show {device}")).contains("LOWER_UP")
            });
        }
    }

    /// Index of a device in this namespace.
    pub fn ifindex(&self, device: &str) -> u32 {
        let name = std::ffi::CString::new(device).expect("a device name");
        // SAFETY: `name` is a valid C string.
        let index = self.run(|| unsafe { libc::if_nametoindex(name.as_ptr()) });
        assert_ne!(index, 0, "{}: no device {device}", self.name);
        index
    }
}

/// Waits for a condition for up to 5 s, looking every millisecond.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "waited 5 s in vain until {what}"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// True, with a word on why, if this test cannot run here; panics instead under `CI=true`.
pub fn skip(missing: &str) -> bool {
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "this test must run in CI, but: {missing}"
    );
    println!("SKIP: {missing}");
    true
}

/// True on an emulated processor (scripts/test-kernels.sh), which keeps no promise of speed.
pub fn is_emulated() -> bool {
    std::env::var_os("BUOY_EMULATED").is_some()
}

/// Says that this kernel lacks what a part of a test is about, which is a failure of the test on any kernel since the
/// version that has it.
///
/// # Panics
/// On such a kernel.
pub fn lacks(feature: &str, since: (u32, u32)) {
    let release = buoy_fence::process::release();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().and_then(|n| n.parse::<u32>().ok());
    let version = number().zip(number());
    let version = version.unwrap_or_else(|| panic!("the kernel's release is {release:?}"));
    let (major, minor) = since;
    assert!(
        version < since,
        "Linux {release} should have {feature}, as Linux {major}.{minor} does"
    );
    println!("SKIP: Linux {release} has no {feature}, which takes {major}.{minor}");
}

/// True if namespaces cannot be made here.
pub fn skip_without_root() -> bool {
    // SAFETY: plain call.
    if unsafe { libc::geteuid() } != 0 {
        return skip("not root: no network namespaces, no packet gate");
    }
    // SAFETY: plain call; it changes the probing thread only.
    let may = || unsafe { libc::unshare(libc::CLONE_NEWNET) == 0 };
    if !std::thread::spawn(may).join().expect("the probing thread") {
        return skip("unshare(CLONE_NEWNET) is refused");
    }
    false
}

/// True if the kernel does not let us have a packet gate here.
pub fn skip_without_gate() -> bool {
    use buoy_fence::gate::{EbpfGate, EbpfOptions, GateError};
    if skip_without_root() {
        return true;
    }
    match EbpfGate::new(EbpfOptions {
        capacity: 1,
        mapped: true,
    }) {
        Err(e @ GateError::Unavailable { .. }) => skip(&e.to_string()),
        _ => false,
    }
}
