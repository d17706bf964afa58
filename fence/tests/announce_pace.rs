//! Announcements at the pace that an administrator has set, as a neighbour receives them.

mod common;
#[path = "common/ear.rs"]
mod ear;
#[path = "common/host.rs"]
mod host;

use std::sync::Arc;
use std::time::Duration;

use buoy_fence::announce::{Announcer, Bursts, Pace, Target};
use common::{is_emulated, skip_without_root};
use ear::{Ear, frames, target};
use host::{Host, PATIENCE, until};

#[test]
fn a_set_pace_is_heard_next_to_buoys_own() {
    if skip_without_root() {
        return;
    }
    let host = Host::new("pace");
    let mut ear = Ear::new(&host);
    let gap = Duration::from_millis(20);
    let set = Pace {
        bursts: Some(Bursts {
            repeat: 3,
            delay: Duration::from_millis(600),
        }),
        refresh: Duration::ZERO,
        gap,
        ..Pace::default()
    };
    let paced = |text: &str| Target {
        pace: set,
        ..target(&host, text)
    };
    let targets = [
        paced("10.0.0.50"),
        paced("fd00::50"),
        target(&host, "10.0.0.51"),
    ];
    let mac = targets[0].mac;
    host.run(|| async {
        let (announcer, _events) = Announcer::start(Arc::new(|_| true)).expect("an announcer");
        announcer.up(targets.to_vec()).await;
        // The seventh of Buoy's own comes after 3 s, long after the others have ended.
        let third = frames(&targets[2], false);
        until("seven rounds of Buoy's own are heard", PATIENCE, || {
            ear.listen(mac);
            let own = ear.heard.iter().filter(|(_, f)| third.contains(f));
            own.count() >= 14
        })
        .await;
    });
    for target in &targets[..2] {
        let expected = frames(target, false);
        let heard: Vec<_> = ear
            .heard
            .iter()
            .filter(|(_, f)| expected.contains(f))
            .collect();
        let bytes: Vec<_> = heard.iter().map(|(_, frame)| frame.clone()).collect();
        assert_eq!(
            bytes,
            vec![expected.clone(); 6].concat(),
            "two bursts of three"
        );
        let at = |n: usize| heard[n].0;
        // Received a little later than sent, each by another little.
        let least = gap - Duration::from_millis(if is_emulated() { 19 } else { 5 });
        for n in 1..heard.len() {
            let after = at(n).duration_since(at(n - 1));
            assert!(after >= least, "frame {n} of {} after {after:?}", target.ip);
        }
        let second = at(heard.len() / 2).duration_since(at(0));
        println!("{}: the second burst after {second:?}", target.ip);
        assert!(second >= Duration::from_millis(580), "{second:?}");
    }
}
