//! A device of a test's own.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard};

use super::*;

/// What the test sees, and what the device refuses.
pub struct Book {
    pub options: io::Result<u32>,
    pub boot_status: u32,
    /// Timeouts that it takes.
    pub takes: RangeInclusive<c_int>,
    pub timeout: c_int,
    pub written: Vec<u8>,
    pub refuses: bool,
    pub refusals: usize,
    pub closed: bool,
}

#[derive(Clone)]
pub struct Fake(Arc<Mutex<Book>>);

impl Fake {
    pub fn new() -> Fake {
        Fake(Arc::new(Mutex::new(Book {
            options: Ok(OPTION_MAGIC_CLOSE | 0x8080),
            boot_status: 0,
            takes: 1..=600,
            timeout: 60,
            written: Vec::new(),
            refuses: false,
            refusals: 0,
            closed: false,
        })))
    }

    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap()
    }

    /// How often it was fed.
    pub fn meals(&self) -> usize {
        self.book().written.iter().filter(|b| **b != b'V').count()
    }

    pub fn start(&self, no_way_out: bool) -> Result<Armed, DeviceError> {
        let device = Box::new(Open(self.0.clone()));
        Armed::start(device, Path::new("/dev/watchdog7"), no_way_out)
    }
}

struct Open(Arc<Mutex<Book>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.lock().unwrap().closed = true;
    }
}

impl Device for Open {
    fn options(&mut self) -> io::Result<u32> {
        let book = self.0.lock().unwrap();
        match &book.options {
            Ok(options) => Ok(*options),
            Err(e) => Err(e.kind().into()),
        }
    }

    fn boot_status(&mut self) -> io::Result<u32> {
        Ok(self.0.lock().unwrap().boot_status)
    }

    fn set_timeout(&mut self, seconds: c_int) -> io::Result<()> {
        let mut book = self.0.lock().unwrap();
        if !book.takes.contains(&seconds) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        book.timeout = seconds;
        Ok(())
    }

    fn timeout(&mut self) -> io::Result<c_int> {
        Ok(self.0.lock().unwrap().timeout)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut book = self.0.lock().unwrap();
        if book.refuses {
            book.refusals += 1;
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        book.written.extend(bytes);
        Ok(())
    }
}
