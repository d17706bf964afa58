//! grpc.health.v1: serving while a leader is known and a quorum is heard.

use std::time::Duration;

use buoy_proto::v1::cluster_server::ClusterServer;
use buoy_proto::v1::ownership_server::OwnershipServer;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;

use super::cluster::ClusterService;
use super::ownership::OwnershipService;
use super::{ApiContext, read};
use crate::peer::{raft_changed, raft_view};

/// Silence makes no event, so it is looked for this often.
const INTERVAL: Duration = Duration::from_millis(250);

/// Does this node know a leader and hear a quorum?
pub fn serving(context: &ApiContext) -> bool {
    let raft = raft_view(&context.raft);
    let heard = |id| read::alive(context, id).then_some(());
    raft.leader.is_some() && raft.membership.quorum_value(heard).is_some()
}

/// The health service, kept up to date until the daemon stops.
pub(super) fn start(context: ApiContext) -> HealthServer<impl Health> {
    let (reporter, server) = tonic_health::server::health_reporter();
    tokio::spawn(keep(context, reporter));
    server
}

async fn keep(context: ApiContext, reporter: HealthReporter) {
    let mut stopping = context.stopping.clone();
    let mut said = None;
    loop {
        let stop = *stopping.borrow_and_update();
        let now = !stop && serving(&context);
        if said != Some(now) {
            let status = if now {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            };
            reporter.set_service_status("", status).await;
            if now {
                reporter
                    .set_serving::<OwnershipServer<OwnershipService>>()
                    .await;
                reporter
                    .set_serving::<ClusterServer<ClusterService>>()
                    .await;
            } else {
                reporter
                    .set_not_serving::<OwnershipServer<OwnershipService>>()
                    .await;
                reporter
                    .set_not_serving::<ClusterServer<ClusterService>>()
                    .await;
            }
            said = Some(now);
        }
        if stop {
            return;
        }
        tokio::select! {
            () = raft_changed(&context.raft, INTERVAL) => {}
            changed = stopping.changed() => if changed.is_err() { return },
        }
    }
}
