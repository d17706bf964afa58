//! The packets of keepalived 2.2.7 that the tests compare with.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::collections::BTreeMap;

pub mod routers;

/// Frames by capture and kind.
pub type Vectors = BTreeMap<String, BTreeMap<String, String>>;

/// One crafted advertisement: number, what it is, verdict of a BACKUP, what it logged, the IP packet in hex.
pub type Case = (u8, String, String, String, String);

pub fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap())
        .collect()
}

pub fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../fixtures/vectors.json")).unwrap()
}

pub fn matrix() -> Vec<Case> {
    serde_json::from_str(include_str!("../fixtures/accept_matrix.json")).unwrap()
}

/// The IP packet of a captured frame.
pub fn packet(capture: &str, kind: &str) -> Vec<u8> {
    bytes(&vectors()[capture][kind])[14..].to_vec()
}

/// All IP packets of the fixtures that carry VRRP, bare or behind an authentication header, with a name.
pub fn packets() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for (capture, frames) in vectors() {
        for (kind, frame) in frames {
            if kind.starts_with("advert") {
                all.push((format!("{capture}/{kind}"), bytes(&frame)[14..].to_vec()));
            }
        }
    }
    for (number, what, _, _, packet) in matrix() {
        all.push((format!("case {number}, {what}"), bytes(&packet)));
    }
    all
}
