//! Ports published on the host's IPv6 addresses: they lead to the container's IPv6 address.
//!
//! The allocator and the maps are those of IPv4, for other addresses ([`crate::ports`],
//! [`crate::table6`]).

use std::net::Ipv4Addr;

use hull_model::spec::{Protocol, PublishSpec6, PublishedPort6};

use crate::config::PublishError;
use crate::core::Job;
use crate::elements::{Change, Entry};
use crate::network::{FLOW_DELAY, Network};
use crate::six::Six;
use crate::table6::{self, Forward6};

impl Six {
    /// The elements of the table that the network needs from the beginning.
    pub(crate) fn elements(&self, policy: crate::config::Policy) -> Vec<(&'static str, Entry)> {
        table6::of_network(self.config.subnet, policy)
    }
}

impl Network {
    /// Publishes ports of the container at `key` on IPv6 addresses of the host: all or none.
    ///
    /// # Errors
    /// A port is taken, the container has no IPv6 address, or the kernel refuses.
    pub fn publish6(
        &self,
        key: Ipv4Addr,
        wishes: &[PublishSpec6],
    ) -> Result<Vec<PublishedPort6>, PublishError> {
        if wishes.is_empty() {
            return Ok(Vec::new());
        }
        let veth = self.core.members().attached.get(&key).cloned();
        let veth = veth.ok_or(PublishError::Unknown(key))?;
        let address = self.address6_of(key).ok_or(PublishError::Unknown(key))?;
        let mut publisher = self.publisher();
        let published = publisher.ports6.allocate(key, wishes)?;
        let forwards: Vec<_> = published
            .iter()
            .map(|port| Forward6 {
                port: *port,
                address,
            })
            .collect();
        if let Err(source) = self.change(Change::adding(table6::of_ports(&forwards))) {
            for port in &published {
                publisher.ports6.release(port);
            }
            return Err(PublishError::Kernel {
                table: self.config.firewall.name().to_owned(),
                source,
            });
        }
        drop(publisher);
        self.settle_published6(&veth, &published);
        Ok(published)
    }

    /// As [`Network::settle_published`].
    pub(crate) fn settle_published6(&self, veth: &str, published: &[PublishedPort6]) {
        let udp = published.iter().filter(|port| is_udp(port));
        self.settle(
            veth,
            udp.map(|port| (port.host_ip.into(), port.host_port..=port.host_port_end())),
        );
    }

    /// Takes back what [`Network::publish6`] published of the container at `key`; that there is
    /// nothing is no error. The ports are free afterwards even if the kernel refuses.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn unpublish6(&self, key: Ipv4Addr) -> Result<(), PublishError> {
        let Some(address) = self.address6_of(key) else {
            return Ok(());
        };
        let mut publisher = self.publisher();
        let held = publisher.ports6.of(Some(key));
        if held.is_empty() {
            return Ok(());
        }
        let forwards: Vec<_> = held
            .into_iter()
            .map(|(port, _)| Forward6 { port, address })
            .collect();
        for forward in &forwards {
            publisher.ports6.release(&forward.port);
        }
        let outcome = self.change(Change::removing(table6::of_ports(&forwards)));
        if forwards.iter().any(|forward| is_udp(&forward.port)) {
            let forget = Job::ForgetFlows(address.into());
            self.pool.defer(FLOW_DELAY, forget);
        }
        outcome.map_err(|source| PublishError::Kernel {
            table: self.config.firewall.name().to_owned(),
            source,
        })
    }
}

fn is_udp(port: &PublishedPort6) -> bool {
    port.container.protocol == Protocol::Udp
}
