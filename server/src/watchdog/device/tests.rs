use super::fake::Fake;
use super::*;

#[test]
fn the_first_timeout_that_the_device_takes_is_the_one_in_force() {
    for (takes, before, timeout) in [
        (1..=600, 60, 10),
        (20..=40, 20, 30),
        (45..=90, 45, 60),
        // A fixed one.
        (0..=0, 15, 15),
    ] {
        let fake = Fake::new();
        fake.book().takes = takes;
        fake.book().timeout = before;
        let armed = fake.start(false).unwrap();
        assert_eq!(armed.timeout, Duration::from_secs(timeout));
        assert!(armed.warnings.is_empty(), "{:?}", armed.warnings);
        assert!(fake.book().written.is_empty());
    }
}

#[test]
fn too_short_a_timeout_is_refused_and_the_timer_stopped() {
    let fake = Fake::new();
    fake.book().takes = 1..=4;
    fake.book().timeout = 4;
    let error = fake.start(false).err().unwrap().to_string();
    assert!(error.contains("/dev/watchdog7"), "{error}");
    assert!(error.contains("no longer timeout than 4 s"), "{error}");
    let book = fake.book();
    assert_eq!((&*book.written, book.closed), (MAGIC, true));
}

#[test]
fn the_magic_close_is_the_last_that_is_written_and_only_when_asked_for() {
    let fake = Fake::new();
    let mut armed = fake.start(false).unwrap();
    armed.feed().unwrap();
    assert!(!fake.book().written.contains(&b'V'));
    armed.disarm().unwrap();
    let book = fake.book();
    assert_eq!((&*book.written, book.closed), (&b"\0V"[..], true));

    let fake = Fake::new();
    drop(fake.start(false).unwrap());
    let book = fake.book();
    assert_eq!((book.written.len(), book.closed), (0, true));
}

#[test]
fn what_cannot_be_stopped_or_stops_by_itself_is_said() {
    let fake = Fake::new();
    fake.book().options = Ok(0x8080);
    fake.book().boot_status = BOOT_CARD_RESET;
    let armed = fake.start(true).unwrap();
    for (warning, words) in armed
        .warnings
        .iter()
        .zip(["nowayout", "no magic close", "last reset"])
    {
        assert!(warning.contains(words), "{warning}");
    }
    assert_eq!(armed.warnings.len(), 3);
    let error = armed.disarm().unwrap_err();
    assert!(error.to_string().contains("nowayout"), "{error}");
}

#[test]
fn other_files_are_refused_and_not_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("precious");
    std::fs::write(&file, "data").unwrap();
    let refused = |path: &Path| Armed::open(path).err().unwrap().to_string();
    let error = refused(&file);
    assert!(error.contains("no character device"), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), b"data");
    let error = refused(Path::new("/dev/null"));
    assert!(error.contains("/dev/null is no watchdog device"), "{error}");
    let error = refused(&dir.path().join("none"));
    assert!(error.contains("driver"), "{error}");
    let busy = DeviceError::Open {
        path: "/dev/watchdog".into(),
        source: io::Error::from_raw_os_error(libc::EBUSY),
    };
    assert!(busy.to_string().contains("RuntimeWatchdogSec"), "{busy}");
}
