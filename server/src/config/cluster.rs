//! `[cluster]`, `[[cluster.node]]` and `[node]`: who is in the cluster, and which of them is this machine.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use buoy_core::spec::{MAX_NODES, NodeSpec, Role};
use buoy_core::{NodeId, NodeName};
use buoy_proto::DEFAULT_SOCKET;

use super::places::Places;
use super::problem::{Problem, Problems};
use super::table::{At, Table};
use super::value::parse_socket;
use super::words::closest;
use super::{DEFAULT_DATA_DIR, Fence};

/// Longest path of a unix socket, in bytes (`sun_path` without its final zero).
const MAX_SOCKET_PATH: usize = 107;
/// Id of a node whose id is broken or missing; never used for more than checking the rest.
const NO_ID: u64 = 1 << 63;

/// What `[cluster]` says.
pub(super) struct Cluster {
    pub name: Option<String>,
    pub insecure: bool,
    /// Nodes with a name; broken parts are marked in [`Places`].
    pub nodes: Vec<NodeSpec>,
}

/// What `[node]` says; `None`: the default.
pub(super) struct Own {
    pub name: Option<At<NodeName>>,
    pub data_dir: PathBuf,
    pub socket: PathBuf,
    pub listen: Option<SocketAddr>,
    pub fence: Fence,
    pub watchdog: Option<PathBuf>,
}

/// Reads `[cluster]` and its nodes.
pub(super) fn read_cluster(
    table: &Table<'_>,
    places: &mut Places,
    problems: &mut Problems,
) -> Cluster {
    // Cluster names follow the rules of node names.
    let name = table.parsed("name", problems, |text| match text.parse::<NodeName>() {
        Ok(name) => Ok(name.to_string()),
        Err(e) => Err(e.to_string().replacen("node name", "cluster name", 1)),
    });
    let insecure = table.flag("insecure", problems).is_some_and(|f| f.value);
    places.put("nodes".to_owned(), table.span.clone());
    let mut nodes: Vec<NodeSpec> = Vec::new();
    let tables = table.tables("node", problems);
    // One more than allowed is enough for core to refuse the number.
    for table in tables.iter().take(MAX_NODES + 1) {
        nodes.extend(read_node(table, nodes.len(), places, problems));
    }
    if nodes.len()
        < tables
            .len()
            .clamp(usize::from(table.has("node")), MAX_NODES + 1)
    {
        places.broken("nodes".to_owned());
    }
    Cluster {
        name: name.map(|n| n.value),
        insecure,
        nodes,
    }
}

fn read_node(
    table: &Table<'_>,
    index: usize,
    places: &mut Places,
    problems: &mut Problems,
) -> Option<NodeSpec> {
    let id = table.number("id", problems);
    let name = node_name(table, problems);
    let address = table.parsed("address", problems, parse_socket);
    let role = table.word("role", problems, |word| match word {
        "member" => Some(Role::Member),
        "witness" => Some(Role::Witness),
        _ => None,
    });
    if role.is_none() && table.has("role") {
        places.broken("nodes".to_owned());
    }
    let name = name?;
    let at = format!("nodes[{index}]");
    places.put(at.clone(), table.span.clone());
    places.put(format!("{at}.name"), name.span);
    let spans = [
        ("id", id.as_ref().map(|i| &i.span)),
        ("address", address.as_ref().map(|a| &a.span)),
    ];
    for (field, span) in spans {
        match span {
            Some(span) => places.put(format!("{at}.{field}"), span.clone()),
            None => places.broken(format!("{at}.{field}")),
        }
    }
    let no_id = NO_ID + index as u64;
    Some(NodeSpec {
        id: NodeId(
            id.and_then(|i| u64::try_from(i.value).ok())
                .unwrap_or(no_id),
        ),
        name: name.value,
        address: address.map_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)), |a| a.value),
        role: role.map_or_else(Role::default, |r| r.value),
    })
}

fn node_name(table: &Table<'_>, problems: &mut Problems) -> Option<At<NodeName>> {
    table.parsed("name", problems, |text| {
        text.parse::<NodeName>().map_err(|e| e.to_string())
    })
}

/// Reads `[node]`. Relative paths are taken from `base`.
pub(super) fn read_own(table: &Table<'_>, base: &Path, problems: &mut Problems) -> Own {
    let data_dir = read_path(table, "data_dir", base, problems);
    let socket = read_path(table, "socket", base, problems);
    if let Some(path) = &socket
        && path.value.as_os_str().len() > MAX_SOCKET_PATH
    {
        problems.push(Problem::new(
            path.span.clone(),
            "the path of `node.socket` is too long for a unix socket",
            format!("expected at most {MAX_SOCKET_PATH} bytes"),
        ));
    }
    let fence = table.word("fence", problems, |word| match word {
        "auto" => Some(Fence::Auto),
        "ebpf" => Some(Fence::Ebpf),
        "nft" => Some(Fence::Nft),
        "userspace-only" => Some(Fence::UserspaceOnly),
        _ => None,
    });
    Own {
        name: node_name(table, problems),
        data_dir: data_dir.map_or_else(|| DEFAULT_DATA_DIR.into(), |p| p.value),
        socket: socket.map_or_else(|| DEFAULT_SOCKET.into(), |p| p.value),
        listen: table
            .parsed("listen", problems, parse_socket)
            .map(|l| l.value),
        fence: fence.map_or_else(Fence::default, |f| f.value),
        watchdog: read_path(table, "watchdog", base, problems).map(|p| p.value),
    }
}

/// A path that is not empty; a relative one is taken from `base`.
pub(super) fn read_path(
    table: &Table<'_>,
    name: &str,
    base: &Path,
    problems: &mut Problems,
) -> Option<At<PathBuf>> {
    table.parsed(name, problems, |text| {
        if text.is_empty() || text.contains('\0') {
            return Err(format!(
                "{text:?} is no path; expected the path of a file or directory"
            ));
        }
        Ok(base.join(text))
    })
}

/// Which of the nodes `[node]` names.
pub(super) fn find_me(own: &Own, nodes: &[NodeSpec], problems: &mut Problems) -> Option<NodeSpec> {
    let name = own.name.as_ref()?;
    if let Some(me) = nodes.iter().find(|n| n.name == name.value) {
        return Some(me.clone());
    }
    if nodes.is_empty() {
        return None;
    }
    let known: BTreeSet<&str> = nodes.iter().map(|n| n.name.as_str()).collect();
    let known: Vec<&str> = known.into_iter().collect();
    let problem = Problem::new(
        name.span.clone(),
        format!("no [[cluster.node]] has the name {:?}", name.value.as_str()),
        format!("expected one of {}", known.join(", ")),
    )
    .absence();
    problems.push(match closest(name.value.as_str(), &known) {
        Some(near) => problem.hint(format!("did you mean \"{near}\"?")),
        None => problem.hint("`node.name` says which of the listed nodes this machine is"),
    });
    None
}
