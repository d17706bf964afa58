//! An address that the kernel does not remove is not forgotten.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, RwLock};

use buoy_core::spec::Scope;
use tokio::sync::mpsc;

use super::actor::Keeper;
use super::{AddressError, AddressSpec, Shared};
use crate::watch::EventSink;

#[tokio::test]
async fn a_removal_that_failed_is_done_when_it_is_asked_for_again() {
    // SAFETY: plain calls; unshare changes this test's thread only.
    if unsafe { libc::geteuid() != 0 || libc::unshare(libc::CLONE_NEWNET) != 0 } {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "this test must run in CI"
        );
        return println!("SKIP: no network namespace of our own");
    }
    let ip: IpAddr = [127, 0, 0, 9].into();
    let shared = Arc::new(Shared {
        held: RwLock::new(BTreeSet::from([ip])),
        managed: RwLock::default(),
        live: Arc::new(|_| true),
        gated: Arc::new(|_| true),
    });
    let (_orders, commands) = mpsc::channel(1);
    let (sink, _events) = EventSink::new(8);
    let mut keeper = Keeper::open(shared, commands, sink).expect("a keeper");
    let up = std::process::Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    assert!(up.expect("ip").success());
    let spec = AddressSpec {
        ip,
        prefix: 32,
        interface: "lo".to_owned(),
        label: None,
        scope: Scope::Global,
    };
    let added = keeper.add(vec![spec]);
    assert!(added.iter().all(Result::is_ok), "{added:?}");
    let is_there = |keeper: &mut Keeper| {
        let found = keeper.kernel.addresses().expect("addresses");
        found.iter().any(|a| a.ip == ip)
    };

    keeper.kernel.removes_nothing = true;
    for _ in 0..2 {
        let removed = keeper.remove(vec![ip]);
        assert!(
            matches!(removed[..], [Err(AddressError::Netlink { .. })]),
            "{removed:?}"
        );
        assert!(keeper.entries.is_empty(), "it is not refreshed");
        assert!(is_there(&mut keeper));
    }
    keeper.kernel.removes_nothing = false;
    let removed = keeper.remove(vec![ip]);
    assert!(removed.iter().all(Result::is_ok), "{removed:?}");
    assert!(!is_there(&mut keeper) && keeper.leaving.is_empty());
}
