//! What users declare: VIPs, placement, nodes' roles and settings.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use buoy_core::spec::{self, PlacementSpec, VipAddress};
use buoy_core::state::Settings;
use buoy_core::{NodeName, VipName};

use super::{ConvertError, unknown_value};
use crate::v1;

impl From<spec::Scope> for v1::Scope {
    fn from(s: spec::Scope) -> Self {
        match s {
            spec::Scope::Global => v1::Scope::Global,
            spec::Scope::Link => v1::Scope::Link,
            spec::Scope::Host => v1::Scope::Host,
        }
    }
}

impl From<v1::Scope> for spec::Scope {
    fn from(s: v1::Scope) -> Self {
        match s {
            v1::Scope::Global => spec::Scope::Global,
            v1::Scope::Link => spec::Scope::Link,
            v1::Scope::Host => spec::Scope::Host,
        }
    }
}

impl From<spec::Preempt> for v1::Preempt {
    fn from(p: spec::Preempt) -> Self {
        match p {
            spec::Preempt::Sticky => v1::Preempt::Sticky,
            spec::Preempt::Preempt => v1::Preempt::Preempt,
        }
    }
}

impl From<v1::Preempt> for spec::Preempt {
    fn from(p: v1::Preempt) -> Self {
        match p {
            v1::Preempt::Sticky => spec::Preempt::Sticky,
            v1::Preempt::Preempt => spec::Preempt::Preempt,
        }
    }
}

impl From<spec::Role> for v1::Role {
    fn from(r: spec::Role) -> Self {
        match r {
            spec::Role::Member => v1::Role::Member,
            spec::Role::Witness => v1::Role::Witness,
        }
    }
}

impl From<v1::Role> for spec::Role {
    fn from(r: v1::Role) -> Self {
        match r {
            v1::Role::Member => spec::Role::Member,
            v1::Role::Witness => spec::Role::Witness,
        }
    }
}

impl From<&Settings> for v1::Settings {
    fn from(s: &Settings) -> Self {
        v1::Settings { frozen: s.frozen }
    }
}

impl From<v1::Settings> for Settings {
    fn from(s: v1::Settings) -> Self {
        Settings { frozen: s.frozen }
    }
}

/// An address as the API writes it: `192.168.192.13/32`.
pub(crate) fn address_text(a: &VipAddress) -> String {
    format!("{}/{}", a.ip, a.prefix)
}

/// The addresses of a VIP as the API writes them.
pub fn address_texts(addresses: &[VipAddress]) -> Vec<String> {
    addresses.iter().map(address_text).collect()
}

/// Reads `ip/prefix`, or `ip` for a host address. The error says what was expected.
pub fn parse_address(text: &str) -> Result<VipAddress, String> {
    let expected =
        "expected an address as in \"192.0.2.1\", \"192.0.2.1/24\" or \"2001:db8::1/64\"";
    let (ip, prefix) = match text.split_once('/') {
        Some((ip, prefix)) => (ip, Some(prefix)),
        None => (text, None),
    };
    let ip: IpAddr = ip
        .parse()
        .map_err(|_| format!("{text:?} is no address; {expected}"))?;
    let max = if ip.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => max,
        Some(p) => p
            .parse()
            .ok()
            .filter(|p| (1..=max).contains(p) && !text.contains("/+"))
            .ok_or_else(|| format!("{text:?} has no prefix length of 1 to {max}; {expected}"))?,
    };
    Ok(VipAddress { ip, prefix })
}

fn names<T>(field: &str, list: Vec<String>) -> Result<BTreeSet<T>, ConvertError>
where
    T: TryFrom<String, Error = buoy_core::ids::NameError> + Ord,
{
    let convert = |(i, name): (usize, String)| {
        T::try_from(name).map_err(|e| ConvertError::new(format!("{field}[{i}]"), e))
    };
    list.into_iter().enumerate().map(convert).collect()
}

impl From<&PlacementSpec> for v1::Placement {
    fn from(p: &PlacementSpec) -> Self {
        v1::Placement {
            priority: p
                .priority
                .iter()
                .map(|(n, p)| (n.to_string(), u32::from(*p)))
                .collect(),
            preempt: v1::Preempt::from(p.preempt).into(),
            preempt_delay_ms: u64::try_from(p.preempt_delay.as_millis()).unwrap_or(u64::MAX),
            colocate_with: p.colocate_with.iter().map(VipName::to_string).collect(),
            avoid: p.avoid.iter().map(VipName::to_string).collect(),
        }
    }
}

impl TryFrom<v1::Placement> for PlacementSpec {
    type Error = ConvertError;

    fn try_from(p: v1::Placement) -> Result<Self, ConvertError> {
        let mut priority = BTreeMap::new();
        for (node, value) in p.priority {
            let field = format!("priority[{node:?}]");
            let name = NodeName::try_from(node).map_err(|e| ConvertError::new(&field, e))?;
            let value = u8::try_from(value)
                .ok()
                .filter(|v| *v <= 254)
                .ok_or_else(|| {
                    ConvertError::new(
                        &field,
                        format!("{value} is too large: expected 0 (never) to 254"),
                    )
                })?;
            priority.insert(name, value);
        }
        let preempt =
            v1::Preempt::try_from(p.preempt).map_err(|_| unknown_value("preempt", p.preempt))?;
        Ok(PlacementSpec {
            priority,
            preempt: preempt.into(),
            preempt_delay: Duration::from_millis(p.preempt_delay_ms),
            colocate_with: names("colocate_with", p.colocate_with)?,
            avoid: names("avoid", p.avoid)?,
        })
    }
}

impl From<&spec::VipSpec> for v1::VipSpec {
    fn from(v: &spec::VipSpec) -> Self {
        v1::VipSpec {
            name: v.name.to_string(),
            addresses: address_texts(&v.addresses),
            interface: v.interface.clone(),
            label: v.label.clone(),
            scope: v1::Scope::from(v.scope).into(),
            placement: Some((&v.placement).into()),
            vrrp: v.vrrp.as_deref().map(Into::into),
        }
    }
}

impl TryFrom<v1::VipSpec> for spec::VipSpec {
    type Error = ConvertError;

    /// Checks what the types demand; whether the declaration makes sense is for `core::spec` to say.
    fn try_from(v: v1::VipSpec) -> Result<Self, ConvertError> {
        let name = VipName::try_from(v.name).map_err(|e| ConvertError::new("name", e))?;
        if v.addresses.len() > spec::MAX_ADDRESSES {
            let problem = format!(
                "{} addresses are too many: a VIP has at most {}",
                v.addresses.len(),
                spec::MAX_ADDRESSES
            );
            return Err(ConvertError::new("addresses", problem));
        }
        let mut addresses = Vec::with_capacity(v.addresses.len());
        for (i, text) in v.addresses.iter().enumerate() {
            let address =
                parse_address(text).map_err(|e| ConvertError::new(format!("addresses[{i}]"), e))?;
            addresses.push(address);
        }
        let scope = v1::Scope::try_from(v.scope).map_err(|_| unknown_value("scope", v.scope))?;
        let placement = v.placement.unwrap_or_default();
        let vrrp: Option<spec::VrrpSpec> = v
            .vrrp
            .map(TryInto::try_into)
            .transpose()
            .map_err(|e: ConvertError| e.within("vrrp"))?;
        Ok(spec::VipSpec {
            name,
            addresses,
            interface: v.interface,
            label: v.label,
            scope: scope.into(),
            placement: placement
                .try_into()
                .map_err(|e: ConvertError| e.within("placement"))?,
            vrrp: vrrp.map(Box::new),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> spec::VipSpec {
        spec::VipSpec {
            name: "web-1".parse().unwrap(),
            addresses: vec![
                parse_address("192.168.192.13").unwrap(),
                parse_address("2001:db8::1/64").unwrap(),
            ],
            interface: "eth0".into(),
            label: Some("eth0:web".into()),
            scope: spec::Scope::Link,
            placement: PlacementSpec {
                priority: BTreeMap::from([
                    ("n1".parse().unwrap(), 254),
                    ("n2".parse().unwrap(), 0),
                ]),
                preempt: spec::Preempt::Preempt,
                preempt_delay: Duration::from_millis(1500),
                colocate_with: BTreeSet::from(["web-2".parse().unwrap()]),
                avoid: BTreeSet::from(["db".parse().unwrap()]),
            },
            vrrp: None,
        }
    }

    #[test]
    fn a_vip_comes_back_as_it_was() {
        let proto = v1::VipSpec::from(&sample());
        assert_eq!(proto.addresses, ["192.168.192.13/32", "2001:db8::1/64"]);
        assert_eq!(spec::VipSpec::try_from(proto).unwrap(), sample());
    }

    #[test]
    fn a_minimal_vip_gets_the_defaults() {
        let proto = v1::VipSpec {
            name: "a".into(),
            addresses: vec!["10.0.0.1".into()],
            interface: "eth0".into(),
            ..Default::default()
        };
        let vip = spec::VipSpec::try_from(proto).unwrap();
        assert_eq!(vip.placement, PlacementSpec::default());
        assert_eq!(vip.addresses[0].prefix, 32);
    }

    #[test]
    fn errors_name_the_field() {
        type Spoil = fn(&mut v1::VipSpec);
        let cases: [(Spoil, &str, &str); 8] = [
            (|v| v.name = "a b".into(), "name", "\"a b\""),
            (
                |v| v.addresses[1] = "300.1.1.1".into(),
                "addresses[1]",
                "300.1.1.1",
            ),
            (
                |v| v.addresses[0] = "1.2.3.4/33".into(),
                "addresses[0]",
                "1 to 32",
            ),
            (
                |v| v.addresses[0] = "1.2.3.4/+8".into(),
                "addresses[0]",
                "1 to 32",
            ),
            (
                |v| v.addresses = vec!["10.0.0.1".into(); 65],
                "addresses",
                "at most 64",
            ),
            (|v| v.scope = 77, "scope", "77"),
            (
                |v| {
                    let p = v.placement.as_mut().unwrap();
                    p.priority.insert("n3".into(), 255);
                },
                "placement.priority[\"n3\"]",
                "254",
            ),
            (
                |v| v.placement.as_mut().unwrap().avoid = vec!["ok".into(), "/".into()],
                "placement.avoid[1]",
                "\"/\"",
            ),
        ];
        for (spoil, field, hint) in cases {
            let mut proto = v1::VipSpec::from(&sample());
            spoil(&mut proto);
            let error = spec::VipSpec::try_from(proto).unwrap_err();
            assert_eq!(error.field, field);
            assert!(error.to_string().contains(hint), "{error}");
        }
    }

    #[test]
    fn enumerations_and_settings_come_back() {
        for s in [spec::Scope::Global, spec::Scope::Link, spec::Scope::Host] {
            assert_eq!(spec::Scope::from(v1::Scope::from(s)), s);
        }
        for r in [spec::Role::Member, spec::Role::Witness] {
            assert_eq!(spec::Role::from(v1::Role::from(r)), r);
        }
        for p in [spec::Preempt::Sticky, spec::Preempt::Preempt] {
            assert_eq!(spec::Preempt::from(v1::Preempt::from(p)), p);
        }
        for frozen in [false, true] {
            let settings = Settings { frozen };
            assert_eq!(Settings::from(v1::Settings::from(&settings)), settings);
        }
    }
}
