//! A userspace Ethernet switch: one process, one poll loop, one TAP device per port.

mod apply;
mod control;
mod delay;
mod fabric;
mod handle;
mod links;
mod macs;
pub mod protocol;
mod tap;
mod worker;

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::sys::clock::now_ns;
use crate::sys::poll::{Epoll, Interest, Timer};
use crate::sys::{lock_memory, realtime};
use control::Control;
use fabric::Fabric;
use protocol::{Request, Response, SwitchSpec};

pub use handle::{SwitchHandle, SwitchProcess};

/// Priority of the switch under SCHED_RR: above everything on the nodes, for it stands for hardware.
const PRIORITY: i32 = 60;

const TICK: u64 = 100;
const RELEASE: u64 = 101;
const LIFELINE: u64 = 102;
const WORKER: u64 = 103;
const CONTROL: u64 = 200;

/// How a switch came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// It was told to.
    Shutdown,
    /// The process that held its lifeline is gone.
    Orphaned,
}

/// The control socket of the switch in `directory`.
#[must_use]
pub fn socket_path(directory: &Path) -> PathBuf {
    directory.join("switch.sock")
}

/// The file in `directory` that says which ports the switch has.
#[must_use]
pub fn spec_path(directory: &Path) -> PathBuf {
    directory.join("switch.json")
}

/// Runs the switch described in `directory` until it is told to end. When it is ready, one line goes to
/// standard output. With `lifeline`, the end of standard input ends it too.
///
/// # Errors
/// A port cannot be made, or the poll loop fails.
pub fn serve(directory: &Path, lifeline: bool) -> Result<End> {
    let path = spec_path(directory);
    let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let spec: SwitchSpec = serde_json::from_slice(&text)
        .with_context(|| format!("{} does not describe a switch", path.display()))?;
    // Without the right to do so it runs all the same, later now and then; its state says which.
    // Before the worker is started, which inherits it.
    let realtime = realtime(PRIORITY).is_ok();
    let fabric = Fabric::new(&spec)?;
    if let Err(error) = lock_memory() {
        eprintln!("lab switch: memory is not locked: {error}");
    }
    let epoll = Epoll::new()?;
    let control = Control::bind(&socket_path(directory), &epoll, CONTROL)?;
    if lifeline {
        epoll.add(std::io::stdin().as_fd(), LIFELINE, Interest::Read)?;
    }
    let mut out = std::io::stdout().lock();
    out.write_all(b"ready\n")
        .and_then(|()| out.flush())
        .context("say that the switch is ready")?;
    drop(out);
    Service {
        fabric,
        epoll,
        control: Some(control),
        tick: Timer::new()?,
        release: Timer::new()?,
        armed: None,
        realtime,
        shutdown: false,
    }
    .run()
}

struct Service {
    fabric: Fabric,
    epoll: Epoll,
    /// Taken out while it is at work, for it works on the rest.
    control: Option<Control>,
    tick: Timer,
    release: Timer,
    /// When the release timer is set to fire.
    armed: Option<u64>,
    realtime: bool,
    shutdown: bool,
}

impl Service {
    fn run(mut self) -> Result<End> {
        self.epoll.add(&self.tick, TICK, Interest::Read)?;
        self.epoll.add(&self.release, RELEASE, Interest::Read)?;
        self.epoll
            .add(&self.fabric.worker, WORKER, Interest::Read)?;
        for (at, port) in self.fabric.ports.iter().enumerate() {
            if let Some(tap) = &port.tap {
                self.epoll.add(tap, at as u64, Interest::Read)?;
            }
        }
        let mut ready = Vec::with_capacity(crate::sys::poll::EVENTS);
        while !self.shutdown {
            self.epoll.wait(&mut ready, -1)?;
            for &token in &ready {
                match token {
                    TICK => {
                        if self.tick.fired() > 0 {
                            self.fabric.probe();
                        }
                    }
                    RELEASE => {
                        if self.release.fired() > 0 {
                            self.armed = None;
                            self.fabric.release();
                        }
                    }
                    WORKER => self.take_over()?,
                    LIFELINE => return Ok(End::Orphaned),
                    CONTROL.. => self.serve_control(token)?,
                    port => self.serve_port(port)?,
                }
            }
            self.arm_release()?;
        }
        Ok(End::Shutdown)
    }

    fn serve_port(&mut self, token: u64) -> Result<()> {
        let port = usize::try_from(token).unwrap_or(usize::MAX);
        let name = &self.fabric.ports[port].name;
        let context = format!("port {name}: the device is gone (was its namespace removed?)");
        self.fabric.receive(port).context(context)
    }

    fn serve_control(&mut self, token: u64) -> Result<()> {
        let Some(mut control) = self.control.take() else {
            return Ok(());
        };
        let mut observing = false;
        control.ready(token, &self.epoll, |request| {
            self.shutdown |= matches!(request, Request::Shutdown);
            observing |= matches!(request, Request::Observe { .. });
            apply::apply(&mut self.fabric, request, self.realtime)
        });
        self.control = Some(control);
        if observing {
            self.arm_tick()?;
        }
        Ok(())
    }

    fn take_over(&mut self) -> Result<()> {
        let epoll = &self.epoll;
        self.fabric
            .take_over(|at, tap| epoll.add(tap, at as u64, Interest::Read))
            .context("watch a device that was made anew")
    }

    fn arm_tick(&self) -> Result<()> {
        let interval = self.fabric.observer.as_ref().map(|it| it.interval_ns());
        match interval {
            Some(interval) => self.tick.set(now_ns() + interval, interval)?,
            None => self.tick.set(0, 0)?,
        }
        Ok(())
    }

    fn arm_release(&mut self) -> Result<()> {
        let due = self.fabric.delayed.next_due();
        if let Some(due) = due
            && self.armed.is_none_or(|armed| due < armed)
        {
            self.release.set(due.max(1), 0)?;
            self.armed = Some(due);
        }
        Ok(())
    }
}

/// Expects that a request was done and returns when.
fn done(response: Response) -> Result<u64> {
    match response {
        Response::Done { at } => Ok(at),
        Response::Refused { why } => anyhow::bail!("the switch refuses: {why}"),
        other => anyhow::bail!("the switch gave an answer to another question: {other:?}"),
    }
}
