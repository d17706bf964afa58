//! A lab: the namespaces, the switch, and what runs on each node.

mod node;
mod ready;
mod store;

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::backend::Backend;
use crate::client::{Client, ClientSpec};
use crate::legacy::Host;
use crate::ns::Netns;
use crate::switch::protocol::{PortSpec, SwitchSpec};
use crate::switch::{SwitchHandle, SwitchProcess};
use crate::sys::iface;
use crate::topology::{CLIENT, INTERFACE, Topology};

pub use node::DaemonState;
pub use ready::Readiness;
pub use store::{BrokenLab, NoSuchLab, Record, labs, teardown};

/// How often the prober asks for each address.
pub const PROBE: Duration = Duration::from_millis(1);

/// A lab that is up. An ephemeral one is taken down when the value is dropped.
pub struct Lab {
    record: Record,
    switch: Switch,
}

enum Switch {
    /// Ours; it ends with us if the lab is ephemeral.
    Own(SwitchProcess),
    /// Started by an earlier program.
    Found(SwitchHandle),
}

impl Lab {
    /// Makes the lab: namespaces, switch, addresses. Nothing runs on the nodes yet.
    ///
    /// # Errors
    /// A lab of this name is there, or something cannot be made; then nothing is left behind.
    pub fn create(record: Record) -> Result<Self> {
        record.topology.check_ports()?;
        record.create()?;
        let name = record.topology.name.clone();
        Self::build(record).inspect_err(|_| {
            if let Err(error) = teardown(&name) {
                eprintln!("buoy lab: {error:#}");
            }
        })
    }

    fn build(record: Record) -> Result<Self> {
        let topology = &record.topology;
        for port in topology.ports() {
            let place = topology.place(port);
            std::fs::create_dir(&place).with_context(|| format!("make {}", place.display()))?;
            Netns::create(&topology.netns(port))?;
        }
        for node in &topology.nodes {
            make_disk(topology, &node.name)?;
        }
        let spec = SwitchSpec {
            ports: topology
                .ports()
                .map(|port| port_spec(topology, port))
                .collect(),
            seed: topology.seed,
        };
        let directory = topology.directory();
        let switch = SwitchProcess::start(&record.program, &directory, &spec, record.ephemeral)?;
        for port in topology.ports() {
            configure(topology, port)?;
        }
        Ok(Self {
            record,
            switch: Switch::Own(switch),
        })
    }

    /// Connects to a lab that an earlier program has left running.
    ///
    /// # Errors
    /// [`NoSuchLab`], or [`BrokenLab`]: its switch does not answer.
    pub fn open(name: &str) -> Result<Self> {
        let record = Record::load(name)?;
        let switch = SwitchHandle::connect(&record.topology.directory())
            .map_err(|error| BrokenLab(name.to_owned(), format!("{error:#}")))?;
        Ok(Self {
            record,
            switch: Switch::Found(switch),
        })
    }

    /// Its parts.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.record.topology
    }

    /// Its record.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// What floats its VIPs.
    #[must_use]
    pub fn backend(&self) -> &dyn Backend {
        self.record.backend.backend()
    }

    /// Its switch.
    #[must_use]
    pub fn switch(&self) -> &SwitchHandle {
        match &self.switch {
            Switch::Own(process) => &process.handle,
            Switch::Found(handle) => handle,
        }
    }

    /// A further host of the lab, for something that is started there.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn host(&self, name: &str) -> Result<Host> {
        let place = self.topology().place(name);
        Ok(Host::new(self.netns(name)?, INTERFACE, &place))
    }

    /// The namespace of a node, of the client, or of a further host.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn netns(&self, port: &str) -> Result<Netns> {
        if port != CLIENT && !self.topology().is_host(port) {
            self.topology().node(port)?;
        }
        Netns::open(&self.topology().netns(port))
    }

    /// Starts to observe every VIP, once a millisecond, and forgets what was observed before.
    ///
    /// # Errors
    /// The switch is gone.
    pub fn observe(&self) -> Result<u64> {
        self.switch()
            .observe(&self.topology().vip_addresses(), PROBE)
    }

    /// Starts a client in the client's namespace; it ends with its handle. One lab can have several.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn client(&self, spec: &ClientSpec) -> Result<Client> {
        let log = self
            .topology()
            .place(CLIENT)
            .join(format!("{:?}.log", spec.kind));
        Client::start(&self.record.program, &self.netns(CLIENT)?, spec, &log)
    }

    /// The only node that answers for a VIP now, by all of its addresses. The lab must be observed.
    ///
    /// # Errors
    /// There is no such VIP, several nodes answer for it, or nothing is observed.
    pub fn owner_of(&self, vip: &str) -> Result<Option<String>> {
        let spec = self.topology().vips.iter().find(|known| known.name == vip);
        let spec = spec.with_context(|| {
            let names: Vec<_> = self
                .topology()
                .vips
                .iter()
                .map(|vip| vip.name.as_str())
                .collect();
            format!("no VIP is called '{vip}'; there are {}", names.join(", "))
        })?;
        let own = |address: IpAddr| spec.addresses.iter().any(|&(mine, _)| mine == address);
        let mut answers = self.switch().owners()?;
        answers.retain(|answer| own(answer.address));
        let Some(first) = answers.first() else {
            bail!("VIP {vip} is not observed");
        };
        match first.ports.as_slice() {
            [port] if answers.iter().all(|answer| answer.ports == first.ports) => {
                Ok(Some(port.clone()))
            }
            [] => Ok(None),
            _ => bail!("VIP {vip} is answered by {}", first.ports.join(" and ")),
        }
    }

    /// Heals the network: no cut, no fault, and every cable plugged in but those of crashed machines.
    ///
    /// # Errors
    /// The switch is gone.
    pub fn heal(&self) -> Result<()> {
        self.switch().heal()?;
        for port in self.switch().state()?.ports {
            if !port.up && !self.is_crashed(&port.name) {
                self.switch().cable(&port.name, true)?;
            }
        }
        Ok(())
    }

    /// Takes the lab down.
    ///
    /// # Errors
    /// As [`teardown`].
    pub fn down(self) -> Result<()> {
        teardown(&self.record.topology.name)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.record.ephemeral
            && let Err(error) = teardown(&self.record.topology.name)
            && !error.is::<NoSuchLab>()
        {
            eprintln!("buoy lab: {error:#}");
        }
    }
}

/// Gives a node its data directory, on a disk, where its configuration looks for it.
fn make_disk(topology: &Topology, node: &str) -> Result<()> {
    let disk = topology.data(node);
    std::fs::create_dir_all(&disk).with_context(|| format!("make {}", disk.display()))?;
    let link = topology.place(node).join("data");
    std::os::unix::fs::symlink(&disk, &link).with_context(|| format!("link {}", link.display()))
}

fn port_spec(topology: &Topology, port: &str) -> PortSpec {
    PortSpec {
        name: port.to_owned(),
        netns: topology.netns(port),
        interface: INTERFACE.to_owned(),
        mac: topology.mac(port),
    }
}

/// Gives the interface of a node or of the client its own addresses.
fn configure(topology: &Topology, port: &str) -> Result<()> {
    Netns::open(&topology.netns(port))?.enter(|| {
        topology
            .addresses(port)
            .into_iter()
            .try_for_each(|(address, prefix)| iface::add_address(INTERFACE, address, prefix))
    })
}

/// The last lines of a log, for a message.
pub(crate) fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
