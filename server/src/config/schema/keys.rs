//! The keys themselves.

mod vip;

use super::Kind::{Duration, Flag, Number, Path, Socket, Text, Texts, Word};
use super::Missing::{Default, Refused};
use super::{Key, Kind, Missing, Section};

const fn key(
    name: &'static str,
    kind: Kind,
    missing: Missing,
    example: &'static str,
    text: &'static str,
) -> Key {
    Key {
        name,
        kind,
        missing,
        example,
        text,
    }
}

/// Default of each timing key.
const PROFILE: Missing = Default("by the profile");

/// All tables, in the order in which a file would have them.
pub const SECTIONS: &[Section] = &[
    Section {
        path: "",
        list: false,
        text: "",
        keys: &[],
        tables: &[
            "cluster",
            "node",
            "tls",
            "timing",
            "external_fence",
            "vip",
            "log",
        ],
    },
    Section {
        path: "cluster",
        list: false,
        text: "What all nodes have in common. It must say the same in the file of every node.\n\
Nodes whose files list different ids or names refuse each other's calls, and log how the lists differ; addresses may differ,\n\
each node uses those of its own file.",
        keys: &[
            key(
                "name",
                Text,
                Refused,
                "name = \"prod\"",
                "Name of the cluster, 1 to 63 characters of a-z, A-Z, 0-9, '-', '_' and '.'. A node never talks to nodes of another cluster, and its data directory remembers the name.",
            ),
            key(
                "insecure",
                Flag,
                Default("false"),
                "insecure = true",
                "Needed when there is no `[tls]`: connections are then neither encrypted nor authenticated, and whoever reaches the port can move VIPs. `buoy status` goes on warning about it.",
            ),
        ],
        tables: &["node"],
    },
    Section {
        path: "cluster.node",
        list: true,
        text: "One for each node, this one included. The first start of the cluster uses the list; it must be the same in every file. Use an odd number of nodes, three or more: a majority of them must be up and connected for any VIP to be up.",
        keys: &[
            key(
                "id",
                Number {
                    min: 1,
                    max: i64::MAX,
                },
                Refused,
                "id = 1",
                "Raft identity. Never give it to another machine, nor to the same one after it lost its data directory.",
            ),
            key(
                "name",
                Text,
                Refused,
                "name = \"n1\"",
                "Name for people, and the DNS name in its certificate.",
            ),
            key(
                "address",
                Socket,
                Refused,
                "address = \"10.0.0.1:7400\"",
                "Where the other nodes reach it: TCP for gRPC, UDP for lease renewals. A number, not a host name: nodes must find each other when DNS is down. Without a port, 7400.",
            ),
            key(
                "role",
                Word(&["member", "witness"]),
                Default("\"member\""),
                "role = \"witness\"",
                "A `member` votes and may own VIPs; a `witness` votes and never owns any.",
            ),
        ],
        tables: &[],
    },
    Section {
        path: "node",
        list: false,
        text: "This machine.",
        keys: &[
            key(
                "name",
                Text,
                Refused,
                "name = \"n1\"",
                "Which of the nodes in `[[cluster.node]]` this machine is.",
            ),
            key(
                "data_dir",
                Path,
                Default("\"/var/lib/buoy\""),
                "data_dir = \"/var/lib/buoy\"",
                "Directory of the Raft log and snapshots. It must survive a reboot, and belongs to one node alone.",
            ),
            key(
                "socket",
                Path,
                Default("\"/run/buoy/buoy.sock\""),
                "socket = \"/run/buoy/buoy.sock\"",
                "Unix socket of the daemon, which `buoy` commands on this machine use. At most 107 bytes long.",
            ),
            key(
                "listen",
                Socket,
                Default("the node's address in `[[cluster.node]]`"),
                "listen = \"0.0.0.0:7400\"",
                "Where the daemon listens, TCP and UDP.",
            ),
            key(
                "fence",
                Word(&["auto", "ebpf", "nft", "userspace-only"]),
                Default("\"auto\""),
                "fence = \"ebpf\"",
                "Which gate in the kernel enforces the leases. `auto` takes eBPF, and where no BPF program can be loaded nftables, with a warning in the log and in `buoy status`; `ebpf` and `nft` insist on the one. None of them starts without its gate. With nftables promises are 30 ms longer, so a crash costs that much more. `userspace-only` does without one: a stopped or killed daemon goes on answering for its VIPs for up to 3.5 s, beside the new owner. Not for production.",
            ),
            key(
                "watchdog",
                Path,
                Default("none"),
                "watchdog = \"/dev/watchdog\"",
                "Hardware watchdog, which resets this machine when it was not fed for 10 s (where it does not take that: 30, 60, or its own; the log says which). It is fed while leases are renewed or nothing is held, and stopped when the daemon ends in good order. One program only can use it: not together with systemd's `RuntimeWatchdogSec=`. See [the outer fences](kernel-fence.md#the-outer-fences).",
            ),
        ],
        tables: &[],
    },
    Section {
        path: "tls",
        list: false,
        text: "Mutual TLS for everything between nodes and for the API over TCP. `buoy tls init` and `buoy tls issue` make these files. Without this table `cluster.insecure = true` is needed.",
        keys: &[
            key(
                "ca",
                Path,
                Refused,
                "ca = \"/etc/buoy/tls/ca.crt\"",
                "Certificate (PEM) of the authority that signed the certificates of all nodes and clients.",
            ),
            key(
                "cert",
                Path,
                Refused,
                "cert = \"/etc/buoy/tls/n1.crt\"",
                "This node's certificate (PEM); it must carry the node's name as DNS subject alternative name.",
            ),
            key(
                "key",
                Path,
                Refused,
                "key = \"/etc/buoy/tls/n1.key\"",
                "Its private key (PEM, no pass phrase).",
            ),
        ],
        tables: &[],
    },
    Section {
        path: "timing",
        list: false,
        text: "How fast failures are found. Take the same profile on every node; the other keys change single values of it. The daemon measures the machine at start and refuses timings that it cannot carry.",
        keys: &[
            key(
                "profile",
                Word(&["lan", "fast", "wan"]),
                Default("\"lan\""),
                "profile = \"wan\"",
                "Set of timings to start from (see the table below).",
            ),
            key(
                "renew",
                Duration,
                PROFILE,
                "renew = \"75ms\"",
                "How often leases are renewed. Three renewals must fit into one lease.",
            ),
            key(
                "retry",
                Duration,
                Default("a quarter of `renew`"),
                "retry = \"20ms\"",
                "An unanswered renewal is sent again after this. Shorter than `renew`.",
            ),
            key(
                "lease",
                Duration,
                PROFILE,
                "lease = \"300ms\"",
                "How long a node may use a VIP after the last renewal that a majority answered; whole milliseconds, 60ms to 60s. VIPs of a crashed node stay dark for the rest of it.",
            ),
            key(
                "suspect_after",
                Duration,
                PROFILE,
                "suspect_after = \"200ms\"",
                "Silence of a node after which the leader gives its VIPs to others. Less than `lease`, at least two renewals and a retry.",
            ),
            key(
                "raft_heartbeat",
                Duration,
                PROFILE,
                "raft_heartbeat = \"30ms\"",
                "Interval of the Raft leader's heartbeats. Two must fit into `election_min`.",
            ),
            key(
                "election_min",
                Duration,
                PROFILE,
                "election_min = \"90ms\"",
                "Shortest time without a heartbeat after which a node stands for election. A durable write must take less than 3/4 of it.",
            ),
            key(
                "election_max",
                Duration,
                PROFILE,
                "election_max = \"150ms\"",
                "Longest such time. More than `election_min`, at most 60s.",
            ),
            key(
                "max_drift_ppm",
                Number {
                    min: 1,
                    max: 100_000,
                },
                PROFILE,
                "max_drift_ppm = 10000",
                "Largest difference of the clock rates of two machines, in parts per million (10000 is 1%). Promises are longer than leases by this and by `guard`.",
            ),
            key(
                "guard",
                Duration,
                PROFILE,
                "guard = \"20ms\"",
                "Added to every promise for packets that are still in a queue when the gate shuts. 1ms up to the length of the lease.",
            ),
        ],
        tables: &[],
    },
    Section {
        path: "external_fence",
        list: false,
        text: "A program that this node runs when it takes VIPs over from a node that fell silent: to cut its power, to detach its storage. No promise about VIPs needs it. [External fencing](external-fencing.md) says when it runs, what it is told, and has an example. Without this table nothing is run. Write the same on every node that may own VIPs.",
        keys: &[
            key(
                "program",
                Path,
                Refused,
                "program = \"/usr/local/sbin/fence-node\"",
                "The program; no shell is involved. An absolute path. It and every directory on the way to it must belong to root, and nobody else may write to them.",
            ),
            key(
                "args",
                Texts,
                Default("none"),
                "args = [\"--method\", \"ipmi\"]",
                "Arguments that come before those that Buoy adds: the silent node's name, and the new epoch. At most 64.",
            ),
            key(
                "timeout",
                Duration,
                Default("\"30s\""),
                "timeout = \"10s\"",
                "A run that takes longer is killed with all processes of its group, and has failed. At least 100ms.",
            ),
            key(
                "wait",
                Flag,
                Default("false"),
                "wait = true",
                "`false`: the takeover waits for nothing, the program runs beside it. `true`: the VIPs do not come up before the program has succeeded (exit status 0), for up to `timeout`.",
            ),
            key(
                "on_failure",
                Word(&["stay-down", "take-over-anyway"]),
                Default("\"stay-down\""),
                "on_failure = \"take-over-anyway\"",
                "Only with `wait = true`: what becomes of the VIPs when the program failed. `stay-down`: this node gives them back and says why, another node may try, and this one again after 5 s; whoever waits for the program does so because a VIP beside a node that is not fenced would do harm. `take-over-anyway`: they come up, with an error in the log and a warning in `buoy status`.",
            ),
        ],
        tables: &[],
    },
    vip::VIP,
    vip::PLACEMENT,
    vip::VRRP,
    Section {
        path: "log",
        list: false,
        text: "What the daemon writes to standard error (the journal, under systemd).",
        keys: &[key(
            "level",
            Word(&["error", "warn", "info", "debug", "trace"]),
            Default("\"info\""),
            "level = \"debug\"",
            "How much. `systemctl reload buoy` (SIGHUP) takes a new value over.",
        )],
        tables: &[],
    },
];
