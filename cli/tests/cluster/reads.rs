//! GetOwner in its three consistencies, on both sides of a partition.

use std::time::{Duration, Instant};

use buoy_proto::client::{connect, ownership};
use buoy_proto::v1::{Consistency, GetOwnerRequest, GetOwnerResponse, LeaseState};
use tonic::{Code, Status};

use crate::harness::{Cluster, LIMIT, WEB_A, report, wait};

fn get_owner(
    cluster: &Cluster,
    node: &str,
    consistency: Consistency,
) -> Result<GetOwnerResponse, Status> {
    let target = format!("unix://{}", cluster.lab.topology().socket(node).display());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let channel = connect(&target, None, LIMIT).await.unwrap();
        let request = GetOwnerRequest {
            vip: WEB_A.0.to_owned(),
            consistency: consistency.into(),
        };
        ownership(channel)
            .get_owner(request)
            .await
            .map(|answer| answer.into_inner())
    })
}

fn owner(answer: GetOwnerResponse) -> (String, u64, LeaseState) {
    let ownership = answer.ownership.unwrap();
    let state = ownership.lease_state();
    (ownership.owner.unwrap().name, ownership.epoch, state)
}

#[test]
fn reads_are_as_sure_as_was_asked() {
    let Some(cluster) = Cluster::formed() else {
        return;
    };
    let all = [
        Consistency::Linearizable,
        Consistency::Lease,
        Consistency::Local,
    ];
    let (_, before, _) = owner(get_owner(&cluster, "n3", Consistency::Linearizable).unwrap());
    for node in ["n1", "n2", "n3"] {
        for consistency in all {
            wait(&format!("{node} answers {consistency:?}"), || {
                let (name, epoch, lease) = owner(get_owner(&cluster, node, consistency).unwrap());
                assert_eq!((name.as_str(), epoch), ("n1", before));
                lease == LeaseState::Held
            });
        }
    }

    let groups = [
        vec!["n1".to_owned()],
        vec!["n2".to_owned(), "n3".to_owned(), "client".to_owned()],
    ];
    cluster.lab.switch().partition(&groups).unwrap();
    cluster.wait_on(WEB_A.1, "n2");
    for consistency in [Consistency::Linearizable, Consistency::Lease] {
        let begun = Instant::now();
        let refused = get_owner(&cluster, "n1", consistency).unwrap_err();
        let took = begun.elapsed();
        assert_eq!(
            refused.code(),
            Code::Unavailable,
            "{consistency:?}: {refused:?}"
        );
        report(
            &format!("cut off: {consistency:?} is refused after"),
            took.as_secs_f64() * 1_000.0,
        );
        assert!(
            took < Duration::from_secs(5),
            "{consistency:?} took {took:?}"
        );
    }
    let (_, epoch, lease) = owner(get_owner(&cluster, "n1", Consistency::Local).unwrap());
    assert_eq!(epoch, before, "what it knew last");
    assert_ne!(lease, LeaseState::Held, "its lease is over");
    for consistency in all {
        let (name, epoch, _) = owner(get_owner(&cluster, "n3", consistency).unwrap());
        assert_eq!(name, "n2", "{consistency:?}");
        assert!(
            epoch > before,
            "{consistency:?}: epoch {before} became {epoch}"
        );
    }
    cluster.never_dual();
}
