//! The mark by which members of a Buoy group know each other's advertisements from those of outsiders.
//!
//! Members share one virtual router, and may share one source address too; the VRRP part of their packets has
//! no room for a name. The mark goes where keepalived and routers do not look: into the identification of
//! IPv4, or the flow label of IPv6.
//!
//! It is a hint and no proof. It travels in the clear, so anybody on the segment can copy it; and 16 bits are
//! few: one in 65,535 packets of an outsider that counts its identification up carries it by chance. Nothing
//! that matters may hang on a single marked packet.

use std::net::IpAddr;

/// A group of Buoy nodes: all that share a history of decisions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Group {
    key: [u64; 2],
}

impl Group {
    /// The group with this history id; all of its members have to give the same.
    pub const fn new(history_id: u128) -> Self {
        Self {
            key: [history_id as u64, (history_id >> 64) as u64],
        }
    }

    /// The mark of what this group sends from `source` for virtual router `vrid`; never 0, which the kernel
    /// would replace in IPv4. Members of other versions of Buoy give the same: what is hashed and how may never
    /// change.
    pub fn mark(&self, vrid: u8, source: IpAddr) -> u16 {
        let mut bytes = [0; 18];
        bytes[0] = vrid;
        let length = match source {
            IpAddr::V4(address) => {
                bytes[1] = 4;
                bytes[2..6].copy_from_slice(&address.octets());
                6
            }
            IpAddr::V6(address) => {
                bytes[1] = 6;
                bytes[2..].copy_from_slice(&address.octets());
                18
            }
        };
        let hash = siphash(self.key, &bytes[..length]);
        // All 65,535 values but 0, evenly; 65,535 is no power of two, so the whole hash counts.
        (hash % u64::from(u16::MAX)) as u16 + 1
    }
}

/// SipHash-2-4 (Aumasson and Bernstein, 2012). Written out, because the standard library promises no
/// particular hash between versions.
fn siphash(key: [u64; 2], bytes: &[u8]) -> u64 {
    let mut state = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    last[7] = bytes.len() as u8;
    for word in words.iter().chain([&last]) {
        let word = u64::from_le_bytes(*word);
        state[3] ^= word;
        round(&mut state);
        round(&mut state);
        state[0] ^= word;
    }
    state[2] ^= 0xff;
    for _ in 0..4 {
        round(&mut state);
    }
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

fn round([a, b, c, d]: &mut [u64; 4]) {
    *a = a.wrapping_add(*b);
    *b = b.rotate_left(13) ^ *a;
    *a = a.rotate_left(32);
    *c = c.wrapping_add(*d);
    *d = d.rotate_left(16) ^ *c;
    *a = a.wrapping_add(*d);
    *d = d.rotate_left(21) ^ *a;
    *c = c.wrapping_add(*b);
    *b = b.rotate_left(17) ^ *c;
    *c = c.rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const REFERENCE_KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

    /// From the reference implementation: key 00..0f, input 00.. of the length given.
    #[test]
    fn siphash_reference_vectors() {
        let input: Vec<u8> = (0..64).collect();
        for (length, expected) in [
            (0, 0x726f_db47_dd0e_0e31),
            (1, 0x74f8_39c5_93dc_67fd),
            (2, 0x0d6c_8009_d9a9_4f5a),
            (8, 0x93f5_f579_9a93_2462),
            (15, 0xa129_ca61_49be_45e5),
        ] {
            let hash = siphash(REFERENCE_KEY, &input[..length]);
            assert_eq!(hash, expected, "{length} bytes");
        }
    }

    /// Nodes of different versions have to know each other: these numbers may never change.
    #[test]
    fn marks_are_for_ever() {
        let marks = [
            (7, 51, "10.77.0.11"),
            (7, 51, "fe80::11"),
            (8, 51, "10.77.0.11"),
        ]
        .map(|(id, vrid, source)| Group::new(id).mark(vrid, source.parse().unwrap()));
        assert_eq!(marks, [57_927, 41_831, 9_759]);
    }

    #[test]
    fn group_router_and_source_all_count() {
        let source = |n: u32| IpAddr::from((0x0a4d_0000 + n).to_be_bytes());
        let one = Group::new(7);
        let mark = one.mark(51, source(11));
        let others = [
            Group::new(7 << 64).mark(51, source(11)),
            Group::new(8).mark(51, source(11)),
            one.mark(52, source(11)),
            one.mark(51, source(12)),
        ];
        assert!(!others.contains(&mark), "{mark} in {others:?}");
    }

    /// Neighbouring inputs spread like chance would: of 65,536 draws from 65,535, 63.2% are different.
    #[test]
    fn marks_spread_and_none_is_zero() {
        let group = Group::new(1);
        let marks: HashSet<u16> = (0..=u16::MAX)
            .map(|n| group.mark(n as u8, [10, 0, 0, (n >> 8) as u8].into()))
            .collect();
        assert!(!marks.contains(&0));
        assert!((40_900..41_950).contains(&marks.len()), "{}", marks.len());
    }
}
