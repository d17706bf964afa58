//! What the file says and what the machine has.

use super::*;

#[test]
fn vips_are_checked_against_the_interfaces() {
    let config = parse(EXAMPLE).unwrap_or_else(|e| panic!("{e}"));
    let eth0 = |prefixes: &[&str]| {
        vec![HostInterface {
            name: "eth0".into(),
            prefixes: prefixes.iter().map(|p| p.parse().unwrap()).collect(),
        }]
    };
    assert_eq!(
        check_against_host(&config, &eth0(&["192.168.192.11/24"])).unwrap(),
        [""; 0]
    );
    let notes = check_against_host(&config, &[]).unwrap();
    assert!(
        notes.len() == 2 && notes[0].contains("no interface eth0"),
        "{notes:?}"
    );
    for prefixes in [
        &["10.1.0.1/24", "fe80::1/64"][..],
        // The VIP is up here: its own prefix proves nothing.
        &["10.1.0.1/24", "192.168.192.13/24", "192.168.192.14/24"],
    ] {
        let errors = check_against_host(&config, &eth0(prefixes)).unwrap_err();
        assert_eq!(errors.count(), 2, "{errors}");
        let text = errors.to_string();
        assert!(
            text.contains("192.168.192.13 is outside every prefix of eth0"),
            "{text}"
        );
        assert!(
            text.contains("eth0 has 10.1.0.0/24") && text.contains("buoy.toml:33:14"),
            "{text}"
        );
    }
    for none_yet in [&[][..], &["fe80::1/64"], &["192.168.192.13/24"]] {
        let notes = check_against_host(&config, &eth0(none_yet)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(notes.len(), 2, "an address may come late: {notes:?}");
        assert!(notes[0].contains("no IPv4 address (yet)"), "{notes:?}");
    }
    let wide = EXAMPLE.replace("192.168.192.13/24", "192.168.192.13/16");
    let wide = parse(&wide).unwrap_or_else(|e| panic!("{e}"));
    let errors = check_against_host(&wide, &eth0(&["192.168.192.11/24"])).unwrap_err();
    assert_eq!(errors.count(), 1, "{errors}");
    assert!(
        errors.to_string().contains("write 192.168.192.13/24"),
        "{errors}"
    );
    let witness = EXAMPLE.replace("[node]\nname = \"n1\"", "[node]\nname = \"n3\"");
    let config = parse(&witness).unwrap_or_else(|e| panic!("{e}"));
    assert!(
        check_against_host(&config, &eth0(&[])).is_ok(),
        "a witness owns nothing"
    );
}

#[test]
fn mistakes_in_the_file_do_not_hide_what_the_machine_says() {
    let host = [HostInterface {
        name: "eth0".into(),
        prefixes: vec!["10.1.0.1/24".parse().unwrap()],
    }];
    let check = |text: &str| {
        let checked = Config::parse_on(Path::new("buoy.toml"), text.as_bytes(), Some(&host));
        (checked.result.unwrap_err().to_string(), checked.notes)
    };
    let outside = |last: u8| format!("192.168.192.{last} is outside every prefix of eth0");
    let node = "[node]\nname = \"n1\"";
    assert!(EXAMPLE.contains(node));
    // A mistake elsewhere, and one in the syntax.
    for mistake in ["sockt = \"/s\"", "socket ="] {
        let (errors, notes) = check(&EXAMPLE.replace(node, &format!("{node}\n{mistake}")));
        for said in [outside(13), outside(14)] {
            assert!(errors.contains(&said), "{errors}");
        }
        assert!(errors.contains("3 problems"), "{errors}");
        assert_eq!(notes, [""; 0]);
    }
    // Nothing is said of what could not be read: an address, an interface, a priority, and who this node is.
    let broken = EXAMPLE.replace("192.168.192.13/24", "192.168.192.300");
    let (errors, _) = check(&broken);
    assert!(
        errors.contains(&outside(14)) && !errors.contains(".13 is outside"),
        "{errors}"
    );
    let (errors, notes) = check(&EXAMPLE.replacen("interface = \"eth0\"", "interface = 7", 1));
    assert!(
        errors.contains(&outside(14)) && !errors.contains(&outside(13)),
        "{errors}"
    );
    assert_eq!(notes, [""; 0]);
    let (errors, _) = check(&EXAMPLE.replacen("n1 = 150", "n1 = \"0\"", 1));
    assert!(
        errors.contains(&outside(14)) && !errors.contains(&outside(13)),
        "{errors}"
    );
    let (errors, _) = check(&EXAMPLE.replace(node, "[node]\nname = \"n9\""));
    assert!(!errors.contains("outside"), "{errors}");
    let (_, notes) = check(&broken.replace("eth0", "eth9"));
    assert!(
        notes.len() == 2 && notes[0].contains("no interface eth9"),
        "{notes:?}"
    );
}
