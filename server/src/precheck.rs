//! Can this machine carry the timing profile? Checked at start, refused with figures if not.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use buoy_core::NodeName;
use buoy_core::spec::timing::Timing;

use crate::sys::median_and_max;

/// A lease shorter than this needs a thread with realtime scheduling to renew it.
pub const MIN_LEASE_WITHOUT_REALTIME: Duration = Duration::from_millis(500);

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Durable writes of one page in the data directory.
    pub fsync: Vec<Duration>,
    /// Wake-up lateness of a thread like the lease thread.
    pub lateness: Vec<Duration>,
    /// Smallest round trip to each peer that answered.
    pub round_trips: Vec<(NodeName, Duration)>,
    /// Why SCHED_RR was refused, if it was.
    pub realtime_refused: Option<String>,
}

/// What the measurements mean for the profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Reasons not to start, each with what to do.
    pub refusals: Vec<String>,
    /// Things to know.
    pub warnings: Vec<String>,
}

/// Judges measurements against the timings.
pub fn judge(timing: &Timing, m: &Measured) -> Findings {
    let mut found = Findings::default();
    let wider = "use a wider timing profile (timing.profile = \"wan\")";

    // Above three quarters of the shortest election timeout no leader is ever elected.
    let limit = timing.election_min * 3 / 4;
    let (median, max) = median_and_max(&m.fsync);
    if median > limit {
        found.refusals.push(format!(
            "a durable write in the data directory takes {median:.1?} (median of {}), but the timings allow {limit:.1?} (3/4 of the shortest election timeout): put node.data_dir on a faster disk, or {wider}",
            m.fsync.len()
        ));
    } else if max > limit {
        found.warnings.push(format!(
            "the slowest of {} durable writes took {max:.1?}, more than the {limit:.1?} that an election allows",
            m.fsync.len()
        ));
    }

    let limit = timing.renew / 2;
    let (median, max) = median_and_max(&m.lateness);
    if median > limit {
        found.refusals.push(format!(
            "threads wake up {median:.1?} late (median of {}), but a renewal every {:?} allows {limit:.1?}: give this machine more CPU, or {wider}",
            m.lateness.len(),
            timing.renew
        ));
    } else if max > timing.renew {
        found.warnings.push(format!(
            "a thread woke up {max:.1?} late; renewals are due every {:?}",
            timing.renew
        ));
    }

    for (peer, rtt) in &m.round_trips {
        if *rtt > timing.renew {
            found.refusals.push(format!(
                "a round trip to node {peer} takes {rtt:.1?}, but it must fit into one renewal interval ({:?}): {wider}",
                timing.renew
            ));
        }
    }

    if let Some(why) = &m.realtime_refused {
        let fix = "give the process CAP_SYS_NICE (or LimitRTPRIO=10 in its systemd unit)";
        if timing.lease < MIN_LEASE_WITHOUT_REALTIME {
            found.refusals.push(format!(
                "the kernel refuses realtime scheduling ({why}), and without it a lease of {:?} cannot be renewed reliably (at least {MIN_LEASE_WITHOUT_REALTIME:?} is needed): {fix}, or {wider}",
                timing.lease
            ));
        } else {
            found.warnings.push(format!(
                "the kernel refuses realtime scheduling ({why}): {fix}"
            ));
        }
    }
    found
}

/// The smallest of a few round trips to a peer, by TCP connection attempts (a refused one is a round
/// trip as well). `None` when nothing answered: a peer that is not up yet is no reason to wait.
pub async fn round_trip(peer: SocketAddr) -> Option<Duration> {
    const ATTEMPTS: usize = 3;
    const GIVE_UP: Duration = Duration::from_secs(1);
    let mut best: Option<Duration> = None;
    for _ in 0..ATTEMPTS {
        let began = Instant::now();
        match tokio::time::timeout(GIVE_UP, tokio::net::TcpStream::connect(peer)).await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) if e.kind() == std::io::ErrorKind::ConnectionRefused => {}
            _ => return best,
        }
        let took = began.elapsed();
        best = Some(best.map_or(took, |b| b.min(took)));
    }
    best
}

#[cfg(test)]
mod tests {
    use buoy_core::spec::timing::Profile;

    use super::*;

    fn lan() -> Timing {
        Timing::for_profile(Profile::Lan)
    }
    fn ms(n: u64) -> Vec<Duration> {
        vec![Duration::from_millis(n); 9]
    }

    #[test]
    fn a_good_machine_passes_without_a_word() {
        let m = Measured {
            fsync: ms(2),
            lateness: ms(0),
            ..Measured::default()
        };
        assert_eq!(judge(&lan(), &m), Findings::default());
    }

    #[test]
    fn each_limit_refuses_with_its_figures() {
        let slow_disk = Measured {
            fsync: ms(80),
            ..Measured::default()
        };
        let busy = Measured {
            lateness: ms(40),
            ..Measured::default()
        };
        let far = Measured {
            round_trips: vec![("n2".parse().unwrap(), Duration::from_millis(120))],
            ..Measured::default()
        };
        let no_rt = Measured {
            realtime_refused: Some("EPERM".into()),
            ..Measured::default()
        };
        for (m, words) in [
            (slow_disk, ["80.0ms", "67.5ms"]),
            (busy, ["40.0ms", "37.5ms"]),
            (far, ["120.0ms", "75ms"]),
            (no_rt, ["EPERM", "500ms"]),
        ] {
            let found = judge(&lan(), &m);
            assert_eq!(found.refusals.len(), 1, "{found:?}");
            for w in words {
                assert!(
                    found.refusals[0].contains(w),
                    "{w} in {}",
                    found.refusals[0]
                );
            }
        }
    }

    #[test]
    fn one_slow_write_is_a_warning() {
        let mut fsync = ms(2);
        fsync.push(Duration::from_millis(90));
        let found = judge(
            &lan(),
            &Measured {
                fsync,
                ..Measured::default()
            },
        );
        assert!(found.refusals.is_empty() && found.warnings.len() == 1);
    }

    #[test]
    fn without_realtime_a_long_lease_is_only_warned_about() {
        let wan = Timing::for_profile(Profile::Wan);
        let m = Measured {
            realtime_refused: Some("EPERM".into()),
            ..Measured::default()
        };
        let found = judge(&wan, &m);
        assert!(found.refusals.is_empty() && found.warnings.len() == 1);
    }

    #[tokio::test]
    async fn a_refused_connection_is_a_round_trip_too() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(round_trip(address).await.is_some());
        drop(listener);
        assert!(round_trip(address).await.is_some());
    }
}
