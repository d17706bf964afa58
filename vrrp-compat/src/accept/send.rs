//! The other side of [`super::judge`]: what a virtual router sends so that others accept it.

use std::net::IpAddr;

use super::{Auth, Expected, Version};
use crate::ah;
use crate::ip::{self, WriteError};
use crate::packet::{Advertisement, Body, EncodeError, IP_PROTOCOL, PseudoHeader};

/// Why an advertisement cannot be sent.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SendError {
    /// It cannot be written.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// No IP packet can be made of it.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Expected {
    /// The advertisement of this router with a priority of 0 (gives up) to 255 (owns the addresses).
    pub fn advertisement(&self, priority: u8) -> Advertisement {
        let body = match self.version {
            Version::V2 => Body::V2 {
                seconds: self.seconds(),
                authentication_type: self.auth.wire_type(),
                authentication: match self.auth {
                    Auth::Pass(password) => password,
                    Auth::None | Auth::Ah(_) => [0; 8],
                },
            },
            Version::V3 => Body::V3 {
                centiseconds: self.centiseconds(),
            },
        };
        Advertisement {
            vrid: self.vrid,
            priority,
            addresses: self.addresses.clone(),
            body,
        }
    }

    /// The same as a whole IP packet, with the authentication header if this router uses one. `mark` must not be
    /// 0; `sequence` only counts in the authentication header.
    ///
    /// # Errors
    /// The addresses are not of the family that it is sent over, or too many.
    pub fn packet(
        &self,
        priority: u8,
        source: IpAddr,
        destination: IpAddr,
        mark: u16,
        pseudo: PseudoHeader,
        sequence: u32,
    ) -> Result<Vec<u8>, SendError> {
        let vrrp = self
            .advertisement(priority)
            .encode(source, destination, pseudo)?;
        Ok(match (self.header_key(), source, destination) {
            (Some(key), IpAddr::V4(source), IpAddr::V4(destination)) => {
                ah::seal(source, destination, mark, sequence, key, &vrrp)?
            }
            _ => ip::write(source, destination, IP_PROTOCOL, mark, &vrrp)?,
        })
    }
}
