//! What a network shares with its background thread: who has which address, and how endpoints are
//! made.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::addr::AddressPool;
use crate::config::AttachError;
use crate::conntrack::{self, Flows, HostPorts};
use crate::endpoint::{Endpoint, Factory};
use crate::pool::Work;
use crate::ports::PortTable;
use crate::route::Route;

/// Addresses and names in use.
#[derive(Debug)]
pub(crate) struct Members {
    pub(crate) addresses: AddressPool,
    /// Names of the links that rightly exist: of attached, ready and unfinished endpoints.
    pub(crate) veths: HashSet<String>,
    /// Address and link of each attached container.
    pub(crate) attached: HashMap<Ipv4Addr, String>,
    /// Addresses taken for endpoints that are being made.
    pub(crate) unfinished: usize,
    /// Containers that are joining.
    pub(crate) joining: usize,
    /// The network is being removed: nobody joins any more.
    pub(crate) closed: bool,
}

#[derive(Debug)]
pub(crate) struct Publisher {
    /// Those of all networks: the host's ports are one set.
    pub(crate) ports: PortTable,
    pub(crate) ports6: PortTable<Ipv6Addr>,
}

/// What the network shares with its background thread.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) factory: Factory,
    pub(crate) members: Mutex<Members>,
}

impl Core {
    pub(crate) fn members(&self) -> MutexGuard<'_, Members> {
        // Each critical section leaves the sets consistent, a panic within none of them included.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an endpoint with the next free address.
    pub(crate) fn make(&self) -> Result<Endpoint, AttachError> {
        let address = {
            let mut members = self.members();
            let address = members.addresses.allocate()?;
            members.unfinished += 1;
            address
        };
        let names = Mutex::new(Vec::new());
        let outcome = self.factory.create(address, |name| {
            self.members().veths.insert(name.to_owned());
            let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
            names.push(name.to_owned());
        });
        let mut members = self.members();
        members.unfinished -= 1;
        let kept = outcome.as_ref().ok().map(|made| made.host_veth.as_str());
        for name in names.into_inner().unwrap_or_else(PoisonError::into_inner) {
            if Some(name.as_str()) != kept {
                members.veths.remove(&name);
            }
        }
        if outcome.is_err() {
            members.addresses.release(address);
        }
        Ok(outcome?)
    }
}

/// Something that is done after the reply.
#[derive(Debug)]
pub(crate) enum Job {
    /// Deletes a link if the kernel has not done so yet.
    DeleteLink(String),
    /// Forgets the flows that a container answers.
    ForgetFlows(IpAddr),
    /// Forgets UDP flows to the host at ports that now lead to a container; an unspecified address
    /// is every one of the host's.
    ForgetUdpToHost(Vec<HostPorts>),
}

impl Work for Arc<Core> {
    type Item = Endpoint;
    type Job = Job;

    fn make(&self) -> Option<Endpoint> {
        Core::make(self).ok()
    }

    fn run(&self, jobs: Vec<Job>) {
        // All of it is tidying: what fails is found again by the next start's reconciliation.
        let Ok(mut route) = Route::open() else { return };
        let mut flows = Flows::default();
        for job in jobs {
            match job {
                Job::DeleteLink(name) => {
                    route.delete_link(&name).ok();
                }
                Job::ForgetFlows(address) => flows.answered_by.push(address),
                Job::ForgetUdpToHost(ports) => {
                    let four = route.addresses().unwrap_or_default();
                    let six = route.addresses6().unwrap_or_default();
                    let four = four.into_iter().map(|(.., own)| IpAddr::from(own));
                    let six = six.into_iter().map(|(.., own)| IpAddr::from(own));
                    let addresses: Vec<IpAddr> = four.chain(six).collect();
                    flows.to_host.extend(expand(&ports, &addresses));
                }
            }
        }
        conntrack::forget(&flows).ok();
    }
}

/// Replaces the unspecified address by each of the host's of its version.
fn expand(ports: &[HostPorts], addresses: &[IpAddr]) -> Vec<HostPorts> {
    let mut targets = Vec::new();
    for (address, span) in ports {
        if address.is_unspecified() {
            let same = |own: &&IpAddr| own.is_ipv4() == address.is_ipv4();
            let own = addresses.iter().filter(same);
            targets.extend(own.map(|own| (*own, span.clone())));
        } else {
            targets.push((*address, span.clone()));
        }
    }
    targets
}
