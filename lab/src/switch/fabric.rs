//! The learning bridge: takes frames from ports and gives them to ports, with the faults of each link.

use std::sync::Arc;

use anyhow::{Result, ensure};

use super::delay::DelayQueue;
use super::links::{Fate, Links};
use super::macs::{self, MacTable};
use super::protocol::{MAX_PORTS, PortSpec, SwitchSpec};
use super::tap::{MAX_FRAME, Tap};
use super::worker::{Done, Worker, make};
use crate::observer::Observer;
use crate::rng::Rng;
use crate::sys::clock::now_ns;

/// Frames taken from one port before the others get their turn.
const BATCH: usize = 64;

pub(super) struct Port {
    pub(super) name: String,
    spec: PortSpec,
    /// None while the device is made anew.
    pub(super) tap: Option<Arc<Tap>>,
    /// Why the device could not be made anew, or its carrier not be switched.
    pub(super) trouble: Option<String>,
    pub(super) up: bool,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) lost: u64,
}

impl Port {
    fn open(spec: &PortSpec) -> Result<Self> {
        Ok(Self {
            name: spec.name.clone(),
            spec: spec.clone(),
            tap: Some(Arc::new(make(spec)?)),
            trouble: None,
            up: true,
            received: 0,
            sent: 0,
            lost: 0,
        })
    }

    fn deliver(&mut self, frame: &[u8]) {
        let tap = self.tap.as_ref().filter(|_| self.up);
        if tap.is_some_and(|tap| tap.write(frame)) {
            self.sent += 1;
        } else {
            self.lost += 1;
        }
    }
}

/// The data path of the switch. Nothing here allocates once it is made.
pub(super) struct Fabric {
    pub(super) ports: Vec<Port>,
    pub(super) links: Links,
    pub(super) delayed: DelayQueue,
    pub(super) observer: Option<Observer>,
    pub(super) worker: Worker,
    macs: MacTable,
    rng: Rng,
    buffer: Box<[u8]>,
}

impl Fabric {
    /// Makes the ports, each in its namespace.
    ///
    /// # Errors
    /// Too many ports, or one of them cannot be made.
    pub(super) fn new(spec: &SwitchSpec) -> Result<Self> {
        ensure!(
            spec.ports.len() <= MAX_PORTS,
            "a switch has at most {MAX_PORTS} ports, {} are asked for",
            spec.ports.len()
        );
        Ok(Self {
            ports: spec.ports.iter().map(Port::open).collect::<Result<_>>()?,
            links: Links::default(),
            delayed: DelayQueue::default(),
            observer: None,
            worker: Worker::start()?,
            macs: MacTable::default(),
            rng: Rng::new(spec.seed),
            buffer: vec![0; MAX_FRAME].into(),
        })
    }

    /// Takes what the node behind `port` has sent and forwards it.
    ///
    /// # Errors
    /// The device is gone.
    pub(super) fn receive(&mut self, port: usize) -> std::io::Result<()> {
        // Taken out while the rest of `self` is in use; an empty box costs no allocation.
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut result = Ok(());
        for _ in 0..BATCH {
            let Some(tap) = &self.ports[port].tap else {
                break;
            };
            match tap.read(&mut buffer) {
                Ok(Some(length)) => self.forward(port, &buffer[..length]),
                Ok(None) => break,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        self.buffer = buffer;
        result
    }

    fn forward(&mut self, from: usize, frame: &[u8]) {
        if !self.ports[from].up || frame.len() < 14 {
            self.ports[from].lost += 1;
            return;
        }
        if let Some(observer) = &mut self.observer
            && observer.ingress(from, frame)
        {
            return;
        }
        self.ports[from].received += 1;
        let now = now_ns();
        let target = macs::mac_at(frame);
        self.macs
            .learn(macs::mac_at(&frame[6..]), from, self.links.reach(from), now);
        let known = if macs::is_group(target) {
            None
        } else {
            self.macs.find(target, from, now)
        };
        match known {
            Some(to) if to == from => {}
            Some(to) => self.carry(from, to, frame, now),
            None => {
                for to in (0..self.ports.len()).filter(|&to| to != from) {
                    self.carry(from, to, frame, now);
                }
            }
        }
    }

    fn carry(&mut self, from: usize, to: usize, frame: &[u8], now: u64) {
        let Fate::Arrives { delay, again } = self.links.fate(from, to, &mut self.rng) else {
            self.ports[to].lost += 1;
            return;
        };
        for delay in [Some(delay), again].into_iter().flatten() {
            if delay == 0 {
                self.ports[to].deliver(frame);
            } else if !self.delayed.park(to, frame, now + delay) {
                self.ports[to].lost += 1;
            }
        }
    }

    /// Delivers the frames that were held back until now.
    pub(super) fn release(&mut self) {
        let ports = &mut self.ports;
        self.delayed
            .release(now_ns(), |to, frame| ports[to].deliver(frame));
    }

    /// Sends the next probes, if there is a prober. They meet no fault: the observer sees what a node would
    /// answer, however badly it is connected. Only a pulled cable hides it.
    pub(super) fn probe(&mut self) {
        let ports = &self.ports;
        if let Some(observer) = &mut self.observer {
            observer.tick(now_ns(), |frame| {
                for port in ports.iter().filter(|port| port.up) {
                    // A node whose interface is down takes no frame: it does not answer, which is all
                    // that a probe wants to know.
                    let _ = port.tap.as_ref().map(|tap| tap.write(frame));
                }
            });
        }
    }

    /// Pulls or plugs in a cable: frames stop or flow at once, the carrier follows.
    ///
    /// # Errors
    /// The port has no device at present.
    pub(super) fn set_cable(&mut self, at: usize, up: bool) -> Result<(), String> {
        let port = &mut self.ports[at];
        let Some(tap) = &port.tap else {
            return Err(format!("the device of port {} is not there", port.name));
        };
        port.up = up;
        self.worker.carrier(at, tap.clone(), up);
        if !up {
            self.macs.forget(at);
        }
        Ok(())
    }

    /// Removes the device of a port and makes it anew in the namespace that has the name now, with the
    /// cable pulled.
    pub(super) fn renew(&mut self, at: usize) {
        self.macs.forget(at);
        let port = &mut self.ports[at];
        port.up = false;
        port.trouble = None;
        self.worker.renew(at, port.tap.take(), port.spec.clone());
    }

    /// Takes over what the worker has done; `added` gets each new device.
    pub(super) fn take_over(
        &mut self,
        mut added: impl FnMut(usize, &Tap) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        for done in self.worker.done() {
            match done {
                Done::Renewed(at, Ok(tap)) => {
                    added(at, &tap)?;
                    self.ports[at].tap = Some(Arc::new(tap));
                }
                Done::Renewed(at, Err(error)) => {
                    self.ports[at].trouble = Some(format!("{error:#}"));
                }
                Done::CarrierFailed(at, error) => {
                    self.ports[at].trouble = Some(format!("switch the carrier: {error}"));
                }
            }
        }
        Ok(())
    }
}
