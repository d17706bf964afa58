//! One run of the program: begun, given its order, listened to, and ended in time with all its children.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tracing::warn;

use super::order::{Order, Runner};
use super::output::Output;
use super::trusted;
use crate::config::{ExternalFence, format_duration};
use crate::sys;

/// How long a killed program may take to be gone; one that the kernel holds up is left behind.
const GONE_WITHIN: Duration = Duration::from_secs(2);

/// Runs the program once. Dropped before its end, it kills the program and its children.
///
/// # Errors
/// Why nobody knows that the victim is fenced, in words.
pub async fn run(fence: &ExternalFence, order: &Order, by: &Runner) -> Result<(), String> {
    let program = fence.program.display();
    let begun = tokio::task::block_in_place(|| {
        trusted::check(&fence.program).map_err(|why| format!("it is not run as root: {why}"))?;
        begin(fence, order, by).map_err(|e| e.to_string())
    });
    let begun = begun.map_err(|why| format!("{program} could not be started: {why}"))?;
    let Begun {
        mut child,
        group,
        mut words,
    } = begun;
    let mut output = Output::new(order.id.0.clone(), order.id.1);
    let stdin = child.stdin.take();
    let input = order.input();
    let ended = {
        let told = async {
            if let Some(mut stdin) = stdin {
                // A program that does not want to know has the variables.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
            forever().await
        };
        let ended = tokio::time::timeout(fence.timeout, group.ended());
        tokio::select! {
            biased;
            ended = ended => ended,
            never = listen(&mut words, &mut output) => match never {},
            never = told => match never {},
        }
    };
    // What it left running ends with it. The leader is not reaped yet, so its group cannot be another's.
    drop(group);
    rest(&mut words, &mut output);
    output.end();
    let status = reap(&mut child).await;
    match ended {
        Err(_) => Err(format!(
            "{program} took longer than {} and was killed{}",
            format_duration(fence.timeout),
            last_words(&output)
        )),
        Ok(Err(e)) => Err(format!("the end of {program} could not be waited for: {e}")),
        Ok(Ok(())) => match status {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!(
                "{program} {}{}",
                in_words(status),
                last_words(&output)
            )),
            None => Err(format!("the exit status of {program} is not known")),
        },
    }
}

fn last_words(output: &Output) -> String {
    match output.last() {
        "" => String::new(),
        last => format!("; its last words: {last}"),
    }
}

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => format!("ended with {status}"),
    }
}

struct Begun {
    // In this order they are dropped: while the child is not reaped, the group's number is its own.
    group: Group,
    child: Child,
    words: pipe::Receiver,
}

/// The processes of a run. Killed when dropped.
struct Group {
    leader: u32,
    life: AsyncFd<OwnedFd>,
}

impl Group {
    fn of(child: &Child) -> io::Result<Group> {
        let gone = || io::Error::other("it was gone at once");
        let leader = child.id().ok_or_else(gone)?;
        let watch = || {
            let life = sys::pidfd(leader)?;
            // SAFETY: an OwnedFd stays open, and the same, for as long as the AsyncFd has it.
            let life = unsafe { AsyncFd::register_with_interest(life, Interest::READABLE) };
            life.map_err(io::Error::other)
        };
        let life = watch().inspect_err(|_| {
            // Nobody would watch it.
            let _ = sys::kill_group(leader);
        })?;
        Ok(Group { leader, life })
    }

    /// Until the leader has ended; it is not reaped then.
    async fn ended(&self) -> io::Result<()> {
        self.life.readable().await.map(|_| ())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(e) = sys::kill_group(self.leader)
            && e.raw_os_error() != Some(libc::ESRCH)
        {
            warn!("processes of external fencing could not be killed: {e}");
        }
    }
}

fn begin(fence: &ExternalFence, order: &Order, by: &Runner) -> io::Result<Begun> {
    let (reader, writer) = io::pipe()?;
    let words = pipe::Receiver::from_owned_fd(reader.into())?;
    let mut command = Command::new(&fence.program);
    command
        .args(&fence.args)
        .args(order.arguments())
        .env_clear()
        .envs(order.environment(by))
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let child = command.spawn()?;
    // The command holds the writing end of the pipe until it is dropped here.
    drop(command);
    let group = Group::of(&child)?;
    Ok(Begun {
        group,
        child,
        words,
    })
}

/// Logs what is said until everybody who could speak is gone, and then waits: the end is somebody else's to tell.
async fn listen(words: &mut pipe::Receiver, output: &mut Output) -> std::convert::Infallible {
    let mut buffer = vec![0; 4096];
    loop {
        match words.read(&mut buffer).await {
            Ok(0) => break,
            Ok(n) => output.take(&buffer[..n]),
            Err(e) => {
                warn!("what external fencing says cannot be read: {e}");
                break;
            }
        }
    }
    forever().await
}

fn forever() -> impl Future<Output = std::convert::Infallible> {
    std::future::pending()
}

/// Logs what was said and is not read yet.
fn rest(words: &mut pipe::Receiver, output: &mut Output) {
    let mut buffer = vec![0; 4096];
    // As much as a pipe holds: somebody that left the group may go on talking.
    for _ in 0..16 {
        match words.try_read(&mut buffer) {
            Ok(n @ 1..) => output.take(&buffer[..n]),
            _ => return,
        }
    }
}

/// The exit status; `None` if the kernel does not tell it in time.
async fn reap(child: &mut Child) -> Option<ExitStatus> {
    match tokio::time::timeout(GONE_WITHIN, child.wait()).await {
        Ok(Ok(status)) => Some(status),
        Ok(Err(e)) => {
            warn!("the end of external fencing is not known: {e}");
            None
        }
        Err(_) => {
            warn!("external fencing was killed and is still there after {GONE_WITHIN:?}");
            None
        }
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
