//! `buoy vrrp status`: the routers that a node plays, what they hear, and what they do not believe.

use buoy_proto::v1::{VrrpHearing, VrrpRouter, VrrpState, VrrpStatusRequest, VrrpStatusResponse};
use serde_json::{Value, json};

use crate::args::Global;
use crate::connect::connect;
use crate::error::{Failure, Verdict};
use crate::output::Output;
use crate::text::{dash, node_name, shown, table, vrrp_version};

/// Asks the node, and shows what it says.
pub async fn run(options: &Global, out: &mut Output) -> Result<Verdict, Failure> {
    let node = connect(options).await?;
    let mut cluster = node.cluster();
    let status = node
        .answer(cluster.vrrp_status(VrrpStatusRequest {}))
        .await?;
    out.either(|| value(&status), || text(&status))?;
    Ok(Verdict::fine_if(status.routers.iter().all(is_well)))
}

fn is_well(router: &VrrpRouter) -> bool {
    let heard = matches!(router.hearing(), VrrpHearing::Clear | VrrpHearing::Unsure);
    heard && router.failure.is_empty()
}

fn state(state: VrrpState) -> &'static str {
    match state {
        VrrpState::Initialize => "initialize",
        VrrpState::Backup => "backup",
        VrrpState::Active => "active",
    }
}

fn hearing(hearing: VrrpHearing) -> &'static str {
    match hearing {
        VrrpHearing::Deaf => "deaf",
        VrrpHearing::Unsure => "unsure",
        VrrpHearing::Clear => "clear",
        VrrpHearing::Outranked => "outranked",
    }
}

fn family(router: &VrrpRouter) -> &'static str {
    if router.ipv6 { "IPv6" } else { "IPv4" }
}

fn value(status: &VrrpStatusResponse) -> Value {
    let routers: Vec<Value> = status
        .routers
        .iter()
        .map(|r| {
            let outsiders: Vec<Value> = r
                .outsiders
                .iter()
                .map(|o| {
                    json!({
                        "source": o.source,
                        "priority": o.priority,
                        "interval_ms": o.interval_ms,
                        "heard_ms_ago": o.heard_ms_ago,
                    })
                })
                .collect();
            let or_null = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            json!({
                "vip": r.vip,
                "vrid": r.vrid,
                "family": family(r),
                "version": vrrp_version(r.version()),
                "priority": r.priority,
                "interface": r.interface,
                "source": or_null(&r.source),
                "state": state(r.state()),
                "hearing": hearing(r.hearing()),
                "outranked_by": or_null(&r.outranked_by),
                "sent": r.sent,
                "sent_zero": r.sent_zero,
                "withheld": r.withheld,
                "failed": r.failed,
                "failure": or_null(&r.failure),
                "announced_again": r.announced_again,
                "members_heard": r.members_heard,
                "outsiders": outsiders,
                "mismatches": r.mismatches,
            })
        })
        .collect();
    json!({
        "answered_by": status.answered_by.as_ref().map(|n| &n.name),
        "routers": routers,
    })
}

fn text(status: &VrrpStatusResponse) -> String {
    if status.routers.is_empty() {
        let node = node_name(status.answered_by.as_ref());
        return format!("{node} plays no VRRP router: no VIP has a VRRP face, or it is a witness");
    }
    let header = [
        "VIP",
        "VRID",
        "FAMILY",
        "VERSION",
        "PRIORITY",
        "INTERFACE",
        "SOURCE",
        "STATE",
        "OUTSIDE",
        "SENT",
        "MEMBERS",
    ];
    let row = |r: &VrrpRouter| {
        vec![
            shown(&r.vip),
            r.vrid.to_string(),
            family(r).to_owned(),
            vrrp_version(r.version()).to_string(),
            r.priority.to_string(),
            shown(&r.interface),
            dash(&r.source),
            state(r.state()).to_owned(),
            hearing(r.hearing()).to_owned(),
            r.sent.to_string(),
            r.members_heard.to_string(),
        ]
    };
    let mut text = table(&header, status.routers.iter().map(row).collect());
    let mut add = |line: String| {
        text.push('\n');
        text.push_str(&line);
    };
    for r in &status.routers {
        let name = format!("{} ({})", shown(&r.vip), family(r));
        if !r.outranked_by.is_empty() {
            add(format!("{name}: left to {}", shown(&r.outranked_by)));
        }
        if !r.failure.is_empty() {
            add(format!(
                "{name}: {} advertisements were not sent, last: {}",
                r.failed,
                shown(&r.failure)
            ));
        }
        if r.withheld > 0 {
            add(format!(
                "{name}: {} advertisements were not sent, as the lease was not live at that moment",
                r.withheld
            ));
        }
        for o in &r.outsiders {
            add(format!(
                "{name}: router {} outside, priority {}, every {} ms, heard {} ms ago",
                shown(&o.source),
                o.priority,
                o.interval_ms,
                o.heard_ms_ago
            ));
        }
        let mut causes: Vec<_> = r.mismatches.iter().collect();
        causes.sort_unstable();
        if !causes.is_empty() {
            let causes: Vec<String> = causes.iter().map(|(c, n)| format!("{c} {n}")).collect();
            add(format!(
                "{name}: did not match, and changed nothing: {} (the log of the daemon names the senders)",
                shown(&causes.join(", "))
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use buoy_proto::v1::{NodeRef, VrrpOutsider};

    use super::*;

    fn router(hearing: VrrpHearing) -> VrrpRouter {
        VrrpRouter {
            vip: "web".to_owned(),
            vrid: 51,
            priority: 100,
            interface: "eth0".to_owned(),
            source: "192.0.2.1".to_owned(),
            state: VrrpState::Backup.into(),
            hearing: hearing.into(),
            ..VrrpRouter::default()
        }
    }

    #[test]
    fn what_is_heard_is_said() {
        let mut r = router(VrrpHearing::Outranked);
        r.outranked_by = "the router 192.0.2.9 (VRRP priority 200)".to_owned();
        r.mismatches = [("checksum".to_owned(), 3), ("addresses".to_owned(), 1)].into();
        r.outsiders = vec![VrrpOutsider {
            source: "192.0.2.9".to_owned(),
            priority: 200,
            interval_ms: 1000,
            heard_ms_ago: 17,
        }];
        assert!(!is_well(&r));
        let status = VrrpStatusResponse {
            routers: vec![r],
            answered_by: None,
        };
        let text = text(&status);
        for words in [
            "web  51    IPv4    3        100",
            "left to the router 192.0.2.9 (VRRP priority 200)",
            "router 192.0.2.9 outside, priority 200, every 1000 ms, heard 17 ms ago",
            "changed nothing: addresses 1, checksum 3",
        ] {
            assert!(text.contains(words), "{words:?} is not in\n{text}");
        }
        let value = value(&status);
        assert_eq!(value["routers"][0]["hearing"], "outranked");
        assert_eq!(value["routers"][0]["mismatches"]["checksum"], 3);
    }

    #[test]
    fn the_verdict_is_about_what_keeps_the_group_from_being_master() {
        assert!(is_well(&router(VrrpHearing::Clear)));
        assert!(is_well(&router(VrrpHearing::Unsure)));
        assert!(!is_well(&router(VrrpHearing::Deaf)));
        let mut silent = router(VrrpHearing::Clear);
        silent.failure = "no buffer space".to_owned();
        assert!(!is_well(&silent));
    }

    #[test]
    fn a_node_without_routers_says_so() {
        let status = VrrpStatusResponse {
            routers: vec![],
            answered_by: Some(NodeRef {
                name: "n3".to_owned(),
                id: 3,
            }),
        };
        assert!(text(&status).contains("n3 plays no VRRP router"));
    }
}
