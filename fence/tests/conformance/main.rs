//! What every packet gate must do, tried on each of them with real packets between network namespaces.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/frames.rs"]
mod frames;
#[path = "../common/raw.rs"]
mod raw;
#[path = "../common/wire.rs"]
mod wire;

mod contender;
mod deadlines;
mod successors;
mod traffic;

use contender::Contender;

/// One test for each gate and trial.
macro_rules! conformance {
    ($($file:ident: $($trial:ident),+;)+) => {
        mod ebpf {
            $($(#[test] fn $trial() { super::run(super::Contender::Ebpf, super::$file::$trial); })+)+
        }
        mod nft {
            $($(#[test] fn $trial() { super::run(super::Contender::Nft, super::$file::$trial); })+)+
        }
    };
}

conformance! {
    traffic:
        a_managed_address_is_silent_until_it_is_open,
        nothing_leaves_from_an_address_that_is_shut,
        connections_end_with_the_lease,
        others_and_forgotten_addresses_pass,
        everything_shuts_at_once,
        slots_are_kept_apart,
        local_clients_are_fenced_on_lo,
        a_fenced_node_is_a_client_of_another,
        announcements_come_in_and_do_not_go_out,
        interfaces_come_and_go;
    deadlines:
        a_lease_ends_by_itself,
        nothing_sent_after_the_deadline_is_answered,
        a_renewal_that_was_not_answered_extends_nothing,
        a_renewal_that_is_armed_late_ends_no_later,
        an_unknown_deadline_is_never_exceeded,
        many_slots_move_together,
        a_live_lease_drops_nothing;
    successors:
        the_self_test_passes,
        taking_over_opens_nothing,
        a_sentry_takes_over_beside_the_gate,
        only_what_nobody_has_managed_since_is_forgotten_as_inherited,
        repairing_opens_nothing_and_leaks_nothing,
        refusals_change_nothing;
}

fn run(contender: Contender, trial: fn(Contender)) {
    if !contender.is_missing() {
        trial(contender);
    }
}
