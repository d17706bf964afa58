//! Asks whether a node owns a VIP at this instant, and prints the epoch to use as fencing token.
//!
//! `cargo run -p buoy --example fencing -- unix:///run/buoy/buoy.sock web-a n1`

use std::process::ExitCode;
use std::time::Duration;

use buoy_proto::client;
use buoy_proto::v1::{Consistency, GetOwnerRequest};

const TIMEOUT: Duration = Duration::from_secs(2);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [target, vip, node] = arguments.as_slice() else {
        eprintln!("usage: fencing TARGET VIP NODE");
        return ExitCode::from(2);
    };
    match epoch_if_owner(target, vip, node).await {
        Ok(epoch) => {
            println!("{epoch}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

async fn epoch_if_owner(target: &str, vip: &str, node: &str) -> Result<u64, String> {
    let channel = client::connect(target, None, TIMEOUT)
        .await
        .map_err(|e| e.to_string())?;
    // LEASE: the owner itself answers, while it holds the lease.
    let request = GetOwnerRequest {
        vip: vip.to_owned(),
        consistency: Consistency::Lease.into(),
    };
    let mut ownership = client::ownership(channel);
    let answer = tokio::time::timeout(TIMEOUT, ownership.get_owner(request))
        .await
        .map_err(|_| format!("no answer within {TIMEOUT:?}"))?
        .map_err(|status| status.message().to_owned())?
        .into_inner();
    let ownership = answer.ownership.unwrap_or_default();
    match ownership.owner {
        Some(owner) if owner.name == node => Ok(ownership.epoch),
        Some(owner) => Err(format!("{vip} is owned by {}", owner.name)),
        None => Err(format!("nobody owns {vip}")),
    }
}
