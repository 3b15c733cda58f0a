//! `hull kernel install`.

use std::io::{self, Write};
use std::path::Path;

use bytes::Bytes;
use clap::Args;
use hull_client::{RequestBody, UploadSender, upload_channel};

use crate::commands::image::archive::upload;
use crate::context::Context;
use crate::error::{CliError, io_text};
use crate::output;
use crate::spec::{Arity, command};

/// What is sent of a folder.
const MEMBERS: [&str; 4] = ["manifest.json", "config", "vmlinux", "vmlinux.zst"];

/// Arguments of `hull kernel install`.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// Digest that the kernel's file must have (sha256:...)
    #[arg(long, value_name = "string")]
    digest: Option<String>,
    /// Replace another kernel of that name
    #[arg(short, long)]
    force: bool,
    /// Name of the kernel (default: its version)
    #[arg(long, value_name = "string")]
    name: Option<String>,
    /// A vmlinux, an archive or folder with one, or - for standard input
    args: Vec<String>,
}

command!(
    InstallArgs,
    run,
    names = ["kernel install"],
    usage = "[OPTIONS] FILE|DIR|-",
    about = "Install a kernel for virtual machines; the first one becomes the default",
    arity = Arity::Exactly(1),
);

async fn run(context: &Context, args: InstallArgs) -> Result<u8, CliError> {
    let source = args.args.first().map_or("", String::as_str);
    let body = match source {
        "-" => upload(None)?.body,
        path if Path::new(path).is_dir() => packed(Path::new(path))?,
        path => upload(Some(path))?.body,
    };
    let (name, digest) = (
        args.name.as_deref().unwrap_or_default(),
        args.digest.as_deref().unwrap_or_default(),
    );
    let client = context.client().await?;
    let kernel = client
        .kernel_install(name, digest, args.force, body)
        .await?;
    output::line(&kernel.name)?;
    Ok(0)
}

/// Sends what of a folder belongs to a kernel, as an archive.
fn packed(dir: &Path) -> Result<RequestBody, CliError> {
    let members: Vec<&str> = MEMBERS
        .into_iter()
        .filter(|name| dir.join(name).is_file())
        .collect();
    if !members.iter().any(|name| name.starts_with("vmlinux")) {
        return Err(CliError::new(format!(
            "{} has neither vmlinux nor vmlinux.zst",
            dir.display()
        )));
    }
    let dir = dir.to_owned();
    let (sender, body) = upload_channel();
    let failed = |error: io::Error| CliError::new(format!("read kernel: {}", io_text(&error)));
    std::thread::Builder::new()
        .name("upload".to_owned())
        .spawn(move || {
            let mut archive = tar::Builder::new(Sink(&sender));
            archive.mode(tar::HeaderMode::Deterministic);
            archive.sparse(false);
            let sent = members
                .iter()
                .try_for_each(|name| archive.append_path_with_name(dir.join(name), name));
            if let Err(error) = sent.and_then(|()| archive.finish()) {
                sender.blocking_send(Err(error));
            }
        })
        .map_err(failed)?;
    Ok(body)
}

struct Sink<'a>(&'a UploadSender);

impl Write for Sink<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.0.blocking_send(Ok(Bytes::copy_from_slice(buffer))) {
            Ok(buffer.len())
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
