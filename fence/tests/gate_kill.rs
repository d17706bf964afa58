//! The gate outlives its process: killed or stopped, the kernel goes on as the last deadline says.
//!
//! A harness of its own, because the program is also the process that is killed (`gate_kill hold KIND`).

mod common;
#[path = "conformance/contender.rs"]
mod contender;
#[path = "common/frames.rs"]
mod frames;
#[path = "common/wire.rs"]
mod wire;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use buoy_core::Mono;
use buoy_fence::clock::boottime;
use buoy_fence::gate::{Fenced, GateError, leftovers, nft_leftover};
use common::{NetNs, wait_until};
use contender::{Contender, renew};
use frames::ip;
use wire::{Asker, Echo, VIP4, VIP6, Wire};

/// How often the process under test moves its deadline, and how far ahead.
const RENEW: Duration = Duration::from_millis(20);
const LEASE: Duration = Duration::from_secs(1);

fn main() {
    if std::env::args().nth(1).as_deref() == Some("hold") {
        let kind = std::env::args().nth(2);
        let named = |c: &&Contender| Some(format!("{c:?}")) == kind;
        hold(*Contender::ALL.iter().find(named).expect("a kind of gate"));
    }
    for contender in Contender::ALL {
        if contender.is_missing() {
            continue;
        }
        for (name, signal) in [("SIGKILL", libc::SIGKILL), ("SIGSTOP", libc::SIGSTOP)] {
            falls_silent_at_the_deadline(contender, name, signal);
            println!("test {contender:?}: {name} leaves the gate in force ... ok");
        }
    }
}

/// Holds both VIPs open on `own` and renews until it is killed.
fn hold(contender: Contender) -> ! {
    let mut gate = contender.try_make().expect("a gate");
    for vip in [VIP4, VIP6] {
        gate.manage(ip(vip)).expect("manage");
        gate.open(ip(vip), 1).expect("open");
    }
    let device = std::ffi::CString::new("own").expect("a name");
    // SAFETY: a valid C string.
    gate.attach(unsafe { libc::if_nametoindex(device.as_ptr()) })
        .expect("attach");
    println!("ready");
    loop {
        renew(gate.as_mut(), 1, LEASE);
        std::thread::sleep(RENEW);
    }
}

/// Ended by its own id, whatever happens to the test.
struct Holder(Child);

impl Holder {
    fn start(ns: &NetNs, contender: Contender) -> Holder {
        let this = std::env::current_exe().expect("this program");
        let child = ns.run(|| {
            Command::new(this)
                .args(["hold", &format!("{contender:?}")])
                .stdout(Stdio::piped())
                .spawn()
                .expect("the holder")
        });
        let mut holder = Holder(child);
        let mut line = String::new();
        let output = holder.0.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("a line");
        assert_eq!(line.trim(), "ready");
        holder
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: plain call, on our own child that was not waited for.
        let rc = unsafe { libc::kill(self.0.id().cast_signed(), signal) };
        assert_eq!(rc, 0, "kill: {}", std::io::Error::last_os_error());
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn falls_silent_at_the_deadline(contender: Contender, name: &str, signal: libc::c_int) {
    let wire = Wire::new("kill");
    let own = wire.owner.ifindex("own");
    let (_echo, asker) = (
        Echo::start(&wire.owner, VIP4),
        Asker::new(&wire.client, VIP4),
    );
    let mut holder = Holder::start(&wire.owner, contender);
    assert!(asker.answered(1), "open while the holder renews");
    let renewed_once = boottime() + LEASE;
    wait_until("the lease was renewed beyond its first length", || {
        boottime() > renewed_once
    });
    holder.signal(signal);
    if signal == libc::SIGKILL {
        holder.0.wait().expect("its end");
    } else {
        wait_until("the holder stands still", || is_stopped(holder.0.id()));
    }

    // The last deadline, as the kernel holds it without the process.
    let left = || wire.owner.run(|| left_behind(contender, own));
    let end = left()[0].deadline.expect("open");
    assert!(boottime() < end, "the machine is too slow for this test");
    assert!(asker.answered(2), "still open for the rest of the lease");
    let last = asker.last_answered(end + contender.tolerance());
    let last = last.expect("nothing was answered before the deadline");
    println!(
        "{contender:?}: last answered question minus deadline, after {name}: {:.2} ms",
        (last.0 as f64 - end.0 as f64) / 1e6
    );
    let late = last.since(end);
    assert!(
        late <= contender.tolerance(),
        "answered what was asked {late:?} late"
    );
    // ARP as well, once the neighbour is forgotten.
    wire.forget_neighbours();
    let dropped = || left().iter().map(|row| row.drops.total()).sum::<u64>();
    let before = dropped();
    wait_until("the question is dropped", || {
        asker.send(0);
        dropped() > before
    });
    let now = left()[0].deadline.expect("open");
    assert!(
        now == end || now == Mono::ZERO,
        "somebody moved the deadline"
    );

    // A new process takes over: what was fenced stays fenced, and nothing opens.
    let mut next = contender.make(&wire.owner);
    match next.attach(own) {
        Ok(()) => {}
        // The old one is alive, and the kernel keeps others from what it owns.
        Err(GateError::Unavailable { problem, .. })
            if contender == Contender::Nft && signal == libc::SIGSTOP =>
        {
            assert!(problem.contains("a live process owns"), "{problem}");
            return;
        }
        Err(e) => panic!("attach: {e}"),
    }
    assert_eq!(next.list().expect("list").len(), 2);
    if signal == libc::SIGSTOP {
        // The old one wakes up and writes into tables that nobody reads any more.
        holder.signal(libc::SIGCONT);
        let woken = next.dropped().expect("drops").total();
        wait_until(
            "questions are dropped for long enough that it has renewed",
            || {
                asker.send(0);
                boottime() > end + LEASE * 3 && next.dropped().expect("drops").total() > woken + 1
            },
        );
        assert_eq!(
            asker.answer(Duration::from_millis(5)),
            None,
            "answered after the takeover"
        );
        assert!(next.verify(own).expect("verify"));
    }
}

fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("its state");
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| rest.trim_start().starts_with('T'))
}

/// The VIPs as the kernel holds them without the process; there are two.
fn left_behind(contender: Contender, ifindex: u32) -> Vec<Fenced> {
    let rows = match contender {
        Contender::Ebpf => {
            let mut left = leftovers(ifindex).expect("leftovers");
            left.swap_remove(0).fenced.expect("readable")
        }
        Contender::Nft => nft_leftover().expect("leftovers").expect("a gate").fenced,
    };
    assert_eq!(rows.len(), 2);
    rows
}
