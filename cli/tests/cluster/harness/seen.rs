//! What the network sees of a cluster: who answers, who answered, and for how long nobody did.

use std::net::IpAddr;

use buoy_lab::observer::{Figures, figures};
use buoy_lab::sys::clock::now_ns;

use super::{Cluster, WEB_A, report, wait};

impl Cluster {
    /// Who answers for an address now.
    pub fn answering(&self, address: IpAddr) -> Vec<String> {
        let all = self.lab.switch().owners().unwrap();
        let found = all.into_iter().find(|seen| seen.address == address);
        found
            .unwrap_or_else(|| panic!("{address} is not observed"))
            .ports
    }

    /// The one who answers for an address.
    pub fn owner(&self, address: IpAddr) -> String {
        let ports = self.answering(address);
        assert_eq!(ports.len(), 1, "{address} is answered by {ports:?}");
        ports[0].clone()
    }

    /// Waits until exactly this node answers for an address.
    pub fn wait_on(&self, address: IpAddr, node: &str) {
        wait(&format!("{address} is on {node}"), || {
            self.answering(address) == [node]
        });
    }

    /// Waits until nobody answers for an address.
    pub fn wait_silent(&self, address: IpAddr) {
        wait(&format!("nobody answers for {address}"), || {
            self.answering(address).is_empty()
        });
    }

    /// What a node says of a member as an owner of a VIP: whether it is eligible, and the reasons.
    pub fn verdict(&self, node: &str, vip: &str, member: &str) -> (bool, String) {
        let why = self.json(node, &["vip", "explain", vip]);
        let candidates = why["candidates"].as_array().unwrap();
        let found = candidates.iter().find(|c| c["node"] == member);
        let found = found.unwrap_or_else(|| panic!("{member} is not in {why}"));
        (found["eligible"] == true, found["reasons"].to_string())
    }

    /// Waits until these nodes all say that all is well and that both members may own web-a, and
    /// each VIP of the lab is answered by one node.
    pub fn settled(&self, nodes: &[&str]) {
        for node in nodes {
            wait(&format!("{node} says that all is well"), || {
                self.buoy(node, &["status"]).code == 0
            });
            wait(&format!("{node} has heard from both members"), || {
                let eligible = |member| self.verdict(node, WEB_A.0, member).0;
                eligible("n1") && eligible("n2")
            });
        }
        wait("each VIP is answered by one node", || {
            self.lab.owners().is_ok()
        });
    }

    /// What was seen of an address between `from` and now.
    pub fn seen(&self, address: IpAddr, from: u64) -> Figures {
        let to = now_ns();
        let seen = self.lab.switch().observed(from, to).unwrap();
        let mut all = figures(&seen, from, to);
        all.retain(|figures| figures.address == address);
        all.pop()
            .unwrap_or_else(|| panic!("{address} is not observed"))
    }

    /// Since `from` this address was answered, and spoken for, by this node alone.
    #[track_caller]
    pub fn only(&self, node: &str, address: IpAddr, from: u64) {
        let seen = self.seen(address, from);
        let (owners, strays) = (seen.owners, seen.stray_ports);
        assert!(
            owners.iter().all(|owner| owner.port == node) && seen.stray_intervals == 0,
            "not {node} alone for {address}: {owners:?}, packets astray from {strays:?}"
        );
    }

    /// Since the observation began no address was answered, or spoken for, by two nodes at once.
    pub fn never_dual(&self) {
        let to = now_ns();
        let seen = self.lab.switch().observed(self.began, to).unwrap();
        for f in figures(&seen, self.began, to) {
            assert_eq!(
                (f.dual_probes, f.stray_intervals),
                (0, 0),
                "two nodes at once for {}: {:?}, strays from {:?}; owners {:?}",
                f.address,
                f.dual,
                f.stray_ports,
                f.owners
            );
        }
    }

    /// As [`Cluster::never_dual`] where a router outside may hold an address too: never two nodes.
    pub fn never_two_nodes(&self) {
        let to = now_ns();
        let seen = self.lab.switch().observed(self.began, to).unwrap();
        for f in figures(&seen, self.began, to) {
            for dual in &f.dual {
                let of_buoy = |port: &&String| !self.lab.topology().is_host(port);
                let nodes = dual.ports.iter().filter(of_buoy).count();
                assert!(nodes < 2, "two nodes at once for {}: {dual:?}", f.address);
            }
        }
    }

    /// Length of the one dark time of an address since `from`, ms, for a report.
    pub fn dark(&self, what: &str, address: IpAddr, from: u64) -> f64 {
        let f = self.seen(address, from);
        report(what, f.longest_dark_ms);
        f.longest_dark_ms
    }
}
