//! `hull create`: makes a container without starting it.

use std::fs::OpenOptions;
use std::io::Write;

use clap::Args;
use hull_api_types::container::{CreateRequest, CreateResponse};
use hull_client::Client;

use crate::commands::image::pull::pull;
use crate::context::Context;
use crate::error::{CliError, ENGINE_ERROR, io_text};
use crate::output;
use crate::progress::Target;
use crate::spec::{Arity, command};
use crate::values::reference;

use super::create_flags::CreateFlags;
use super::create_request;

/// What the engine says of an image that it does not have.
const NO_IMAGE: &str = "No such image";

/// Arguments of `hull create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    pub(crate) flags: CreateFlags,
    /// Image, command and its arguments
    #[arg(trailing_var_arg = true)]
    pub(crate) args: Vec<String>,
}

command!(
    CreateArgs,
    run,
    names = ["create", "container create"],
    usage = "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about = "Create a new container",
    arity = Arity::AtLeast(1),
);

async fn run(context: &Context, args: CreateArgs) -> Result<u8, CliError> {
    let request = request(&args.flags, &args.args).map_err(|error| error.of_options("create"))?;
    let client = context.client().await?;
    let created = create(&client, &args.flags, &request).await?;
    output::line(&created.id)?;
    Ok(0)
}

/// The request that flags and arguments make.
pub(crate) fn request(flags: &CreateFlags, args: &[String]) -> Result<CreateRequest, CliError> {
    let (image, command) = args
        .split_first()
        .ok_or_else(|| CliError::new("no image given"))?;
    let directory = std::env::current_dir().map_err(|error| {
        CliError::new(format!(
            "cannot tell the working directory: {}",
            io_text(&error)
        ))
    })?;
    create_request::build(flags, image, command, &directory).map_err(CliError::new)
}

/// Creates the container, with its id file; a missing image is pulled as `--pull` says.
pub(crate) async fn create(
    client: &Client,
    flags: &CreateFlags,
    request: &CreateRequest,
) -> Result<CreateResponse, CliError> {
    let policy = flags.pull.as_deref().unwrap_or("missing");
    if !matches!(policy, "always" | "missing" | "never") {
        return Err(CliError::with_code(
            format!(
                "invalid pull option: '{policy}': must be one of \"always\", \"missing\" or \"never\""
            ),
            ENGINE_ERROR,
        ));
    }
    let image = &request.config.image;
    // An id may stand for the name, and is none.
    if !image.starts_with("sha256:") {
        reference::check(image).map_err(CliError::new)?;
    }
    let mut id_file = flags.cidfile.as_deref().map(IdFile::create).transpose()?;
    let target = if flags.quiet {
        Target::Nowhere
    } else {
        Target::Stderr
    };
    let platform = flags.platform.as_deref();
    if policy == "always" {
        pull(client, image, platform, target).await?;
    }
    let name = flags.name.as_deref();
    let created = match client.container_create(request, name, platform).await {
        Err(error)
            if policy == "missing"
                && error.is_not_found()
                && error.to_string().contains(NO_IMAGE) =>
        {
            if !flags.quiet {
                output::error_line(&format!(
                    "Unable to find image '{}' locally",
                    reference::familiar(image)
                ));
            }
            pull(client, image, platform, target).await?;
            client.container_create(request, name, platform).await?
        }
        other => other?,
    };
    for warning in &created.warnings {
        output::error_line(&format!("WARNING: {warning}"));
    }
    if let Some(id_file) = &mut id_file {
        id_file.write(&created.id)?;
    }
    Ok(created)
}

/// The file that takes the container's id; removed where none was written.
struct IdFile<'a> {
    path: &'a str,
    file: std::fs::File,
    written: bool,
}

impl<'a> IdFile<'a> {
    fn create(path: &'a str) -> Result<Self, CliError> {
        match OpenOptions::new().write(true).create_new(true).open(path) {
            Ok(file) => Ok(Self {
                path,
                file,
                written: false,
            }),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(CliError::with_code(
                    format!(
                        "container ID file found, make sure the other container isn't running or delete {path}"
                    ),
                    ENGINE_ERROR,
                ))
            }
            Err(error) => Err(CliError::with_code(
                format!(
                    "failed to create the container ID file: open {path}: {}",
                    io_text(&error)
                ),
                ENGINE_ERROR,
            )),
        }
    }

    fn write(&mut self, id: &str) -> Result<(), CliError> {
        self.file.write_all(id.as_bytes()).map_err(|error| {
            CliError::new(format!(
                "failed to write the container ID to the file {}: {}",
                self.path,
                io_text(&error)
            ))
        })?;
        self.written = true;
        Ok(())
    }
}

impl Drop for IdFile<'_> {
    fn drop(&mut self) {
        if !self.written {
            let _ = std::fs::remove_file(self.path);
        }
    }
}
