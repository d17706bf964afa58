//! `[vip.vrrp]` tables: their types and forms. What they must say is judged by core.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use buoy_core::NodeName;
use buoy_core::spec::vrrp::DEFAULT_INTERVAL;
use buoy_core::spec::{Password, VrrpAuth, VrrpGarp, VrrpMac, VrrpSpec, VrrpVersion};

use super::places::Places;
use super::problem::{Problem, Problems};
use super::table::{Table, describe};
use super::value::parse_duration;

const ADDRESS: &str = "expected an address as in \"192.0.2.1\" or \"fe80::1\"";

/// The face of the VIP whose fields are at `at`; `None` when there is no table, or its VRID cannot be read.
pub(super) fn read_face(
    table: &Table<'_>,
    at: &str,
    places: &mut Places,
    problems: &mut Problems,
) -> Option<VrrpSpec> {
    let mut reader = Reader {
        at: format!("{at}.vrrp"),
        table,
        places,
        problems,
    };
    reader.read()
}

struct Reader<'r, 'a> {
    table: &'r Table<'a>,
    /// Path of the face for [`Places`].
    at: String,
    places: &'r mut Places,
    problems: &'r mut Problems,
}

impl Reader<'_, '_> {
    fn put(&mut self, field: &str, span: Range<usize>) {
        self.places.put(format!("{}.{field}", self.at), span);
    }

    fn read(&mut self) -> Option<VrrpSpec> {
        let table = self.table;
        self.places.put(self.at.clone(), table.span.clone());
        let vrid = self.byte("vrid");
        let version = self.byte("version");
        let priority = self.byte("priority");
        let interval = self.duration("interval");
        let preempt = table.flag("preempt", self.problems).map(|p| p.value);
        let preempt_delay = self.duration("preempt_delay");
        let auth = self.auth();
        let unicast_peers = self.addresses("unicast_peers");
        let excluded = self.addresses("excluded");
        let source = self.sources();
        let mac = self.mac();
        let garp = self.garp();
        Some(VrrpSpec {
            version: match version {
                Some(2) => VrrpVersion::V2,
                _ => VrrpVersion::V3,
            },
            priority: priority.unwrap_or(buoy_core::spec::DEFAULT_PRIORITY),
            interval: interval.unwrap_or(DEFAULT_INTERVAL),
            auth,
            preempt: preempt.unwrap_or(true),
            preempt_delay: preempt_delay.unwrap_or(Duration::ZERO),
            unicast_peers,
            source,
            excluded,
            mac,
            garp,
            ..VrrpSpec::new(vrid?)
        })
    }

    /// A number whose range the schema knows, all within a byte.
    fn byte(&mut self, field: &str) -> Option<u8> {
        let number = self.table.number(field, self.problems)?;
        self.put(field, number.span);
        u8::try_from(number.value).ok()
    }

    fn duration(&mut self, field: &str) -> Option<Duration> {
        let duration = self.table.parsed(field, self.problems, parse_duration)?;
        self.put(field, duration.span);
        Some(duration.value)
    }

    fn garp(&mut self) -> VrrpGarp {
        VrrpGarp {
            master_repeat: self.byte("garp_master_repeat"),
            master_delay: self.duration("garp_master_delay"),
            master_refresh: self.duration("garp_master_refresh"),
            master_refresh_repeat: self.byte("garp_master_refresh_repeat"),
            lower_prio_repeat: self.byte("garp_lower_prio_repeat"),
            lower_prio_delay: self.duration("garp_lower_prio_delay"),
            interval: self.duration("garp_interval"),
            gna_interval: self.duration("gna_interval"),
        }
    }

    fn auth(&mut self) -> VrrpAuth {
        let table = self.table;
        let kind = table.word("auth", self.problems, |word| match word {
            "none" => Some(None),
            "pass" => Some(Some(VrrpAuth::Pass as fn(Password) -> VrrpAuth)),
            "ah" => Some(Some(VrrpAuth::Ah as fn(Password) -> VrrpAuth)),
            _ => None,
        });
        let wrong = kind.is_none() && table.has("auth");
        let has_password = table.has("password");
        let password = table.parsed("password", self.problems, |text| Password::new(text));
        let Some(kind) = kind else {
            if has_password && !wrong {
                self.incomplete(
                    "password",
                    "a password is there, but no auth says what it is for",
                );
            }
            return VrrpAuth::None;
        };
        self.put("auth", kind.span);
        match (kind.value, password) {
            (None, None) if !has_password => VrrpAuth::None,
            (None, _) => {
                self.incomplete("password", "a password is there, but auth is \"none\"");
                VrrpAuth::None
            }
            (Some(make), Some(password)) => make(password.value),
            (Some(_), None) => {
                if !has_password {
                    self.incomplete("auth", "auth needs a password");
                }
                VrrpAuth::None
            }
        }
    }

    fn mac(&mut self) -> VrrpMac {
        let word = self.table.word("mac", self.problems, |word| match word {
            "interface" => Some(VrrpMac::Interface),
            "virtual" => Some(VrrpMac::Virtual),
            "virtual-xmit-base" => Some(VrrpMac::VirtualXmitBase),
            _ => None,
        });
        word.map_or(VrrpMac::default(), |word| {
            self.put("mac", word.span);
            word.value
        })
    }

    fn incomplete(&mut self, field: &str, why: &str) {
        let span = self.table.span.clone();
        self.problems.push(self.table.refused(field, span, why));
    }

    fn addresses(&mut self, field: &str) -> BTreeSet<IpAddr> {
        let mut found = BTreeSet::new();
        let Some(texts) = self.table.texts(field, self.problems) else {
            return found;
        };
        self.put(field, texts.span);
        for text in texts.items {
            match parse_ip(text.value) {
                Ok(ip) => {
                    found.insert(ip);
                }
                Err(why) => self
                    .problems
                    .push(self.table.refused(field, text.span, &why)),
            }
        }
        found
    }

    fn sources(&mut self) -> BTreeMap<NodeName, BTreeSet<IpAddr>> {
        let table = self.table;
        let mut found = BTreeMap::new();
        for (name, value) in table.entries("source", self.problems).unwrap_or_default() {
            let node = match name.value.parse::<NodeName>() {
                Ok(node) => node,
                Err(e) => {
                    let problem = table.refused("source", name.span, &e.to_string());
                    self.problems.push(problem);
                    continue;
                }
            };
            self.put(&format!("source.{node}"), name.span);
            let texts: Vec<_> = match value.get_ref() {
                toml::de::DeValue::Array(all) => all.iter().collect(),
                _ => vec![value],
            };
            let mut all = BTreeSet::new();
            for text in texts {
                let parsed = match text.get_ref().as_str() {
                    Some(words) => parse_ip(words),
                    None => Err(format!("this is {}; {ADDRESS}", describe(text.get_ref()))),
                };
                match parsed {
                    Ok(ip) => {
                        all.insert(ip);
                    }
                    Err(why) => {
                        let problem: Problem = table.refused("source", text.span(), &why);
                        self.problems.push(problem);
                    }
                }
            }
            found.insert(node, all);
        }
        found
    }
}

fn parse_ip(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is no address; {ADDRESS}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::parse_vips;
    use super::*;

    fn read(keys: &str) -> Result<VrrpGarp, String> {
        let text = format!(
            "[[vip]]\nname = \"a\"\naddresses = [\"10.0.0.1/24\"]\ninterface = \"eth0\"\n[vip.vrrp]\nvrid = 1\n{keys}"
        );
        let vips = parse_vips(Path::new("v.toml"), text.as_bytes());
        let mut vips = vips.map_err(|e| e.to_string())?;
        let face = vips.pop().and_then(|vip| vip.vrrp);
        face.map(|f| f.garp).ok_or_else(|| "no face".to_owned())
    }

    #[test]
    fn announcements_have_keepaliveds_names() {
        assert_eq!(read(""), Ok(VrrpGarp::default()));
        let all = "garp_master_repeat = 1\ngarp_master_delay = \"10s\"\ngarp_master_refresh = \"0s\"\n\
                   garp_lower_prio_repeat = 3\ngarp_lower_prio_delay = \"4s\"\n\
                   garp_interval = \"0.001s\"\ngna_interval = \"1us\"\n";
        let secs = |n| Some(Duration::from_secs(n));
        let expected = VrrpGarp {
            master_repeat: Some(1),
            master_delay: secs(10),
            master_refresh: secs(0),
            master_refresh_repeat: None,
            lower_prio_repeat: Some(3),
            lower_prio_delay: secs(4),
            interval: Some(Duration::from_millis(1)),
            gna_interval: Some(Duration::from_micros(1)),
        };
        assert_eq!(read(all), Ok(expected));
        let zero = read("garp_master_repeat = 0\n").unwrap_err();
        assert!(zero.contains("expected a whole number, 1 to 255"), "{zero}");
        let nothing = read(&format!("{all}garp_master_refresh_repeat = 2\n")).unwrap_err();
        // With its place in the file.
        assert!(
            nothing.contains("there is no refresh") && nothing.contains(":14:"),
            "{nothing}"
        );
    }
}
