//! What passes at an interface, into a file that tshark reads.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use socket2::{Domain, SockAddr, Socket, Type};

use super::tshark::{self, Packet};
use crate::ns::Netns;
use crate::sys::clock::now_ns;
use crate::sys::iface;

/// Longest frame that is kept whole.
const SNAP: usize = 4096;
/// Room for what arrives while the recorder does not run.
const BUFFER: usize = 8 << 20;
/// How often the recorder looks whether it shall end.
const LOOK: Duration = Duration::from_millis(20);
/// SIOCGSTAMPNS with 64 bits each: when the packet that was read last passed.
const STAMP: u32 = 0x8010_8907;

/// A recording. Its times are ns of CLOCK_BOOTTIME, as everywhere in the lab, so tshark shows dates in 1970.
pub struct Capture {
    path: PathBuf,
    end: Arc<AtomicBool>,
    recorder: Option<JoinHandle<Result<()>>>,
}

impl Capture {
    /// Records from now on what the interface receives and sends, the machine's own frames included.
    ///
    /// # Errors
    /// There is no such interface, no permission, or the file cannot be written.
    pub fn start(ns: &Netns, interface: &str, path: &Path) -> Result<Self> {
        let socket = ns
            .enter(|| open(interface))
            .with_context(|| format!("record interface {interface} in {}", ns.name()))?;
        let file = Pcap::create(path)?;
        let end = Arc::new(AtomicBool::new(false));
        let told = end.clone();
        let recorder = std::thread::spawn(move || record(&socket, file, &told));
        Ok(Self {
            path: path.to_owned(),
            end,
            recorder: Some(recorder),
        })
    }

    /// Ends the recording and returns where it is. What passed before the call is in it.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn stop(mut self) -> Result<PathBuf> {
        self.end.store(true, Ordering::Relaxed);
        if let Some(recorder) = self.recorder.take() {
            recorder
                .join()
                .map_err(|_| anyhow!("the recorder panicked"))?
                .with_context(|| format!("record into {}", self.path.display()))?;
        }
        Ok(self.path.clone())
    }

    /// Ends the recording and has tshark dissect it.
    ///
    /// # Errors
    /// As [`Capture::stop`] and [`tshark::dissect`].
    pub fn dissect(self) -> Result<Vec<Packet>> {
        tshark::dissect(&self.stop()?)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

/// A file of Ethernet frames, with times in nanoseconds.
pub struct Pcap(BufWriter<File>);

impl Pcap {
    /// Makes the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("write {}", path.display()))?;
        let mut pcap = Self(BufWriter::new(file));
        // Magic number, version 2.4, two words that mean nothing, longest frame, Ethernet.
        for word in [0xa1b2_3c4d, 0x0004_0002, 0, 0, SNAP as u32, 1] {
            pcap.word(word)?;
        }
        Ok(pcap)
    }

    /// Adds a frame that passed at this time, ns.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn add(&mut self, at: u64, frame: &[u8]) -> io::Result<()> {
        let kept = &frame[..frame.len().min(SNAP)];
        let words = [
            at / 1_000_000_000,
            at % 1_000_000_000,
            kept.len() as u64,
            frame.len() as u64,
        ];
        for word in words {
            self.word(u32::try_from(word).unwrap_or(u32::MAX))?;
        }
        self.0.write_all(kept)
    }

    /// Writes out what is left.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> io::Result<()> {
        self.0.flush()
    }

    fn word(&mut self, word: u32) -> io::Result<()> {
        self.0.write_all(&word.to_le_bytes())
    }
}

fn open(interface: &str) -> Result<Socket> {
    // Of protocol 0 it hears nothing until it is bound: nothing of other interfaces either.
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.set_read_timeout(Some(LOOK))?;
    // The first question makes the kernel note the times; there is no packet yet, and so no answer.
    let _ = stamp(&socket);
    let index = iface::index(interface)?;
    // SAFETY: the storage is large enough for a sockaddr_ll, for which all zeroes is a valid value, and its
    // length is set to the size of one.
    let (_, address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let address = &mut *storage.cast::<libc::sockaddr_ll>();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
            address.sll_ifindex = index;
            *length = size_of::<libc::sockaddr_ll>() as u32;
            Ok(())
        })?
    };
    socket.bind(&address)?;
    Ok(socket)
}

/// When the packet that was read last passed, ns of CLOCK_REALTIME.
fn stamp(socket: &Socket) -> io::Result<i64> {
    let mut time = [0_i64; 2];
    iface::ioctl(socket, STAMP as libc::Ioctl, &mut time)?;
    Ok(time[0] * 1_000_000_000 + time[1])
}

fn record(socket: &Socket, mut file: Pcap, end: &AtomicBool) -> Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        // Looked at first: what has passed by then is still read, and no more, or a busy interface has no end.
        let last = end.load(Ordering::Relaxed);
        let told = now_ns();
        loop {
            match (&mut &*socket).read(&mut buffer) {
                Ok(length) => {
                    let late = real_ns() - stamp(socket)?;
                    let at = now_ns().saturating_sub(u64::try_from(late).unwrap_or(0));
                    file.add(at, &buffer[..length])?;
                    if last && at > told {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The interface goes down and comes up again.
                Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
            if end.load(Ordering::Relaxed) && !last {
                break;
            }
        }
        if last {
            return Ok(file.finish()?);
        }
    }
}

/// Now, in nanoseconds of CLOCK_REALTIME.
fn real_ns() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(0))
}
