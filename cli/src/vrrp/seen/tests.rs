use std::collections::BTreeMap;

use super::*;

/// Frames by capture of keepalived and kind, in hex.
type Vectors = BTreeMap<String, BTreeMap<String, String>>;

const FRAME_HEADER: usize = 14;

fn vectors() -> Vectors {
    let text = include_str!("../../../../vrrp-compat/tests/fixtures/vectors.json");
    serde_json::from_str(text).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = (0..hex.len()).step_by(2);
    pairs
        .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap())
        .collect()
}

fn frame(capture: &str, kind: &str) -> Vec<u8> {
    bytes(&vectors()[capture][kind])
}

fn way(frame: &[u8]) -> Way {
    Way {
        unix_ms: 1_700_000_000_123,
        interface: "eth0".to_owned(),
        vlan: None,
        sent: false,
        mac: frame[6..].first_chunk().copied(),
    }
}

fn seen(frame: &[u8]) -> Seen {
    Seen::read(way(frame), &frame[FRAME_HEADER..])
}

/// The line without its beginning, which is the same in all.
fn line(frame: &[u8]) -> String {
    let line = seen(frame).text();
    let rest = line.strip_prefix("2023-11-14 22:13:20.123 eth0 < ");
    rest.unwrap_or_else(|| panic!("{line}")).to_owned()
}

#[test]
fn captures_of_keepalived_in_words() {
    for (capture, kind, expected) in [
        (
            "v2-pass",
            "advert",
            "10.77.0.11 -> 224.0.0.18 v2 vrid 51 priority 150 interval 1s auth PASS addresses 10.77.0.200 mac 02:77:00:00:00:0b",
        ),
        (
            "v2-prio255",
            "advert",
            "10.77.0.11 -> 224.0.0.18 v2 vrid 51 priority 255 (address owner) interval 1s auth PASS addresses 10.77.0.200 mac 02:77:00:00:00:0b",
        ),
        (
            "v2-ah",
            "advert_ah",
            "10.77.0.11 -> 224.0.0.18 v2 vrid 51 priority 150 interval 1s auth AH addresses 10.77.0.200 mac 02:77:00:00:00:0b",
        ),
        (
            "v2-novip",
            "advert",
            "10.77.0.11 -> 224.0.0.18 v2 vrid 51 priority 150 interval 1s auth PASS addresses - mac 02:77:00:00:00:0b",
        ),
        (
            "v3-ipv4-centisec",
            "advert_prio0",
            "10.77.0.11 -> 224.0.0.18 v3 vrid 51 priority 0 (gives up) interval 100ms auth none addresses 10.77.0.200 mac 02:77:00:00:00:0b",
        ),
        (
            "v3-unicast-oldcsum",
            "advert",
            "10.77.0.11 -> 10.77.0.12 v3 vrid 51 priority 150 interval 1s auth none addresses 10.77.0.200 mac 02:77:00:00:00:0b old unicast checksum",
        ),
        (
            "v3-vmac-ipv6",
            "advert6",
            "fe80::77:ff:fe00:b -> ff02::12 v3 vrid 51 priority 150 interval 1s auth none addresses fe80::77:200,fd77::200 mac 00:00:5e:00:02:33",
        ),
    ] {
        assert_eq!(line(&frame(capture, kind)), expected, "{capture}/{kind}");
    }
}

#[test]
fn no_capture_has_a_problem_and_none_shows_its_password() {
    let mut count = 0;
    for (capture, kinds) in vectors() {
        for (kind, hex) in kinds {
            if !kind.starts_with("advert") {
                continue;
            }
            let seen = seen(&bytes(&hex));
            let all = format!("{}\n{}\n{seen:?}", seen.text(), seen.json());
            assert!(seen.problems.is_empty(), "{capture}/{kind}: {all}");
            assert_eq!(seen.vrid(), Some(51), "{capture}/{kind}");
            for password in ["1111", "k@L9", "49, 49, 49", "107, 64"] {
                assert!(!all.contains(password), "{capture}/{kind}: {all}");
            }
            count += 1;
        }
    }
    assert!(count >= 20, "only {count} captures");
}

#[test]
fn a_wrong_checksum_is_said_and_the_rest_still_shown() {
    let mut frame = frame("v2-pass", "advert");
    let at = FRAME_HEADER + 20;
    frame[at + 2] = 151;
    assert_eq!(
        line(&frame),
        "10.77.0.11 -> 224.0.0.18 v2 vrid 51 priority 151 interval 1s auth PASS addresses 10.77.0.200 \
         mac 02:77:00:00:00:0b PROBLEM: wrong VRRP checksum 0xda52, expected 0xd952"
    );
    let json = seen(&frame).json();
    assert_eq!(
        (&json["priority"], &json["checksum"]),
        (&151.into(), &"wrong".into())
    );
}

#[test]
fn what_is_cut_off_at_any_place_is_shown_as_far_as_it_goes() {
    for (capture, kind) in [
        ("v3-ipv4", "advert"),
        ("v2-ah", "advert_ah"),
        ("v3-ipv6", "advert6"),
    ] {
        let whole = frame(capture, kind);
        for length in FRAME_HEADER..whole.len() {
            let seen = seen(&whole[..length]);
            assert_eq!(
                seen.problems.len(),
                1,
                "{capture}, {length}: {}",
                seen.text()
            );
            assert_eq!(
                seen.ends.is_some(),
                length >= FRAME_HEADER + if kind == "advert6" { 40 } else { 20 }
            );
            assert_eq!(seen.json().as_object().unwrap().len(), 17);
        }
    }
    // A packet that is shorter than its count of addresses says.
    let mut short = frame("v3-ipv4", "advert");
    short[FRAME_HEADER + 3] -= 4;
    assert_eq!(
        line(&short),
        "10.77.0.11 -> 224.0.0.18 v3 vrid 51 priority 150 interval 1s auth none addresses 10.77.0.200,10.77.0.201 \
         mac 02:77:00:00:00:0b PROBLEM: VRRP packet of 16 bytes, expected 20"
    );
    assert!(
        line(&short[..FRAME_HEADER + 9])
            .starts_with("? -> ? mac 02:77:00:00:00:0b PROBLEM: IP packet of 9 bytes")
    );
}

#[test]
fn what_nobody_would_accept_is_a_problem() {
    let at = FRAME_HEADER + 20;
    let problems = |capture: &str, kind: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = frame(capture, kind);
        change(&mut frame);
        seen(&frame).problems.join("; ")
    };
    assert_eq!(
        problems("v2-pass", "advert", &|f| f[FRAME_HEADER + 8] = 64),
        "TTL 64, expected 255: the packet came through a router"
    );
    assert_eq!(
        problems("v2-unicast", "advert", &|f| f[FRAME_HEADER + 8] = 64),
        ""
    );
    let words = problems("v2-pass", "advert", &|f| f[at + 4] = 2);
    assert!(words.starts_with("no authentication header"), "{words}");
    let words = problems("v2-ah", "advert_ah", &|f| f[at + 4] ^= 1);
    assert!(words.starts_with("SPI 11.77.0.11"), "{words}");
    let words = problems("v2-ah", "advert_ah", &|f| f[at + 24 + 4] = 1);
    assert!(
        words.starts_with("authentication type 1, expected 2"),
        "{words}"
    );
    let words = problems("v3-ipv4", "advert", &|f| f[at + 5] = 0);
    assert!(
        words.starts_with("advertisement interval of 0 cs"),
        "{words}"
    );
    let words = problems("v3-ipv4", "advert", &|f| f[at] = 0x41);
    assert!(words.starts_with("VRRP version 4"), "{words}");
    let words = problems("v3-ipv4", "advert", &|f| f[FRAME_HEADER + 6] = 0x20);
    assert!(words.starts_with("fragment"), "{words}");
}

#[test]
fn the_way_is_told_and_no_name_drives_the_terminal() {
    let frame = frame("v3-unicast", "advert");
    let mut way = way(&frame);
    way.interface = "e\u{1b}[1m".to_owned();
    way.sent = true;
    way.mac = None;
    way.vlan = Some(100);
    let mut packet = frame[FRAME_HEADER..].to_vec();
    packet[8] = 3;
    let text = Seen::read(way, &packet).text();
    assert_eq!(
        text,
        "2023-11-14 22:13:20.123 e?[1m > 10.77.0.11 -> 10.77.0.12 v3 vrid 51 priority 150 interval 1s auth none \
         addresses 10.77.0.200 vlan 100 ttl 3"
    );
}

#[test]
fn keys_for_programs_stay_the_same() {
    let json = seen(&frame("v2-ah", "advert_ah")).json();
    assert_eq!(
        json,
        json!({
            "at_unix_ms": 1_700_000_000_123_u64,
            "interface": "eth0",
            "vlan": null,
            "direction": "received",
            "mac": "02:77:00:00:00:0b",
            "source": "10.77.0.11",
            "destination": "224.0.0.18",
            "ttl": 255,
            "version": 2,
            "vrid": 51,
            "priority": 150,
            "interval_ms": 1000,
            "auth": "AH",
            "sequence": 1,
            "addresses": ["10.77.0.200"],
            "checksum": "good",
            "problems": [],
        })
    );
}
