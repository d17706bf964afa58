//! Other programs that look after the addresses of an interface.

use buoy_fence::link::Link;

use super::{Files, Finding};

/// Those that say that they manage the interface.
pub(super) fn of(files: &Files, link: &Link) -> Vec<Finding> {
    let (index, name) = (link.index, &link.name);
    let about = format!("interface {name}");
    let mut found = Vec::new();
    // NetworkManager's state of a device: NetworkManager.conf(5), section FILES.
    let device = files.read(&format!("run/NetworkManager/devices/{index}"));
    if device.is_some_and(|text| text.lines().any(|line| line == "managed=true")) {
        found.push(Finding::warning(
            &about,
            "is managed by NetworkManager, which removes addresses that it does not know when it activates the interface's connection anew; Buoy puts them back",
            format!("do not reactivate its connection while VIPs are here, or tell NetworkManager to leave it alone (nmcli device set {name} managed no)"),
        ));
    }
    // systemd-networkd's state of a link, as networkctl(1) shows it.
    let state = files.read(&format!("run/systemd/netif/links/{index}"));
    let managed = |text: &String| {
        let states = ["ADMIN_STATE=configured", "ADMIN_STATE=configuring"];
        text.lines().any(|line| states.contains(&line))
    };
    if state.as_ref().is_some_and(managed) {
        found.push(Finding::warning(
            &about,
            "is managed by systemd-networkd, which removes addresses that it does not know when it starts or is reconfigured; Buoy puts them back",
            "KeepConfiguration=static in the [Network] section of its .network file",
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> Link {
        Link {
            index: 7,
            name: "eth0".into(),
            mac: None,
            up: true,
            carrier: true,
            mtu: 1500,
            arphrd: 1,
            xdp: false,
        }
    }

    #[test]
    fn only_those_who_manage_the_interface_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files {
            root: dir.path().into(),
        };
        assert_eq!(of(&files, &link()), []);
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("run/NetworkManager/devices/7", "[device]\nmanaged=false\n");
        write(
            "run/systemd/netif/links/7",
            "ADMIN_STATE=unmanaged\nOPER_STATE=routable\n",
        );
        assert_eq!(of(&files, &link()), []);
        write("run/NetworkManager/devices/7", "[device]\nmanaged=true\n");
        write(
            "run/systemd/netif/links/7",
            "ADMIN_STATE=configured\nOPER_STATE=routable\n",
        );
        let found = of(&files, &link());
        assert_eq!(found.len(), 2);
        assert!(found[0].found.contains("NetworkManager") && found[1].found.contains("networkd"));
    }
}
