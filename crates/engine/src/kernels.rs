//! Guest kernels: what is installed, for whoever asks, and for virtual machines.

use std::sync::Arc;

pub use hull_kernel::{Install, Kernel, Kernels};
use hull_model::Result;
use tokio::sync::mpsc;

use crate::Engine;
use crate::images::blocking;
use crate::images::stream::{ChannelReader, Chunk};

impl Engine {
    /// The installed kernels; their folder holds all there is to know.
    pub fn kernels(&self) -> Kernels {
        Kernels::at(&self.settings.data_dir.join("kernels"))
    }

    /// Installs the kernel that a client sends.
    ///
    /// # Errors
    /// As [`Kernels::install`].
    pub async fn install_kernel(
        self: &Arc<Self>,
        body: mpsc::Receiver<Chunk>,
        options: Install,
    ) -> Result<Kernel> {
        self.with_kernels(move |kernels| {
            let mut source = ChannelReader::new(body);
            Ok(kernels.install(&mut source, &options)?)
        })
        .await
    }

    /// Does something with the kernels' files, on a thread that may block.
    ///
    /// # Errors
    /// What `work` returns.
    pub async fn with_kernels<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Kernels) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let kernels = self.kernels();
        blocking(move || work(&kernels)).await
    }
}
