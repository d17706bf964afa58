//! `buoy vrrp watch`: VRRP as it passes this machine's interfaces.

use std::future::pending;
use std::io;
use std::time::{Duration, SystemTime};

use buoy_fence::link::Links;
use buoy_fence::packets::{PacketSocket, Passed, interface_name};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

use super::filter;
use super::seen::{Seen, Way};
use crate::args::VrrpWatch;
use crate::error::{Failure, Verdict};
use crate::output::Output;
use crate::text::shown;

/// No IP packet is longer, jumbograms aside.
const LONGEST: usize = 40 + 65_535;
/// How often an interface that is down is looked for: one that is removed says no more.
const LOOK: Duration = Duration::from_secs(1);

/// Prints packets until enough were seen, the time is over, or somebody interrupts.
pub async fn run(args: &VrrpWatch, out: &mut Output) -> Result<Verdict, Failure> {
    let mut interrupt = signal(SignalKind::interrupt())
        .map_err(|e| Failure::Refused(format!("cannot wait for Ctrl-C: {e}")))?;
    let only = args.interface.as_deref().map(Only::find).transpose()?;
    let ifindex = only.as_ref().map(|only| only.ifindex);
    let socket = PacketSocket::passing(ifindex, &filter::PROGRAM).map_err(cannot_open)?;
    if out.is_terminal() && !out.json {
        let place = only.as_ref().map_or("every interface", |only| only.name);
        eprintln!("buoy: VRRP on {}; Ctrl-C ends", shown(place));
    }
    let over = async {
        match args.duration {
            Some(duration) => sleep(duration).await,
            None => pending().await,
        }
    };
    let ended = tokio::select! {
        ended = show(&socket, only.as_ref(), args, out) => ended,
        () = over => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    match socket.lost() {
        Ok(0) => {}
        Ok(lost) => eprintln!(
            "buoy: {lost} packets are missing above: they came faster than they were shown"
        ),
        Err(e) => eprintln!("buoy: cannot tell whether packets are missing above: {e}"),
    }
    ended.map(|()| Verdict::Fine)
}

async fn show(
    socket: &PacketSocket,
    only: Option<&Only<'_>>,
    args: &VrrpWatch,
    out: &mut Output,
) -> Result<(), Failure> {
    let mut buffer = vec![0; LONGEST];
    let mut left = args.count;
    let mut down = false;
    while left != Some(0) {
        let next = socket.next(&mut buffer);
        let passed = match only {
            Some(only) if down => match timeout(LOOK, next).await {
                Ok(passed) => passed,
                Err(_nothing_yet) => {
                    down = only.is_down()?;
                    continue;
                }
            },
            _ => next.await,
        };
        let passed = match (passed, only) {
            (Ok(passed), _) => passed,
            (Err(e), Some(only)) if e.raw_os_error() == Some(libc::ENETDOWN) => {
                down = only.is_down()?;
                if down {
                    eprintln!("buoy: interface {} is down; waiting", shown(only.name));
                }
                continue;
            }
            (Err(e), _) => return Err(Failure::Refused(format!("cannot receive: {e}"))),
        };
        down = false;
        let seen = Seen::read(way(&passed), &buffer[..passed.length]);
        if args.vrid.is_some() && seen.vrid() != args.vrid {
            continue;
        }
        if out.json {
            out.line(&seen.json())?;
        } else {
            out.text(&seen.text())?;
        }
        left = left.map(|left| left - 1);
    }
    Ok(())
}

fn way(passed: &Passed) -> Way {
    let since = passed.at.duration_since(SystemTime::UNIX_EPOCH);
    Way {
        unix_ms: since.map_or(0, |since| since.as_millis() as u64),
        interface: interface_name(passed.ifindex),
        vlan: passed.vlan,
        sent: passed.sent,
        mac: passed.mac,
    }
}

/// The interface that was asked for.
struct Only<'a> {
    name: &'a str,
    ifindex: u32,
    links: Links,
}

impl Only<'_> {
    fn find(name: &str) -> Result<Only<'_>, Failure> {
        let links = Links::open().map_err(cannot_ask)?;
        let snapshot = links.snapshot().map_err(cannot_ask)?;
        let link = snapshot.present(name);
        let ifindex = link
            .map_err(|e| Failure::Usage(shown(&e.to_string())))?
            .index;
        Ok(Only {
            name,
            ifindex,
            links,
        })
    }

    /// Down for now; an error if it has gone for good.
    fn is_down(&self) -> Result<bool, Failure> {
        let snapshot = self.links.snapshot().map_err(cannot_ask)?;
        match snapshot.links.get(&self.ifindex) {
            Some(link) => Ok(!link.up),
            None => Err(Failure::Refused(format!(
                "interface {} has gone",
                self.name
            ))),
        }
    }
}

fn cannot_ask(e: io::Error) -> Failure {
    Failure::Refused(format!("cannot ask the kernel about interfaces: {e}"))
}

fn cannot_open(e: io::Error) -> Failure {
    Failure::Refused(match e.kind() {
        io::ErrorKind::PermissionDenied => {
            "not permitted to listen to packets: this needs CAP_NET_RAW, try as root".to_owned()
        }
        _ => format!("cannot listen to packets: {e}"),
    })
}
