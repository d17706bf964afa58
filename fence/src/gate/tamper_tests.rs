//! Somebody else writes into the gate's tables: it is noticed, and put right.

use std::net::IpAddr;

use buoy_core::Mono;

use super::bpf::{BPF_NOEXIST, Map, Program};
use super::leftovers::fenced_by;
use super::loaded::{ADDRESSES, SLOT_OF, key};
use super::tc::Tc;
use super::{Direction, EbpfGate, EbpfOptions, Gate, GateError, leftovers};

const LOOPBACK: u32 = 1;

/// The table of that name, as any privileged process can open it.
fn table(name: &str) -> Map {
    let program = leftovers(LOOPBACK).expect("leftovers")[0]
        .program
        .expect("a program");
    let ids = Program::by_id(program)
        .expect("program")
        .map_ids()
        .expect("ids");
    let maps = ids.into_iter().map(|id| Map::by_id(id).expect("map"));
    maps.into_iter()
        .find(|map| map.name() == name)
        .expect("the table")
}

/// A gate in a new network namespace that the calling thread then lives in; `None` where that cannot be.
fn fenced_thread() -> Option<EbpfGate> {
    // SAFETY: plain calls; unshare changes this test's thread only.
    let alone = unsafe { libc::geteuid() == 0 && libc::unshare(libc::CLONE_NEWNET) == 0 };
    let gate = if alone {
        Some(EbpfGate::new(EbpfOptions {
            capacity: 8,
            mapped: true,
        }))
    } else {
        None
    };
    match gate {
        Some(Ok(gate)) => return Some(gate),
        Some(Err(e @ GateError::Unavailable { .. })) => println!("SKIP: {e}"),
        Some(Err(e)) => panic!("{e}"),
        None => println!("SKIP: no network namespace of our own"),
    }
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "this test must run in CI"
    );
    None
}

#[test]
fn changed_tables_are_noticed_and_rewritten() {
    let Some(mut gate) = fenced_thread() else {
        return;
    };
    let (vip, stranger): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    gate.manage(vip).expect("manage");
    gate.attach(LOOPBACK).expect("attach");
    assert!(gate.verify(LOOPBACK).expect("verify"));
    let (addresses, slots) = (table(ADDRESSES), table(SLOT_OF));
    let index = 0u32.to_ne_bytes();
    let acts: [(&str, &dyn Fn()); 3] = [
        ("removed", &|| {
            assert!(addresses.delete(&key(vip)).expect("delete"))
        }),
        ("opened", &|| {
            slots
                .update(&index, &9u64.to_ne_bytes(), 0)
                .expect("update")
        }),
        ("added", &|| {
            addresses
                .update(&key(stranger), &index, BPF_NOEXIST)
                .expect("update")
        }),
    ];
    for (what, act) in acts {
        act();
        assert!(!gate.verify(LOOPBACK).expect("verify"), "{what}");
        gate.repair(LOOPBACK).expect("repair");
        assert!(gate.verify(LOOPBACK).expect("verify"), "{what}, repaired");
    }
    let program = leftovers(LOOPBACK).expect("leftovers")[0]
        .program
        .expect("a program");
    assert_eq!(
        fenced_by(program).expect("fenced"),
        gate.list().expect("list")
    );
    assert_eq!(gate.deadlines().load(9), Mono::ZERO);
}

/// The names by which another process finds a gate are all there.
#[test]
fn a_gate_is_known_by_its_names() {
    let Some(mut gate) = fenced_thread() else {
        return;
    };
    gate.attach(LOOPBACK).expect("attach");
    let mut tc = Tc::new().expect("tc");
    for direction in Direction::BOTH {
        let filters = tc.filters(LOOPBACK, direction).expect("filters");
        assert_eq!(
            filters.iter().filter(|f| f.is_ours()).count(),
            1,
            "{filters:?}"
        );
    }
    assert_eq!(table(ADDRESSES).max_entries(), 8);
}
