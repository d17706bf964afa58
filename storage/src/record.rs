//! How a record lies in the database: keys, parts, checksums.
//!
//! A record is cut into parts, because sled writes a page above 128 KiB into a file of its own, and does
//! not sync that file: sixteen parts fit into one page.
//!
//! ```text
//! key    value record   0x00, id u8,           part u16 BE
//!        log entry      0x01, index u64 BE,    part u16 BE
//! value  0  CRC32 of the key and of bytes 4.., u32 LE    4  1: last part, 0: more follow    5  bytes
//! ```

use std::fmt;

use crate::types::MAX_ENTRY_BYTES;

/// Most bytes of a record in one part.
pub(crate) const PART_BYTES: usize = 4096;

const VALUE: u8 = 0;
const ENTRY: u8 = 1;
const HEADER_BYTES: usize = 5;
const _: () = assert!(MAX_ENTRY_BYTES / PART_BYTES < u16::MAX as usize);

/// Which small value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Value {
    /// What the database holds as a whole (see `journal`).
    Tip = 0,
    /// Raft's vote.
    Vote = 1,
    /// Raft's committed log id, as last heard.
    Committed = 2,
    /// Log id of the last entry that was purged.
    Purged = 3,
    /// Longest promise that this voter may have given.
    MaxPromise = 4,
}

impl Value {
    const ALL: [Value; 5] = [
        Value::Tip,
        Value::Vote,
        Value::Committed,
        Value::Purged,
        Value::MaxPromise,
    ];
}

/// Which record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Key {
    /// A small value.
    Value(Value),
    /// The log entry at an index.
    Entry(u64),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Value(value) => write!(f, "value {value:?}"),
            Key::Entry(index) => write!(f, "log entry {index}"),
        }
    }
}

impl Key {
    /// The database key of one part.
    pub(crate) fn part(self, part: u16) -> Vec<u8> {
        let mut key = Vec::with_capacity(11);
        match self {
            Key::Value(value) => key.extend([VALUE, value as u8]),
            Key::Entry(index) => {
                key.push(ENTRY);
                key.extend(index.to_be_bytes());
            }
        }
        key.extend(part.to_be_bytes());
        key
    }

    /// `None` for bytes that are no key of ours.
    fn parse(bytes: &[u8]) -> Option<(Key, u16)> {
        let (head, part) = bytes.split_at_checked(bytes.len().checked_sub(2)?)?;
        let part = u16::from_be_bytes(part.try_into().ok()?);
        let key = match head {
            [VALUE, id] => Key::Value(*Value::ALL.iter().find(|v| **v as u8 == *id)?),
            [ENTRY, index @ ..] => Key::Entry(u64::from_be_bytes(index.try_into().ok()?)),
            _ => return None,
        };
        Some((key, part))
    }
}

/// One part of a record as the database holds it.
pub(crate) struct Part {
    /// Key in the database.
    pub(crate) key: Vec<u8>,
    /// Checksum and bytes.
    pub(crate) value: Vec<u8>,
    /// The checksum.
    pub(crate) crc: u32,
}

fn checksum(key: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(body);
    hasher.finalize()
}

/// Cuts a record into parts. At most [`MAX_ENTRY_BYTES`] are given to it, so that the parts can be
/// counted in 16 bits.
pub(crate) fn split(key: Key, bytes: &[u8]) -> Vec<Part> {
    let count = bytes.len().div_ceil(PART_BYTES).max(1);
    let parts = (0..count).map(|n| {
        let chunk = &bytes[n * PART_BYTES..bytes.len().min((n + 1) * PART_BYTES)];
        let key = key.part(n as u16);
        let mut value = Vec::with_capacity(HEADER_BYTES + chunk.len());
        value.extend([0; 4]);
        value.push(u8::from(n + 1 == count));
        value.extend(chunk);
        let crc = checksum(&key, &value[4..]);
        value[..4].copy_from_slice(&crc.to_le_bytes());
        Part { key, value, crc }
    });
    parts.collect()
}

/// A whole record, read back.
#[derive(Debug)]
pub(crate) struct Record {
    /// Which one.
    pub(crate) key: Key,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
    /// In how many parts it lies in the database.
    pub(crate) parts: u16,
    /// Sum of the parts' checksums.
    pub(crate) sum: u64,
}

/// Puts records together from all pairs of a database in order of key; the error names the record that
/// is damaged.
pub(crate) fn join(
    pairs: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
) -> Result<Vec<Record>, String> {
    let mut records: Vec<Record> = Vec::new();
    let mut open = false;
    for (key_bytes, value) in pairs {
        let (key, part) = Key::parse(&key_bytes)
            .ok_or_else(|| format!("it holds an unknown key {key_bytes:02x?}"))?;
        let crc = value.first_chunk().map(|crc| u32::from_le_bytes(*crc));
        if value.len() < HEADER_BYTES || crc != Some(checksum(&key_bytes, &value[4..])) {
            return Err(format!("the checksum of {key} (part {part}) is wrong"));
        }
        let sum = u64::from(crc.unwrap_or_default());
        match records.last_mut() {
            Some(record) if open => {
                if record.key != key || record.parts != part {
                    return Err(format!(
                        "part {} of {} is missing",
                        record.parts, record.key
                    ));
                }
                record.bytes.extend(&value[HEADER_BYTES..]);
                record.parts += 1;
                record.sum = record.sum.wrapping_add(sum);
            }
            _ if part != 0 => return Err(format!("the beginning of {key} is missing")),
            _ => records.push(Record {
                key,
                bytes: value[HEADER_BYTES..].to_vec(),
                parts: 1,
                sum,
            }),
        }
        open = value[4] == 0;
    }
    match records.last() {
        Some(record) if open => Err(format!("the end of {} is missing", record.key)),
        _ => Ok(records),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(records: &[(Key, usize)]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut pairs: Vec<_> = records
            .iter()
            .flat_map(|(key, len)| split(*key, &vec![*len as u8; *len]))
            .map(|part| (part.key, part.value))
            .collect();
        pairs.sort();
        pairs
    }

    #[test]
    fn what_was_split_is_joined() {
        let wanted = [
            (Key::Value(Value::Vote), 0),
            (Key::Entry(1), PART_BYTES),
            (Key::Entry(2), PART_BYTES + 1),
            (Key::Entry(300), 70 * PART_BYTES + 7),
        ];
        let found = join(pairs(&wanted)).unwrap();
        assert_eq!(
            found
                .iter()
                .map(|r| (r.key, r.bytes.len()))
                .collect::<Vec<_>>(),
            wanted
        );
        assert_eq!(
            found.iter().map(|r| r.parts).collect::<Vec<_>>(),
            [1, 1, 2, 71]
        );
        assert!(
            found
                .iter()
                .all(|r| r.bytes.iter().all(|b| *b == r.bytes.len() as u8))
        );
    }

    #[test]
    fn every_flipped_bit_and_missing_part_is_noticed() {
        let whole = pairs(&[
            (Key::Value(Value::Vote), 9),
            (Key::Entry(7), PART_BYTES + 5),
        ]);
        for (n, (key, value)) in whole.iter().enumerate() {
            for bit in 0..(key.len() + value.len()) * 8 {
                let mut damaged = whole.clone();
                let (key, value) = &mut damaged[n];
                let at = bit / 8;
                let byte = if at < key.len() {
                    &mut key[at]
                } else {
                    &mut value[at - key.len()]
                };
                *byte ^= 1 << (bit % 8);
                assert!(join(damaged).is_err(), "pair {n}, bit {bit}");
            }
        }
        for n in [1, 2] {
            let mut short = whole.clone();
            short.remove(n);
            assert!(join(short).is_err(), "without pair {n}");
        }
    }
}
