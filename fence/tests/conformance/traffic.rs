//! What goes through an open gate, and what does not through a shut one.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use buoy_core::Mono;
use buoy_fence::gate::{Gate, Sentry, SlotId};

use crate::common::{NetNs, wait_until};
use crate::contender::{Contender, LONG, renew};
use crate::frames::{self, ip, v4, v6};
use crate::raw;
use crate::wire::{Asker, Echo, VIP4, VIP6, Wire};

pub const BOTH: [&str; 2] = [VIP4, VIP6];
const SLOT: SlotId = 1;

/// A gate on the owner's device, both VIPs shut.
pub fn shut_gate(contender: Contender, wire: &Wire) -> Box<dyn Gate> {
    let mut gate = contender.make(&wire.owner);
    BOTH.iter()
        .for_each(|vip| gate.manage(ip(vip)).expect("manage"));
    let own = wire.owner.ifindex("own");
    gate.attach(own).expect("attach");
    assert!(gate.verify(own).expect("verify"));
    gate
}

/// What watches the gate beside its owner.
pub fn sentry(gate: &mut Box<dyn Gate>, wire: &Wire) -> Box<dyn Sentry> {
    wire.owner.run(move || gate.sentry().expect("a sentry"))
}

/// Both VIPs under a long lease.
pub fn open(gate: &mut dyn Gate) {
    renew(gate, SLOT, LONG);
    BOTH.iter()
        .for_each(|vip| gate.open(ip(vip), SLOT).expect("open"));
}

fn dropped(gate: &dyn Gate) -> u64 {
    gate.dropped().expect("drops").total()
}

/// Asks until the gate has counted one more drop: the question arrived and was dropped.
pub fn ask_until_dropped(gate: &dyn Gate, asker: &Asker) {
    let before = dropped(gate);
    wait_until("the gate drops the question", || {
        asker.send(0);
        dropped(gate) > before
    });
    let answer = asker.answer(Duration::from_millis(10));
    assert_eq!(answer, None, "answered although dropped");
}

pub fn a_managed_address_is_silent_until_it_is_open(contender: Contender) {
    let wire = Wire::new("open");
    let mut gate = shut_gate(contender, &wire);
    for vip in BOTH {
        let (_echo, asker) = (Echo::start(&wire.owner, vip), Asker::new(&wire.client, vip));
        // Nobody has its MAC address yet: ARP or ND is dropped.
        ask_until_dropped(gate.as_ref(), &asker);
        open(gate.as_mut());
        wire.forget_neighbours();
        assert!(asker.answered(1), "{vip}: open");
        // Its MAC address is known: IP is dropped.
        wire.pin_neighbours();
        gate.shut(ip(vip)).expect("shut");
        ask_until_dropped(gate.as_ref(), &asker);
        open(gate.as_mut());
        assert!(asker.answered(2), "{vip}: open again");
        // A lease that is over is as shut.
        gate.advance(&[(SLOT, Mono::ZERO)]).expect("advance");
        ask_until_dropped(gate.as_ref(), &asker);
        wire.unpin_neighbours();
        ask_until_dropped(gate.as_ref(), &asker);
        gate.shut_all().expect("shut");
    }
    let rows = gate.list().expect("list");
    let both = |row: &buoy_fence::gate::Fenced| row.drops.lease_over > 0 && row.drops.not_ours > 0;
    assert!(rows.iter().all(both), "{rows:?}");
}

pub fn nothing_leaves_from_an_address_that_is_shut(contender: Contender) {
    let wire = Wire::new("out");
    let mut gate = shut_gate(contender, &wire);
    for (vip, client) in [(VIP4, "10.77.0.2"), (VIP6, "fd77::2")] {
        let client: IpAddr = ip(client);
        let ear = wire
            .client
            .run(|| std::net::UdpSocket::bind((client, 9)).expect("an ear"));
        ear.set_read_timeout(Some(Duration::from_millis(10)))
            .expect("timeout");
        let mouth = wire
            .owner
            .run(|| std::net::UdpSocket::bind((ip(vip), 0)).expect("a mouth"));
        let heard = || {
            // The kernel says a drop on the way out as a refusal.
            let _ = mouth.send_to(b"x", (client, 9));
            ear.recv(&mut [0; 8]).is_ok()
        };
        open(gate.as_mut());
        wait_until("the client hears the VIP", heard);
        gate.shut(ip(vip)).expect("shut");
        let before = dropped(gate.as_ref());
        assert!((0..20).all(|_| !heard()), "{vip} was heard while shut");
        assert!(dropped(gate.as_ref()) > before);
    }
}

pub fn connections_end_with_the_lease(contender: Contender) {
    let wire = Wire::new("tcp");
    let mut gate = shut_gate(contender, &wire);
    open(gate.as_mut());
    for vip in BOTH {
        let at = SocketAddr::new(ip(vip), 80);
        let door = wire
            .owner
            .run(|| TcpListener::bind(at).expect("a listener"));
        let mut client = wire
            .client
            .run(|| TcpStream::connect_timeout(&at, Duration::from_secs(5)).expect("connect"));
        let (mut server, _) = door.accept().expect("accept");
        client.write_all(b"a").expect("write");
        server.read_exact(&mut [0]).expect("read");
        gate.shut(ip(vip)).expect("shut");
        let before = dropped(gate.as_ref());
        server.write_all(b"b").expect("into the buffer");
        client.write_all(b"c").expect("into the buffer");
        wait_until("both segments are dropped", || {
            dropped(gate.as_ref()) >= before + 2
        });
        let quiet = |mut stream: &TcpStream| {
            stream
                .set_read_timeout(Some(Duration::from_millis(20)))
                .expect("timeout");
            stream.read(&mut [0]).is_err()
        };
        assert!(quiet(&client) && quiet(&server), "{vip}: heard while shut");
        // TCP repeats what was lost.
        gate.open(ip(vip), SLOT).expect("open");
        for stream in [&mut client, &mut server] {
            let within = Some(Duration::from_secs(10));
            stream.set_read_timeout(within).expect("timeout");
            stream.read_exact(&mut [0]).expect("after it was opened");
        }
    }
}

pub fn others_and_forgotten_addresses_pass(contender: Contender) {
    let wire = Wire::new("other");
    let mut gate = shut_gate(contender, &wire);
    for (own, vip) in [("10.77.0.1", VIP4), ("fd77::1", VIP6)] {
        let _echo = Echo::start(&wire.owner, own);
        assert!(Asker::new(&wire.client, own).answered(1), "{own}");
        let (_echo, asker) = (Echo::start(&wire.owner, vip), Asker::new(&wire.client, vip));
        ask_until_dropped(gate.as_ref(), &asker);
        let before = dropped(gate.as_ref());
        gate.forget(ip(vip)).expect("forget");
        gate.forget(ip(vip)).expect("again");
        assert!(asker.answered(1), "{vip}: forgotten");
        assert!(dropped(gate.as_ref()) >= before, "its drops count on");
        assert!(gate.open(ip(vip), SLOT).is_err());
    }
    assert!(gate.list().expect("list").is_empty());
    assert!(gate.verify(wire.owner.ifindex("own")).expect("verify"));
}

pub fn everything_shuts_at_once(contender: Contender) {
    let wire = Wire::new("all");
    let mut gate = shut_gate(contender, &wire);
    for vip in BOTH {
        let (_echo, asker) = (Echo::start(&wire.owner, vip), Asker::new(&wire.client, vip));
        open(gate.as_mut());
        assert!(asker.answered(1), "{vip}");
        gate.shut_all().expect("shut");
        ask_until_dropped(gate.as_ref(), &asker);
        // Not even by the slot's next renewal.
        renew(gate.as_mut(), SLOT, LONG);
        ask_until_dropped(gate.as_ref(), &asker);
    }
    assert!(gate.verify(wire.owner.ifindex("own")).expect("verify"));
    gate.clear_all().expect("clear");
    for vip in BOTH {
        let (_echo, asker) = (Echo::start(&wire.owner, vip), Asker::new(&wire.client, vip));
        assert!(asker.answered(2), "{vip}: fenced no more");
    }
}

pub fn slots_are_kept_apart(contender: Contender) {
    let wire = Wire::new("slots");
    let mut gate = shut_gate(contender, &wire);
    let echoes = BOTH.map(|vip| Echo::start(&wire.owner, vip));
    let askers = BOTH.map(|vip| Asker::new(&wire.client, vip));
    gate.open(ip(VIP4), 1).expect("open");
    gate.open(ip(VIP6), 63).expect("open");
    renew(gate.as_mut(), 63, LONG);
    assert!(askers[1].answered(1));
    ask_until_dropped(gate.as_ref(), &askers[0]);
    // From one slot to another.
    gate.open(ip(VIP4), 63).expect("open");
    assert!(askers[0].answered(1));
    gate.open(ip(VIP6), 1).expect("open");
    ask_until_dropped(gate.as_ref(), &askers[1]);
    drop(echoes);
}

pub fn local_clients_are_fenced_on_lo(contender: Contender) {
    let wire = Wire::new("lo");
    let mut gate = shut_gate(contender, &wire);
    gate.attach(wire.owner.ifindex("lo")).expect("attach");
    for vip in BOTH {
        let (_echo, asker) = (Echo::start(&wire.owner, vip), Asker::new(&wire.owner, vip));
        ask_until_dropped(gate.as_ref(), &asker);
        open(gate.as_mut());
        assert!(asker.answered(1), "{vip}: open");
        gate.shut_all().expect("shut");
        ask_until_dropped(gate.as_ref(), &asker);
    }
}

/// A node that does not own the VIP is a client like any other, with its own gate shut.
pub fn a_fenced_node_is_a_client_of_another(contender: Contender) {
    let wire = Wire::new("peer");
    let mut theirs = contender.make(&wire.client);
    BOTH.iter()
        .for_each(|vip| theirs.manage(ip(vip)).expect("manage"));
    theirs.attach(wire.client.ifindex("cli")).expect("attach");
    theirs.attach(wire.client.ifindex("lo")).expect("attach");
    for vip in BOTH {
        let (_echo, asker) = (Echo::start(&wire.owner, vip), Asker::new(&wire.client, vip));
        wire.forget_neighbours();
        assert!(asker.answered(1), "{vip}");
    }
    assert_eq!(dropped(theirs.as_ref()), 0);
}

/// Neighbour tables follow a VIP's move; a raw socket cannot announce one that is shut.
pub fn announcements_come_in_and_do_not_go_out(contender: Contender) {
    let wire = Wire::new("garp");
    let mut theirs = contender.make(&wire.client);
    BOTH.iter()
        .for_each(|vip| theirs.manage(ip(vip)).expect("manage"));
    theirs.attach(wire.client.ifindex("cli")).expect("attach");
    let announcements = [
        (
            VIP4,
            frames::ETH_ARP,
            raw::broadcast(&frames::arp(1, v4(VIP4), v4(VIP4))),
        ),
        (
            VIP4,
            frames::ETH_ARP,
            raw::broadcast(&frames::arp(2, v4(VIP4), v4(VIP4))),
        ),
        (VIP6, frames::ETH_IPV6, frames::announcement(v6(VIP6))),
    ];
    let say = |(_, protocol, frame): &(&str, u16, Vec<u8>)| {
        raw::send(&wire.owner, "own", *protocol, frame)
    };
    for announcement in &announcements {
        let vip = announcement.0;
        wire.client.ip(&format!(
            "neigh replace {vip} lladdr 02:00:00:00:00:99 dev cli nud stale"
        ));
        wait_until("the neighbour table follows", || {
            say(announcement).expect("send");
            let shown = wire.client.ip(&format!("neigh show {vip}"));
            shown.contains("02:00:00:00:00:02")
        });
    }
    assert_eq!(dropped(theirs.as_ref()), 0);

    let mut gate = shut_gate(contender, &wire);
    if !contender.fences_raw_sockets() {
        return;
    }
    for announcement in &announcements {
        let before = dropped(gate.as_ref());
        let sent = say(announcement);
        let errno = sent.as_ref().err().and_then(std::io::Error::raw_os_error);
        assert_eq!(errno, Some(libc::ENOBUFS), "{sent:?}");
        assert_eq!(dropped(gate.as_ref()), before + 1);
    }
    open(gate.as_mut());
    for announcement in &announcements {
        say(announcement).expect("open");
    }
}

pub fn interfaces_come_and_go(contender: Contender) {
    let wire = Wire::new("link");
    let mut gate = shut_gate(contender, &wire);
    let own = wire.owner.ifindex("own");
    let mut sentry = sentry(&mut gate, &wire);
    let other = NetNs::new("link-more");
    wire.owner.veth("more", &other, "eth0");
    let more = wire.owner.ifindex("more");
    assert!(!gate.verify(more).expect("verify"), "not attached there");
    assert!(sentry.repair(more).is_err(), "not the sentry's to attach");
    gate.attach(more).expect("attach");
    for ifindex in [own, more] {
        assert!(gate.verify(ifindex).expect("verify"));
        assert!(sentry.verify(ifindex).expect("verify"));
    }
    wire.owner.ip("link del more");
    assert!(!sentry.verify(more).expect("verify") || contender == Contender::Nft);
    assert!(
        sentry.verify(own).expect("verify"),
        "the other is untouched"
    );
    assert!(gate.attach(more).is_err(), "it is gone");
    gate.detach(more).expect("detach");

    let (_echo, asker) = (
        Echo::start(&wire.owner, VIP4),
        Asker::new(&wire.client, VIP4),
    );
    ask_until_dropped(gate.as_ref(), &asker);
    gate.detach(own).expect("detach");
    assert!(asker.answered(1), "no gate, no fence");
    assert!(!gate.verify(own).expect("verify"));
    gate.attach(own).expect("attach");
    ask_until_dropped(gate.as_ref(), &asker);
    assert!(gate.verify(own).expect("verify"));
}
