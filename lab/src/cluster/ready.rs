//! Whether the cluster does its work: seen from the network first, asked of the daemons last.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::{DaemonState, Lab};
use crate::sys::clock::{now_ns, ns_to_ms};
use crate::topology::CLIENT;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// For so long the picture must not change before it is believed.
const STEADY: Duration = Duration::from_millis(250);
/// How long one request over HTTP may take.
const REQUEST: Duration = Duration::from_secs(1);

/// A cluster that does its work.
#[derive(Clone, PartialEq, Debug)]
pub struct Readiness {
    /// Owner of each VIP: (VIP, node).
    pub owners: Vec<(String, String)>,
    /// How long it took from the call until the picture that held, ms.
    pub after_ms: f64,
}

impl Lab {
    /// Waits until every VIP is answered by exactly one node and serves over HTTP, and the daemons say
    /// that all is well. The lab must be observed.
    ///
    /// # Errors
    /// Not within `timeout`, or a daemon has ended; the words say what is missing and show its log.
    pub fn wait_ready(&self, timeout: Duration) -> Result<Readiness> {
        let (start, end) = (now_ns(), Instant::now() + timeout);
        let mut picture: Option<(Vec<(String, String)>, u64)> = None;
        loop {
            self.check_daemons()?;
            let missing = match self.owners() {
                Ok(owners) => {
                    let now = now_ns();
                    let since = match &picture {
                        Some((same, since)) if *same == owners => *since,
                        _ => now,
                    };
                    picture = Some((owners.clone(), since));
                    if now - since < u64::try_from(STEADY.as_nanos())? {
                        anyhow!("the VIPs were still moving")
                    } else {
                        match self
                            .serving(&owners)
                            .and_then(|()| self.backend().healthy(self))
                        {
                            Ok(()) => {
                                return Ok(Readiness {
                                    owners,
                                    after_ms: ns_to_ms(since - start),
                                });
                            }
                            Err(error) => error,
                        }
                    }
                }
                Err(error) => {
                    picture = None;
                    error
                }
            };
            if Instant::now() >= end {
                let logs: Vec<_> = (self.topology().nodes.iter())
                    .filter(|node| self.backend().runs_on(node))
                    .map(|node| format!("--- log of {}\n{}", node.name, self.log_tail(&node.name)))
                    .collect();
                return Err(missing.context(format!(
                    "the cluster is not ready after {} s\n{}\n---",
                    timeout.as_secs(),
                    logs.join("\n")
                )));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until exactly this node answers for a VIP. The lab must be observed.
    ///
    /// # Errors
    /// Not within `timeout`.
    pub fn wait_owner(&self, vip: &str, node: &str, timeout: Duration) -> Result<()> {
        let end = Instant::now() + timeout;
        loop {
            let seen = self.owner_of(vip);
            if matches!(&seen, Ok(Some(owner)) if owner == node) {
                return Ok(());
            }
            if Instant::now() >= end {
                let now = match seen {
                    Ok(Some(owner)) => format!("{owner} answers for it"),
                    Ok(None) => "nobody answers for it".to_owned(),
                    Err(error) => format!("{error:#}"),
                };
                bail!(
                    "VIP {vip} is not on {node} after {} s: {now}",
                    timeout.as_secs()
                );
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Owner of each VIP: (VIP, node). The lab must be observed.
    ///
    /// # Errors
    /// A VIP is answered by no node, or by several.
    pub fn owners(&self) -> Result<Vec<(String, String)>> {
        let vips = self.topology().vips.iter();
        vips.map(|vip| match self.owner_of(&vip.name)? {
            Some(owner) => Ok((vip.name.clone(), owner)),
            None => Err(anyhow!("nobody answers for VIP {}", vip.name)),
        })
        .collect()
    }

    /// Asks every VIP over HTTP, from the client, who it is; the owner must answer.
    fn serving(&self, owners: &[(String, String)]) -> Result<()> {
        for (name, owner) in owners {
            let vip = self.topology().vips.iter().find(|vip| vip.name == *name);
            for &(address, _) in vip.iter().flat_map(|vip| &vip.addresses) {
                let target = SocketAddr::new(address, 80);
                let answer = self.netns(CLIENT)?.enter(|| get(target))?;
                if answer != *owner {
                    bail!("{owner} owns VIP {name}, but '{answer}' answers HTTP at {target}");
                }
            }
        }
        Ok(())
    }

    fn check_daemons(&self) -> Result<()> {
        for node in &self.topology().nodes {
            if self.backend().runs_on(node)
                && self.daemon_state(&node.name)? == DaemonState::Stopped
            {
                bail!(
                    "{} has ended on {}; its log says:\n{}",
                    self.backend().name(),
                    node.name,
                    self.log_tail(&node.name)
                );
            }
        }
        Ok(())
    }
}

/// The body of `GET /`, without the line end.
fn get(target: SocketAddr) -> Result<String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&target, REQUEST)?;
        stream.set_read_timeout(Some(REQUEST))?;
        write!(stream, "GET / HTTP/1.0\r\nHost: {target}\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(4_096).read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().with_context(|| format!("GET http://{target}/"))?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains(" 200 ") => Ok(body.trim_end().to_owned()),
        _ => bail!(
            "http://{target}/ answers: {}",
            answer.lines().next().unwrap_or("nothing")
        ),
    }
}
