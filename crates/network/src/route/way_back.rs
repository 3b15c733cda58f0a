//! The way back: a pair of interfaces by which the host sends packets to itself.
//!
//! Where published ports obey the host's own rules for input, the first packet of a connection goes
//! up to those rules as if the host were meant. If they let it pass, it is sent out by one end of
//! this pair and comes in by the other, as it was, and there alone its destination is rewritten. So
//! no rule has to be known, copied or written anew, and whoever wrote it need not know of Hull.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;

use super::{
    IFA_ADDRESS, IFA_LOCAL, IFADDRMSG_LEN, IFF_UP, IFLA_ADDRESS, IFLA_IFNAME, IFLA_INFO_DATA,
    IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_MTU, RT_SCOPE_LINK, RT_TABLE_MAIN, RTA_DST, RTA_OIF,
    RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE, RTMSG_LEN, RTN_UNICAST, RTPROT_BOOT, Route,
    VETH_INFO_PEER, link_header, without_ipv6,
};
use crate::admission::NEIGHBOUR6;
use crate::host;
use crate::netlink::{Batch, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NetlinkError};

/// Nobody is asked for addresses: both ends have the same, so that what one sends is for the other.
const IFF_NOARP: u32 = 0x80;
const MAC: [u8; 6] = [0x02, 0x68, 0x75, 0x6c, 0x6c, 0x01];
/// Whatever came in whole goes back whole.
const MTU: u32 = 65_535;
/// An interface without an address takes packets of nobody while the host checks where they should
/// come in (rp_filter). This one means nothing.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 253);
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const RT_SCOPE_HOST: u8 = 254;

/// The names of the two ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WayBack {
    /// By which packets leave.
    pub(crate) out: String,
    /// By which they come in again.
    pub(crate) back: String,
}

impl WayBack {
    /// That of the daemon with this default bridge.
    pub(crate) fn of(bridge: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        bridge.hash(&mut hasher);
        let stem = format!("hp{:07x}", hasher.finish() & 0xfff_ffff);
        Self {
            out: format!("{stem}o"),
            back: format!("{stem}b"),
        }
    }

    /// Makes the pair unless it is there, and answers the number of the end by which packets leave.
    pub(crate) fn ensure(&self) -> Result<u32, NetlinkError> {
        let mut route = Route::open()?;
        let out = route.link(&self.out)?;
        let back = route.link(&self.back)?;
        let index = match (out, back) {
            (Some(out), Some(back)) if out.up && back.up => out.index,
            (out, back) => {
                for link in [out, back].into_iter().flatten() {
                    // The second goes with the first.
                    match route.delete_link(&link.name) {
                        Err(error) if error.errno() != Some(libc::ENODEV) => return Err(error),
                        _ => {}
                    }
                }
                self.make(&mut route)?
            }
        };
        // Loose whatever the host's is: the greater of both counts.
        host::set(&format!("ipv4/conf/{}/rp_filter", self.back), "2").ok();
        Ok(index)
    }

    fn make(&self, route: &mut Route) -> Result<u32, NetlinkError> {
        let flags = IFF_UP | IFF_NOARP;
        let mut batch = Batch::new();
        batch
            .request(
                RTM_NEWLINK,
                NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
                &link_header(0, IFF_NOARP, IFF_NOARP),
            )
            .text(IFLA_IFNAME, &self.out)
            .attr(IFLA_ADDRESS, &MAC)
            .u32(IFLA_MTU, MTU)
            .nest(IFLA_LINKINFO, |info| {
                info.text(IFLA_INFO_KIND, "veth")
                    .nest(IFLA_INFO_DATA, |data| {
                        let header = link_header(0, IFF_NOARP, IFF_NOARP);
                        data.nest_with_header(VETH_INFO_PEER, &header, |peer| {
                            peer.text(IFLA_IFNAME, &self.back)
                                .attr(IFLA_ADDRESS, &MAC)
                                .u32(IFLA_MTU, MTU);
                        });
                    });
            });
        route.socket.execute(&mut batch)?;
        let missing = || NetlinkError::Malformed("an interface that was made is missing");
        let out = route.link(&self.out)?.ok_or_else(missing)?.index;
        let back = route.link(&self.back)?.ok_or_else(missing)?.index;
        let mut batch = Batch::new();
        for index in [out, back] {
            without_ipv6(&mut batch, index);
        }
        for index in [out, back] {
            batch.request(RTM_NEWLINK, NLM_F_ACK, &link_header(index, flags, flags));
        }
        let mut header = [0; IFADDRMSG_LEN];
        header[0] = AF_INET;
        header[1] = 32;
        header[3] = RT_SCOPE_HOST;
        header[4..].copy_from_slice(&back.to_ne_bytes());
        batch
            .request(
                RTM_NEWADDR,
                NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE,
                &header,
            )
            .attr(IFA_LOCAL, &ADDRESS.octets())
            .attr(IFA_ADDRESS, &ADDRESS.octets());
        let results = route.socket.exchange(&mut batch)?;
        // A kernel without IPv6 refuses the first two.
        results.into_iter().skip(2).collect::<Result<(), _>>()?;
        let mut header = [0; RTMSG_LEN];
        header[0] = AF_INET6;
        header[1] = 128;
        header[4] = RT_TABLE_MAIN;
        header[5] = RTPROT_BOOT;
        header[6] = RT_SCOPE_LINK;
        header[7] = RTN_UNICAST;
        let mut batch = Batch::new();
        batch
            .request(
                RTM_NEWROUTE,
                NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE,
                &header,
            )
            .attr(RTA_DST, &NEIGHBOUR6.octets())
            .u32(RTA_OIF, out);
        // IPv6 does not guess what lies on a link; without this its ports stay closed.
        route.socket.execute(&mut batch).ok();
        Ok(out)
    }

    /// Removes the pair; that there is none is no error.
    pub(crate) fn remove(&self) -> Result<(), NetlinkError> {
        let mut route = Route::open()?;
        match route.link(&self.out)? {
            Some(link) => route.delete_link(&link.name),
            None => Ok(()),
        }
    }
}
