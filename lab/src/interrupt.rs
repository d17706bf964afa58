//! Ctrl-C and SIGTERM while a lab is being made or shown: everything is taken down before the process ends.

use std::sync::Mutex;

use anyhow::{Context, Result};

use crate::cluster::{NoSuchLab, teardown};
use crate::sys::cvt;

/// Exit code after an interruption, as a shell reports SIGINT.
const INTERRUPTED: i32 = 130;

/// The lab to take down on an interruption.
static LAB: Mutex<Option<String>> = Mutex::new(None);

/// While this is alive, an interruption takes the lab down and ends the process.
pub struct Guard(());

/// Arranges that SIGINT, SIGTERM and SIGHUP take the lab called `name` down. To be called before the
/// process starts threads, for they inherit the blocked signals, and once in a process.
///
/// # Errors
/// The signals cannot be blocked.
pub fn take_down_on_interrupt(name: &str) -> Result<Guard> {
    let mut signals = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set, the others take an initialised set; all pointers are
    // valid for the calls.
    let signals = unsafe {
        cvt(libc::sigemptyset(signals.as_mut_ptr()))?;
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            cvt(libc::sigaddset(signals.as_mut_ptr(), signal))?;
        }
        let signals = signals.assume_init();
        let blocked = libc::pthread_sigmask(libc::SIG_BLOCK, &signals, std::ptr::null_mut());
        if blocked != 0 {
            return Err(std::io::Error::from_raw_os_error(blocked)).context("block signals");
        }
        signals
    };
    set(Some(name.to_owned()));
    std::thread::Builder::new()
        .name("interrupt".into())
        .spawn(move || wait(&signals))
        .context("start a thread for signals")?;
    Ok(Guard(()))
}

fn set(name: Option<String>) {
    // A poisoned lock holds a name as good as any.
    *LAB.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner) = name;
}

fn wait(signals: &libc::sigset_t) {
    let mut signal = 0;
    // SAFETY: the set is initialised and `signal` is valid for the call.
    unsafe { libc::sigwait(signals, &mut signal) };
    // Held until the end of the process: the main thread must not leave while the lab is taken down.
    let lab = LAB
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(name) = lab.as_deref() {
        eprintln!("\nbuoy lab: interrupted; taking lab '{name}' down");
        match teardown(name) {
            Err(error) if !error.is::<NoSuchLab>() => eprintln!("buoy lab: {error:#}"),
            _ => {}
        }
    }
    std::process::exit(INTERRUPTED);
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Waits here for ever if an interruption is being handled.
        set(None);
    }
}
