//! The control socket: bounded lines in, one answer a line out, and never a wait for a slow reader.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::{Context, Result};

use super::protocol::{MAX_REQUEST, Request, Response};
use crate::sys::poll::{Epoll, Interest};

/// Most connections at once; further ones are closed at once.
const MAX_CONNECTIONS: usize = 16;
/// Most bytes of answers that wait for a reader; who reads so slowly is cut off.
const MAX_UNREAD: usize = 64 * 1024 * 1024;

/// The listening socket and its connections.
pub(super) struct Control {
    listener: UnixListener,
    connections: Vec<Option<Connection>>,
    /// Tokens are `first` for the listener and `first + 1 + n` for connection n.
    first: u64,
}

struct Connection {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Control {
    /// Listens on the socket at `path`, in the place of an old one.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub(super) fn bind(path: &Path, epoll: &Epoll, first: u64) -> Result<Self> {
        if let Err(error) = fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error).with_context(|| format!("remove {}", path.display()));
        }
        let listener =
            UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
        listener.set_nonblocking(true)?;
        epoll.add(&listener, first, Interest::Read)?;
        Ok(Self {
            listener,
            connections: (0..MAX_CONNECTIONS).map(|_| None).collect(),
            first,
        })
    }

    /// Handles an event of `token`; `answer` is called for each request.
    pub(super) fn ready(
        &mut self,
        token: u64,
        epoll: &Epoll,
        mut answer: impl FnMut(Request) -> Response,
    ) {
        if token == self.first {
            self.accept(epoll);
            return;
        }
        let Some(slot) = usize::try_from(token - self.first - 1)
            .ok()
            .and_then(|at| self.connections.get_mut(at))
        else {
            return;
        };
        if let Some(connection) = slot
            && !connection.serve(&mut answer, epoll, token)
        {
            // Closing the descriptor takes it out of the epoll set.
            *slot = None;
        }
    }

    fn accept(&mut self, epoll: &Epoll) {
        while let Ok((stream, _)) = self.listener.accept() {
            let Some(at) = self.connections.iter().position(Option::is_none) else {
                continue;
            };
            let token = self.first + 1 + at as u64;
            if stream.set_nonblocking(true).is_ok()
                && epoll.add(stream.as_fd(), token, Interest::Read).is_ok()
            {
                self.connections[at] = Some(Connection {
                    stream,
                    input: Vec::new(),
                    output: Vec::new(),
                });
            }
        }
    }
}

impl Connection {
    /// False when the connection is over.
    fn serve(
        &mut self,
        answer: &mut impl FnMut(Request) -> Response,
        epoll: &Epoll,
        token: u64,
    ) -> bool {
        let open = self.read();
        while let Some(end) = self.input.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            let response = match serde_json::from_slice(&line) {
                Ok(request) => answer(request),
                Err(error) => Response::Refused {
                    why: format!("not a request: {error}"),
                },
            };
            if serde_json::to_writer(&mut self.output, &response).is_err() {
                return false;
            }
            self.output.push(b'\n');
        }
        if self.input.len() > MAX_REQUEST || self.output.len() > MAX_UNREAD {
            return false;
        }
        let flushed = self.write();
        let interest = if self.output.is_empty() {
            Interest::Read
        } else {
            Interest::Both
        };
        open && flushed && epoll.modify(&self.stream, token, interest).is_ok()
    }

    fn read(&mut self) -> bool {
        let mut chunk = [0; 4096];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return false,
                Ok(count) => self.input.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
            if self.input.len() > MAX_REQUEST {
                return true;
            }
        }
    }

    fn write(&mut self) -> bool {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        true
    }
}
