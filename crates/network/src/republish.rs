//! Changes what a container publishes while it runs: one transaction of the kernel, all or nothing.

use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;

use hull_model::spec::{PublishSpec, PublishedPort};

use crate::config::PublishError;
use crate::cut::cut;
use crate::elements::Change;
use crate::network::Network;
use crate::table::{self, Forward};

impl Network {
    /// Publishes the ports `add` of the container at `address`, and `remove`, which may be parts of
    /// ranges, no more: connections that came in by those are cut, in its namespace `netns` too.
    /// Answers all that it publishes then.
    ///
    /// # Errors
    /// A port is taken or not published, or the kernel refuses; then all is as before.
    pub fn republish(
        &self,
        address: Ipv4Addr,
        remove: &[PublishedPort],
        add: &[PublishSpec],
        netns: Option<BorrowedFd<'_>>,
    ) -> Result<Vec<PublishedPort>, PublishError> {
        let veth = self.core.members().attached.get(&address).cloned();
        let veth = veth.ok_or(PublishError::Unknown(address))?;
        let mut publisher = self.publisher();
        let ports = &mut publisher.ports;
        let before = ports.of(Some(address));
        ports.exchange(address, remove, add)?;
        let after = ports.of(Some(address));
        let only = |these: &[(PublishedPort, Ipv4Addr)], others: &[(PublishedPort, Ipv4Addr)]| {
            let new = these.iter().filter(|held| !others.contains(held));
            new.map(|(port, address)| Forward {
                port: *port,
                address: *address,
            })
            .collect::<Vec<_>>()
        };
        let (gone, come) = (only(&before, &after), only(&after, &before));
        let outcome = self.change(Change {
            remove: table::of_ports(&gone),
            add: table::of_ports(&come),
        });
        if let Err(source) = outcome {
            ports.restore(address, &before);
            return Err(PublishError::Kernel {
                table: self.config.firewall.name().to_owned(),
                source,
            });
        }
        drop(publisher);
        let pieces: Vec<_> = remove
            .iter()
            .map(|port| Forward {
                port: *port,
                address,
            })
            .collect();
        // What was asked for is done; connections that stay end with the container at the latest.
        cut(&pieces, netns).ok();
        let come: Vec<_> = come.into_iter().map(|forward| forward.port).collect();
        self.settle_published(&veth, &come);
        Ok(after.into_iter().map(|(port, _)| port).collect())
    }
}
