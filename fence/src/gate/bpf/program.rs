//! Programs in the kernel: loading with the verifier's reasons, reading back, trial runs.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::{
    ById, NAME_LEN, PROG_GET_FD_BY_ID, PROG_LOAD, PROG_TEST_RUN, address_of, bpf, bpf_fd,
    kernel_name, object_info, raise_memlock,
};
use crate::gate::GateError;
use crate::gate::asm::Insn;
use crate::gate::missing::{explain, no_boot_clock};

const PROG_TYPE_SCHED_CLS: u32 = 3;
/// The helpers that the gate needs are for programs compatible with the GPL.
const LICENCE: &[u8] = b"Dual MIT/GPL\0";
/// Verifier log that is asked for, and how many of its last lines an error shows.
const LOG_BYTES: usize = 1 << 20;
const LOG_LINES: usize = 20;

/// How often a call is made that a signal broke off each time.
const ATTEMPTS: usize = 32;

/// A loaded program of type SCHED_CLS.
#[derive(Debug)]
pub(in crate::gate) struct Program {
    fd: OwnedFd,
    id: u32,
}

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    kind: u32,
    insn_count: u32,
    insns: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; NAME_LEN],
    ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    verdict: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
}

#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_len: u32,
    translated_len: u32,
    jited: u64,
    translated: u64,
    load_time: u64,
    created_by_uid: u32,
    map_count: u32,
    map_ids: u64,
    name: [u8; NAME_LEN],
    ifindex: u32,
    gpl_compatible: u32,
}

impl Program {
    /// Loads a program; the verifier's reasons are in the error.
    pub(in crate::gate) fn load(name: &str, insns: &[Insn]) -> Result<Program, GateError> {
        let action = || format!("load its program {name}");
        let insn_count = u32::try_from(insns.len())
            .map_err(|e| GateError::kernel(action(), io::Error::other(e)))?;
        let mut attr = ProgLoad {
            kind: PROG_TYPE_SCHED_CLS,
            insn_count,
            insns: address_of(insns),
            licence: address_of(LICENCE),
            name: kernel_name(name),
            ..Default::default()
        };
        // SAFETY: instructions and licence are valid for reading; no log is asked for.
        let mut load = || undisturbed(|| unsafe { bpf_fd(PROG_LOAD, &mut attr) });
        let loaded = match load() {
            Err(e) if e.raw_os_error() == Some(libc::EPERM) && raise_memlock() => load(),
            other => other,
        };
        let fd = loaded.map_err(|e| Program::refusal(name, attr, e))?;
        let (info, _) = program_info(fd.as_fd()).map_err(|e| explain(action(), e))?;
        Ok(Program { fd, id: info.id })
    }

    /// Loads once more with a log, to say why the kernel refused.
    fn refusal(name: &str, mut attr: ProgLoad, first: io::Error) -> GateError {
        if !matches!(first.raw_os_error(), Some(libc::EINVAL | libc::EACCES)) {
            return explain(format!("load its program {name}"), first);
        }
        let mut log = vec![0u8; LOG_BYTES];
        attr.log_level = 1;
        attr.log_size = LOG_BYTES as u32;
        attr.log = log.as_mut_ptr() as u64;
        // SAFETY: as in `load`, and the log is valid for writing `log_size` bytes.
        let source = match undisturbed(|| unsafe { bpf_fd(PROG_LOAD, &mut attr) }) {
            Ok(_) => first,
            Err(e) => e,
        };
        let end = log.iter().position(|&b| b == 0).unwrap_or(log.len());
        let log = last_lines(&String::from_utf8_lossy(&log[..end]), LOG_LINES);
        if log.contains("unknown func") || log.contains("invalid func") {
            return no_boot_clock(&log);
        }
        GateError::Rejected {
            program: name.to_string(),
            source,
            log,
        }
    }

    /// The program with this id, of whatever process. Needs CAP_SYS_ADMIN.
    pub(in crate::gate) fn by_id(id: u32) -> io::Result<Program> {
        // SAFETY: the command follows no pointer.
        let fd = unsafe {
            bpf_fd(
                PROG_GET_FD_BY_ID,
                &mut ById {
                    id,
                    ..Default::default()
                },
            )
        }?;
        Ok(Program { fd, id })
    }

    pub(in crate::gate) fn id(&self) -> u32 {
        self.id
    }

    /// Ids of the maps that the program uses.
    pub(in crate::gate) fn map_ids(&self) -> io::Result<Vec<u32>> {
        program_info(self.fd.as_fd()).map(|(_, maps)| maps)
    }

    /// Runs the program on a frame `repeat` times (at least once): what it returned, and nanoseconds a run.
    pub(in crate::gate) fn test_run(&self, frame: &[u8], repeat: u32) -> io::Result<(u32, u32)> {
        let mut attr = TestRun {
            prog_fd: self.fd.as_raw_fd().cast_unsigned(),
            data_size_in: u32::try_from(frame.len()).map_err(io::Error::other)?,
            data_in: address_of(frame),
            repeat: repeat.max(1),
            ..Default::default()
        };
        // SAFETY: the frame is valid for reading; no output is asked for.
        undisturbed(|| unsafe { bpf(PROG_TEST_RUN, &mut attr) })?;
        Ok((attr.verdict, attr.duration))
    }
}

/// Makes the call anew while the kernel breaks it off because a signal waits for this thread: the verifier
/// does so with EAGAIN, a trial run with EINTR (`bpf_check`, `bpf_test_run` in the kernel). The signal is
/// taken between two calls, also one that nobody sent, such as a freezer's.
fn undisturbed<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..ATTEMPTS {
        match call() {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {}
            done => return done,
        }
    }
    call()
}

impl AsRawFd for Program {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

fn program_info(fd: BorrowedFd<'_>) -> io::Result<(ProgInfo, Vec<u32>)> {
    /// More than any program of ours uses.
    const MAPS: usize = 16;
    let mut ids = [0u32; MAPS];
    let mut info = ProgInfo {
        map_count: MAPS as u32,
        map_ids: ids.as_mut_ptr() as u64,
        ..Default::default()
    };
    object_info(fd, &mut info)?;
    let ids = ids.into_iter().take(info.map_count as usize).collect();
    Ok((info, ids))
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::gate::asm::{Alu, Asm, Reg};

    /// Loads take this long each, at least, so that a signal can fall into one.
    const INSNS: usize = 200_000;

    fn long_program() -> Vec<Insn> {
        let mut asm = Asm::default();
        for _ in 0..INSNS {
            asm.alu_imm(Alu::Mov, Reg::R0, 0);
        }
        asm.exit();
        asm.finish().expect("no jumps")
    }

    static TAKEN: AtomicUsize = AtomicUsize::new(0);

    extern "C" fn take(_: libc::c_int) {
        TAKEN.fetch_add(1, Ordering::Relaxed);
    }

    #[test]
    fn a_load_survives_signals() {
        let insns = long_program();
        let began = Instant::now();
        match Program::load("buoy_test", &insns) {
            Err(e @ GateError::Unavailable { .. }) => return println!("SKIP: {e}"),
            first => drop(first.expect("a load that nobody disturbs")),
        }
        let period = began.elapsed() * 3;
        let signal = libc::SIGRTMIN() + 7;
        // SAFETY: the handler adds to an atomic, which a signal handler may.
        unsafe { libc::signal(signal, take as extern "C" fn(libc::c_int) as usize) };
        // SAFETY: plain calls.
        let (process, thread) = unsafe { (libc::getpid(), libc::gettid()) };
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // SAFETY: plain call; the thread lives until `done`.
                    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
                    std::thread::sleep(period);
                }
            });
            let loads = || {
                let until = Instant::now() + Duration::from_secs(20);
                // With every load a third of a period long, one in three is hit.
                while TAKEN.load(Ordering::Relaxed) < 12 && Instant::now() < until {
                    Program::load("buoy_test", &insns)?;
                }
                Ok::<_, GateError>(())
            };
            let loaded = loads();
            done.store(true, Ordering::Relaxed);
            loaded.expect("a load beside signals");
        });
        assert!(TAKEN.load(Ordering::Relaxed) > 0, "no signal came");
    }
}
