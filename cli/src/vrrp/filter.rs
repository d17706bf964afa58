//! The classic BPF program that lets only VRRP through: the kernel drops everything else before it is copied.

use buoy_fence::packets::Instruction;
use buoy_vrrp_compat::ah::IP_PROTOCOL_AH;
use buoy_vrrp_compat::packet::IP_PROTOCOL;
use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_B, BPF_H, BPF_IND, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD,
    BPF_LDX, BPF_MSH, BPF_RET,
};

/// Offsets from here on are no bytes of the packet but what the kernel knows about it (linux/filter.h).
const ABOUT: u32 = 0xffff_f000;
const ETHER_TYPE: u32 = ABOUT;
const DIRECTION: u32 = ABOUT + 4;

const SENT: u32 = libc::PACKET_OUTGOING as u32;
const FRAGMENT_OFFSET: u32 = 0x1fff;
/// More than any packet has: nothing is cut off.
const WHOLE: u32 = u32::MAX;

// Where the parts of the program begin.
const TAGGED: usize = 5;
const V4: usize = 11;
const AH: usize = 14;
const V6: usize = 19;
const DROP: usize = 21;
const TAKE: usize = 22;
const LENGTH: usize = 23;

/// Lets through: IPv4 with VRRP, or with an authentication header in front of VRRP; and IPv6 with VRRP.
///
/// A packet sent over a VLAN may bear the EtherType of VLANs on the interface below, with the tag out of the program's
/// sight; there the version of IP tells.
pub const PROGRAM: [Instruction; LENGTH] = [
    load(BPF_H | BPF_ABS, ETHER_TYPE),
    equal(1, libc::ETH_P_IP as u32, V4, 2),
    equal(2, libc::ETH_P_IPV6 as u32, V6, 3),
    equal(3, libc::ETH_P_8021Q as u32, TAGGED, 4),
    equal(4, libc::ETH_P_8021AD as u32, TAGGED, DROP),
    // TAGGED
    load(BPF_B | BPF_ABS, DIRECTION),
    equal(6, SENT, 7, DROP),
    load(BPF_B | BPF_ABS, 0),
    op(BPF_ALU | BPF_AND | BPF_K, 0xf0),
    equal(9, 0x40, V4, 10),
    equal(10, 0x60, V6, DROP),
    // V4: which protocol?
    load(BPF_B | BPF_ABS, 9),
    equal(12, IP_PROTOCOL as u32, TAKE, 13),
    equal(13, IP_PROTOCOL_AH as u32, AH, DROP),
    // AH: only the first fragment has the header, behind an IP header of any length.
    load(BPF_H | BPF_ABS, 6),
    jump(BPF_JSET, 15, FRAGMENT_OFFSET, DROP, 16),
    op(BPF_LDX | BPF_B | BPF_MSH, 0),
    load(BPF_B | BPF_IND, 0),
    equal(18, IP_PROTOCOL as u32, TAKE, DROP),
    // V6: which next header?
    load(BPF_B | BPF_ABS, 6),
    equal(20, IP_PROTOCOL as u32, TAKE, DROP),
    // DROP
    op(BPF_RET | BPF_K, 0),
    // TAKE
    op(BPF_RET | BPF_K, WHOLE),
];

const fn op(code: u32, k: u32) -> Instruction {
    Instruction {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

const fn load(what: u32, k: u32) -> Instruction {
    op(BPF_LD | what, k)
}

const fn equal(at: usize, k: u32, yes: usize, no: usize) -> Instruction {
    jump(BPF_JEQ, at, k, yes, no)
}

/// The jump at `at`, to what stands at `yes` or `no`, behind it.
const fn jump(test: u32, at: usize, k: u32, yes: usize, no: usize) -> Instruction {
    let mut jump = op(BPF_JMP | test | BPF_K, k);
    jump.jt = (yes - at - 1) as u8;
    jump.jf = (no - at - 1) as u8;
    jump
}
