//! A small assembler for eBPF: instructions, labels, and every mistake an error instead of a wrong jump.
//!
//! Instruction encoding: RFC 9669.

use std::os::fd::RawFd;

/// One instruction as the kernel reads it (`struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Insn {
    opcode: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Insn {
    fn new(opcode: u8, dst: Reg, src: u8, offset: i16, immediate: i32) -> Insn {
        // Two bit-fields of one byte: the compiler's order of them follows the byte order.
        let registers = if cfg!(target_endian = "little") {
            dst as u8 | src << 4
        } else {
            (dst as u8) << 4 | src
        };
        Insn {
            opcode,
            registers,
            offset,
            immediate,
        }
    }
}

/// Registers: 0 result, 1-5 arguments (lost in a call), 6-9 kept, 10 frame pointer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Reg {
    R0 = 0,
    R1 = 1,
    R2 = 2,
    R3 = 3,
    R4 = 4,
    R6 = 6,
    R7 = 7,
    R8 = 8,
    R9 = 9,
    Fp = 10,
}

/// Width of a memory access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Size {
    Word = 0x00,
    Half = 0x08,
    Byte = 0x10,
    Double = 0x18,
}

/// When a jump is taken; values unsigned, 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum If {
    Eq = 0x10,
    Ne = 0x50,
    Less = 0xa0,
}

/// Arithmetic on a whole register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Alu {
    Add = 0x00,
    And = 0x50,
    ShiftLeft = 0x60,
    Mov = 0xb0,
}

/// A place in the program, bound or still to be bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Label(usize);

/// Why a program could not be put together.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum AsmError {
    #[error("label {0} is bound twice")]
    Redefined(&'static str),
    #[error("label {0} is jumped to but never bound")]
    Unresolved(&'static str),
    #[error("the jump to {label} is {distance} instructions long, at most 32767 fit")]
    TooFar { label: &'static str, distance: i64 },
}

/// A program being written.
#[derive(Default)]
pub(super) struct Asm {
    insns: Vec<Insn>,
    labels: Vec<(&'static str, Option<usize>)>,
    /// Jumps to be filled in: index of the instruction, and where it goes.
    jumps: Vec<(usize, Label)>,
    redefined: Option<&'static str>,
}

// Instruction classes and modes.
const LDX_MEM: u8 = 0x61;
const ST_MEM: u8 = 0x62;
const STX_MEM: u8 = 0x63;
const STX_ATOMIC_DOUBLE: u8 = 0xdb;
const LD_IMM_DOUBLE: u8 = 0x18;
const ALU64: u8 = 0x07;
const JMP: u8 = 0x05;
const FROM_REGISTER: u8 = 0x08;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// Source register of `LD_IMM_DOUBLE`: the immediate is a map's descriptor.
const PSEUDO_MAP_FD: u8 = 1;

impl Asm {
    /// A new label; the name is for errors.
    pub(super) fn label(&mut self, name: &'static str) -> Label {
        self.labels.push((name, None));
        Label(self.labels.len() - 1)
    }

    /// The label means the next instruction.
    pub(super) fn bind(&mut self, label: Label) {
        let here = self.insns.len();
        let (name, place) = &mut self.labels[label.0];
        if place.is_some() {
            self.redefined.get_or_insert(name);
        }
        *place = Some(here);
    }

    /// `dst = dst OP src`
    pub(super) fn alu(&mut self, op: Alu, dst: Reg, src: Reg) {
        self.push(ALU64 | FROM_REGISTER | op as u8, dst, src as u8, 0, 0);
    }

    /// `dst = dst OP value`
    pub(super) fn alu_imm(&mut self, op: Alu, dst: Reg, value: i32) {
        self.push(ALU64 | op as u8, dst, 0, 0, value);
    }

    /// `dst = *(base + offset)`, zero-extended.
    pub(super) fn load(&mut self, size: Size, dst: Reg, base: Reg, offset: i16) {
        self.push(LDX_MEM | size as u8, dst, base as u8, offset, 0);
    }

    /// `*(base + offset) = src`
    pub(super) fn store(&mut self, size: Size, base: Reg, offset: i16, src: Reg) {
        self.push(STX_MEM | size as u8, base, src as u8, offset, 0);
    }

    /// `*(base + offset) = value`, sign-extended.
    pub(super) fn store_imm(&mut self, size: Size, base: Reg, offset: i16, value: i32) {
        self.push(ST_MEM | size as u8, base, 0, offset, value);
    }

    /// `*(u64 *)(base) += src`, atomically.
    pub(super) fn atomic_add(&mut self, base: Reg, src: Reg) {
        self.push(STX_ATOMIC_DOUBLE, base, src as u8, 0, 0);
    }

    /// `dst = ` the map behind a descriptor.
    pub(super) fn load_map(&mut self, dst: Reg, fd: RawFd) {
        self.push(LD_IMM_DOUBLE, dst, PSEUDO_MAP_FD, 0, fd);
        self.push(0, Reg::R0, 0, 0, 0);
    }

    /// `dst = value`, all 64 bits of it.
    pub(super) fn load_double(&mut self, dst: Reg, value: u64) {
        let [low, high] = [value as u32, (value >> 32) as u32].map(u32::cast_signed);
        self.push(LD_IMM_DOUBLE, dst, 0, 0, low);
        self.push(0, Reg::R0, 0, 0, high);
    }

    /// Calls a kernel helper by its number.
    pub(super) fn call(&mut self, helper: i32) {
        self.push(CALL, Reg::R0, 0, 0, helper);
    }

    /// Ends the program with R0 as its answer.
    pub(super) fn exit(&mut self) {
        self.push(EXIT, Reg::R0, 0, 0, 0);
    }

    /// Goes on at the label.
    pub(super) fn jump(&mut self, to: Label) {
        self.jumps.push((self.insns.len(), to));
        self.push(JMP, Reg::R0, 0, 0, 0);
    }

    /// Goes on at the label if `a OP value` holds.
    pub(super) fn jump_imm(&mut self, when: If, a: Reg, value: i32, to: Label) {
        self.jumps.push((self.insns.len(), to));
        self.push(JMP | when as u8, a, 0, 0, value);
    }

    /// Goes on at the label if `a OP b` holds.
    pub(super) fn jump_reg(&mut self, when: If, a: Reg, b: Reg, to: Label) {
        self.jumps.push((self.insns.len(), to));
        self.push(JMP | FROM_REGISTER | when as u8, a, b as u8, 0, 0);
    }

    fn push(&mut self, opcode: u8, dst: Reg, src: u8, offset: i16, immediate: i32) {
        self.insns
            .push(Insn::new(opcode, dst, src, offset, immediate));
    }

    /// The program with its jumps filled in.
    pub(super) fn finish(mut self) -> Result<Vec<Insn>, AsmError> {
        if let Some(name) = self.redefined {
            return Err(AsmError::Redefined(name));
        }
        for (at, to) in self.jumps {
            let (label, place) = self.labels[to.0];
            let place = place.ok_or(AsmError::Unresolved(label))?;
            let distance = place as i64 - at as i64 - 1;
            self.insns[at].offset =
                i16::try_from(distance).map_err(|_| AsmError::TooFar { label, distance })?;
        }
        Ok(self.insns)
    }
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    fn bytes(insn: Insn) -> [u8; 8] {
        let [o0, o1] = insn.offset.to_le_bytes();
        let [i0, i1, i2, i3] = insn.immediate.to_le_bytes();
        [insn.opcode, insn.registers, o0, o1, i0, i1, i2, i3]
    }

    /// The bytes are written out by hand from RFC 9669, sections 3 to 5.
    #[test]
    fn encodes_as_rfc_9669_says() {
        let mut a = Asm::default();
        let end = a.label("end");
        a.alu(Alu::Mov, Reg::R6, Reg::R1);
        a.alu_imm(Alu::Mov, Reg::R0, -1);
        a.alu_imm(Alu::Add, Reg::R2, -16);
        a.alu(Alu::Add, Reg::R7, Reg::R1);
        a.alu_imm(Alu::And, Reg::R1, 0xfff8);
        a.alu_imm(Alu::ShiftLeft, Reg::R1, 3);
        a.load(Size::Byte, Reg::R9, Reg::Fp, -24);
        a.load(Size::Half, Reg::R9, Reg::Fp, -24);
        a.load(Size::Word, Reg::R8, Reg::R0, 0);
        a.load(Size::Double, Reg::R9, Reg::R0, 0);
        a.store(Size::Word, Reg::Fp, -20, Reg::R8);
        a.store_imm(Size::Double, Reg::Fp, -16, 0);
        a.atomic_add(Reg::R0, Reg::R1);
        a.load_map(Reg::R1, 5);
        a.load_double(Reg::R9, 0x0123_4567_89ab_cdef);
        a.call(125);
        a.jump_imm(If::Eq, Reg::R0, 0, end);
        a.jump_imm(If::Ne, Reg::R9, 8, end);
        a.jump_reg(If::Less, Reg::R0, Reg::R9, end);
        a.jump(end);
        a.bind(end);
        a.exit();
        let code: Vec<[u8; 8]> = a
            .finish()
            .expect("a program")
            .into_iter()
            .map(bytes)
            .collect();
        let expected: Vec<[u8; 8]> = vec![
            [0xbf, 0x16, 0, 0, 0, 0, 0, 0],
            [0xb7, 0x00, 0, 0, 0xff, 0xff, 0xff, 0xff],
            [0x07, 0x02, 0, 0, 0xf0, 0xff, 0xff, 0xff],
            [0x0f, 0x17, 0, 0, 0, 0, 0, 0],
            [0x57, 0x01, 0, 0, 0xf8, 0xff, 0, 0],
            [0x67, 0x01, 0, 0, 3, 0, 0, 0],
            [0x71, 0xa9, 0xe8, 0xff, 0, 0, 0, 0],
            [0x69, 0xa9, 0xe8, 0xff, 0, 0, 0, 0],
            [0x61, 0x08, 0, 0, 0, 0, 0, 0],
            [0x79, 0x09, 0, 0, 0, 0, 0, 0],
            [0x63, 0x8a, 0xec, 0xff, 0, 0, 0, 0],
            [0x7a, 0x0a, 0xf0, 0xff, 0, 0, 0, 0],
            [0xdb, 0x10, 0, 0, 0, 0, 0, 0],
            [0x18, 0x11, 0, 0, 5, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0],
            [0x18, 0x09, 0, 0, 0xef, 0xcd, 0xab, 0x89],
            [0, 0, 0, 0, 0x67, 0x45, 0x23, 0x01],
            [0x85, 0x00, 0, 0, 125, 0, 0, 0],
            [0x15, 0x00, 3, 0, 0, 0, 0, 0],
            [0x55, 0x09, 2, 0, 8, 0, 0, 0],
            [0xad, 0x90, 1, 0, 0, 0, 0, 0],
            [0x05, 0x00, 0, 0, 0, 0, 0, 0],
            [0x95, 0x00, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(code, expected);
    }

    #[test]
    fn jumps_backwards() {
        let mut a = Asm::default();
        let top = a.label("top");
        a.bind(top);
        a.exit();
        a.jump(top);
        assert_eq!(a.finish().expect("a program")[1].offset, -2);
    }

    #[test]
    fn a_label_has_one_place() {
        let mut a = Asm::default();
        let here = a.label("here");
        a.bind(here);
        a.exit();
        a.bind(here);
        assert_eq!(a.finish(), Err(AsmError::Redefined("here")));
    }

    #[test]
    fn a_jump_needs_a_place() {
        let mut a = Asm::default();
        let nowhere = a.label("nowhere");
        a.jump(nowhere);
        assert_eq!(a.finish(), Err(AsmError::Unresolved("nowhere")));
    }

    #[test]
    fn a_jump_reaches_32767_instructions_and_no_further() {
        for (between, fits) in [(32767, true), (32768, false)] {
            let mut a = Asm::default();
            let far = a.label("far");
            a.jump(far);
            (0..between).for_each(|_| a.exit());
            a.bind(far);
            a.exit();
            match a.finish() {
                Ok(code) => assert!(fits && code[0].offset == i16::MAX),
                Err(e) => assert!(
                    !fits
                        && e == AsmError::TooFar {
                            label: "far",
                            distance: between
                        },
                    "{e}"
                ),
            }
        }
    }
}
