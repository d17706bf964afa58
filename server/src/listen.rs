//! The daemon's listeners: its TCP port for peers and programs, and the local unix socket.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, stream};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixSocket, UnixStream};
use tracing::{debug, error, info, warn};

use crate::api::{ApiContext, Listener, router};
use crate::config::Config;
use crate::start::StartError;
use crate::tasks::{Tasks, run_forever};

/// Only root talks to the daemon without a certificate.
const SOCKET_MODE: u32 = 0o600;
/// Connections of the unix socket that may wait to be accepted.
const BACKLOG: u32 = 1_024;
/// How long to wait after a failure to accept that does not end by itself, such as EMFILE.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Binds both listeners and serves on them.
///
/// # Errors
/// One of them cannot be had.
pub async fn start(
    tasks: &mut Tasks,
    config: &Config,
    context: &ApiContext,
) -> Result<(), StartError> {
    let tcp = TcpListener::bind(config.listen)
        .await
        .map_err(StartError::listen(config.listen))?;
    let unix = bind_socket(&config.socket)
        .await
        .map_err(StartError::socket(&config.socket))?;
    info!(address = %config.listen, socket = %config.socket.display(), "listening");

    let tcp_router = router(context, Listener::Tcp)?;
    let incoming = connections("the TCP listener", tcp, accept_tcp);
    run_forever(tasks, "the TCP listener", async move {
        if let Err(e) = tcp_router.serve_with_incoming(incoming).await {
            error!("the TCP listener failed: {e}");
        }
    });
    let unix_router = router(context, Listener::Unix)?;
    run_forever(tasks, "the unix socket", async move {
        let incoming = connections("the unix socket", unix, accept_unix);
        if let Err(e) = unix_router.serve_with_incoming(incoming).await {
            error!("the unix socket failed: {e}");
        }
    });
    Ok(())
}

fn accept_tcp(listener: &TcpListener, cx: &mut Context<'_>) -> Poll<io::Result<TcpStream>> {
    listener.poll_accept(cx).map_ok(|(stream, peer)| {
        // Small answers must not wait for more to send.
        if let Err(e) = stream.set_nodelay(true) {
            debug!("connection from {peer}: {e}");
        }
        stream
    })
}

fn accept_unix(listener: &UnixListener, cx: &mut Context<'_>) -> Poll<io::Result<UnixStream>> {
    listener.poll_accept(cx).map_ok(|(stream, _)| stream)
}

/// Did only the one connection fail?
fn is_of_connection(e: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, Interrupted, TimedOut};
    [
        BrokenPipe,
        ConnectionAborted,
        ConnectionReset,
        Interrupted,
        TimedOut,
    ]
    .contains(&e.kind())
}

/// Connections as they come. Where none can be accepted for want of something (file descriptors, memory)
/// it is tried again after a pause: the one that waits would make the listener ready at once, for ever.
fn connections<L, C>(
    what: &'static str,
    listener: L,
    accept: fn(&L, &mut Context<'_>) -> Poll<io::Result<C>>,
) -> impl Stream<Item = io::Result<C>> {
    stream::unfold(
        (listener, false),
        move |(listener, mut failing)| async move {
            loop {
                match std::future::poll_fn(|cx| accept(&listener, cx)).await {
                    Ok(connection) => {
                        if failing {
                            info!("{what} accepts connections again");
                        }
                        return Some((Ok(connection), (listener, false)));
                    }
                    Err(e) if is_of_connection(&e) => debug!("{what}: {e}"),
                    Err(e) => {
                        if !failing {
                            warn!("{what} cannot accept connections for now: {e}");
                        }
                        failing = true;
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        },
    )
}

/// Binds the unix socket in the place of one that nobody serves any more.
async fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let probe = tokio::net::UnixStream::connect(path);
    match tokio::time::timeout(Duration::from_secs(1), probe).await {
        Ok(Ok(_)) | Err(_) => {
            let why = "another process serves this socket";
            return Err(io::Error::new(io::ErrorKind::AddrInUse, why));
        }
        Ok(Err(e)) if e.kind() == io::ErrorKind::NotFound => {}
        Ok(Err(_)) => std::fs::remove_file(path)?,
    }
    let socket = UnixSocket::new_stream()?;
    restrict(&socket)?;
    socket.bind(path)?;
    socket.listen(BACKLOG)
}

/// Before it is bound: the file is made with the mode of the socket, so that there is no moment in which
/// others can connect. A umask would do the same, but to the files of all threads.
fn restrict(socket: &UnixSocket) -> io::Result<()> {
    // SAFETY: fchmod on a descriptor that is open for the whole call touches no memory.
    match unsafe { libc::fchmod(socket.as_raw_fd(), SOCKET_MODE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Mutex;
    use std::time::Instant;

    use futures::StreamExt;

    use super::*;

    /// What each attempt to accept gives; then nobody comes.
    type Script = Mutex<VecDeque<io::Result<u8>>>;

    fn scripted(script: &Script, _: &mut Context<'_>) -> Poll<io::Result<u8>> {
        match script.lock().unwrap().pop_front() {
            Some(result) => Poll::Ready(result),
            None => Poll::Pending,
        }
    }

    #[tokio::test]
    async fn a_listener_that_cannot_accept_pauses_and_goes_on() {
        let emfile = || Err(io::Error::from_raw_os_error(libc::EMFILE));
        let aborted = || Err(io::Error::from_raw_os_error(libc::ECONNABORTED));
        let script = VecDeque::from([Ok(1), aborted(), Ok(2), emfile(), emfile(), Ok(3)]);
        let mut incoming = Box::pin(connections("a test", Mutex::new(script), scripted));
        let begin = Instant::now();
        for expected in [1, 2, 3] {
            assert_eq!(incoming.next().await.unwrap().unwrap(), expected);
        }
        let after = begin.elapsed();
        assert!(after >= 2 * ACCEPT_PAUSE, "{after:?}");
    }

    #[tokio::test]
    async fn the_socket_is_made_for_root_only_and_serves() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/buoy.sock");
        let listener = bind_socket(&path).await.unwrap();
        // Nothing changes the mode after the file is there.
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, SOCKET_MODE);
        let client = tokio::spawn(UnixStream::connect(path.clone()));
        let mut incoming = Box::pin(connections("a test", listener, accept_unix));
        incoming.next().await.unwrap().unwrap();
        client.await.unwrap().unwrap();
        let error = bind_socket(&path).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "it is served");
        drop(incoming);
        bind_socket(&path)
            .await
            .expect("in the place of a dead one");
    }
}
