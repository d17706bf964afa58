//! Network namespaces: made without helper programs, entered by threads and by commands, removed at the end.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::Process;
use crate::sys::{cvt, iface};

/// Where named namespaces live; the directory that iproute2 uses, so that `ip netns exec` works too.
pub const DIRECTORY: &str = "/run/netns";

/// An open network namespace.
pub struct Netns {
    name: String,
    file: File,
    inode: u64,
    remove_on_drop: bool,
}

impl Netns {
    /// Makes a namespace called `name`, with `lo` up, that stays until [`Netns::remove`].
    ///
    /// # Errors
    /// The name is taken, or the caller lacks CAP_SYS_ADMIN.
    pub fn create(name: &str) -> Result<Self> {
        prepare_directory()?;
        let path = path_of(name);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .with_context(|| {
                format!("make network namespace {name}: {} is taken", path.display())
            })?;
        let made = in_thread(|| {
            // SAFETY: unshare(CLONE_NEWNET) moves this thread alone; the thread ends right after.
            cvt(unsafe { libc::unshare(libc::CLONE_NEWNET) })
                .context("unshare the network (needs root)")?;
            bind_mount(Path::new("/proc/thread-self/ns/net"), &path)
                .context("bind-mount the namespace")?;
            // A lab's addresses are known to be unique: nobody waits for duplicate address detection.
            for name in ["all", "default"] {
                iface::sysctl(&format!("net/ipv6/conf/{name}/disable_ipv6"), "0")?;
                iface::sysctl(&format!("net/ipv6/conf/{name}/accept_dad"), "0")?;
                iface::sysctl(&format!("net/ipv6/conf/{name}/accept_ra"), "0")?;
            }
            iface::sysctl("net/ipv6/conf/default/dad_transmits", "0")?;
            iface::set_up("lo", true)
        });
        match made.and_then(|()| Self::open(name)) {
            Ok(ns) => Ok(ns),
            Err(error) => {
                detach(name);
                Err(error.context(format!("make network namespace {name}")))
            }
        }
    }

    /// As [`Netns::create`], but the namespace and every process in it end when the value is dropped,
    /// a panic included.
    ///
    /// # Errors
    /// As [`Netns::create`].
    pub fn scoped(name: &str) -> Result<Self> {
        let mut ns = Self::create(name)?;
        ns.remove_on_drop = true;
        Ok(ns)
    }

    /// Opens an existing namespace by name.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn open(name: &str) -> Result<Self> {
        let path = path_of(name);
        let file = File::open(&path)
            .with_context(|| format!("open network namespace {name} ({})", path.display()))?;
        let inode = file.metadata()?.ino();
        Ok(Self {
            name: name.to_owned(),
            file,
            inode,
            remove_on_drop: false,
        })
    }

    /// Its name under [`DIRECTORY`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a thread inside the namespace and waits for it.
    ///
    /// # Errors
    /// The namespace cannot be entered, or what `work` returns.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        in_thread(|| {
            // SAFETY: setns moves this thread alone, to a descriptor that is open.
            cvt(unsafe { libc::setns(self.file.as_raw_fd(), libc::CLONE_NEWNET) })
                .with_context(|| format!("enter network namespace {}", self.name))?;
            work()
        })
    }

    /// A command that will run inside the namespace, in a session of its own (a Ctrl-C at the terminal
    /// does not reach it) and with no signal blocked.
    ///
    /// # Errors
    /// The namespace's descriptor cannot be duplicated.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let mut command = self.foreground_command(program)?;
        detach_from_terminal(&mut command);
        Ok(command)
    }

    /// As [`Netns::command`], but in the terminal's foreground, for a person at the keyboard. Programs are
    /// looked for in /usr/sbin and /sbin too, whatever PATH says.
    ///
    /// # Errors
    /// The namespace's descriptor cannot be duplicated.
    pub fn foreground_command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let file = self.file.try_clone().context("duplicate a descriptor")?;
        let mut command = Command::new(program);
        command.env("PATH", search_path());
        // SAFETY: between fork and exec the closure makes one system call on a descriptor that it owns.
        unsafe {
            command
                .pre_exec(move || cvt(libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET)).map(drop));
        }
        Ok(command)
    }

    /// Kills every process in the namespace with SIGKILL, all at once as a power failure would, and
    /// returns how many there were. Returns when none is left.
    ///
    /// # Errors
    /// A process does not end, or /proc cannot be read.
    pub fn kill_all(&self) -> Result<usize> {
        let mut killed = 0;
        // A process may fork while it is being killed: look again until a look finds nobody.
        for _ in 0..20 {
            let processes = self.processes()?;
            if processes.is_empty() {
                return Ok(killed);
            }
            for process in &processes {
                process.signal(libc::SIGKILL)?;
            }
            for process in &processes {
                process.wait_exit(std::time::Duration::from_secs(5))?;
                killed += 1;
            }
        }
        bail!(
            "network namespace {} is still full of processes after 20 rounds of SIGKILL",
            self.name
        )
    }

    /// The processes (not zombies) whose main thread is in the namespace, this one excepted.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub fn processes(&self) -> Result<Vec<Process>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").context("read /proc")? {
            let name = entry.context("read /proc")?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            if pid.unsigned_abs() == std::process::id() || !self.holds(pid) {
                continue;
            }
            // Opened first, then looked at again: the number may have been given to another process.
            if let Ok(process) = Process::from_pid(pid)
                && self.holds(pid)
            {
                found.push(process);
            }
        }
        Ok(found)
    }

    fn holds(&self, pid: i32) -> bool {
        fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|meta| meta.ino() == self.inode)
    }

    /// Kills everything in the namespace and removes its name; the kernel frees it when the last
    /// descriptor is closed.
    ///
    /// # Errors
    /// A process in it does not end.
    pub fn remove(mut self) -> Result<()> {
        self.remove_on_drop = false;
        self.kill_all()?;
        detach(&self.name);
        Ok(())
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if self.remove_on_drop {
            if let Err(error) = self.kill_all() {
                eprintln!(
                    "lab: while removing network namespace {}: {error:#}",
                    self.name
                );
            }
            detach(&self.name);
        }
    }
}

/// PATH, with the directories in which Debian keeps ip, nginx and keepalived: a plain `su` leaves them out.
pub(crate) fn search_path() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    path.push(":/usr/sbin:/sbin");
    path
}

/// Makes a command independent of the terminal: a session of its own and an empty signal mask.
pub fn detach_from_terminal(command: &mut Command) {
    // SAFETY: setsid, sigemptyset and sigprocmask are async-signal-safe, and `mask` is initialised
    // by sigemptyset before it is used.
    unsafe {
        command.pre_exec(|| {
            // It fails only for a process group leader, which a fresh child is not.
            cvt(libc::setsid())?;
            let mut mask = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
            cvt(libc::sigemptyset(mask.as_mut_ptr()))?;
            cvt(libc::sigprocmask(
                libc::SIG_SETMASK,
                mask.as_ptr(),
                std::ptr::null_mut(),
            ))
            .map(drop)
        });
    }
}

/// Path of the namespace called `name`.
#[must_use]
pub fn path_of(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Runs `work` on a thread of its own (a namespace change ends with the thread) and passes panics on.
fn in_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Makes [`DIRECTORY`] a shared mount, as iproute2 does: a removal must reach the mount namespaces of
/// processes that `ip netns exec` started.
fn prepare_directory() -> Result<()> {
    fs::create_dir_all(DIRECTORY).with_context(|| format!("make {DIRECTORY} (needs root)"))?;
    let directory = Path::new(DIRECTORY);
    let shared = libc::MS_SHARED | libc::MS_REC;
    if mount(None, directory, shared).is_err() {
        bind_mount(directory, directory).with_context(|| format!("bind-mount {DIRECTORY}"))?;
        mount(None, directory, shared).with_context(|| format!("share the mount {DIRECTORY}"))?;
    }
    Ok(())
}

fn bind_mount(source: &Path, target: &Path) -> io::Result<()> {
    mount(Some(source), target, libc::MS_BIND)
}

fn mount(source: Option<&Path>, target: &Path, flags: libc::c_ulong) -> io::Result<()> {
    let source = c_string(source.unwrap_or_else(|| Path::new("none")))?;
    let target = c_string(target)?;
    // SAFETY: both strings are NUL-terminated and outlive the call; type and data may be null for
    // bind mounts and changes of propagation.
    cvt(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            std::ptr::null(),
            flags,
            std::ptr::null(),
        )
    })
    .map(drop)
}

/// Takes the name away; a name that is not mounted or not there is fine, it is what we want.
pub(crate) fn detach(name: &str) {
    let path = path_of(name);
    if let Ok(target) = c_string(&path) {
        // SAFETY: `target` is NUL-terminated and outlives the call.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
    if let Err(error) = fs::remove_file(&path)
        && error.kind() != io::ErrorKind::NotFound
    {
        eprintln!("lab: cannot remove {}: {error}", path.display());
    }
}

fn c_string(path: &Path) -> io::Result<std::ffi::CString> {
    std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}
