//! What is accepted, held against what a real BACKUP of keepalived 2.2.7 did with the same packets.

mod common;

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use buoy_vrrp_compat::accept::{self, Auth, Cause, Delivery, Expected, Heard, Mismatch, Version};
use buoy_vrrp_compat::ah::Sequence;
use buoy_vrrp_compat::ip::Packet;
use buoy_vrrp_compat::packet::{GROUP_V4, GROUP_V6, PseudoHeader};
use common::routers::{captured, configured, ip, password};

fn judge(expected: &Expected, bytes: &[u8], own: &[IpAddr]) -> Result<Heard, Mismatch> {
    accept::judge(expected, &Packet::read(bytes).unwrap(), own)
}

/// For what each refused case is refused. `None` in a case that keepalived did not go along with means that the
/// packet is valid, and what it says was not enough.
fn cause(number: u8) -> Option<Cause> {
    Some(match number {
        2 | 37 | 38 => Cause::Checksum,
        3 | 43 => Cause::Ttl,
        4 | 5 | 6 | 8 => Cause::Authentication,
        9 => Cause::Interval,
        10 | 11 | 12 | 14 | 15 | 16 | 42 => Cause::Addresses,
        23 | 24 => Cause::Malformed,
        25 => Cause::Type,
        26 => Cause::Delivery,
        30 => Cause::OwnSource,
        34 | 35 => Cause::Version,
        // keepalived believes an interval of 0, and takes over at once. Buoy deliberately refuses it.
        41 => Cause::Interval,
        // Priority 99 against 100: a valid advertisement that keepalived discards; the router decides that.
        18 => return None,
        _ => return None,
    })
}

#[test]
fn every_case_of_the_matrix_ends_as_with_keepalived() {
    let own = [ip("10.77.0.11")];
    let mut seen = 0;
    for (number, what, verdict, log, hex) in common::matrix() {
        let name = format!("case {number}, {what}");
        let result = judge(&configured(number), &common::bytes(&hex), &own);
        let found = result.as_ref().err().map(Mismatch::cause);
        assert_eq!(
            found,
            cause(number),
            "{name}: {result:?}; keepalived: {log}"
        );
        let accepted = verdict.starts_with("ACCEPT");
        assert_eq!(result.is_ok(), accepted || number == 18, "{name}: {log}");
        seen += 1;
    }
    assert_eq!(seen, 44);
}

fn heard(number: u8) -> Heard {
    let (.., hex) = common::matrix().swap_remove(usize::from(number) - 1);
    judge(&configured(number), &common::bytes(&hex), &[]).unwrap()
}

#[test]
fn lower_priority_is_valid_and_left_to_the_router() {
    assert_eq!(heard(18).priority, 99);
    assert_eq!(heard(19).priority, 50);
}

#[test]
fn interval_zero_of_version_3_is_refused_where_keepalived_would_take_over() {
    let (_, what, _, log, hex) = common::matrix().swap_remove(40);
    assert!(
        what.contains("adver 0cs") && log.contains("timeout"),
        "{what}: {log}"
    );
    let refused = judge(&configured(41), &common::bytes(&hex), &[]).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "virtual router 41: advertisement from 10.77.0.12 not accepted: \
         advertisement interval of 0 cs, expected 1 to 4095"
    );
}

#[test]
fn another_interval_of_version_3_is_heard() {
    assert_eq!(heard(39).interval, Duration::from_secs(4));
    assert_eq!(
        heard(40).interval,
        Duration::from_secs(1),
        "reserved bits do not count"
    );
    assert_eq!(heard(1).interval, Duration::from_secs(1));
}

/// Both directions: what keepalived sends is accepted, and the same configuration here sends the same bytes.
#[test]
fn captures_are_accepted_and_sent_again_byte_by_byte() {
    let mut seen = 0;
    for (name, mut bytes) in common::packets() {
        let Some((capture, kind)) = name.split_once('/').filter(|(c, _)| c.starts_with('v')) else {
            continue;
        };
        let expected = captured(capture);
        let packet = Packet::read(&bytes).unwrap();
        let heard =
            accept::judge(&expected, &packet, &[]).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(accept::vrid(&packet), Some(51), "{name}");
        assert_eq!(heard.interval, expected.interval, "{name}");
        assert_eq!(heard.sequence, (capture == "v2-ah").then_some(1), "{name}");
        assert_eq!(heard.priority == 0, kind.contains("prio0"), "{name}");
        let again = expected
            .packet(
                heard.priority,
                packet.source,
                packet.destination,
                packet.mark,
                heard.pseudo,
                heard.sequence.unwrap_or(0),
            )
            .unwrap();
        if packet.source.is_ipv6() {
            bytes[1] &= 0xf0; // the kernel's flow label has 20 bits
        }
        assert_eq!(again, bytes, "{name}");
        seen += 1;
    }
    assert!(seen >= 20, "only {seen} captures");
}

#[test]
fn a_packet_of_one_kind_is_refused_by_a_router_of_another() {
    let refused = |capture: &str, auth: Auth| {
        let mut expected = captured(capture);
        expected.auth = auth;
        let kind = if capture == "v2-ah" {
            "advert_ah"
        } else {
            "advert"
        };
        let mismatch = judge(&expected, &common::packet(capture, kind), &[]).unwrap_err();
        assert_eq!(mismatch.cause(), Cause::Authentication);
        mismatch.reason.to_string()
    };
    let ah = Auth::Ah(Auth::key(b"1111"));
    assert!(refused("v2-pass", ah).starts_with("no authentication header"));
    assert!(refused("v2-ah", password()).contains("expected none"));
    assert!(refused("v2-ah", Auth::Ah(Auth::key(b"2222"))).contains("password is another"));
    assert!(refused("v2-pass", Auth::Pass(Auth::key(b"s3cret"))).starts_with("another password"));
    assert!(refused("v2-noauth", password()).starts_with("authentication type 0, expected 1"));
}

/// keepalived drops authentication from a router of version 3.
#[test]
fn version_3_has_no_authentication() {
    for auth in [password(), Auth::Ah(Auth::key(b"1111"))] {
        let mut expected = captured("v3-ipv4");
        expected.auth = auth;
        judge(&expected, &common::packet("v3-ipv4", "advert"), &[]).unwrap();
    }
}

#[test]
fn a_repeated_authentic_packet_is_told_by_its_number() {
    let bytes = common::packet("v2-ah", "advert_ah");
    let mut numbers = Sequence::default();
    let heard = judge(&captured("v2-ah"), &bytes, &[]).unwrap();
    let (IpAddr::V4(source), Some(number)) = (heard.source, heard.sequence) else {
        panic!("{heard:?}");
    };
    numbers.check(source, number).unwrap();
    let error = numbers.check(source, number).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("sequence number 1 of 10.77.0.11"),
        "{error}"
    );
}

#[test]
fn unicast_takes_peers_of_any_ttl_and_nobody_else() {
    let bytes = common::packet("v3-unicast", "advert");
    let mut expected = captured("v3-unicast");
    let mut far = bytes.clone();
    far[8] = 3;
    judge(&expected, &far, &[]).unwrap();
    expected.delivery = Delivery::Unicast {
        peers: vec![ip("10.77.0.13")],
    };
    let cause = |e: &Expected, b: &[u8]| judge(e, b, &[]).unwrap_err().cause();
    assert_eq!(cause(&expected, &bytes), Cause::Peer);
    assert_eq!(
        cause(&expected, &common::packet("v3-ipv4", "advert")),
        Cause::Delivery
    );
    expected.delivery = Delivery::Multicast;
    assert_eq!(cause(&expected, &bytes), Cause::Delivery);
}

#[test]
fn the_old_checksum_of_unicast_is_reported() {
    let bytes = common::packet("v3-unicast-oldcsum", "advert");
    let heard = judge(&captured("v3-unicast-oldcsum"), &bytes, &[]).unwrap();
    assert_eq!(heard.pseudo, PseudoHeader::OldUnicast);
}

/// IPv6 raw sockets deliver no header: the same packet put together from ancillary data.
#[test]
fn ipv6_without_a_header_is_judged_alike() {
    let bytes = common::packet("v3-ipv6", "advert6");
    let whole = Packet::read(&bytes).unwrap();
    let (IpAddr::V6(s), IpAddr::V6(d)) = (whole.source, whole.destination) else {
        panic!("{whole:?}");
    };
    let parts = Packet::from_parts_v6(s, d, 255, 0xc0, 0xf_1234, 112, whole.payload);
    assert_eq!(parts.mark, 0x1234);
    let expected = captured("v3-ipv6");
    assert_eq!(
        accept::judge(&expected, &parts, &[]),
        accept::judge(&expected, &whole, &[])
    );
}

#[test]
fn other_families_protocols_and_routers_are_told_apart() {
    let cause = |e: &Expected, b: &[u8]| judge(e, b, &[]).unwrap_err().cause();
    let mut expected = captured("v3-ipv4");
    let six = common::packet("v3-ipv6", "advert6");
    assert_eq!(cause(&expected, &six), Cause::Addresses);
    let mut igmp = common::packet("v3-ipv4", "advert");
    igmp[9] = 2;
    assert_eq!(cause(&expected, &igmp), Cause::Protocol);
    assert_eq!(accept::vrid(&Packet::read(&igmp).unwrap()), None);
    expected.vrid = 52;
    assert_eq!(
        cause(&expected, &common::packet("v3-ipv4", "advert")),
        Cause::Vrid
    );
}

#[test]
fn intervals_are_rounded_as_keepalived_rounds_them() {
    let mut expected = captured("v2-pass");
    let mut announced = |version: Version, milliseconds: u64| {
        expected.version = version;
        expected.interval = Duration::from_millis(milliseconds);
        expected.advertisement(100).interval().as_millis()
    };
    for (given, sent) in [
        (0, 1000),
        (100, 1000),
        (1499, 1000),
        (1500, 2000),
        (999_000, 255_000),
    ] {
        assert_eq!(announced(Version::V2, given), sent, "{given} ms, version 2");
    }
    for (given, sent) in [(0, 10), (14, 10), (15, 20), (1000, 1000), (999_000, 40_950)] {
        assert_eq!(announced(Version::V3, given), sent, "{given} ms, version 3");
    }
    let forever = Expected {
        interval: Duration::MAX,
        ..expected
    };
    assert_eq!(forever.advertisement(1).interval().as_millis(), 40_950);
}

#[test]
fn what_cannot_be_sent_is_said() {
    let mut expected = captured("v2-pass");
    let send = |source: &str, destination: IpAddr| {
        expected
            .packet(1, ip(source), destination, 1, PseudoHeader::Standard, 0)
            .unwrap_err()
            .to_string()
    };
    assert!(send("fe80::1", GROUP_V6.into()).contains("version 2 carries no IPv6"));
    assert!(send("10.0.0.1", GROUP_V6.into()).contains("families differ"));
    expected.addresses.push(ip("fe80::1"));
    let send = |source: &str, destination: IpAddr| {
        expected.packet(1, ip(source), destination, 1, PseudoHeader::Standard, 0)
    };
    assert!(send("10.0.0.1", GROUP_V4.into()).is_err());
}

#[test]
fn causes_have_names_of_their_own() {
    let names: HashSet<_> = Cause::ALL.iter().map(|cause| cause.name()).collect();
    assert_eq!(names.len(), Cause::ALL.len());
    let snake = |name: &str| name.bytes().all(|b| b == b'_' || b.is_ascii_lowercase());
    assert!(names.iter().all(|name| snake(name)), "{names:?}");
}

#[test]
fn passwords_stay_out_of_logs() {
    let expected = captured("v2-pass");
    assert!(format!("{expected:?}").contains("auth: Pass(..)"));
    assert_eq!(Auth::key(b"longer than 8"), *b"longer t");
}
