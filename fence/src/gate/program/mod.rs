//! The gate's program: which packets belong to a managed address, and whether they may pass now.
//!
//! The *VIP side* of a packet is the side on which this machine would act as the VIP:
//!
//! | packet | in | out |
//! | --- | --- | --- |
//! | IPv4, IPv6 | destination | source |
//! | ARP | target, unless it is the sender's own address | sender |
//! | neighbour solicitation | target (and destination) | source; target where the source is `::` (DAD) |
//! | neighbour advertisement | destination | target (and source) |
//!
//! The other side is that of somebody who talks *to* the VIP: the owner's announcements come in and this
//! machine's questions and packets go out everywhere, or no node could be a client of a VIP that
//! another node owns.
//!
//! A frame too short for the field that would be looked at passes: the stack (in) and every
//! neighbour (out) discard it for the same reason. So does what lies behind more VLAN tags or extension
//! headers than are looked through: a VLAN device has a gate of its own, and the kernel's answer to a
//! neighbour solicitation carries no extension headers and is caught on its way out.

use std::os::fd::{AsRawFd, RawFd};

use buoy_core::Mono;

use super::asm::{Alu, Asm, AsmError, If, Insn, Label, Reg, Size};
use super::bpf::Map;
use crate::clock::BPF_KTIME_GET_BOOT_NS;
use wire::{
    ARP_SENDER, ARP_TARGET, ETH_P_8021AD, ETH_P_8021Q, ETH_P_ARP, ETH_P_IP, ETH_P_IPV6,
    ETHERNET_LEN, ETHERTYPE_AT, FRAGMENT_OFFSET, IPPROTO_AH, IPPROTO_FRAGMENT, IPPROTO_ICMPV6,
    IPV4_DESTINATION, IPV4_SOURCE, IPV6_DESTINATION, IPV6_LEN, IPV6_NEXT_HEADER, IPV6_SOURCE,
    ND_TARGET, NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, PLAIN_EXTENSIONS, VLAN_TAG_LEN,
    network,
};

mod wire;

/// Which way packets go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Direction {
    /// From the wire to this machine.
    Ingress,
    /// From this machine to the wire.
    Egress,
}

impl Direction {
    /// Both ways.
    pub const BOTH: [Direction; 2] = [Direction::Ingress, Direction::Egress];

    /// `ingress` or `egress`.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }
}

/// In-band VLAN tags looked through, besides the one that the kernel keeps outside the frame.
pub const MAX_VLAN_TAGS: usize = 2;

/// IPv6 extension headers looked through in search of a neighbour solicitation or advertisement.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// Tables of the program. All values but the address's index are u64.
pub(super) struct Tables<'a> {
    /// Address (16 bytes, IPv4 as `::ffff:a.b.c.d`) to index (u32).
    pub(super) addresses: &'a Map,
    /// Index to slot.
    pub(super) slots: &'a Map,
    /// Slot to deadline, nanoseconds on CLOCK_BOOTTIME.
    pub(super) deadlines: &'a Map,
    /// `2 * index + reason` to packets dropped.
    pub(super) drops: &'a Map,
}

/// Reasons in the table of drops.
pub(super) const DROP_LEASE_OVER: u32 = 0;
pub(super) const DROP_NOT_OURS: u32 = 1;
pub(super) const DROP_REASONS: u32 = 2;

/// Verdicts: go on to the next filter, or drop (`TC_ACT_UNSPEC`, `TC_ACT_SHOT`).
pub(super) const TC_ACT_UNSPEC: i32 = -1;
pub(super) const TC_ACT_SHOT: i32 = 2;

// Kernel helpers.
const MAP_LOOKUP_ELEM: i32 = 1;
const SKB_LOAD_BYTES: i32 = 26;

// The program's stack, as offsets from the frame pointer.
/// Address to look up, 16 bytes; the first 12 hold the prefix of mapped IPv4 addresses until an IPv6 one comes.
const KEY: i16 = -16;
/// Index into an array, 4 bytes.
const INDEX: i16 = -20;
/// A small field of the frame, up to 4 bytes.
const FIELD: i16 = -24;
/// An IPv6 header, 40 bytes.
const HEADER: i16 = -64;

/// What deadlines are compared with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Clock {
    /// CLOCK_BOOTTIME, read for every packet.
    Boot,
    /// It stands still: for trials of the program, which is put nowhere.
    Still(Mono),
}

/// Puts the program for one direction together.
pub(super) fn assemble(
    direction: Direction,
    tables: &Tables<'_>,
    clock: Clock,
) -> Result<Vec<Insn>, AsmError> {
    let mut asm = Asm::default();
    let pass = asm.label("pass");
    let count = asm.label("count");
    let drop = asm.label("drop");
    let mut program = Writer {
        asm,
        direction,
        clock,
        tables,
        pass,
        count,
        drop,
    };
    program.frame();
    program.asm.finish()
}

/// R6 holds the packet, R7 the offset of the header being looked at; R8 and R9 are scratch that
/// survives calls.
struct Writer<'a> {
    asm: Asm,
    direction: Direction,
    clock: Clock,
    tables: &'a Tables<'a>,
    pass: Label,
    count: Label,
    drop: Label,
}

impl Writer<'_> {
    fn frame(&mut self) {
        let ipv4 = self.asm.label("ipv4");
        let arp = self.asm.label("arp");
        let ipv6 = self.asm.label("ipv6");
        self.asm.alu(Alu::Mov, Reg::R6, Reg::R1);
        self.asm.store_imm(Size::Double, Reg::Fp, KEY, 0);
        self.asm.store_imm(
            Size::Word,
            Reg::Fp,
            KEY + 8,
            i32::from_ne_bytes([0, 0, 0xff, 0xff]),
        );
        self.ethertype();
        self.asm.jump_imm(If::Eq, Reg::R9, network(ETH_P_IP), ipv4);
        self.asm.jump_imm(If::Eq, Reg::R9, network(ETH_P_ARP), arp);
        self.asm
            .jump_imm(If::Eq, Reg::R9, network(ETH_P_IPV6), ipv6);
        self.asm.jump(self.pass);
        self.asm.bind(arp);
        self.arp();
        self.asm.bind(ipv4);
        self.ipv4();
        self.asm.bind(ipv6);
        self.ipv6();
        self.verdicts();
    }

    /// R9 = type of the network header, R7 = where it begins. The type is read from the frame, not from
    /// the packet's metadata, where a raw socket can write what it likes. A tag that the kernel keeps
    /// outside the frame is not in the way.
    fn ethertype(&mut self) {
        self.asm.alu_imm(Alu::Mov, Reg::R7, ETHERNET_LEN);
        let behind_header = ETHERTYPE_AT - ETHERNET_LEN;
        self.load_bytes(behind_header, FIELD, 2);
        self.asm.load(Size::Half, Reg::R9, Reg::Fp, FIELD);
        let untagged = self.asm.label("untagged");
        for _ in 0..MAX_VLAN_TAGS {
            let tagged = self.asm.label("tagged");
            self.asm
                .jump_imm(If::Eq, Reg::R9, network(ETH_P_8021Q), tagged);
            self.asm
                .jump_imm(If::Ne, Reg::R9, network(ETH_P_8021AD), untagged);
            self.asm.bind(tagged);
            self.asm.alu_imm(Alu::Add, Reg::R7, VLAN_TAG_LEN);
            self.load_bytes(behind_header, FIELD, 2);
            self.asm.load(Size::Half, Reg::R9, Reg::Fp, FIELD);
        }
        self.asm.bind(untagged);
    }

    fn arp(&mut self) {
        match self.direction {
            Direction::Egress => self.load_bytes(ARP_SENDER, KEY + 12, 4),
            Direction::Ingress => {
                self.load_bytes(ARP_TARGET, KEY + 12, 4);
                self.load_bytes(ARP_SENDER, FIELD, 4);
                // An announcement (gratuitous ARP) speaks of its sender's own address: it asks nothing
                // of this machine, and its neighbour table has to follow a VIP's move.
                self.asm.load(Size::Word, Reg::R1, Reg::Fp, KEY + 12);
                self.asm.load(Size::Word, Reg::R2, Reg::Fp, FIELD);
                self.asm.jump_reg(If::Eq, Reg::R1, Reg::R2, self.pass);
            }
        }
        self.judge(KEY, self.pass);
    }

    fn ipv4(&mut self) {
        let side = match self.direction {
            Direction::Ingress => IPV4_DESTINATION,
            Direction::Egress => IPV4_SOURCE,
        };
        // Addresses are in every fragment, and before any option.
        self.load_bytes(side, KEY + 12, 4);
        self.judge(KEY, self.pass);
    }

    fn ipv6(&mut self) {
        let upper = self.asm.label("upper");
        let icmp = self.asm.label("icmp");
        let side = match self.direction {
            Direction::Ingress => IPV6_DESTINATION,
            Direction::Egress => IPV6_SOURCE,
        };
        self.load_bytes(0, HEADER, IPV6_LEN);
        self.judge(HEADER + side, upper);
        self.asm.bind(upper);
        self.extension_headers(icmp);
        self.asm.bind(icmp);
        self.neighbour_discovery();
    }

    /// Moves R7 behind the extension headers, to `icmp` if ICMPv6 follows them; all else passes.
    fn extension_headers(&mut self, icmp: Label) {
        self.asm
            .load(Size::Byte, Reg::R9, Reg::Fp, HEADER + IPV6_NEXT_HEADER);
        self.asm.alu_imm(Alu::Add, Reg::R7, IPV6_LEN);
        for _ in 0..MAX_EXTENSION_HEADERS {
            let plain = self.asm.label("plain extension");
            let authentication = self.asm.label("authentication header");
            let fragment = self.asm.label("fragment header");
            let next = self.asm.label("next header");
            self.asm.jump_imm(If::Eq, Reg::R9, IPPROTO_ICMPV6, icmp);
            for kind in PLAIN_EXTENSIONS {
                self.asm.jump_imm(If::Eq, Reg::R9, kind, plain);
            }
            self.asm
                .jump_imm(If::Eq, Reg::R9, IPPROTO_FRAGMENT, fragment);
            self.asm
                .jump_imm(If::Eq, Reg::R9, IPPROTO_AH, authentication);
            self.asm.jump(self.pass);

            self.asm.bind(plain);
            self.extension(1, 3);
            self.asm.jump(next);

            // Its length counts units of 4 bytes after the first 8 (RFC 4302, 2.2).
            self.asm.bind(authentication);
            self.extension(2, 2);
            self.asm.jump(next);

            // Only the first fragment has the ICMPv6 header.
            self.asm.bind(fragment);
            self.load_bytes(0, FIELD, 4);
            self.asm.load(Size::Half, Reg::R1, Reg::Fp, FIELD + 2);
            self.asm
                .alu_imm(Alu::And, Reg::R1, network(FRAGMENT_OFFSET));
            self.asm.jump_imm(If::Ne, Reg::R1, 0, self.pass);
            self.asm.load(Size::Byte, Reg::R9, Reg::Fp, FIELD);
            self.asm.alu_imm(Alu::Add, Reg::R7, 8);
            self.asm.bind(next);
        }
        self.asm
            .jump_imm(If::Ne, Reg::R9, IPPROTO_ICMPV6, self.pass);
    }

    /// R9 = the header after this one, R7 += `(length + more) << shift`.
    fn extension(&mut self, more: i32, shift: i32) {
        self.load_bytes(0, FIELD, 2);
        self.asm.load(Size::Byte, Reg::R9, Reg::Fp, FIELD);
        self.asm.load(Size::Byte, Reg::R1, Reg::Fp, FIELD + 1);
        self.asm.alu_imm(Alu::Add, Reg::R1, more);
        self.asm.alu_imm(Alu::ShiftLeft, Reg::R1, shift);
        self.asm.alu(Alu::Add, Reg::R7, Reg::R1);
    }

    fn neighbour_discovery(&mut self) {
        self.load_bytes(0, FIELD, 1);
        self.asm.load(Size::Byte, Reg::R9, Reg::Fp, FIELD);
        match self.direction {
            Direction::Ingress => {
                self.asm
                    .jump_imm(If::Ne, Reg::R9, NEIGHBOUR_SOLICITATION, self.pass);
            }
            Direction::Egress => {
                let target = self.asm.label("target");
                self.asm
                    .jump_imm(If::Eq, Reg::R9, NEIGHBOUR_ADVERTISEMENT, target);
                self.asm
                    .jump_imm(If::Ne, Reg::R9, NEIGHBOUR_SOLICITATION, self.pass);
                // With a source it is a client's question; without one it claims the target (DAD).
                for half in [0, 8] {
                    self.asm
                        .load(Size::Double, Reg::R1, Reg::Fp, HEADER + IPV6_SOURCE + half);
                    self.asm.jump_imm(If::Ne, Reg::R1, 0, self.pass);
                }
                self.asm.bind(target);
            }
        }
        self.load_bytes(ND_TARGET, KEY, 16);
        self.judge(KEY, self.pass);
    }

    /// Goes on at `open` if the address at `key` is not managed, or may be used now; drops otherwise.
    fn judge(&mut self, key: i16, open: Label) {
        let not_ours = self.asm.label("not ours");
        self.lookup(self.tables.addresses.as_raw_fd(), key);
        self.asm.jump_imm(If::Eq, Reg::R0, 0, open);
        self.asm.load(Size::Word, Reg::R8, Reg::R0, 0);
        self.array(self.tables.slots.as_raw_fd(), Reg::R8);
        self.asm.load(Size::Double, Reg::R9, Reg::R0, 0);
        self.asm.jump_imm(If::Eq, Reg::R9, 0, not_ours);
        self.array(self.tables.deadlines.as_raw_fd(), Reg::R9);
        // The deadline before the clock: a renewal between the two can only come too late to count.
        self.asm.load(Size::Double, Reg::R9, Reg::R0, 0);
        match self.clock {
            Clock::Boot => self.asm.call(BPF_KTIME_GET_BOOT_NS),
            Clock::Still(now) => self.asm.load_double(Reg::R0, now.0),
        }
        self.asm.jump_reg(If::Less, Reg::R0, Reg::R9, open);
        self.asm.alu_imm(Alu::Mov, Reg::R9, DROP_LEASE_OVER as i32);
        self.asm.jump(self.count);
        self.asm.bind(not_ours);
        self.asm.alu_imm(Alu::Mov, Reg::R9, DROP_NOT_OURS as i32);
        self.asm.jump(self.count);
    }

    fn verdicts(&mut self) {
        self.asm.bind(self.count);
        // DROP_REASONS counters for each address.
        self.asm.alu(Alu::Add, Reg::R8, Reg::R8);
        self.asm.alu(Alu::Add, Reg::R8, Reg::R9);
        self.array(self.tables.drops.as_raw_fd(), Reg::R8);
        self.asm.alu_imm(Alu::Mov, Reg::R1, 1);
        self.asm.atomic_add(Reg::R0, Reg::R1);
        self.asm.bind(self.drop);
        self.asm.alu_imm(Alu::Mov, Reg::R0, TC_ACT_SHOT);
        self.asm.exit();
        self.asm.bind(self.pass);
        self.asm.alu_imm(Alu::Mov, Reg::R0, TC_ACT_UNSPEC);
        self.asm.exit();
    }

    /// R0 = where the array holds the entry `index`; drops if it has none.
    fn array(&mut self, map: RawFd, index: Reg) {
        self.asm.store(Size::Word, Reg::Fp, INDEX, index);
        self.lookup(map, INDEX);
        self.asm.jump_imm(If::Eq, Reg::R0, 0, self.drop);
    }

    /// R0 = where the map holds the value of the key on the stack, or 0.
    fn lookup(&mut self, map: RawFd, key: i16) {
        self.asm.load_map(Reg::R1, map);
        self.asm.alu(Alu::Mov, Reg::R2, Reg::Fp);
        self.asm.alu_imm(Alu::Add, Reg::R2, key.into());
        self.asm.call(MAP_LOOKUP_ELEM);
    }

    /// Copies `len` bytes from `R7 + from` of the frame to the stack; passes if the frame ends before.
    fn load_bytes(&mut self, from: i32, to: i16, len: i32) {
        self.asm.alu(Alu::Mov, Reg::R1, Reg::R6);
        self.asm.alu(Alu::Mov, Reg::R2, Reg::R7);
        self.asm.alu_imm(Alu::Add, Reg::R2, from);
        self.asm.alu(Alu::Mov, Reg::R3, Reg::Fp);
        self.asm.alu_imm(Alu::Add, Reg::R3, to.into());
        self.asm.alu_imm(Alu::Mov, Reg::R4, len);
        self.asm.call(SKB_LOAD_BYTES);
        self.asm.jump_imm(If::Ne, Reg::R0, 0, self.pass);
    }
}

/// Name of a program in the kernel, for one direction.
pub(super) fn name(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "buoy_ingress",
        Direction::Egress => "buoy_egress",
    }
}

/// The check of the clock: writes the program's clock to a one-cell array.
pub(super) fn clock_probe(cell: &Map) -> Result<Vec<Insn>, AsmError> {
    let mut asm = Asm::default();
    let end = asm.label("end");
    asm.call(BPF_KTIME_GET_BOOT_NS);
    asm.alu(Alu::Mov, Reg::R6, Reg::R0);
    asm.store_imm(Size::Word, Reg::Fp, INDEX, 0);
    asm.load_map(Reg::R1, cell.as_raw_fd());
    asm.alu(Alu::Mov, Reg::R2, Reg::Fp);
    asm.alu_imm(Alu::Add, Reg::R2, INDEX.into());
    asm.call(MAP_LOOKUP_ELEM);
    asm.jump_imm(If::Eq, Reg::R0, 0, end);
    asm.store(Size::Double, Reg::R0, 0, Reg::R6);
    asm.bind(end);
    asm.alu_imm(Alu::Mov, Reg::R0, TC_ACT_UNSPEC);
    asm.exit();
    asm.finish()
}
