//! The service behind the VIPs: a real nginx on every member, which answers with the name of its node.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::backend::Invocation;

/// The configuration of one node's nginx; all of its files are in `directory`.
fn config(node: &str, directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "daemon off;\nuser root;\nworker_processes 1;\npid {directory}/nginx.pid;\n\
         error_log {directory}/error.log warn;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n    access_log off;\n    keepalive_timeout 0;\n    default_type text/plain;\n    \
         client_body_temp_path {directory}/body;\n    proxy_temp_path {directory}/proxy;\n    \
         fastcgi_temp_path {directory}/fastcgi;\n    uwsgi_temp_path {directory}/uwsgi;\n    \
         scgi_temp_path {directory}/scgi;\n    \
         server {{\n        listen 0.0.0.0:80 backlog=4096;\n        listen [::]:80 backlog=4096;\n        \
         location / {{ return 200 \"{node}\\n\"; }}\n    }}\n}}\n"
    )
}

/// Writes the configuration into `directory` (made if missing) and says how nginx is run with it.
///
/// # Errors
/// The directory or the file cannot be written.
pub(crate) fn prepare(node: &str, directory: &Path) -> Result<Invocation> {
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    let path = directory.join("nginx.conf");
    fs::write(&path, config(node, directory))
        .with_context(|| format!("write {}", path.display()))?;
    Ok(Invocation::new(
        "nginx",
        [
            "-p".into(),
            directory.as_os_str().to_owned(),
            // Else it complains of the system's log, which it opens before it has read the file.
            "-e".into(),
            directory.join("error.log").into_os_string(),
            "-c".into(),
            path.into_os_string(),
        ],
    ))
}
