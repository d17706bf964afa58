//! What this node says and hears as VRRP router.

use std::net::IpAddr;

use buoy_core::health::Hearing;
use buoy_proto::v1::{self, VrrpStatusResponse};
use buoy_vrrp_compat::router::State;

use super::view::node_ref;
use super::{ApiContext, millis};
use crate::vrrp::RouterView;

pub(super) async fn status(context: &ApiContext) -> VrrpStatusResponse {
    let views = (context.vrrp)().await;
    let state = context.reader.read();
    VrrpStatusResponse {
        routers: views.iter().map(router).collect(),
        answered_by: Some(node_ref(context, &state, context.me)),
    }
}

fn router(view: &RouterView) -> v1::VrrpRouter {
    let state = match view.state {
        State::Initialize => v1::VrrpState::Initialize,
        State::Backup => v1::VrrpState::Backup,
        State::Active => v1::VrrpState::Active,
    };
    let (hearing, outranked_by) = match &view.hearing {
        None => (v1::VrrpHearing::Deaf, String::new()),
        Some(Hearing::Unsure) => (v1::VrrpHearing::Unsure, String::new()),
        Some(Hearing::Clear) => (v1::VrrpHearing::Clear, String::new()),
        Some(Hearing::Outranked(by)) => (v1::VrrpHearing::Outranked, by.clone()),
    };
    let version = match view.version {
        2 => v1::VrrpVersion::V2,
        _ => v1::VrrpVersion::V3,
    };
    let (failed, failure) = view.failed.clone();
    let outsiders = view.outsiders.iter().map(|o| v1::VrrpOutsider {
        source: o.source.to_string(),
        priority: o.priority.into(),
        interval_ms: millis(o.interval),
        heard_ms_ago: millis(o.heard_ago),
    });
    v1::VrrpRouter {
        vip: view.vip.to_string(),
        vrid: view.vrid.into(),
        ipv6: !view.v4,
        version: version.into(),
        priority: view.priority.into(),
        interface: view.interface.clone(),
        source: view
            .source
            .as_ref()
            .map_or_else(String::new, IpAddr::to_string),
        state: state.into(),
        hearing: hearing.into(),
        outranked_by,
        sent: view.sent,
        sent_zero: view.sent_zero,
        withheld: view.withheld,
        failed,
        failure: failure.unwrap_or_default(),
        announced_again: view.stats.announced_again,
        members_heard: view.members_heard,
        outsiders: outsiders.collect(),
        mismatches: view
            .mismatches
            .iter()
            .map(|(cause, count)| (cause.name().to_owned(), *count))
            .collect(),
    }
}
