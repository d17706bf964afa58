//! The other end of the control socket, and the switch's process.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::protocol::{Answering, Faults, Request, Response, State, SwitchSpec};
use super::{done, socket_path, spec_path};
use crate::ns::detach_from_terminal;
use crate::observer::{Observations, judging_lag_ns};
use crate::process::Process;
use crate::sys::clock::now_ns;

/// How long an answer of the switch may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How long the making of all ports may take.
const START: Duration = Duration::from_secs(20);

/// A connection to a running switch.
pub struct SwitchHandle(Mutex<BufReader<UnixStream>>);

impl SwitchHandle {
    /// Connects to the switch in `directory`.
    ///
    /// # Errors
    /// No switch runs there.
    pub fn connect(directory: &Path) -> Result<Self> {
        let path = socket_path(directory);
        let stream = UnixStream::connect(&path)
            .with_context(|| format!("no switch answers at {}", path.display()))?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        Ok(Self(Mutex::new(BufReader::new(stream))))
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    /// The switch is gone, or does not answer within 5 s.
    pub fn request(&self, request: &Request) -> Result<Response> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        // A panic while the lock was held leaves at worst an answer unread, which the next reader
        // would take for its own: then an error is the right thing.
        let Ok(mut stream) = self.0.lock() else {
            bail!("the connection to the switch was left in the middle of a request");
        };
        stream
            .get_mut()
            .write_all(&line)
            .context("send a request to the switch")?;
        let mut answer = String::new();
        let length = stream
            .read_line(&mut answer)
            .context("read the switch's answer")?;
        if length == 0 {
            bail!("the switch has closed the connection");
        }
        serde_json::from_str(&answer).context("the switch's answer is not understood")
    }

    fn command(&self, request: &Request) -> Result<u64> {
        done(self.request(request)?)
    }

    /// How the switch stands.
    ///
    /// # Errors
    /// As [`SwitchHandle::request`].
    pub fn state(&self) -> Result<State> {
        match self.request(&Request::State)? {
            Response::State(state) => Ok(state),
            other => bail!("the switch does not say how it stands: {other:?}"),
        }
    }

    /// Pulls or plugs in the cable of a port. Returns when it was in force (ns of CLOCK_BOOTTIME).
    ///
    /// # Errors
    /// There is no such port, or as [`SwitchHandle::request`].
    pub fn cable(&self, port: &str, up: bool) -> Result<u64> {
        self.command(&Request::Cable {
            port: port.to_owned(),
            up,
        })
    }

    /// Makes the device of a port anew, cable pulled, in the namespace that has its name now, and waits
    /// until it is there.
    ///
    /// # Errors
    /// There is no such port, the device cannot be made, or as [`SwitchHandle::request`].
    pub fn renew(&self, port: &str) -> Result<()> {
        self.command(&Request::Renew {
            port: port.to_owned(),
        })?;
        let end = now_ns() + u64::try_from(START.as_nanos())?;
        while now_ns() < end {
            let state = self.state()?;
            let Some(state) = state.ports.into_iter().find(|state| state.name == port) else {
                bail!("the switch has lost port {port}");
            };
            match (state.ready, state.trouble) {
                (true, _) => return Ok(()),
                (false, Some(trouble)) => bail!("{trouble}"),
                (false, None) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        bail!("port {port} was not made anew within {} s", START.as_secs())
    }

    /// Cuts or joins one direction; `None` stands for all ports.
    ///
    /// # Errors
    /// There is no such port, or as [`SwitchHandle::request`].
    pub fn cut(&self, from: Option<&str>, to: Option<&str>, cut: bool) -> Result<u64> {
        self.command(&Request::Cut {
            from: from.map(str::to_owned),
            to: to.map(str::to_owned),
            cut,
        })
    }

    /// Replaces all cuts by a partition; a port in no group reaches all.
    ///
    /// # Errors
    /// There is no such port, one is named twice, or as [`SwitchHandle::request`].
    pub fn partition(&self, groups: &[Vec<String>]) -> Result<u64> {
        self.command(&Request::Partition {
            groups: groups.to_vec(),
        })
    }

    /// Sets the faults of directed links; `None` stands for all ports.
    ///
    /// # Errors
    /// There is no such port, a value is out of range, or as [`SwitchHandle::request`].
    pub fn link_faults(&self, from: Option<&str>, to: Option<&str>, faults: Faults) -> Result<u64> {
        self.command(&Request::LinkFaults {
            from: from.map(str::to_owned),
            to: to.map(str::to_owned),
            faults,
        })
    }

    /// Sets the faults of a port, or of all ports, on top of those of the links.
    ///
    /// # Errors
    /// There is no such port, a value is out of range, or as [`SwitchHandle::request`].
    pub fn port_faults(&self, port: Option<&str>, faults: Faults) -> Result<u64> {
        self.command(&Request::PortFaults {
            port: port.map(str::to_owned),
            faults,
        })
    }

    /// Ends all cuts and faults; cables stay as they are.
    ///
    /// # Errors
    /// As [`SwitchHandle::request`].
    pub fn heal(&self) -> Result<u64> {
        self.command(&Request::Heal)
    }

    /// Starts to probe these addresses anew; none stops it.
    ///
    /// # Errors
    /// Too many addresses, an interval out of range, or as [`SwitchHandle::request`].
    pub fn observe(&self, addresses: &[IpAddr], interval: Duration) -> Result<u64> {
        self.command(&Request::Observe {
            addresses: addresses.to_vec(),
            interval_us: u64::try_from(interval.as_micros()).unwrap_or(u64::MAX),
        })
    }

    /// Who answered one of the last ten probes of each address.
    ///
    /// # Errors
    /// Nothing is observed, or as [`SwitchHandle::request`].
    pub fn owners(&self) -> Result<Vec<Answering>> {
        match self.request(&Request::Owners)? {
            Response::Owners(owners) => Ok(owners),
            Response::Refused { why } => bail!("the switch refuses: {why}"),
            other => bail!("the switch does not say who answers: {other:?}"),
        }
    }

    /// What was observed between two times (ns of CLOCK_BOOTTIME); waits until all of it is judged.
    ///
    /// # Errors
    /// Nothing is observed, the prober stands still, or as [`SwitchHandle::request`].
    pub fn observed(&self, from: u64, to: u64) -> Result<Observations> {
        let mut waited = false;
        loop {
            let seen = match self.request(&Request::Observed { from, to })? {
                Response::Observed(seen) => seen,
                Response::Refused { why } => bail!("the switch refuses: {why}"),
                other => bail!("the switch does not say what it saw: {other:?}"),
            };
            if seen.judged_until >= to {
                return Ok(seen);
            }
            let ready = to.max(now_ns()) + judging_lag_ns(seen.interval_ns);
            if waited && now_ns() > to + 4 * judging_lag_ns(seen.interval_ns) {
                bail!(
                    "the prober stands still: probes are judged until {} only, wanted {to}",
                    seen.judged_until
                );
            }
            let wait = if waited {
                seen.interval_ns
            } else {
                ready
                    .saturating_sub(now_ns())
                    .min(judging_lag_ns(seen.interval_ns))
            };
            std::thread::sleep(Duration::from_nanos(wait));
            waited = true;
        }
    }
}

/// A switch in a process of its own.
pub struct SwitchProcess {
    /// The process.
    pub process: Process,
    /// A connection to it.
    pub handle: SwitchHandle,
    /// While this is open an ephemeral switch lives.
    lifeline: Option<ChildStdin>,
}

impl SwitchProcess {
    /// Starts `program lab switch` in `directory` and waits until it is ready. An `ephemeral` switch
    /// ends, and takes the lab down, when this process does; any other runs on.
    ///
    /// # Errors
    /// The program cannot be run, or a port cannot be made; the words are the switch's own.
    pub fn start(
        program: &Path,
        directory: &Path,
        spec: &SwitchSpec,
        ephemeral: bool,
    ) -> Result<Self> {
        fs::write(spec_path(directory), serde_json::to_vec_pretty(spec)?)
            .context("write the switch's description")?;
        let log_path = directory.join("switch.log");
        let log = File::create(&log_path).context("make the switch's log")?;
        let mut command = Command::new(program);
        command
            .args(["lab", "switch", "--dir"])
            .arg(directory)
            .stdin(if ephemeral {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(log);
        if ephemeral {
            command.arg("--ephemeral");
        }
        detach_from_terminal(&mut command);
        let mut child = command
            .spawn()
            .with_context(|| format!("run {} lab switch", program.display()))?;
        let lifeline = child.stdin.take();
        let stdout = child.stdout.take();
        let process = Process::from_child(&child)?;
        process.write_pidfile(&directory.join("switch.pid"))?;
        let ready = stdout.is_some_and(|mut out| {
            let mut line = [0; 6];
            crate::process::readable(&out, START) && out.read_exact(&mut line).is_ok()
        });
        if !ready {
            process.signal(libc::SIGKILL)?;
            process.wait_exit(ANSWER)?;
            bail!(
                "the switch did not start: {}",
                fs::read_to_string(&log_path).unwrap_or_default().trim()
            );
        }
        Ok(Self {
            process,
            handle: SwitchHandle::connect(directory)?,
            lifeline,
        })
    }

    /// Ends the switch, and with it every port, without taking the lab down.
    ///
    /// # Errors
    /// It does not end within 5 s.
    pub fn stop(mut self) -> Result<()> {
        self.handle.command(&Request::Shutdown)?;
        self.process.wait_exit(ANSWER)?;
        self.lifeline = None;
        Ok(())
    }
}
