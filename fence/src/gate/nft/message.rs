//! Batches of nf_tables messages, byte by byte (linux/netfilter/nf_tables.h, nfnetlink.h).

use std::fmt::Display;
use std::io::Write;

/// Families (`NFPROTO_*`).
pub(super) const INET: u8 = 1;
pub(super) const ARP: u8 = 3;
pub(super) const NETDEV: u8 = 5;

/// Kinds of messages (`NFT_MSG_*`).
pub(super) const NEW_TABLE: u8 = 0;
pub(super) const GET_TABLE: u8 = 1;
pub(super) const DEL_TABLE: u8 = 2;
pub(super) const NEW_CHAIN: u8 = 3;
pub(super) const GET_CHAIN: u8 = 4;
pub(super) const DEL_CHAIN: u8 = 5;
pub(super) const NEW_RULE: u8 = 6;
pub(super) const GET_RULE: u8 = 7;
pub(super) const DEL_RULE: u8 = 8;
pub(super) const NEW_SET: u8 = 9;
pub(super) const GET_SET: u8 = 10;
pub(super) const DEL_SET: u8 = 11;
pub(super) const NEW_ELEMENT: u8 = 12;
pub(super) const GET_ELEMENT: u8 = 13;
pub(super) const DEL_ELEMENT: u8 = 14;

/// `NFNL_SUBSYS_NFTABLES`.
pub(super) const SUBSYSTEM: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN`, `.._END`.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// Flags of a netlink message.
pub(super) const REQUEST: u16 = 1;
pub(super) const ACK: u16 = 4;
pub(super) const DUMP: u16 = 0x300;
pub(super) const EXCL: u16 = 0x200;
pub(super) const CREATE: u16 = 0x400;
pub(super) const APPEND: u16 = 0x800;

/// Marks an attribute that holds others (`NLA_F_NESTED`).
const NESTED: u16 = 0x8000;
/// Length of a netlink header.
pub(super) const HEADER: usize = 16;
/// Elements in one message: an attribute's length has 16 bits.
pub(super) const ELEMENTS: usize = 512;

/// Messages that are sent in one go. The buffer is kept, so that a renewal allocates nothing.
#[derive(Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// Where the newest message begins.
    last: usize,
    sequence: u32,
    /// Name of the tables that it is about.
    pub(super) table: &'static str,
}

impl Batch {
    pub(super) fn new(table: &'static str) -> Batch {
        Batch {
            table,
            ..Batch::default()
        }
    }

    /// The attribute that names the table, in every message.
    pub(super) fn table(&mut self) {
        self.text(1, self.table);
    }

    /// Empties it; its messages are numbered from `sequence` on.
    pub(super) fn restart(&mut self, sequence: u32) {
        self.bytes.clear();
        self.last = 0;
        self.sequence = sequence;
    }

    /// Opens a transaction.
    pub(super) fn begin(&mut self) {
        self.control(BATCH_BEGIN);
    }

    /// Asks for an acknowledgement of the newest message, and ends the transaction; gives that
    /// message's sequence number.
    pub(super) fn end(&mut self) -> u32 {
        let at = self.last + 6;
        let flags = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]) | ACK;
        self.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
        let acknowledged = self.sequence.wrapping_sub(1);
        self.control(BATCH_END);
        acknowledged
    }

    /// Number that the next message gets.
    pub(super) fn next_sequence(&self) -> u32 {
        self.sequence
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn control(&mut self, kind: u16) {
        self.start(kind, REQUEST);
        let [a, b] = SUBSYSTEM.to_be_bytes();
        self.bytes.extend_from_slice(&[0, 0, a, b]);
        self.finish();
    }

    /// One message about nf_tables; `flags` besides REQUEST.
    pub(super) fn message(
        &mut self,
        kind: u8,
        flags: u16,
        family: u8,
        attributes: impl FnOnce(&mut Batch),
    ) {
        self.start(SUBSYSTEM << 8 | u16::from(kind), REQUEST | flags);
        self.bytes.extend_from_slice(&[family, 0, 0, 0]);
        attributes(self);
        self.finish();
    }

    fn start(&mut self, kind: u16, flags: u16) {
        self.last = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&self.sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.sequence = self.sequence.wrapping_add(1);
    }

    fn finish(&mut self) {
        let length = (self.bytes.len() - self.last) as u32;
        self.bytes[self.last..self.last + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// An attribute as it is.
    pub(super) fn raw(&mut self, kind: u16, value: &[u8]) {
        let length = (value.len() + 4) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
    }

    /// A number in network order, as nf_tables wants it.
    pub(super) fn number(&mut self, kind: u16, value: u32) {
        self.raw(kind, &value.to_be_bytes());
    }

    pub(super) fn text(&mut self, kind: u16, value: impl Display) {
        self.pieces(kind, |bytes| {
            // Fails only where the value's own formatting does, which none of ours does.
            let _ = write!(bytes, "{value}");
            bytes.push(0);
        });
    }

    /// An attribute that is written piece by piece.
    fn pieces(&mut self, kind: u16, write: impl FnOnce(&mut Vec<u8>)) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        write(&mut self.bytes);
        let length = (self.bytes.len() - at) as u16;
        self.bytes[at..at + 2].copy_from_slice(&length.to_ne_bytes());
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
    }

    /// What only those who list the tables read.
    pub(super) fn user_data(&mut self, kind: u16, of: u8, value: &[u8]) {
        self.pieces(kind, |bytes| {
            bytes.extend_from_slice(&[of, value.len() as u8]);
            bytes.extend_from_slice(value);
        });
    }

    /// An attribute that holds others.
    pub(super) fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Batch)) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        inner(self);
        let length = (self.bytes.len() - at) as u16;
        self.bytes[at..at + 2].copy_from_slice(&length.to_ne_bytes());
    }
}

/// Attributes in a row; a broken one ends it.
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = usize::from(u16::from_ne_bytes(*self.0.first_chunk()?));
        let kind = u16::from_ne_bytes(*self.0.get(2..)?.first_chunk()?) & 0x3fff;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    }
}

/// The first attribute of a kind.
pub(super) fn attribute(row: &[u8], kind: u16) -> Option<&[u8]> {
    Attributes(row).find(|(k, _)| *k == kind).map(|(_, v)| v)
}

/// A number in network order.
pub(super) fn number(row: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_be_bytes(*attribute(row, kind)?.first_chunk()?))
}

/// As [`number`], of 8 bytes.
pub(super) fn long_number(row: &[u8], kind: u16) -> Option<u64> {
    Some(u64::from_be_bytes(*attribute(row, kind)?.first_chunk()?))
}

/// A name.
pub(super) fn text(row: &[u8], kind: u16) -> Option<&str> {
    let bytes = attribute(row, kind)?;
    std::str::from_utf8(bytes.strip_suffix(&[0]).unwrap_or(bytes)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_out_as_they_went_in() {
        let mut batch = Batch::new("buoy");
        batch.restart(7);
        batch.begin();
        batch.message(NEW_TABLE, CREATE, INET, |b| {
            b.table();
            b.nest(2, |b| b.number(3, 0x0102_0304));
            b.raw(4, &[9]);
        });
        assert_eq!(batch.end(), 8);
        let message = &batch.bytes()[20..];
        let length = u32::from_ne_bytes(*message.first_chunk().unwrap()) as usize;
        let flags = u16::from_ne_bytes([message[6], message[7]]);
        assert_eq!(flags, REQUEST | CREATE | ACK);
        let row = &message[HEADER + 4..length];
        assert_eq!(text(row, 1), Some("buoy"));
        assert_eq!(number(attribute(row, 2).unwrap(), 3), Some(0x0102_0304));
        assert_eq!(attribute(row, 4), Some(&[9][..]));
        assert_eq!(attribute(row, 5), None);
    }

    #[test]
    fn broken_attributes_end_the_row() {
        assert_eq!(Attributes(&[0, 0, 1, 0, 0, 0]).count(), 0);
        assert_eq!(Attributes(&[9, 0, 1, 0, 0, 0]).count(), 0);
        assert_eq!(Attributes(&[5, 0]).count(), 0);
    }
}
