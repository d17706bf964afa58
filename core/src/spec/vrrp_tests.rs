use super::*;
use crate::spec::testing::vip;

fn wrong(addresses: &[&str], change: impl FnOnce(&mut VrrpSpec)) -> String {
    let mut face = VrrpSpec::new(51);
    change(&mut face);
    let mut spec = vip("v", addresses);
    spec.vrrp = Some(Box::new(face));
    let errors = spec.validate().err().unwrap_or_default();
    let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
    words.join("; ")
}

fn of(change: impl FnOnce(&mut VrrpSpec)) -> String {
    wrong(&["192.0.2.10/24"], change)
}

#[test]
fn a_face_with_defaults_is_right() {
    assert_eq!(of(|_| ()), "");
    assert_eq!(wrong(&["192.0.2.10/24", "2001:db8::1/64"], |_| ()), "");
}

#[test]
fn each_mistake_has_its_field() {
    let password = || Password::new("1111").unwrap();
    assert!(of(|f| f.vrid = 0).starts_with("vrrp.vrid: "));
    assert!(of(|f| f.priority = 0).starts_with("vrrp.priority: "));
    assert!(of(|f| f.priority = 255).contains("own address"));
    assert!(of(|f| f.interval = Duration::ZERO).starts_with("vrrp.interval: "));
    assert!(of(|f| f.interval = Duration::from_millis(15)).starts_with("vrrp.interval: "));
    assert!(of(|f| f.interval = Duration::from_secs(41)).contains("40.95s"));
    assert!(of(|f| f.auth = VrrpAuth::Pass(password())).starts_with("vrrp.auth: "));
    assert!(of(|f| f.preempt_delay = Duration::from_secs(1001)).contains("1000s"));
    let never = of(|f| (f.preempt, f.preempt_delay) = (false, Duration::from_secs(1)));
    assert!(never.contains("never preempts"), "{never}");
    let excluded = of(|f| f.excluded = ["192.0.2.11".parse().unwrap()].into());
    assert!(excluded.contains("192.0.2.11 is no address"), "{excluded}");
    let nothing = of(|f| f.excluded = ["192.0.2.10".parse().unwrap()].into());
    assert!(nothing.contains("left to advertise"), "{nothing}");
    let family = of(|f| f.unicast_peers = ["2001:db8::2".parse().unwrap()].into());
    assert!(family.starts_with("vrrp.unicast_peers: "), "{family}");
    let itself = of(|f| f.unicast_peers = ["192.0.2.10".parse().unwrap()].into());
    assert!(itself.starts_with("vrrp.unicast_peers: "), "{itself}");
    let source = of(|f| {
        let two = ["192.0.2.1", "192.0.2.2"].map(|a| a.parse().unwrap());
        f.source = [("n1".parse().unwrap(), two.into())].into();
    });
    assert!(source.starts_with("vrrp.source.n1: "), "{source}");
}

#[test]
fn announcements_have_ranges_and_none_of_them_does_nothing() {
    use crate::spec::VrrpGarp;
    let with = |garp: VrrpGarp| of(|f| f.garp = garp);
    let secs = |s| Some(Duration::from_secs(s));
    let micros = |us| Some(Duration::from_micros(us));
    let all = VrrpGarp {
        master_repeat: Some(1),
        master_delay: secs(0),
        master_refresh: secs(60),
        master_refresh_repeat: Some(2),
        lower_prio_repeat: Some(255),
        lower_prio_delay: secs(1000),
        interval: micros(1),
        gna_interval: secs(1),
    };
    assert_eq!(with(all), "");
    type Spoil = fn(&mut VrrpGarp);
    let cases: [(Spoil, &str); 9] = [
        (|g| g.master_repeat = Some(0), "garp_master_repeat"),
        (
            |g| g.master_refresh_repeat = Some(0),
            "garp_master_refresh_repeat",
        ),
        (
            |g| g.master_delay = Some(Duration::from_secs(1001)),
            "garp_master_delay",
        ),
        (
            |g| g.lower_prio_delay = Some(Duration::from_micros(1500)),
            "garp_lower_prio_delay",
        ),
        (
            |g| g.master_refresh = Some(Duration::from_millis(999)),
            "garp_master_refresh",
        ),
        (
            |g| g.master_refresh = Some(Duration::ZERO),
            "garp_master_refresh_repeat",
        ),
        (|g| g.lower_prio_repeat = Some(0), "garp_lower_prio_delay"),
        (|g| g.interval = Some(Duration::ZERO), "garp_interval"),
        (
            |g| g.gna_interval = Some(Duration::from_millis(1001)),
            "gna_interval",
        ),
    ];
    for (spoil, field) in cases {
        let mut garp = all;
        spoil(&mut garp);
        let said = with(garp);
        assert!(said.starts_with(&format!("vrrp.{field}: ")), "{said}");
        assert!(!said.contains("; vrrp."), "{said}");
    }
}

#[test]
fn bursts_that_are_set_in_part_have_the_rest_from_keepalived() {
    use crate::spec::VrrpGarp;
    let secs = Duration::from_secs;
    let none = VrrpGarp::default();
    assert_eq!((none.master(), none.lower_prio()), (None, None));
    let repeat = VrrpGarp {
        master_repeat: Some(2),
        ..none
    };
    assert_eq!(repeat.master(), Some((2, secs(5))));
    assert_eq!(repeat.lower_prio(), None, "as after a takeover");
    let delay = VrrpGarp {
        master_delay: Some(secs(9)),
        lower_prio_repeat: Some(0),
        ..none
    };
    assert_eq!(delay.master(), Some((5, secs(9))));
    assert_eq!(delay.lower_prio(), Some((0, secs(9))));
}

#[test]
fn version_2_has_whole_seconds_and_no_ipv6() {
    let v2 = |f: &mut VrrpSpec| f.version = VrrpVersion::V2;
    assert_eq!(of(v2), "");
    let fraction = of(|f| {
        v2(f);
        f.interval = Duration::from_millis(1500);
    });
    assert!(fraction.contains("1s to 255s"), "{fraction}");
    let both = ["192.0.2.10/24", "2001:db8::1/64"];
    assert!(wrong(&both, v2).starts_with("vrrp.version: "));
    let excluded = wrong(&both, |f| {
        v2(f);
        f.excluded = ["2001:db8::1".parse().unwrap()].into();
    });
    assert_eq!(excluded, "");
    let auth = of(|f| {
        v2(f);
        f.auth = VrrpAuth::Ah(Password::new("secret12").unwrap());
    });
    assert_eq!(auth, "");
}

#[test]
fn a_virtual_mac_is_for_ipv4_and_multicast() {
    let both = ["192.0.2.10/24", "2001:db8::1/64"];
    for mac in [VrrpMac::Virtual, VrrpMac::VirtualXmitBase] {
        assert_eq!(of(|f| f.mac = mac), "");
        let six = wrong(&both, |f| f.mac = mac);
        assert!(six.starts_with("vrrp.mac: "), "{six}");
        assert!(six.contains("2001:db8::1"), "{six}");
        let unicast = of(|f| {
            f.mac = mac;
            f.unicast_peers = ["192.0.2.2".parse().unwrap()].into();
        });
        assert_eq!(unicast.contains("xmit-base"), mac == VrrpMac::Virtual);
    }
}

#[test]
fn two_vips_do_not_share_a_virtual_mac() {
    let vip = |name: &str, addresses: &[&str], mac| {
        let mut spec = vip(name, addresses);
        spec.vrrp = Some(Box::new(VrrpSpec {
            mac,
            excluded: ["192.0.2.9".parse().unwrap()].into(),
            ..VrrpSpec::new(51)
        }));
        spec
    };
    let virtual_mac = vip("a", &["192.0.2.1/32"], VrrpMac::Virtual);
    let six = vip(
        "b",
        &["2001:db8::1/128", "192.0.2.9/32"],
        VrrpMac::Interface,
    );
    assert_eq!(same_router(&virtual_mac, &six), None);
    let four = vip("b", &["192.0.2.2/32", "192.0.2.9/32"], VrrpMac::Interface);
    assert!(same_router(&virtual_mac, &four).is_some());
}

#[test]
fn passwords_have_one_to_eight_bytes_and_stay_out_of_logs() {
    assert!(Password::new("").is_err());
    assert!(Password::new("123456789").is_err());
    assert!(Password::new("a\0b").is_err());
    let password = Password::new("1111").unwrap();
    assert_eq!(password.padded(), *b"1111\0\0\0\0");
    assert_eq!(password.reveal(), "1111");
    assert!(!format!("{:?}", VrrpAuth::Pass(password)).contains("1111"));
}

#[test]
fn a_stored_face_comes_back_and_has_room_for_more() {
    let face = StoredFace(VrrpSpec {
        auth: VrrpAuth::Pass(Password::new("1111").unwrap()),
        source: [("n1".parse().unwrap(), ["192.0.2.1".parse().unwrap()].into())].into(),
        ..VrrpSpec::new(51)
    });
    let text = serde_json::to_string(&face).unwrap();
    assert_eq!(serde_json::from_str::<StoredFace>(&text).unwrap(), face);
    // As earlier versions wrote it.
    let start = text.find(",\\\"garp").unwrap();
    let end = start + text[start..].find('}').unwrap();
    let less = format!("{}{}", &text[..start], &text[end + 1..]);
    let less = less.replacen(",\\\"mac\\\":\\\"Interface\\\"", "", 1);
    assert!(!less.contains("mac"), "{less}");
    assert_eq!(serde_json::from_str::<StoredFace>(&less).unwrap(), face);
    // As a later version may write it.
    let more = text.replacen('{', "{\\\"later\\\":1,", 1);
    assert_ne!(more, text);
    assert_eq!(serde_json::from_str::<StoredFace>(&more).unwrap(), face);
}

#[test]
fn link_local_addresses_are_advertised_first() {
    let spec = vip("v", &["2001:db8::1/64", "192.0.2.10/24", "fe80::1/64"]);
    let face = VrrpSpec {
        excluded: ["192.0.2.10".parse().unwrap()].into(),
        ..VrrpSpec::new(1)
    };
    let listed: Vec<String> = face.advertised(&spec).map(|ip| ip.to_string()).collect();
    assert_eq!(listed, ["fe80::1", "2001:db8::1"]);
}
