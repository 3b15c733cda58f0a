//! Forgets tracked flows of a container that is gone.
//!
//! The kernel looks at the table for the first packet of a flow only. A UDP client that goes on
//! sending would for minutes reach the old address, which by then may be another container's.

use std::net::Ipv4Addr;

use crate::netlink::{self, Attributes, Batch, Message, NLM_F_ACK, NLM_F_DUMP, NetlinkError};
use crate::nft;

const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const AF_INET: u8 = 2;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
const CTA_FILTER_F_CTA_IP_SRC: u32 = 1;
const CTA_TUPLE_IP: u16 = 1;
const CTA_IP_V4_SRC: u16 = 1;

const NFGENMSG_LEN: usize = 4;
const HEADER: [u8; NFGENMSG_LEN] = [AF_INET, 0, 0, 0];
const NESTED: u16 = 0x8000;
/// Deletions sent at once.
const BATCH: usize = 256;

/// Deletes every flow that `address` answers, and tells how many there were.
pub(crate) fn forget(address: Ipv4Addr) -> Result<usize, NetlinkError> {
    let flows = match dump(address, true) {
        Ok(flows) => flows,
        // Kernels before 5.8 cannot filter.
        Err(NetlinkError::Refused { .. }) => dump(address, false)?,
        Err(error) => return Err(error),
    };
    let mut socket = nft::open()?;
    for part in flows.chunks(BATCH) {
        let mut batch = Batch::new();
        for (tuple, id) in part {
            batch
                .request(
                    NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE,
                    NLM_F_ACK,
                    &HEADER,
                )
                .attr(CTA_TUPLE_ORIG | NESTED, tuple);
            if let Some(id) = id {
                batch.attr(CTA_ID, id);
            }
        }
        // One that ended by itself meanwhile is as good.
        for result in socket.exchange(&mut batch)? {
            match result {
                Err(error) if error.errno() != Some(libc::ENOENT) => return Err(error),
                _ => {}
            }
        }
    }
    Ok(flows.len())
}

/// The original tuple and the id of a flow, as the kernel wrote them.
type Flow = (Vec<u8>, Option<Vec<u8>>);

fn dump(address: Ipv4Addr, filtered: bool) -> Result<Vec<Flow>, NetlinkError> {
    let mut batch = Batch::new();
    batch.request(
        NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET,
        NLM_F_DUMP,
        &HEADER,
    );
    if filtered {
        batch
            .nest(CTA_TUPLE_REPLY, |tuple| {
                tuple.nest(CTA_TUPLE_IP, |ip| {
                    ip.attr(CTA_IP_V4_SRC, &address.octets());
                });
            })
            .nest(CTA_FILTER, |filter| {
                filter.u32(CTA_FILTER_REPLY_FLAGS, CTA_FILTER_F_CTA_IP_SRC);
            });
    }
    let mut flows = Vec::new();
    nft::open()?.query(&mut batch, true, |message| {
        flows.extend(read_flow(message, address));
    })?;
    Ok(flows)
}

fn read_flow(message: Message<'_>, address: Ipv4Addr) -> Option<Flow> {
    let attributes = Attributes::after(message.body, NFGENMSG_LEN);
    let answers = attributes
        .find(CTA_TUPLE_REPLY)
        .and_then(|tuple| Attributes::new(tuple).find(CTA_TUPLE_IP))
        .and_then(|ip| Attributes::new(ip).find(CTA_IP_V4_SRC))
        .and_then(netlink::ipv4)?;
    if answers != address {
        return None;
    }
    let tuple = attributes.find(CTA_TUPLE_ORIG)?.to_vec();
    Some((tuple, attributes.find(CTA_ID).map(<[u8]>::to_vec)))
}
