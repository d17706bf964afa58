//! The keys of `[[vip]]` and its tables.

use super::super::Kind::{
    Addresses, Duration, Flag, Names, Number, Priorities, Sources, Text, Texts, Word,
};
use super::super::Missing::{Default, Refused};
use super::super::Section;
use super::key;

pub(super) const VIP: Section = Section {
    path: "vip",
    list: true,
    text: "A virtual IP: one or more addresses that move together. **The daemon reads these only when the cluster starts for the first time**; after that VIPs are changed with `buoy vip put` and `buoy vip delete`. A cluster has at most 10,000 VIPs, and 12,288 addresses of all VIPs together, since one node must be able to hold all of them. The same tables in a file of their own are what `buoy vip put -f` reads.",
    keys: &[
        key(
            "name",
            Text,
            Refused,
            "name = \"web\"",
            "Name of the VIP, 1 to 63 characters of a-z, A-Z, 0-9, '-', '_' and '.'.",
        ),
        key(
            "addresses",
            Addresses,
            Refused,
            "addresses = [\"192.168.192.13/24\", \"2001:db8::13\"]",
            "1 to 64 addresses, IPv4 or IPv6, with the prefix length to configure them with; without one, a host address (/32, /128). No address may belong to two VIPs. Each must lie within a prefix that the interface has.",
        ),
        key(
            "interface",
            Text,
            Refused,
            "interface = \"eth0\"",
            "Network interface that carries it, on every node.",
        ),
        key(
            "label",
            Text,
            Default("none"),
            "label = \"eth0:web\"",
            "Label of its IPv4 addresses, as `ip addr` shows it: the interface's name, or that with ':' and more after it; at most 15 bytes.",
        ),
        key(
            "scope",
            Word(&["global", "link", "host"]),
            Default("\"global\""),
            "scope = \"global\"",
            "Scope of its addresses, as in `ip addr`.",
        ),
    ],
    tables: &["placement", "vrrp"],
};

pub(super) const PLACEMENT: Section = Section {
    path: "vip.placement",
    list: false,
    text: "Which nodes the VIP wants. Belongs to the `[[vip]]` above it.",
    keys: &[
        key(
            "priority",
            Priorities,
            Default("100 for every node"),
            "priority = { n1 = 150, n3 = 0 }",
            "Priority by node name, 1 to 254, larger is better; 0 means never on that node. A node that is not listed has 100.",
        ),
        key(
            "preempt",
            Word(&["sticky", "preempt"]),
            Default("\"sticky\""),
            "preempt = \"preempt\"",
            "`sticky`: the VIP stays where it is while that node can hold it. `preempt`: it moves to a better node when one is well.",
        ),
        key(
            "preempt_delay",
            Duration,
            Default("\"0s\""),
            "preempt_delay = \"5s\"",
            "How long a better node must have been well before the VIP moves to it.",
        ),
        key(
            "colocate_with",
            Names,
            Default("none"),
            "colocate_with = [\"web6\"]",
            "VIPs that must be on the same node as this one.",
        ),
        key(
            "avoid",
            Names,
            Default("none"),
            "avoid = [\"db\"]",
            "VIPs that should be on another node than this one, as long as there is another one.",
        ),
    ],
    tables: &[],
};

pub(super) const VRRP: Section = Section {
    path: "vip.vrrp",
    list: false,
    text: "How the VIP looks to routers and keepalived machines on its LAN: one VRRP router, played by whichever node holds it. Without this table no VRRP is spoken for it. Belongs to the `[[vip]]` above it; see [VRRP](vrrp.md), also for what a router outside the cluster costs that is allowed to win.",
    keys: &[
        key(
            "vrid",
            Number { min: 1, max: 255 },
            Refused,
            "vrid = 51",
            "Virtual router id, which no other VIP of the interface has (keepalived: `virtual_router_id`).",
        ),
        key(
            "version",
            Number { min: 2, max: 3 },
            Default("3"),
            "version = 2",
            "Version that is sent, and the only one that is accepted. Version 2 has no IPv6 and whole seconds. keepalived's own default is 2.",
        ),
        key(
            "priority",
            Number { min: 1, max: 254 },
            Default("100"),
            "priority = 150",
            "VRRP priority of the cluster as a whole. Which node holds the VIP is decided by `[vip.placement]`, not by this.",
        ),
        key(
            "interval",
            Duration,
            Default("\"1s\""),
            "interval = \"100ms\"",
            "Between two advertisements (keepalived: `advert_int`): 10ms to 40.95s in steps of 10ms, in version 2 1s to 255s in whole seconds. Take one whose triple is longer than a failover of the cluster, or backups outside take over in between.",
        ),
        key(
            "auth",
            Word(&["none", "pass", "ah"]),
            Default("\"none\""),
            "auth = \"pass\"",
            "Version 2 only (keepalived: `auth_type`). It keeps mistakes out, not attackers.",
        ),
        key(
            "password",
            Text,
            Default("none"),
            "password = \"1111\"",
            "With `auth`: 1 to 8 bytes (keepalived: `auth_pass`, of which it takes the first 8).",
        ),
        key(
            "preempt",
            Flag,
            Default("true"),
            "preempt = false",
            "`false`: a router outside that is master keeps the VIP although its priority is lower (keepalived: `nopreempt`).",
        ),
        key(
            "preempt_delay",
            Duration,
            Default("\"0s\""),
            "preempt_delay = \"10s\"",
            "How long such a router is left alone before the cluster takes the VIP, at most 1000s.",
        ),
        key(
            "unicast_peers",
            Texts,
            Default("none: multicast"),
            "unicast_peers = [\"192.0.2.7\"]",
            "Routers outside the cluster that are addressed one by one (keepalived: `unicast_peer`). The nodes of the cluster need not be listed.",
        ),
        key(
            "source",
            Sources,
            Default("the first address of the interface; for IPv6 its link-local one"),
            "source = { n1 = \"192.0.2.1\" }",
            "Source address of a node's advertisements (keepalived: `mcast_src_ip`, `unicast_src_ip`): an address, or a list of one IPv4 and one IPv6 address.",
        ),
        key(
            "excluded",
            Texts,
            Default("none"),
            "excluded = [\"192.0.2.13\"]",
            "Addresses of the VIP that advertisements do not list (keepalived: `virtual_ipaddress_excluded`).",
        ),
        key(
            "mac",
            Word(&["interface", "virtual", "virtual-xmit-base"]),
            Default("\"interface\""),
            "mac = \"virtual\"",
            "Which MAC neighbours find the VIP at. `virtual`: 00:00:5e:00:01 and the VRID, wherever the VIP is (keepalived: `use_vmac`); its addresses are on an interface that Buoy makes on top of the VIP's, `vrrp.<vrid>.<interface>`, and advertisements come from there. `virtual-xmit-base`: the same, but advertisements come from the VIP's interface with its own MAC (keepalived: `vmac_xmit_base`). IPv4 only. The switch has to let one MAC move between ports.",
        ),
        key(
            "garp_master_repeat",
            Number { min: 1, max: 255 },
            Default("Buoy's own series; 5 with `garp_master_delay`"),
            "garp_master_repeat = 3",
            "How many announcements of each address leave at once when a node gets the VIP, and again after `garp_master_delay`. An announcement is a gratuitous ARP as request and as reply (keepalived sends the request only), or one unsolicited neighbour advertisement. Without this key and `garp_master_delay` there are eight, at 0, 50, 150, 350 and 750 ms and 1.5, 3 and 6 s: frames that leave at once are lost at once. Either key puts the two bursts in their place, here and whenever the VIP is announced anew: after a conflict, after a link was down.",
        ),
        key(
            "garp_master_delay",
            Duration,
            Default("Buoy's own series; \"5s\" with `garp_master_repeat`"),
            "garp_master_delay = \"5s\"",
            "From the beginning of the first burst to the second, at most 1000s. \"0s\": there is no second. See `garp_master_repeat`.",
        ),
        key(
            "garp_master_refresh",
            Duration,
            Default("\"60s\""),
            "garp_master_refresh = \"30s\"",
            "Every address is announced again this often, counted from the last of the announcements above (of two bursts: from the second): 1s to 24h. \"0s\", which is keepalived's default: never.",
        ),
        key(
            "garp_master_refresh_repeat",
            Number { min: 1, max: 255 },
            Default("1"),
            "garp_master_refresh_repeat = 2",
            "How many announcements of each address leave at once then.",
        ),
        key(
            "garp_lower_prio_repeat",
            Number { min: 0, max: 255 },
            Default(
                "as when a node gets the VIP; with `garp_lower_prio_delay` that of `garp_master_repeat`, or 5",
            ),
            "garp_lower_prio_repeat = 3",
            "How many announcements of each address leave at once after an advertisement of lower priority was heard, whose sender may have announced the VIP as its own, and again after `garp_lower_prio_delay`; what else is to be announced goes on. 0: none, and neighbours that believed the other router are told with the next refresh. Without this key and `garp_lower_prio_delay` everything begins anew as when a node gets the VIP.",
        ),
        key(
            "garp_lower_prio_delay",
            Duration,
            Default(
                "as when a node gets the VIP; with `garp_lower_prio_repeat` that of `garp_master_delay`, or \"5s\"",
            ),
            "garp_lower_prio_delay = \"5s\"",
            "From the beginning of the first of these bursts to the second, at most 1000s; a further such advertisement begins both anew. \"0s\": there is no second.",
        ),
        key(
            "garp_interval",
            Duration,
            Default("no gap"),
            "garp_interval = \"1ms\"",
            "At least this much time lies between two gratuitous ARP frames of a node, the two of one announcement among them, on the interface: 1us to 1s. It holds among the VIPs of the interface that have this key, and the longer of two different ones between them; VIPs without it do not wait. Each address is announced once before any is announced twice; with many addresses even that takes its time, and the VIP cannot be reached meanwhile.",
        ),
        key(
            "gna_interval",
            Duration,
            Default("no gap"),
            "gna_interval = \"1ms\"",
            "The same between two unsolicited neighbour advertisements, for IPv6.",
        ),
    ],
    tables: &[],
};
