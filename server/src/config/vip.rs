//! `[[vip]]` tables: their types and forms. What they must say is judged by core.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use buoy_core::spec::{
    MAX_ADDRESSES, MAX_VIPS, PlacementSpec, Preempt, Scope, VipAddress, VipSpec,
};
use buoy_core::{NodeName, VipName};
use buoy_proto::convert::parse_address;

use super::places::Places;
use super::problem::{Problem, Problems};
use super::table::{Table, describe, whole};
use super::value::parse_duration;
use super::vrrp::read_face;

/// Reads all `[[vip]]` tables. A VIP with broken parts is kept, with their places marked as broken; one
/// without a name is not.
pub(super) fn read_vips(
    root: &Table<'_>,
    places: &mut Places,
    problems: &mut Problems,
) -> Vec<VipSpec> {
    let tables = root.tables("vip", problems);
    if let Some(extra) = tables.get(MAX_VIPS) {
        problems.push(
            Problem::new(
                extra.span.clone(),
                format!("{} VIPs are too many", tables.len()),
                format!("expected at most {MAX_VIPS} in a cluster"),
            )
            .hint("put addresses that move together into one VIP, or form a second cluster"),
        );
    }
    let mut vips = Vec::new();
    for table in tables.iter().take(MAX_VIPS) {
        let at = format!("vips[{}]", vips.len());
        let reader = Reader {
            table,
            at,
            places,
            problems,
        };
        vips.extend(reader.read());
    }
    vips
}

struct Reader<'r, 'a> {
    table: &'r Table<'a>,
    /// Path of the VIP for [`Places`].
    at: String,
    places: &'r mut Places,
    problems: &'r mut Problems,
}

impl Reader<'_, '_> {
    fn put(&mut self, field: &str, span: Range<usize>) {
        self.places.put(format!("{}.{field}", self.at), span);
    }

    fn broken(&mut self, field: &str) {
        self.places.broken(format!("{}.{field}", self.at));
    }

    fn read(mut self) -> Option<VipSpec> {
        let table = self.table;
        let name = table.parsed("name", self.problems, |t| {
            t.parse::<VipName>().map_err(|e| e.to_string())
        });
        let interface = table.text("interface", self.problems);
        let label = table.text("label", self.problems);
        let scope = table.word("scope", self.problems, |word| match word {
            "global" => Some(Scope::Global),
            "link" => Some(Scope::Link),
            "host" => Some(Scope::Host),
            _ => None,
        });
        self.places.put(self.at.clone(), table.span.clone());
        match &interface {
            Some(i) => self.put("interface", i.span.clone()),
            None => {
                self.broken("interface");
                self.broken("label");
            }
        }
        if let Some(label) = &label {
            self.put("label", label.span.clone());
        }
        let addresses = self.read_addresses();
        let placement = table.table("placement", self.problems);
        let placement = placement
            .map(|t| self.read_placement(&t))
            .unwrap_or_default();
        let vrrp = table
            .table("vrrp", self.problems)
            .and_then(|t| read_face(&t, &self.at, self.places, self.problems));
        let name = name?;
        self.put("name", name.span);
        Some(VipSpec {
            name: name.value,
            addresses,
            interface: interface.map_or_else(String::new, |i| i.value.to_owned()),
            label: label.map(|l| l.value.to_owned()),
            scope: scope.map_or_else(Scope::default, |s| s.value),
            placement,
            vrrp: vrrp.map(Box::new),
        })
    }

    fn read_addresses(&mut self) -> Vec<VipAddress> {
        let Some(texts) = self.table.texts("addresses", self.problems) else {
            self.broken("addresses");
            return Vec::new();
        };
        self.put("addresses", texts.span);
        if !texts.complete {
            self.broken("addresses");
        }
        let mut found = Vec::new();
        // One more than allowed is enough for core to refuse the number.
        for text in texts.items.into_iter().take(MAX_ADDRESSES + 1) {
            match parse_address(text.value) {
                Ok(address) => {
                    self.put(&format!("addresses[{}]", found.len()), text.span);
                    found.push(address);
                }
                Err(why) => {
                    self.problems
                        .push(self.table.refused("addresses", text.span, &why));
                    // Their number cannot be judged any more.
                    self.broken("addresses");
                }
            }
        }
        found
    }

    fn read_placement(&mut self, table: &Table<'_>) -> PlacementSpec {
        let preempt = table.word("preempt", self.problems, |word| match word {
            "sticky" => Some(Preempt::Sticky),
            "preempt" => Some(Preempt::Preempt),
            _ => None,
        });
        if preempt.is_none() && table.has("preempt") {
            self.broken("placement.preempt_delay");
        }
        let delay = table.parsed("preempt_delay", self.problems, parse_duration);
        if let Some(delay) = &delay {
            self.put("placement.preempt_delay", delay.span.clone());
        }
        self.put("placement", table.span.clone());
        PlacementSpec {
            priority: self.read_priorities(table),
            preempt: preempt.map_or_else(Preempt::default, |p| p.value),
            preempt_delay: delay.map_or(Duration::ZERO, |d| d.value),
            colocate_with: self.read_names(table, "colocate_with"),
            avoid: self.read_names(table, "avoid"),
        }
    }

    fn read_priorities(&mut self, table: &Table<'_>) -> BTreeMap<NodeName, u8> {
        let mut priorities = BTreeMap::new();
        for (name, value) in table.entries("priority", self.problems).unwrap_or_default() {
            let node = match name.value.parse::<NodeName>() {
                Ok(node) => node,
                Err(e) => {
                    self.problems
                        .push(table.refused("priority", name.span, &e.to_string()));
                    continue;
                }
            };
            self.put(&format!("placement.priority.{node}"), name.span);
            match whole(value.get_ref()).and_then(|n| u8::try_from(n).ok()) {
                Some(n) => {
                    priorities.insert(node, n);
                }
                None => self.problems.push(
                    Problem::new(
                        value.span(),
                        format!("the priority of node {node} must be a whole number, 0 to 254"),
                        match value.get_ref() {
                            toml::de::DeValue::Integer(_) => "out of range".to_owned(),
                            other => format!("this is {}", describe(other)),
                        },
                    )
                    .expected("a whole number, 0 to 254")
                    .hint(table.as_in("priority")),
                ),
            }
        }
        priorities
    }

    fn read_names(&mut self, table: &Table<'_>, field: &str) -> BTreeSet<VipName> {
        let mut names = BTreeSet::new();
        let Some(texts) = table.texts(field, self.problems) else {
            return names;
        };
        self.put(&format!("placement.{field}"), texts.span);
        for text in texts.items {
            match text.value.parse::<VipName>() {
                Ok(vip) => {
                    self.put(&format!("placement.{field}.{vip}"), text.span);
                    names.insert(vip);
                }
                Err(e) => self
                    .problems
                    .push(table.refused(field, text.span, &e.to_string())),
            }
        }
        names
    }
}
