//! keepalived and FRR next to each other on the lab's switch, and tshark, which must be able to find fault.

mod common;

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use buoy_lab::backend::BackendSpec;
use buoy_lab::cluster::{Lab, Record};
use buoy_lab::legacy::capture::Pcap;
use buoy_lab::legacy::frr::VRRPD;
use buoy_lab::legacy::keepalived::{Auth, Options, Unicast};
use buoy_lab::legacy::tshark::{Advertisement, Packet, dissect};
use buoy_lab::legacy::{Capture, Frr, Host, Instance, Keepalived, State, States};
use buoy_lab::ns::Netns;
use buoy_lab::sys::clock::{duration_ns, now_ns};
use buoy_lab::topology::Topology;
use common::{Net, eventually, possible_with, program, v4};

/// A limit on hanging, not on speed.
const LIMIT: Duration = Duration::from_secs(20);
/// How late a busy machine may be.
const SLACK: Duration = Duration::from_millis(500);
const VRID: u8 = 51;
const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 0, 200));

fn host(net: &Net, at: usize) -> Host {
    let place = net.path(&format!("h{at}"));
    std::fs::create_dir_all(&place).unwrap();
    // FRR's own user must get there.
    let open = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(net.directory.path(), open).unwrap();
    Host::new(Netns::open(net.hosts[at].name()).unwrap(), "eth0", &place)
}

/// Ten times as fast as version 2 can be.
fn fast(priority: u8, addresses: &[(IpAddr, u8)]) -> Instance {
    Instance {
        interval: Duration::from_millis(100),
        ..Instance::new(VRID, priority, addresses)
    }
}

fn v6_addresses() -> [(IpAddr, u8); 2] {
    ["fe80::51", "fd00:9::200"].map(|text| (text.parse().unwrap(), 64))
}

fn sound(packets: &[Packet]) {
    let wrong: Vec<_> = packets
        .iter()
        .filter(|it| !it.warnings.is_empty())
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The advertisements of a virtual router among the packets.
fn advertisements(packets: &[Packet]) -> Vec<(&Packet, Advertisement)> {
    let all = packets.iter().filter_map(|it| Some((it, it.vrrp?)));
    all.filter(|(_, vrrp)| vrrp.vrid == VRID).collect()
}

#[test]
fn the_better_keepalived_is_master_and_the_other_follows_in_its_skew_time() {
    if !possible_with(&["keepalived", "tshark"]) {
        return;
    }
    let net = Net::new(2);
    let (first, second) = (host(&net, 0), host(&net, 1));
    let capture = second.capture("lan.pcap").unwrap();
    let better = Keepalived::start(&first, &fast(150, &[(VIP, 24)]).into()).unwrap();
    let worse = fast(100, &[(VIP, 24)]);
    let skew = worse.skew();
    let worse = Keepalived::start(&second, &worse.into()).unwrap();
    better.wait_state(State::Master, LIMIT).unwrap();
    worse.wait_state(State::Backup, LIMIT).unwrap();
    eventually("the first host alone has the address", || {
        first.has_address(VIP).unwrap() && !second.has_address(VIP).unwrap()
    });

    let stopped = better.stop().unwrap();
    let taken = worse.wait_state(State::Master, LIMIT).unwrap();
    let after = Duration::from_nanos(taken.at - stopped);
    assert!(after >= skew / 2 && after <= skew + SLACK, "{after:?}");
    let last = better.states_since(stopped);
    assert_eq!(last.last().map(|it| it.state), Some(State::Stopped));
    eventually("the second host alone has the address", || {
        second.has_address(VIP).unwrap() && !first.has_address(VIP).unwrap()
    });

    let packets = capture.dissect().unwrap();
    sound(&packets);
    let seen = advertisements(&packets);
    assert!(seen.iter().all(|(_, vrrp)| vrrp.version == 3), "{seen:?}");
    // Times of the recording and of events are those of one clock.
    let farewell = seen.iter().find(|(_, vrrp)| vrrp.priority == 0).unwrap().0;
    assert_eq!(farewell.source, v4(0).to_string());
    let window = stopped..taken.at;
    assert!(window.contains(&farewell.at), "{farewell:?}, {window:?}");
    assert_eq!(farewell.destination, "224.0.0.18");
}

#[test]
fn a_killed_keepalived_keeps_its_address_until_its_machine_is_gone() {
    if !possible_with(&["keepalived"]) {
        return;
    }
    let net = Net::new(2);
    let (first, second) = (host(&net, 0), host(&net, 1));
    let mut options = Options::from(fast(150, &[(VIP, 24)]));
    options.vmac = true;
    let better = Keepalived::start(&first, &options).unwrap();
    better.wait_state(State::Master, LIMIT).unwrap();
    let worse = fast(100, &[(VIP, 24)]);
    let down = worse.master_down();
    let worse = Keepalived::start(&second, &worse.into()).unwrap();
    worse.wait_state(State::Backup, LIMIT).unwrap();
    let killed = better.kill().unwrap();
    assert!(!better.is_running() && first.netns().processes().unwrap().is_empty());
    let taken = worse.wait_state(State::Master, LIMIT).unwrap();
    let after = Duration::from_nanos(taken.at - killed);
    assert!(after <= down + SLACK, "{after:?}");
    assert!(first.has_address(VIP).unwrap() && second.has_address(VIP).unwrap());
    // Nobody has said that it stopped.
    assert!(better.states_since(killed).is_empty());

    net.handle().cable("h1", false).unwrap();
    worse.wait_state(State::Fault, LIMIT).unwrap();
}

#[test]
fn keepalived_of_version_2_with_a_password_gives_tshark_nothing_to_find() {
    if !possible_with(&["keepalived", "tshark"]) {
        return;
    }
    let net = Net::new(2);
    let sender = host(&net, 0);
    let capture = sender.capture("own.pcap").unwrap();
    let router = Instance {
        version: 2,
        ..Instance::new(VRID, 254, &[(VIP, 24)])
    };
    let mut options = Options::from(router.clone());
    options.auth = Some(Auth::Pass("secret".into()));
    let multicast = Keepalived::start(&sender, &options).unwrap();
    // Two more on the same host, of other kinds.
    let mut authenticated = options.clone();
    authenticated.instance.vrid = 52;
    authenticated.instance.addresses = vec![([10, 9, 0, 201].into(), 24)];
    authenticated.auth = Some(Auth::Ah("secret".into()));
    let authenticated = Keepalived::start(&sender, &authenticated).unwrap();
    let mut unicast = options;
    unicast.instance.vrid = 53;
    unicast.instance.addresses = vec![([10, 9, 0, 202].into(), 24)];
    unicast.master = true;
    unicast.unicast = Some(Unicast {
        source: v4(0),
        peers: vec![v4(1)],
    });
    let unicast = Keepalived::start(&sender, &unicast).unwrap();
    for daemon in [&multicast, &authenticated, &unicast] {
        daemon.wait_state(State::Master, LIMIT).unwrap();
    }
    for daemon in [&multicast, &authenticated, &unicast] {
        daemon.stop().unwrap();
    }
    let packets = capture.dissect().unwrap();
    sound(&packets);
    for (vrid, protocols, destination) in [
        (51, "eth:ethertype:ip:vrrp", "224.0.0.18"),
        (52, "eth:ethertype:ip:ah:vrrp", "224.0.0.18"),
        (53, "eth:ethertype:ip:vrrp", "10.9.0.2"),
    ] {
        let sent = packets.iter().filter(|packet| {
            packet
                .vrrp
                .is_some_and(|vrrp| vrrp.version == 2 && vrrp.vrid == vrid)
                && packet.protocols == protocols
                && packet.destination == destination
        });
        // The first one and the farewell.
        assert!(sent.count() >= 2, "{vrid}: {packets:#?}");
    }
}

/// keepalived on h0 and FRR on h1.
struct Mixed {
    keepalived: Keepalived,
    frr: Frr,
    second: Host,
    capture: Capture,
    v6: bool,
    // Dropped last, with the namespaces.
    _net: Net,
}

impl Mixed {
    /// Waits until the better one is master and the other one backup; keepalived has priority 120.
    fn settled(addresses: &[(IpAddr, u8)], frr_priority: u8) -> Option<Self> {
        if !possible_with(&["keepalived", "tshark", VRRPD]) {
            return None;
        }
        let net = Net::new(2);
        let (first, second) = (host(&net, 0), host(&net, 1));
        let capture = first.capture("lan.pcap").unwrap();
        let frr = Frr::start(&second, &fast(frr_priority, addresses)).unwrap();
        let keepalived = Keepalived::start(&first, &fast(120, addresses).into()).unwrap();
        let wanted = if frr_priority > 120 {
            [State::Master, State::Backup]
        } else {
            [State::Backup, State::Master]
        };
        // Both may be master for a moment at the start; then it must stay as it is.
        eventually("the better one is master, the other one backup", || {
            let quiet = now_ns() - duration_ns(SLACK);
            [frr.states(), keepalived.states()].map(States::state) == wanted.map(Some)
                && frr.states_since(quiet).is_empty()
                && keepalived.states_since(quiet).is_empty()
        });
        let mixed = Self {
            keepalived,
            frr,
            second,
            capture,
            v6: addresses[0].0.is_ipv6(),
            _net: net,
        };
        let status = format!("{:?}", wanted[0]);
        assert_eq!(mixed.shown()["status"], status.as_str());
        Some(mixed)
    }

    /// What vrrpd shows of our family.
    fn shown(&self) -> serde_json::Value {
        let family = if self.v6 { "v6" } else { "v4" };
        self.frr.show().unwrap()[family].take()
    }

    fn keepalived_follows_frr(self) {
        let stopped = self.frr.stop().unwrap();
        self.keepalived.wait_state(State::Master, LIMIT).unwrap();
        let last = self.frr.states_since(stopped);
        assert_eq!(last.last().map(|it| it.state), Some(State::Stopped));
        said_farewell(self.capture, stopped);
    }

    fn frr_follows_keepalived(self) {
        let shown = self.shown();
        assert!(shown["stats"]["adverRx"].as_u64() > Some(3), "{shown}");
        let stopped = self.keepalived.stop().unwrap();
        self.frr.wait_state(State::Master, LIMIT).unwrap();
        said_farewell(self.capture, stopped);
    }
}

/// tshark finds no fault in what both have sent, a farewell after `stopped` among it.
fn said_farewell(capture: Capture, stopped: u64) {
    let packets = capture.dissect().unwrap();
    sound(&packets);
    let farewell = advertisements(&packets)
        .into_iter()
        .any(|(packet, vrrp)| vrrp.priority == 0 && packet.at >= stopped);
    assert!(farewell, "{packets:#?}");
}

#[test]
fn keepalived_is_backup_of_frr_by_ipv4() {
    if let Some(mixed) = Mixed::settled(&[(VIP, 24)], 200) {
        mixed.keepalived_follows_frr();
    }
}

#[test]
fn keepalived_is_master_of_frr_by_ipv4() {
    if let Some(mixed) = Mixed::settled(&[(VIP, 24)], 100) {
        mixed.frr_follows_keepalived();
    }
}

#[test]
fn keepalived_is_backup_of_frr_by_ipv6() {
    if let Some(mixed) = Mixed::settled(&v6_addresses(), 200) {
        mixed.keepalived_follows_frr();
    }
}

#[test]
fn keepalived_is_master_of_frr_by_ipv6() {
    if let Some(mixed) = Mixed::settled(&v6_addresses(), 100) {
        mixed.frr_follows_keepalived();
    }
}

#[test]
fn a_killed_frr_keeps_its_address() {
    let Some(mixed) = Mixed::settled(&[(VIP, 24)], 200) else {
        return;
    };
    let killed = mixed.frr.kill().unwrap();
    assert!(mixed.second.netns().processes().unwrap().is_empty());
    mixed.keepalived.wait_state(State::Master, LIMIT).unwrap();
    assert!(mixed.second.has_address(VIP).unwrap());
    assert!(mixed.frr.states_since(killed).is_empty());
    sound(&mixed.capture.dissect().unwrap());
}

/// An advertisement of version 2 as keepalived sends it, password "1111".
fn frame() -> Vec<u8> {
    let mut frame = vec![0x01, 0, 0x5e, 0, 0, 0x12, 2, 0, 10, 77, 0, 11, 0x08, 0];
    frame.extend([
        0x45, 0xc0, 0, 40, 0, 1, 0, 0, 255, 112, 0, 0, 10, 77, 0, 11, 224, 0, 0, 18,
    ]);
    frame.extend([0x21, 51, 150, 1, 1, 1, 0xda, 0x52, 10, 77, 0, 200]);
    frame.extend(*b"1111\0\0\0\0");
    let words = frame[14..34].chunks(2);
    let mut sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    sum = (sum & 0xffff) + (sum >> 16);
    frame[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    frame
}

#[test]
fn tshark_finds_what_is_wrong_and_nothing_else() {
    if !possible_with(&["tshark"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("crafted.pcap");
    let mut pcap = Pcap::create(&path).unwrap();
    let damaged = |at: usize| {
        let mut frame = frame();
        frame[at] ^= 1;
        frame
    };
    let cut = frame()[..38].to_vec();
    // Good; checksum of VRRP; of IP; a password of which the checksum knows nothing; bytes missing.
    let frames = [frame(), damaged(40), damaged(24), damaged(46), cut];
    for (at, frame) in frames.iter().enumerate() {
        pcap.add(1_234_567_890_123 + at as u64, frame).unwrap();
    }
    pcap.finish().unwrap();
    let packets = dissect(&path).unwrap();
    assert_eq!(packets.len(), frames.len());
    let advertisement = Advertisement {
        version: 2,
        vrid: 51,
        priority: 150,
    };
    assert_eq!(packets[0].vrrp, Some(advertisement));
    assert_eq!(packets[0].warnings, [""; 0]);
    assert_eq!(packets[1].at, 1_234_567_890_124);
    for (packet, words) in packets[1..].iter().zip(["VRRP", "IP", "VRRP", "malformed"]) {
        let found = packet.warnings.iter().any(|it| it.contains(words));
        assert!(found, "{words}: {packet:#?}");
    }
}

#[test]
fn a_lab_of_nodes_has_further_hosts_that_crash_and_boot() {
    if !possible_with(&["keepalived"]) {
        return;
    }
    let name = common::unique("l").replace("buoy-", "t").replace("-l", "l");
    let mut topology = Topology::pair(&name, 1).unwrap();
    topology.hosts = vec!["r1".into(), "r2".into()];
    let lab = Lab::create(Record {
        topology,
        backend: BackendSpec::buoy(program()),
        program: program().to_owned(),
        ephemeral: true,
    })
    .unwrap();
    let vip: IpAddr = [192, 168, 192, 99].into();
    lab.switch()
        .observe(&[vip], Duration::from_millis(1))
        .unwrap();
    let start = |host: &str, priority| {
        let options = fast(priority, &[(vip, 24)]).into();
        Keepalived::start(&lab.host(host).unwrap(), &options).unwrap()
    };
    let (first, second) = (start("r1", 150), start("r2", 100));
    first.wait_state(State::Master, LIMIT).unwrap();
    second.wait_state(State::Backup, LIMIT).unwrap();
    let answering = || lab.switch().owners().unwrap().remove(0).ports;
    eventually("r1 answers", || answering() == ["r1"]);
    lab.crash("r1").unwrap();
    second.wait_state(State::Master, LIMIT).unwrap();
    eventually("r2 answers", || answering() == ["r2"]);
    lab.boot("r1").unwrap();
    let again = start("r1", 150);
    again.wait_state(State::Master, LIMIT).unwrap();
    second.wait_state(State::Backup, LIMIT).unwrap();
    assert!(lab.host("n1").is_ok() && lab.host("r3").is_err());
}
