//! The kernel's notices that somebody else changed our tables.

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::message::{SUBSYSTEM, text};
use super::ruleset::TABLE;
use super::socket::messages;
use crate::watch::leave_out;

/// `1 << (NFNLGRP_NFTABLES - 1)`.
const GROUP: u32 = 1 << 6;
/// `NFT_MSG_NEWGEN`, at the end of each transaction: names no table.
const NEW_GENERATION: u8 = 15;
/// The kernel joins no more notices than this in a datagram.
const RECEIVE_BYTES: usize = 64 * 1024;
/// Datagrams taken in one go, so that a storm of notices lets other work through.
const DATAGRAMS: usize = 128;

/// Tells when others change, remove or replace what the gate made. The gate's own transactions, its renewals among them, do
/// not wake it: the kernel leaves their notices out.
pub struct TableNotices {
    socket: AsyncFd<Socket>,
    buffer: Vec<u8>,
}

impl TableNotices {
    /// Subscribes, in the network namespace of the calling thread; `ours` is the port of the gate's socket.
    pub(super) fn open(ours: u32) -> io::Result<TableNotices> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.set_non_blocking(true)?;
        leave_out(&socket, ours)?;
        socket.bind(&SocketAddr::new(0, GROUP))?;
        // SAFETY: the socket owns its descriptor, never changes it, and closes it when it is dropped.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(TableNotices {
            socket,
            buffer: Vec::with_capacity(RECEIVE_BYTES),
        })
    }

    /// Waits until somebody else has changed the tables, or may have: notices may be lost. Changes in quick succession
    /// are told once. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// When the socket is broken.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut changed = false;
            let mut guard = self.socket.readable().await?;
            for _ in 0..DATAGRAMS {
                self.buffer.clear();
                let buffer = &mut self.buffer;
                match guard.try_io(|socket| socket.get_ref().recv(buffer, 0)) {
                    Ok(Ok(_)) => changed |= is_about_us(&self.buffer),
                    Ok(Err(e)) if e.raw_os_error() == Some(libc::ENOBUFS) => changed = true,
                    Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                    Ok(Err(e)) => return Err(e),
                    Err(_would_block) => break,
                }
            }
            if changed {
                return Ok(());
            }
        }
    }
}

/// Whether a datagram tells of a change in one of our tables.
fn is_about_us(datagram: &[u8]) -> bool {
    messages(datagram).any(|message| {
        let [kind, subsystem] = message.kind.to_le_bytes();
        // Behind the header of nfnetlink; the table's name comes first in each kind.
        let row = message.payload.get(4..).unwrap_or(&[]);
        u16::from(subsystem) == SUBSYSTEM && kind != NEW_GENERATION && text(row, 1) == Some(TABLE)
    })
}

#[cfg(test)]
mod tests {
    use super::super::message::{Batch, DEL_TABLE, INET};
    use super::*;

    fn datagram(table: &'static str, kinds: &[u8]) -> Vec<u8> {
        let mut batch = Batch::new(table);
        batch.restart(1);
        for kind in kinds {
            batch.message(*kind, 0, INET, |b| b.table());
        }
        batch.bytes().to_vec()
    }

    #[test]
    fn only_our_own_tables_matter() {
        assert!(is_about_us(&datagram(TABLE, &[DEL_TABLE])));
        assert!(!is_about_us(&datagram("buoy2", &[DEL_TABLE, DEL_TABLE])));
        assert!(!is_about_us(&datagram(TABLE, &[NEW_GENERATION])));
        let mixed = [
            datagram("filter", &[DEL_TABLE]),
            datagram(TABLE, &[DEL_TABLE]),
        ]
        .concat();
        assert!(is_about_us(&mixed));
        assert!(!is_about_us(&mixed[..30]), "cut off");
        assert!(!is_about_us(&[]));
    }
}
