//! Tasks that run as long as the daemon does. One that ends by itself is a fault.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use tokio::task::{JoinError, JoinSet};
use tracing::error;

/// All of them; each ends with its name.
pub(crate) type Tasks = JoinSet<&'static str>;

pub(crate) fn run_forever(
    tasks: &mut Tasks,
    name: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
) {
    tasks.spawn(async move {
        // A panic is an end as well, and the name says whose.
        if AssertUnwindSafe(task).catch_unwind().await.is_err() {
            error!("{name} panicked");
        }
        name
    });
}

/// Which task ended.
pub(crate) fn describe(ended: &Option<Result<&'static str, JoinError>>) -> String {
    match ended {
        Some(Ok(name)) => (*name).to_owned(),
        Some(Err(e)) => format!("a task ({e})"),
        None => "every task".to_owned(),
    }
}
