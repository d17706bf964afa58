//! The VRRP face of a VIP.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use buoy_core::NodeName;
use buoy_core::spec::vrrp::DEFAULT_INTERVAL;
use buoy_core::spec::{self, DEFAULT_PRIORITY, Password, VrrpAuth, VrrpGarp, VrrpMac, VrrpSpec};

use super::{ConvertError, unknown_value};
use crate::v1;

impl From<spec::VrrpVersion> for v1::VrrpVersion {
    fn from(v: spec::VrrpVersion) -> Self {
        match v {
            spec::VrrpVersion::V2 => v1::VrrpVersion::V2,
            spec::VrrpVersion::V3 => v1::VrrpVersion::V3,
        }
    }
}

impl From<v1::VrrpVersion> for spec::VrrpVersion {
    fn from(v: v1::VrrpVersion) -> Self {
        match v {
            v1::VrrpVersion::V2 => spec::VrrpVersion::V2,
            v1::VrrpVersion::V3 => spec::VrrpVersion::V3,
        }
    }
}

impl From<VrrpMac> for v1::VrrpMac {
    fn from(m: VrrpMac) -> Self {
        match m {
            VrrpMac::Interface => v1::VrrpMac::Interface,
            VrrpMac::Virtual => v1::VrrpMac::Virtual,
            VrrpMac::VirtualXmitBase => v1::VrrpMac::VirtualXmitBase,
        }
    }
}

impl From<v1::VrrpMac> for VrrpMac {
    fn from(m: v1::VrrpMac) -> Self {
        match m {
            v1::VrrpMac::Interface => VrrpMac::Interface,
            v1::VrrpMac::Virtual => VrrpMac::Virtual,
            v1::VrrpMac::VirtualXmitBase => VrrpMac::VirtualXmitBase,
        }
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// As answers show it: without the password.
impl From<&VrrpSpec> for v1::Vrrp {
    fn from(f: &VrrpSpec) -> Self {
        let texts = |all: &BTreeSet<IpAddr>| all.iter().map(IpAddr::to_string).collect();
        let authentication = match f.auth {
            VrrpAuth::None => v1::VrrpAuthentication::None,
            VrrpAuth::Pass(_) => v1::VrrpAuthentication::Pass,
            VrrpAuth::Ah(_) => v1::VrrpAuthentication::Ah,
        };
        v1::Vrrp {
            vrid: f.vrid.into(),
            version: v1::VrrpVersion::from(f.version).into(),
            priority: Some(f.priority.into()),
            interval_ms: Some(millis(f.interval)),
            authentication: authentication.into(),
            password: String::new(),
            nopreempt: !f.preempt,
            preempt_delay_ms: millis(f.preempt_delay),
            unicast_peers: texts(&f.unicast_peers),
            sources: f
                .source
                .iter()
                .map(|(node, all)| {
                    (
                        node.to_string(),
                        v1::Addresses {
                            addresses: texts(all),
                        },
                    )
                })
                .collect(),
            excluded: texts(&f.excluded),
            mac: v1::VrrpMac::from(f.mac).into(),
            garp: (f.garp != VrrpGarp::default()).then(|| (&f.garp).into()),
        }
    }
}

impl From<&VrrpGarp> for v1::VrrpGarp {
    fn from(g: &VrrpGarp) -> Self {
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        v1::VrrpGarp {
            master_repeat: g.master_repeat.map(u32::from),
            master_delay_ms: g.master_delay.map(millis),
            master_refresh_ms: g.master_refresh.map(millis),
            master_refresh_repeat: g.master_refresh_repeat.map(u32::from),
            lower_prio_repeat: g.lower_prio_repeat.map(u32::from),
            lower_prio_delay_ms: g.lower_prio_delay.map(millis),
            interval_us: g.interval.map(micros),
            gna_interval_us: g.gna_interval.map(micros),
        }
    }
}

impl TryFrom<v1::VrrpGarp> for VrrpGarp {
    type Error = ConvertError;

    fn try_from(v: v1::VrrpGarp) -> Result<Self, ConvertError> {
        let count = |field: &str, n: Option<u32>| n.map(|n| byte(field, n)).transpose();
        Ok(VrrpGarp {
            master_repeat: count("master_repeat", v.master_repeat)?,
            master_delay: v.master_delay_ms.map(Duration::from_millis),
            master_refresh: v.master_refresh_ms.map(Duration::from_millis),
            master_refresh_repeat: count("master_refresh_repeat", v.master_refresh_repeat)?,
            lower_prio_repeat: count("lower_prio_repeat", v.lower_prio_repeat)?,
            lower_prio_delay: v.lower_prio_delay_ms.map(Duration::from_millis),
            interval: v.interval_us.map(Duration::from_micros),
            gna_interval: v.gna_interval_us.map(Duration::from_micros),
        })
    }
}

/// As a request carries it: with the password.
pub fn declaration(vip: &spec::VipSpec) -> v1::VipSpec {
    let mut declared = v1::VipSpec::from(vip);
    let auth = vip.vrrp.as_ref().map(|f| &f.auth);
    if let (Some(face), Some(VrrpAuth::Pass(p) | VrrpAuth::Ah(p))) = (&mut declared.vrrp, auth) {
        face.password = p.reveal().to_owned();
    }
    declared
}

/// Puts the stored password into a request that leaves it empty and keeps the kind of authentication.
pub fn keep_password(request: &mut v1::VipSpec, stored: &spec::VipSpec) {
    let (Some(face), Some(old)) = (&mut request.vrrp, &stored.vrrp) else {
        return;
    };
    match (face.authentication(), &old.auth) {
        (v1::VrrpAuthentication::Pass, VrrpAuth::Pass(p))
        | (v1::VrrpAuthentication::Ah, VrrpAuth::Ah(p))
            if face.password.is_empty() =>
        {
            face.password = p.reveal().to_owned();
        }
        _ => {}
    }
}

fn byte(field: &str, value: u32) -> Result<u8, ConvertError> {
    u8::try_from(value).map_err(|_| {
        ConvertError::new(field, format!("{value} is too large: expected at most 255"))
    })
}

fn addresses(field: &str, texts: Vec<String>) -> Result<BTreeSet<IpAddr>, ConvertError> {
    let parse = |(i, text): (usize, String)| {
        text.parse().map_err(|_| {
            ConvertError::new(
                format!("{field}[{i}]"),
                format!("{text:?} is no address; expected one as in \"192.0.2.1\" or \"fe80::1\""),
            )
        })
    };
    texts.into_iter().enumerate().map(parse).collect()
}

impl TryFrom<v1::Vrrp> for VrrpSpec {
    type Error = ConvertError;

    /// Checks what the types demand; whether the face makes sense is for `core::spec` to say.
    fn try_from(v: v1::Vrrp) -> Result<Self, ConvertError> {
        let version = v1::VrrpVersion::try_from(v.version)
            .map_err(|_| unknown_value("version", v.version))?;
        let kind = v1::VrrpAuthentication::try_from(v.authentication)
            .map_err(|_| unknown_value("authentication", v.authentication))?;
        let mac = v1::VrrpMac::try_from(v.mac).map_err(|_| unknown_value("mac", v.mac))?;
        let password = || Password::new(&v.password).map_err(|e| ConvertError::new("password", e));
        let auth = match kind {
            v1::VrrpAuthentication::None if v.password.is_empty() => VrrpAuth::None,
            v1::VrrpAuthentication::None => {
                let problem = "a password is there, but authentication is none";
                return Err(ConvertError::new("password", problem));
            }
            v1::VrrpAuthentication::Pass => VrrpAuth::Pass(password()?),
            v1::VrrpAuthentication::Ah => VrrpAuth::Ah(password()?),
        };
        let mut source = BTreeMap::new();
        for (node, all) in v.sources {
            let field = format!("sources[{node:?}]");
            let name = NodeName::try_from(node).map_err(|e| ConvertError::new(&field, e))?;
            source.insert(name, addresses(&field, all.addresses)?);
        }
        Ok(VrrpSpec {
            vrid: byte("vrid", v.vrid)?,
            version: version.into(),
            priority: v
                .priority
                .map_or(Ok(DEFAULT_PRIORITY), |p| byte("priority", p))?,
            interval: v
                .interval_ms
                .map_or(DEFAULT_INTERVAL, Duration::from_millis),
            auth,
            preempt: !v.nopreempt,
            preempt_delay: Duration::from_millis(v.preempt_delay_ms),
            unicast_peers: addresses("unicast_peers", v.unicast_peers)?,
            source,
            excluded: addresses("excluded", v.excluded)?,
            mac: mac.into(),
            garp: v
                .garp
                .map(VrrpGarp::try_from)
                .transpose()
                .map_err(|e| e.within("garp"))?
                .unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face() -> VrrpSpec {
        let one = |text: &str| -> BTreeSet<IpAddr> { [text.parse().unwrap()].into() };
        VrrpSpec {
            vrid: 51,
            version: spec::VrrpVersion::V2,
            priority: 150,
            interval: Duration::from_secs(2),
            auth: VrrpAuth::Pass(Password::new("1111").unwrap()),
            preempt: false,
            preempt_delay: Duration::from_millis(1500),
            unicast_peers: one("192.0.2.7"),
            source: BTreeMap::from([("n1".parse().unwrap(), one("192.0.2.1"))]),
            excluded: one("192.0.2.11"),
            mac: VrrpMac::VirtualXmitBase,
            garp: VrrpGarp {
                master_repeat: Some(2),
                master_delay: Some(Duration::ZERO),
                master_refresh: Some(Duration::from_secs(60)),
                master_refresh_repeat: Some(3),
                lower_prio_repeat: Some(0),
                lower_prio_delay: Some(Duration::from_millis(1)),
                interval: Some(Duration::from_micros(1)),
                gna_interval: Some(Duration::from_secs(1)),
            },
        }
    }

    fn vip() -> spec::VipSpec {
        spec::VipSpec {
            name: "web".parse().unwrap(),
            addresses: vec![],
            interface: "eth0".to_owned(),
            label: None,
            scope: spec::Scope::Global,
            placement: spec::PlacementSpec::default(),
            vrrp: Some(Box::new(face())),
        }
    }

    #[test]
    fn a_face_comes_back_as_it_was_and_answers_hide_its_password() {
        let declared = declaration(&vip());
        let read = spec::VipSpec::try_from(declared.clone()).unwrap();
        assert_eq!(read, vip());
        let shown = v1::VipSpec::from(&vip());
        assert_eq!(shown.vrrp.as_ref().unwrap().password, "");
        let error = spec::VipSpec::try_from(shown.clone()).unwrap_err();
        assert_eq!(error.field, "vrrp.password");
        let mut again = shown;
        keep_password(&mut again, &vip());
        assert_eq!(again, declared);
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let face = VrrpSpec::try_from(v1::Vrrp {
            vrid: 7,
            ..Default::default()
        })
        .unwrap();
        assert_eq!(face, VrrpSpec::new(7));
    }

    #[test]
    fn errors_name_the_field() {
        type Spoil = fn(&mut v1::Vrrp);
        let cases: [(Spoil, &str); 9] = [
            (|v| v.vrid = 256, "vrid"),
            (|v| v.priority = Some(256), "priority"),
            (|v| v.version = 9, "version"),
            (|v| v.mac = 9, "mac"),
            (|v| v.authentication = 9, "authentication"),
            (|v| v.password = "1".into(), "password"),
            (|v| v.excluded = vec!["x".into()], "excluded[0]"),
            (
                |v| v.garp.get_or_insert_default().lower_prio_repeat = Some(256),
                "garp.lower_prio_repeat",
            ),
            (
                |v| {
                    v.sources.insert("a b".into(), v1::Addresses::default());
                },
                "sources[\"a b\"]",
            ),
        ];
        for (spoil, field) in cases {
            let mut face = v1::Vrrp {
                vrid: 7,
                ..Default::default()
            };
            spoil(&mut face);
            assert_eq!(VrrpSpec::try_from(face).unwrap_err().field, field);
        }
    }
}
