//! The daemon's listeners: its TCP port for peers and programs, and the local unix socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use futures::Stream;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tracing::{error, info};

use crate::api::{ApiContext, Listener, router};
use crate::config::Config;
use crate::daemon::{Tasks, run_forever};
use crate::start::StartError;

/// Only root talks to the daemon without a certificate.
const SOCKET_MODE: u32 = 0o600;

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
    let incoming = no_delay(TcpListenerStream::new(tcp));
    run_forever(tasks, "the TCP listener", async move {
        if let Err(e) = tcp_router.serve_with_incoming(incoming).await {
            error!("the TCP listener failed: {e}");
        }
    });
    let unix_router = router(context, Listener::Unix)?;
    run_forever(tasks, "the unix socket", async move {
        if let Err(e) = unix_router
            .serve_with_incoming(UnixListenerStream::new(unix))
            .await
        {
            error!("the unix socket failed: {e}");
        }
    });
    Ok(())
}

/// Small answers must not wait for more to send.
fn no_delay(incoming: TcpListenerStream) -> impl Stream<Item = io::Result<TcpStream>> {
    use futures::StreamExt;
    incoming.map(|stream| {
        let stream = stream?;
        stream.set_nodelay(true)?;
        Ok(stream)
    })
}

/// Binds the unix socket in the place of one that nobody serves any more.
async fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
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
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    Ok(listener)
}
