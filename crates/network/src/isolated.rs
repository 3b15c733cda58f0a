//! A network namespace with loopback alone, for containers without a network.

use std::os::fd::OwnedFd;

use hull_sys::netns;

use crate::endpoint::EndpointError;
use crate::host;
use crate::route::Route;

const STACK_BYTES: usize = 256 << 10;

/// Makes a namespace in which `lo` is up and nothing else exists. It goes with its last user.
///
/// # Errors
/// A thread or the namespace cannot be made, or the kernel refuses to bring `lo` up.
pub fn isolated() -> Result<OwnedFd, EndpointError> {
    let make = || {
        netns::unshare_network().map_err(namespace_error("unshare"))?;
        let netns = netns::current_network().map_err(namespace_error("open it"))?;
        host::prepare_container_namespace();
        let up = |source| EndpointError::Link {
            step: "bring lo up",
            source,
        };
        Route::open().map_err(up)?.loopback_up().map_err(up)?;
        Ok(netns)
    };
    // A thread of its own: the caller must stay in the host's namespace whatever fails.
    std::thread::Builder::new()
        .name("hull-netns".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(make)
        .map_err(namespace_error("start a thread"))?
        .join()
        .map_err(|_| namespace_error("run a thread")(std::io::Error::other("it panicked")))?
}

fn namespace_error(step: &'static str) -> impl FnOnce(std::io::Error) -> EndpointError {
    move |source| EndpointError::Namespace { step, source }
}
