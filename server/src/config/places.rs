//! Where the parts of nodes and VIPs stand in the file, by the field paths that core's findings use.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use buoy_core::spec::validate::{Severity, SpecError, validate_all};
use buoy_core::spec::{NodeSpec, VipSpec};

use super::problem::{Problem, Problems};
use super::words::closest;

/// Spans by path: `vips[0].addresses[1]`, `nodes[2].id`, `vips[0].placement.avoid.web`.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    spans: BTreeMap<String, Range<usize>>,
    broken: BTreeSet<String>,
}

impl Places {
    /// The part `path` stands at `span`.
    pub fn put(&mut self, path: String, span: Range<usize>) {
        self.spans.insert(path, span);
    }

    /// The part `path` is missing or wrong, and a problem says so already.
    pub fn broken(&mut self, path: String) {
        self.broken.insert(path);
    }

    /// Is the part itself in the file?
    pub fn has(&self, path: &str) -> bool {
        self.spans.contains_key(path)
    }

    /// The place of a part; of the smallest thing around it if the part itself is not in the file.
    /// `None` when the part is broken.
    pub fn get(&self, path: &str) -> Option<Range<usize>> {
        let mut path = path;
        loop {
            if self.broken.contains(path) {
                return None;
            }
            if let Some(span) = self.spans.get(path) {
                return Some(span.clone());
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return Some(0..0),
            }
        }
    }

    /// Last parts of the paths below `path`.
    fn below<'a>(&'a self, path: &str) -> impl Iterator<Item = (&'a str, &'a Range<usize>)> {
        let prefix = format!("{path}.");
        let length = prefix.len();
        self.spans
            .range(prefix.clone()..)
            .take_while(move |(k, _)| k.starts_with(&prefix))
            .map(move |(k, span)| (&k[length..], span))
    }
}

/// Nodes and VIPs as core judges them together.
pub(super) struct Judged<'a> {
    pub vips: &'a [VipSpec],
    pub nodes: &'a [NodeSpec],
    pub places: &'a Places,
}

impl Judged<'_> {
    /// Applies core's rules; what is refused becomes a problem, the rest is returned as warnings.
    pub fn check(&self, problems: &mut Problems) -> Vec<String> {
        let mut warnings = Vec::new();
        for e in validate_all(self.vips, self.nodes) {
            if e.severity == Severity::Warning {
                warnings.push(format!("{} ({})", e.message, e.hint));
            } else {
                problems.extend(self.problem(&e));
            }
        }
        warnings
    }

    /// The same for a file of VIPs alone: nodes, and VIPs that only the cluster has, are not known.
    pub fn check_vips_alone(&self, problems: &mut Problems) {
        let known: BTreeSet<_> = self.vips.iter().map(|v| v.name.clone()).collect();
        let mut vips = self.vips.to_vec();
        for vip in &mut vips {
            vip.placement.priority.clear();
            if let Some(face) = &mut vip.vrrp {
                face.source.clear();
            }
            for names in [&mut vip.placement.colocate_with, &mut vip.placement.avoid] {
                names.retain(|n| known.contains(n));
            }
        }
        let found = validate_all(&vips, &[]);
        for e in found.iter().filter(|e| e.field != "nodes") {
            problems.extend(self.problem(e));
        }
    }

    /// `None` when the part that the finding is about is broken, so that the finding means nothing.
    fn problem(&self, e: &SpecError) -> Option<Problem> {
        let span = self.places.get(&e.field)?;
        // The rest of the message is shown as a second place.
        let message = e.message.split(", listed in ").next().unwrap_or_default();
        let message = message.split(", first in ").next().unwrap_or_default();
        let (what, expected) = split_expected(message);
        let mut problem = Problem::new(span, what, expected);
        if !e.hint.is_empty() {
            problem = problem.hint(e.hint.as_str());
        }
        if let Some(first) = self.first(e) {
            let node = e.message.contains("is the address of node");
            problem = problem.other(
                first,
                if node {
                    "the node's"
                } else {
                    "first used here"
                },
            );
        }
        if e.field == "nodes" || message.contains("does not exist") {
            problem = problem.absence();
        }
        Some(self.reference(e, problem))
    }

    /// The other place of a conflict.
    fn first(&self, e: &SpecError) -> Option<Range<usize>> {
        for marker in [", listed in ", ", first in "] {
            if let Some((_, thing)) = e.message.split_once(marker) {
                let field = e.field.rsplit('.').next().unwrap_or_default();
                return self.places.get(&format!("{thing}.{field}"));
            }
        }
        let (i, k) = address_index(&e.field)?;
        let ip = self.vips.get(i)?.addresses.get(k)?.ip;
        for (j, vip) in self.vips.iter().enumerate().take(i + 1) {
            let end = if j == i { k } else { vip.addresses.len() };
            if let Some(l) = vip.addresses.iter().take(end).position(|a| a.ip == ip) {
                return self.places.get(&format!("vips[{j}].addresses[{l}]"));
            }
        }
        let node = self.nodes.iter().position(|n| n.address.ip() == ip)?;
        self.places.get(&format!("nodes[{node}].address"))
    }

    /// A name that names nothing: points at it, and at what may have been meant.
    fn reference(&self, e: &SpecError, mut problem: Problem) -> Problem {
        if !e.message.contains("does not exist") {
            return problem;
        }
        let (name, known): (&str, Vec<&str>) = match e.field.split_once("placement.priority.") {
            Some((_, node)) => (node, self.nodes.iter().map(|n| n.name.as_str()).collect()),
            None => {
                let named = |(n, _): &(&str, _)| e.message.contains(&format!("names VIP {n},"));
                let Some((name, span)) = self.places.below(&e.field).find(named) else {
                    return problem;
                };
                problem.span = span.clone();
                (name, self.vips.iter().map(|v| v.name.as_str()).collect())
            }
        };
        match closest(name, &known) {
            Some(near) => problem.hint(format!("did you mean \"{near}\"?")),
            None => problem,
        }
    }
}

/// The indices in `vips[1].addresses[2].ip`.
fn address_index(field: &str) -> Option<(usize, usize)> {
    let (vip, rest) = field.strip_prefix("vips[")?.split_once("].addresses[")?;
    let (address, _) = rest.split_once(']')?;
    Some((vip.parse().ok()?, address.parse().ok()?))
}

/// `what` and `expected ..`, for the two places where a diagnostic shows them.
pub(super) fn split_expected(message: &str) -> (String, String) {
    for marker in [" (expected ", "; expected ", ", expected "] {
        if let Some((what, expected)) = message.split_once(marker) {
            let expected = expected.trim_end_matches(')');
            return (what.to_owned(), format!("expected {expected}"));
        }
    }
    if let Some((what, why)) = message.split_once(": ") {
        return (what.to_owned(), why.to_owned());
    }
    if let Some((what, why)) = message.split_once(", but ") {
        return (what.to_owned(), why.to_owned());
    }
    (message.to_owned(), String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_known_place_is_used_unless_the_part_is_broken() {
        let mut p = Places::default();
        p.put("vips[0]".into(), 0..1);
        p.put("vips[0].addresses[1]".into(), 5..6);
        p.broken("vips[0].interface".into());
        assert_eq!(p.get("vips[0].addresses[1].ip"), Some(5..6));
        assert_eq!(p.get("vips[0].placement.priority"), Some(0..1));
        assert_eq!(p.get("vips[0].interface"), None);
        assert_eq!(p.get("nodes"), Some(0..0));
    }

    #[test]
    fn messages_are_taken_apart() {
        for (message, what, expected) in [
            ("x is 3, expected 1 to 2", "x is 3", "expected 1 to 2"),
            (
                "bad name (expected letters)",
                "bad name",
                "expected letters",
            ),
            ("a is no VIP: it is b", "a is no VIP", "it is b"),
            ("plain", "plain", ""),
        ] {
            assert_eq!(split_expected(message), (what.into(), expected.into()));
        }
    }
}
