//! The gate outlives its process: killed or stopped, the kernel goes on as the last deadline says.
//!
//! A harness of its own, because the program is also the process that is killed (`gate_kill hold MS`).

mod common;
#[path = "common/frames.rs"]
mod frames;
#[path = "common/wire.rs"]
mod wire;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use buoy_core::Mono;
use buoy_fence::clock::boottime;
use buoy_fence::gate::{EbpfGate, EbpfOptions, Gate, leftovers};
use common::{NetNs, skip_without_gate, wait_until};
use frames::ip;
use wire::{Asker, Echo, VIP4, VIP6, Wire};

/// How often the process under test moves its deadline, and how far ahead.
const RENEW: Duration = Duration::from_millis(20);
const LEASE: Duration = Duration::from_millis(400);

fn main() {
    if std::env::args().nth(1).as_deref() == Some("hold") {
        hold();
    }
    if skip_without_gate() {
        return;
    }
    for (name, signal) in [("SIGKILL", libc::SIGKILL), ("SIGSTOP", libc::SIGSTOP)] {
        falls_silent_at_the_deadline(signal);
        println!("test {name} leaves the gate in force ... ok");
    }
}

/// Holds both VIPs open on `own` and renews until it is killed.
fn hold() -> ! {
    let mut gate = EbpfGate::new(EbpfOptions::default()).expect("a gate");
    let deadlines = gate.deadlines();
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
        deadlines.store(1, boottime() + LEASE).expect("store");
        std::thread::sleep(RENEW);
    }
}

/// Ended by its own id, whatever happens to the test.
struct Holder(Child);

impl Holder {
    fn start(ns: &NetNs) -> Holder {
        let this = std::env::current_exe().expect("this program");
        let child = ns.run(|| {
            Command::new(this)
                .arg("hold")
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

fn falls_silent_at_the_deadline(signal: libc::c_int) {
    let wire = Wire::new("kill");
    let own = wire.owner.ifindex("own");
    let (_echo, asker) = (
        Echo::start(&wire.owner, VIP4),
        Asker::new(&wire.client, VIP4),
    );
    let mut holder = Holder::start(&wire.owner);
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
    let end = deadline(&wire, own);
    assert!(boottime() < end, "the machine is too slow for this test");
    assert!(asker.answered(2), "still open for the rest of the lease");
    let (mut number, mut late) = (2, 0);
    while late < 50 {
        number += 1;
        let sent = boottime();
        asker.send(number);
        // The longest that an answer takes here, by far.
        let answered = asker.answer(Duration::from_millis(5)) == Some(number);
        assert!(
            !answered || sent < end,
            "answered what was asked {:?} late",
            sent.since(end)
        );
        late += u32::from(sent >= end);
    }
    // ARP as well, once the neighbour is forgotten.
    wire.forget_neighbours();
    let dropped = || wire.owner.run(|| drops(own));
    let before = dropped();
    wait_until("the question is dropped", || {
        asker.send(0);
        dropped() > before
    });
    assert_eq!(deadline(&wire, own), end, "somebody moved the deadline");

    // A new process takes over: what was fenced stays fenced, and nothing opens.
    let mut next = wire.gate();
    next.attach(own).expect("attach");
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

fn deadline(wire: &Wire, ifindex: u32) -> Mono {
    let left = wire.owner.run(|| leftovers(ifindex).expect("leftovers"));
    let rows = left[0].fenced.as_ref().expect("readable");
    rows[0].deadline.expect("open")
}

fn drops(ifindex: u32) -> u64 {
    let left = leftovers(ifindex).expect("leftovers");
    left[0]
        .fenced
        .as_ref()
        .expect("readable")
        .iter()
        .map(|row| row.drops.total())
        .sum()
}
