//! `buoy vip put`: declares VIPs by a file or by options.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use buoy_core::spec::{PlacementSpec, Preempt, Scope, VipSpec, VrrpSpec, VrrpVersion};
use buoy_core::{NodeName, VipName};
use buoy_proto::convert::{declaration, parse_address};
use buoy_proto::v1::PutVipRequest;
use buoy_server::config::{ConfigErrors, load_vips, parse_vips};
use serde_json::json;

use crate::args::{PutArgs, ScopeArg};
use crate::connect::Node;
use crate::error::{Failure, Verdict};
use crate::output::Output;

use super::settle;

/// Most bytes that are read from standard input.
const MAX_INPUT: u64 = 8 << 20;

/// What `buoy vip put` was told, before there is a connection.
pub fn declared(args: &PutArgs) -> Result<Vec<VipSpec>, Failure> {
    match &args.file {
        Some(file) if file == Path::new("-") => from_stdin(),
        Some(file) => load_vips(file).map_err(wrong_file),
        None => Ok(vec![from_options(args)?]),
    }
}

/// Declares the VIPs; with `wait` it then waits for them to be up, and says where they are.
pub async fn run(
    node: &Node,
    vips: Vec<VipSpec>,
    wait: bool,
    out: &mut Output,
) -> Result<Verdict, Failure> {
    let put = |step: &Step| {
        let vip = Some(declaration(&step.vip));
        let mut cluster = node.cluster();
        async move {
            let call = cluster.put_vip(PutVipRequest { vip });
            node.answer(call).await.map(|done| done.revision)
        }
    };
    let done = put_all(&order(vips), put).await?;
    let names = done.iter().map(|(vip, _)| vip.clone()).collect();
    let places = match wait {
        true => settle::places(node, &names).await?,
        false => BTreeMap::new(),
    };
    out.either(
        || {
            let one = |(vip, revision): &(VipName, u64)| {
                let mut value = json!({ "vip": vip, "revision": revision });
                if let Some(place) = places.get(vip) {
                    value["owner"] = json!(place.owner);
                    value["epoch"] = json!(place.epoch);
                    value["active"] = json!(place.problem.is_none() && place.yielded.is_none());
                    value["yielded"] = json!(place.yielded);
                    value["problem"] = json!(place.problem);
                }
                value
            };
            done.iter().map(one).collect()
        },
        || {
            let lines = done.iter().map(|(vip, _)| match places.get(vip) {
                Some(place) => format!("VIP {vip} is declared: {}", place.words(vip)),
                None => format!("VIP {vip} is declared"),
            });
            lines.collect::<Vec<_>>().join("\n")
        },
    )?;
    Ok(Verdict::fine_if(
        places.values().all(|place| place.problem.is_none()),
    ))
}

/// Takes the steps, and answers with the VIPs that are declared and their revisions. A failure says what
/// was declared before it: that stays.
async fn put_all<F: Future<Output = Result<u64, Failure>>>(
    steps: &[Step],
    put: impl Fn(&Step) -> F,
) -> Result<Vec<(VipName, u64)>, Failure> {
    let mut done: Vec<(VipName, u64)> = Vec::new();
    for step in steps {
        let name = &step.vip.name;
        let revision = put(step).await.map_err(|e| {
            let several = steps.len() > 1;
            let words = |m: String| match several {
                true => format!("VIP {name}: {m}{}", kept(steps, &done)),
                false => m,
            };
            match e {
                Failure::Refused(m) => Failure::Refused(words(m)),
                Failure::Usage(m) => Failure::Usage(words(m)),
                Failure::Unreachable(m) => Failure::Unreachable(words(m)),
                Failure::NobodyReads => Failure::NobodyReads,
            }
        })?;
        if step.complete {
            done.push((name.clone(), revision));
        }
    }
    Ok(done)
}

/// What of a file is in the cluster after a failure.
fn kept(steps: &[Step], done: &[(VipName, u64)]) -> String {
    let names: Vec<&str> = done.iter().map(|(vip, _)| vip.as_str()).collect();
    let missing: Vec<&str> = steps
        .iter()
        .filter(|s| s.complete && !names.contains(&s.vip.name.as_str()))
        .map(|s| s.vip.name.as_str())
        .collect();
    let names = match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    };
    format!(
        "\n  declared before that, and kept: {names}; not, or not entirely: {}; the command can be given again",
        missing.join(", ")
    )
}

fn wrong_file(errors: ConfigErrors) -> Failure {
    Failure::Usage(errors.render(false))
}

fn from_stdin() -> Result<Vec<VipSpec>, Failure> {
    let mut content = Vec::new();
    std::io::stdin()
        .take(MAX_INPUT)
        .read_to_end(&mut content)
        .map_err(|e| Failure::Usage(format!("cannot read standard input: {e}")))?;
    parse_vips(Path::new("standard input"), &content).map_err(wrong_file)
}

fn usage(option: &str) -> impl Fn(&dyn std::fmt::Display) -> Failure {
    let option = option.to_owned();
    move |e| Failure::Usage(format!("{option}: {e}"))
}

fn from_options(args: &PutArgs) -> Result<VipSpec, Failure> {
    let name = args.name.as_deref().unwrap_or_default();
    let name: VipName = name.parse().map_err(|e| usage("NAME")(&e))?;
    let mut addresses = Vec::with_capacity(args.addresses.len());
    for text in &args.addresses {
        addresses.push(parse_address(text).map_err(|e| usage("--address")(&e))?);
    }
    let mut placement = PlacementSpec {
        preempt: if args.preempt {
            Preempt::Preempt
        } else {
            Preempt::Sticky
        },
        preempt_delay: args.preempt_delay.unwrap_or(Duration::ZERO),
        colocate_with: names("--colocate-with", &args.colocate_with)?,
        avoid: names("--avoid", &args.avoid)?,
        ..PlacementSpec::default()
    };
    for text in &args.priority {
        let expected =
            format!("{text:?} is no priority (expected NODE=N with N from 0 to 254, as in n1=150)");
        let (node, number) = text
            .split_once('=')
            .ok_or_else(|| usage("--priority")(&expected))?;
        let node: NodeName = node.parse().map_err(|e| usage("--priority")(&e))?;
        let number: u8 = number.parse().map_err(|_| usage("--priority")(&expected))?;
        placement.priority.insert(node, number);
    }
    let spec = VipSpec {
        name,
        addresses,
        interface: args.interface.clone().unwrap_or_default(),
        label: args.label.clone(),
        scope: match args.scope {
            ScopeArg::Global => Scope::Global,
            ScopeArg::Link => Scope::Link,
            ScopeArg::Host => Scope::Host,
        },
        placement,
        vrrp: face(args),
    };
    match spec.validate() {
        Ok(()) => Ok(spec),
        Err(problems) => {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Err(Failure::Usage(lines.join("\n")))
        }
    }
}

/// The VRRP face that the options describe; what they cannot say stands in a file.
fn face(args: &PutArgs) -> Option<Box<VrrpSpec>> {
    let face = VrrpSpec::new(args.vrid?);
    Some(Box::new(VrrpSpec {
        version: match args.vrrp_version {
            Some(2) => VrrpVersion::V2,
            _ => VrrpVersion::V3,
        },
        priority: args.vrrp_priority.unwrap_or(face.priority),
        interval: args.vrrp_interval.unwrap_or(face.interval),
        ..face
    }))
}

fn names(option: &str, texts: &[String]) -> Result<BTreeSet<VipName>, Failure> {
    texts
        .iter()
        .map(|t| t.parse().map_err(|e| usage(option)(&e)))
        .collect()
}

/// One request: a VIP, and whether this is its whole declaration.
struct Step {
    vip: VipSpec,
    complete: bool,
}

/// An order in which no VIP names one of the file that is not there yet. Where VIPs name each other in a
/// circle, one of them goes first without those names, and once more at the end.
fn order(vips: Vec<VipSpec>) -> Vec<Step> {
    let mut waiting = vips;
    let (mut steps, mut again): (Vec<Step>, Vec<Step>) = (Vec::new(), Vec::new());
    while !waiting.is_empty() {
        let names: BTreeSet<VipName> = waiting.iter().map(|v| v.name.clone()).collect();
        let refers = |v: &VipSpec| {
            let p = &v.placement;
            p.colocate_with
                .iter()
                .chain(&p.avoid)
                .any(|n| *n != v.name && names.contains(n))
        };
        let free = waiting.iter().position(|v| !refers(v));
        let mut vip = waiting.remove(free.unwrap_or(0));
        if free.is_none() {
            again.push(Step {
                vip: vip.clone(),
                complete: true,
            });
            vip.placement.colocate_with.retain(|n| !names.contains(n));
            vip.placement.avoid.retain(|n| !names.contains(n));
        }
        steps.push(Step {
            vip,
            complete: free.is_some(),
        });
    }
    steps.extend(again);
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vip(name: &str, with: &[&str], avoid: &[&str]) -> VipSpec {
        let set = |l: &[&str]| l.iter().map(|n| n.parse().unwrap()).collect();
        VipSpec {
            name: name.parse().unwrap(),
            addresses: vec![],
            interface: "eth0".into(),
            label: None,
            scope: Scope::Global,
            placement: PlacementSpec {
                colocate_with: set(with),
                avoid: set(avoid),
                ..PlacementSpec::default()
            },
            vrrp: None,
        }
    }

    #[tokio::test]
    async fn a_failure_names_what_is_done_already() {
        let steps = order(vec![
            vip("a", &[], &[]),
            vip("b", &[], &[]),
            vip("c", &[], &[]),
        ]);
        let all = put_all(&steps, |_| async { Ok(7) }).await.unwrap();
        assert_eq!(all.len(), 3);
        let failure = put_all(&steps, |step| {
            let fails = step.vip.name.as_str() == "b";
            async move {
                match fails {
                    true => Err(Failure::Refused("no".into())),
                    false => Ok(7),
                }
            }
        })
        .await
        .unwrap_err();
        assert_eq!(failure.code(), 1);
        let said = failure.message();
        assert!(
            said.starts_with("VIP b: no") && said.contains("kept: a; not, or not entirely: b, c"),
            "{said}"
        );
    }

    #[test]
    fn names_come_before_those_who_use_them() {
        let steps = order(vec![
            vip("a", &["b"], &["elsewhere"]),
            vip("b", &[], &["c"]),
            vip("c", &[], &[]),
        ]);
        let names: Vec<&str> = steps.iter().map(|s| s.vip.name.as_str()).collect();
        assert_eq!(names, ["c", "b", "a"]);
        assert!(steps.iter().all(|s| s.complete));
    }

    #[test]
    fn circles_are_broken_and_closed() {
        let steps = order(vec![
            vip("a", &["b"], &["elsewhere"]),
            vip("b", &["a"], &[]),
        ]);
        let shown: Vec<String> = steps
            .iter()
            .map(|s| {
                format!(
                    "{} {} {}",
                    s.vip.name,
                    s.vip.placement.colocate_with.len(),
                    s.complete
                )
            })
            .collect();
        assert_eq!(shown, ["a 0 false", "b 1 true", "a 1 true"]);
        assert_eq!(
            steps[0].vip.placement.avoid.len(),
            1,
            "what the cluster has stays"
        );
    }
}
