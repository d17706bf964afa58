//! `buoy vrrp watch` on a cable between two network namespaces.

#[path = "../../fence/tests/common/mod.rs"]
mod common;
#[path = "../../fence/tests/common/raw.rs"]
mod raw;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use buoy_vrrp_compat::packet::{
    Advertisement, Body, GROUP_V4, GROUP_V6, IP_PROTOCOL, PseudoHeader,
};
use buoy_vrrp_compat::{ah, ip};
use common::{NetNs, skip_without_root, wait_until};
use serde_json::Value;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;
const VLAN: u16 = 0x8100;
const MAC: [u8; 6] = [2, 0x77, 0, 0, 0, 0x0b];
const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
const CAP_NET_RAW: libc::c_ulong = 13;

/// `here` is where the command runs, with `near`; packets come from `far` at the other end of the cable.
struct Cable {
    here: NetNs,
    there: NetNs,
}

impl Cable {
    fn new() -> Cable {
        let (here, there) = (NetNs::new("watch"), NetNs::new("router"));
        here.veth("near", &there, "far");
        Cable { here, there }
    }

    fn buoy(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_buoy"));
        command.args(["vrrp", "watch"]).args(args);
        command
    }

    /// Starts the command, and waits until it listens.
    fn watch(&self, args: &[&str]) -> Running {
        let mut command = self.buoy(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = self.here.run(|| command.spawn().unwrap());
        let sockets = format!("/proc/{}/net/packet", child.id());
        let running = Running(Some(child));
        wait_until("the command listens to all protocols", || {
            let all = std::fs::read_to_string(&sockets).unwrap_or_default();
            // sk RefCnt Type Proto Iface R: bound to ETH_P_ALL, and running.
            all.lines().any(|line| {
                let fields: Vec<_> = line.split_whitespace().collect();
                fields.get(3) == Some(&"0003") && fields.get(5) == Some(&"1")
            })
        });
        running
    }

    fn run(&self, args: &[&str]) -> Output {
        self.here.run(|| self.buoy(args).output().unwrap())
    }

    /// Something comes in.
    fn comes(&self, device: &str, protocol: u16, packet: &[u8]) {
        raw::send(&self.there, device, protocol, &frame(protocol, packet)).unwrap();
    }

    /// Something is sent.
    fn goes(&self, device: &str, protocol: u16, packet: &[u8]) {
        raw::send(&self.here, device, protocol, &frame(protocol, packet)).unwrap();
    }
}

/// The command as it runs; a test that fails leaves none behind.
struct Running(Option<Child>);

impl Running {
    fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("not yet waited for")
    }

    fn has_ended(&mut self) -> bool {
        self.child().try_wait().unwrap().is_some()
    }

    /// What it said, once it has ended.
    fn output(mut self) -> Output {
        wait_until("the command has ended", || self.has_ended());
        let child = self.0.take().expect("not yet waited for");
        child.wait_with_output().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn frame(protocol: u16, packet: &[u8]) -> Vec<u8> {
    [&[0xff; 6][..], &MAC, &protocol.to_be_bytes(), packet].concat()
}

fn said(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// The lines of a command that ended well.
fn lines(running: Running) -> Vec<Value> {
    let output = running.output();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

fn vrrp(vrid: u8, body: Body, addresses: &[&str], source: IpAddr, group: IpAddr) -> Vec<u8> {
    let advert = Advertisement {
        vrid,
        priority: 150,
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        body,
    };
    advert
        .encode(source, group, PseudoHeader::Standard)
        .unwrap()
}

fn v2(vrid: u8, authentication_type: u8, password: &[u8; 8]) -> Vec<u8> {
    let body = Body::V2 {
        seconds: 2,
        authentication_type,
        authentication: *password,
    };
    vrrp(vrid, body, &["10.77.0.200"], SOURCE.into(), GROUP_V4.into())
}

fn in_v4(vrrp: &[u8]) -> Vec<u8> {
    ip::write_v4(SOURCE, GROUP_V4, IP_PROTOCOL, 7, vrrp).unwrap()
}

fn v3(vrid: u8) -> Vec<u8> {
    let body = Body::V3 { centiseconds: 50 };
    let addresses = ["10.77.0.200", "10.77.0.201"];
    in_v4(&vrrp(
        vrid,
        body,
        &addresses,
        SOURCE.into(),
        GROUP_V4.into(),
    ))
}

fn v6() -> Vec<u8> {
    let source = "fe80::11".parse().unwrap();
    let body = Body::V3 { centiseconds: 100 };
    let vrrp = vrrp(
        53,
        body,
        &["fe80::200"],
        IpAddr::V6(source),
        GROUP_V6.into(),
    );
    ip::write_v6(source, GROUP_V6, IP_PROTOCOL, 7, &vrrp).unwrap()
}

#[test]
fn vrrp_is_shown_both_ways_and_nothing_else() {
    if skip_without_root() {
        return;
    }
    let cable = Cable::new();
    let child = cable.watch(&["--interface", "near", "--count", "6", "--json"]);

    // What is none of its business: other protocols, and an authentication header in front of one.
    cable.comes("far", ARP, &[0, 1, 8, 0, 6, 4, 0, 1, 112, 112, 112, 112]);
    let udp = ip::write_v4(SOURCE, GROUP_V4, 17, 7, &[112; 40]).unwrap();
    cable.comes("far", IPV4, &udp);
    let mut tcp = vec![6, 4];
    tcp.resize(40, 112);
    let tcp = ip::write_v4(SOURCE, GROUP_V4, ah::IP_PROTOCOL_AH, 7, &tcp).unwrap();
    cable.comes("far", IPV4, &tcp);

    cable.comes("far", IPV4, &in_v4(&v2(51, 1, b"s3cret\0\0")));
    cable.comes("far", IPV4, &v3(52));
    cable.comes("far", IPV6, &v6());
    let mut wrong = v3(54);
    wrong[26] ^= 0xff;
    cable.comes("far", IPV4, &wrong);
    let sealed = ah::seal(SOURCE, GROUP_V4, 7, 9, b"s3cret\0\0", &v2(55, 2, &[0; 8])).unwrap();
    cable.comes("far", IPV4, &sealed);
    cable.goes("near", IPV4, &v3(56));

    let lines = lines(child);
    let told: Vec<_> = lines
        .iter()
        .map(|l| {
            let of = |key: &str| l[key].as_str().unwrap_or("?").to_owned();
            let vrid = l["vrid"].as_u64().unwrap();
            let version = l["version"].as_u64().unwrap();
            assert_eq!(
                (of("interface"), of("mac")),
                ("near".into(), "02:77:00:00:00:0b".into())
            );
            assert_eq!((&l["ttl"], &l["priority"]), (&255.into(), &150.into()));
            (vrid, version, of("direction"), of("auth"), of("checksum"))
        })
        .collect();
    let expected = [
        (51, 2, "received", "PASS", "good"),
        (52, 3, "received", "none", "good"),
        (53, 3, "received", "none", "good"),
        (54, 3, "received", "none", "wrong"),
        (55, 2, "received", "AH", "good"),
        (56, 3, "sent", "none", "good"),
    ];
    let expected = expected.map(|(vrid, version, direction, auth, checksum)| {
        (
            vrid,
            version,
            direction.to_owned(),
            auth.to_owned(),
            checksum.to_owned(),
        )
    });
    assert_eq!(told, expected, "{lines:#?}");
    assert!(!format!("{lines:?}").contains("s3cret"));
    assert_eq!(lines[0]["interval_ms"], 2000);
    assert_eq!(
        lines[1]["addresses"],
        serde_json::json!(["10.77.0.200", "10.77.0.201"])
    );
    assert_eq!(lines[2]["source"], "fe80::11");
    assert_eq!(lines[4]["sequence"], 9);
    let problem = lines[3]["problems"][0].as_str().unwrap();
    assert!(problem.starts_with("wrong VRRP checksum"), "{problem}");
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_millis();
    let at = u128::from(lines[0]["at_unix_ms"].as_u64().unwrap());
    assert!((now - 60_000..=now).contains(&at), "{at} at {now}");
}

/// With the tag of VLAN 100, as a trunk carries it.
fn tagged(packet: &[u8]) -> Vec<u8> {
    [&[0x00, 0x64][..], &IPV4.to_be_bytes(), packet].concat()
}

#[test]
fn every_interface_is_watched_and_the_tag_of_a_vlan_shown() {
    if skip_without_root() {
        return;
    }
    let cable = Cable::new();
    cable.here.veth("near2", &cable.there, "far2");
    let child = cable.watch(&["--vrid", "57", "--count", "3", "--json"]);
    cable.comes("far", IPV4, &v3(58));
    cable.comes("far", VLAN, &tagged(&v3(57)));
    cable.comes("far2", IPV4, &v3(57));
    cable.goes("near", IPV4, &v3(57));
    let lines = lines(child);
    let mut told: Vec<_> = lines
        .iter()
        .map(|l| {
            assert_eq!(l["problems"], serde_json::json!([]));
            (
                l["direction"].as_str(),
                l["interface"].as_str(),
                l["vlan"].as_u64(),
            )
        })
        .collect();
    told.sort();
    assert_eq!(
        told,
        [
            (Some("received"), Some("near"), Some(100)),
            (Some("received"), Some("near2"), None),
            (Some("sent"), Some("near"), None),
        ]
    );
}

#[test]
fn it_ends_well_after_a_while_or_when_interrupted() {
    if skip_without_root() {
        return;
    }
    let cable = Cable::new();
    let output = cable.run(&["--duration", "50ms"]);
    assert_eq!(
        (output.status.code(), said(&output).as_str()),
        (Some(0), "")
    );

    let mut child = cable.watch(&["--interface", "near"]);
    cable.comes("far", IPV4, &v3(57));
    let pid = libc::pid_t::try_from(child.child().id()).unwrap();
    // SAFETY: plain call, about our own child, which has not been waited for.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGINT) }, 0);
    let output = child.output();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn what_cannot_be_watched_is_said() {
    if skip_without_root() {
        return;
    }
    let cable = Cable::new();
    let output = cable.run(&["--interface", "nosuch0"]);
    assert_eq!(output.status.code(), Some(2));
    let words = said(&output);
    assert!(
        words.contains("nosuch0 is missing") && words.contains("near"),
        "{words}"
    );

    let mut command = cable.buoy(&[]);
    // SAFETY: between fork and exec it makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(
            || match libc::prctl(libc::PR_CAPBSET_DROP, CAP_NET_RAW, 0, 0, 0) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            },
        );
    }
    let output = cable.here.run(|| command.output().unwrap());
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("CAP_NET_RAW"), "{}", said(&output));
}

#[test]
fn an_interface_may_go_down_for_a_while_but_not_away() {
    if skip_without_root() {
        return;
    }
    let cable = Cable::new();
    let mut child = cable.watch(&["--interface", "near", "--count", "2", "--json"]);
    cable.comes("far", IPV4, &v3(57));
    cable.here.ip("link set near down");
    cable.here.ip("link set near up");
    // The other end takes a while to notice, and drops until then.
    wait_until("the second packet is seen", || {
        cable.comes("far", IPV4, &v3(58));
        std::thread::sleep(Duration::from_millis(20));
        child.has_ended()
    });
    let output = child.output();
    let lines = String::from_utf8_lossy(&output.stdout).lines().count();
    assert_eq!(
        (output.status.code(), lines),
        (Some(0), 2),
        "{}",
        said(&output)
    );

    let child = cable.watch(&["--interface", "near"]);
    cable.here.ip("link del near");
    let output = child.output();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("interface near has gone"),
        "{}",
        said(&output)
    );
}
