//! A socket on which each batch of requests is answered before the next is sent.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use hull_sys::netns::{self, NetlinkOption};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::{Attributes, Batch, HEADER_LEN, Message, Messages, NetlinkError, text, u16_at, u32_at};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// The kernel never sends more than 32 KiB in one datagram of a dump.
const RECEIVE_BYTES: usize = 64 << 10;
/// Dumps beyond this many objects are cut: no host of ours has so many links or routes.
const MAX_DUMP_OBJECTS: usize = 1 << 20;
/// Of the thread that opens a socket elsewhere.
const STACK_BYTES: usize = 64 << 10;
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// Which part of the kernel a socket talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Route,
    Netfilter,
    SockDiag,
}

/// A netlink socket of the namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    pub(crate) fn open(family: Family) -> Result<Self, NetlinkError> {
        let protocol = match family {
            Family::Route => None,
            Family::Netfilter => Some(rustix::net::netlink::NETFILTER),
            Family::SockDiag => Some(rustix::net::netlink::SOCK_DIAG),
        };
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )
        .map_err(socket_error("open"))?;
        rustix::net::sockopt::set_socket_timeout(
            &fd,
            rustix::net::sockopt::Timeout::Recv,
            Some(REPLY_TIMEOUT),
        )
        .map_err(socket_error("set the timeout"))?;
        // Older kernels lack some of these; they only make replies shorter and clearer.
        for option in [
            NetlinkOption::ExtendedAck,
            NetlinkOption::CappedAck,
            NetlinkOption::StrictCheck,
        ] {
            netns::enable_netlink_option(&fd, option).ok();
        }
        Ok(Self {
            fd,
            sequence: 1,
            buffer: Vec::new(),
        })
    }

    /// A socket of another namespace.
    pub(crate) fn within(netns: BorrowedFd<'_>, family: Family) -> Result<Self, NetlinkError> {
        let failed = |step| move |source| NetlinkError::Socket { step, source };
        let enter = || {
            netns::enter_network(netns).map_err(failed("enter the namespace"))?;
            Self::open(family)
        };
        // A thread of its own: the caller must stay in the host's namespace.
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("hull-netns".to_owned())
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, enter)
                .map_err(failed("start a thread"))?
                .join()
                .map_err(|_| failed("run a thread")(std::io::Error::other("it panicked")))?
        })
    }

    /// The number by which the kernel knows this socket.
    pub(crate) fn port_id(&self) -> Result<u32, NetlinkError> {
        let own = || rustix::net::getsockname(&self.fd)?.try_into();
        let mut address: SocketAddrNetlink = own().map_err(socket_error("ask for the number"))?;
        if address.pid() == 0 {
            // Nothing was sent yet: the kernel gives one at the first occasion.
            rustix::net::bind(&self.fd, &SocketAddrNetlink::new(0, 0))
                .map_err(socket_error("bind"))?;
            address = own().map_err(socket_error("ask for the number"))?;
        }
        Ok(address.pid())
    }

    /// Sends `batch`, each request of which must ask for an acknowledgement, and answers one result
    /// for each.
    pub(crate) fn exchange(
        &mut self,
        batch: &mut Batch,
    ) -> Result<Vec<Result<(), NetlinkError>>, NetlinkError> {
        let last = batch.len().saturating_sub(1);
        self.exchange_until(batch, last)
    }

    /// Sends `batch` and waits until request `last` is answered; what was not answered until then
    /// counts as done.
    fn exchange_until(
        &mut self,
        batch: &mut Batch,
        last: usize,
    ) -> Result<Vec<Result<(), NetlinkError>>, NetlinkError> {
        let mut results: Vec<_> = (0..batch.len()).map(|_| Ok(())).collect();
        self.talk(batch, |index, message| {
            if message.kind != NLMSG_ERROR {
                return Ok(false);
            }
            let outcome = acknowledgement(index, message);
            let given_up = outcome.is_err() && is_batch_begin(message);
            if let Some(slot) = results.get_mut(index) {
                *slot = outcome;
            }
            Ok(index == last || given_up)
        })?;
        Ok(results)
    }

    /// As [`Socket::exchange`], and the first refusal is the error.
    pub(crate) fn execute(&mut self, batch: &mut Batch) -> Result<(), NetlinkError> {
        self.exchange(batch)?.into_iter().collect()
    }

    /// As [`Socket::execute`] where only request `last`, and those that fail, are answered.
    pub(crate) fn execute_until(
        &mut self,
        batch: &mut Batch,
        last: usize,
    ) -> Result<(), NetlinkError> {
        self.exchange_until(batch, last)?.into_iter().collect()
    }

    /// Sends one request and hands each object of the answer to `each`; `dump` says that the
    /// answer ends with a mark of its own.
    pub(crate) fn query(
        &mut self,
        batch: &mut Batch,
        dump: bool,
        mut each: impl FnMut(Message<'_>),
    ) -> Result<(), NetlinkError> {
        let mut objects = 0;
        self.talk(batch, |index, message| match message.kind {
            NLMSG_DONE => Ok(true),
            NLMSG_ERROR => acknowledgement(index, message).map(|()| true),
            _ => {
                objects += 1;
                if objects > MAX_DUMP_OBJECTS {
                    return Err(NetlinkError::TooLarge);
                }
                each(message);
                Ok(!dump)
            }
        })
    }

    /// Sends, then reads until `on_message(index, message)` says that it is over.
    fn talk(
        &mut self,
        batch: &mut Batch,
        mut on_message: impl FnMut(usize, Message<'_>) -> Result<bool, NetlinkError>,
    ) -> Result<(), NetlinkError> {
        let Some(last) = batch.len().checked_sub(1) else {
            return Ok(());
        };
        let first = self.sequence;
        let bytes = batch.finish(first)?;
        self.sequence = first
            .wrapping_add(u32::try_from(last).map_err(|_| NetlinkError::TooLarge)?)
            .wrapping_add(1);
        if bytes.len() > 64 << 10 {
            let size = u32::try_from(bytes.len()).map_err(|_| NetlinkError::TooLarge)?;
            netns::force_send_buffer(&self.fd, size.saturating_mul(2)).ok();
        }
        rustix::net::send(&self.fd, bytes, SendFlags::empty()).map_err(socket_error("send"))?;
        self.buffer.resize(RECEIVE_BYTES, 0);
        loop {
            let received = loop {
                match rustix::net::recv(&self.fd, self.buffer.as_mut_slice(), RecvFlags::TRUNC) {
                    Ok((_, received)) => break received,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(errno) => return Err(socket_error("receive")(errno)),
                }
            };
            let datagram = self
                .buffer
                .get(..received)
                .ok_or(NetlinkError::Malformed("truncated datagram"))?;
            for message in Messages::new(datagram) {
                let message = message?;
                // Left over from an exchange that was given up, or a notice.
                let index = message.sequence.wrapping_sub(first);
                let Ok(index) = usize::try_from(index) else {
                    continue;
                };
                if index > last {
                    continue;
                }
                if on_message(index, message)? {
                    return Ok(());
                }
            }
        }
    }
}

fn socket_error(step: &'static str) -> impl Fn(rustix::io::Errno) -> NetlinkError {
    move |errno| NetlinkError::Socket {
        step,
        source: errno.into(),
    }
}

/// Whether an error message answers the beginning of a netfilter batch: then nothing was done, and
/// no other answer comes.
fn is_batch_begin(message: Message<'_>) -> bool {
    const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
    u16_at(message.body, 4 + 4) == Some(NFNL_MSG_BATCH_BEGIN)
}

/// Reads an `NLMSG_ERROR`: zero is success.
fn acknowledgement(index: usize, message: Message<'_>) -> Result<(), NetlinkError> {
    let code = u32_at(message.body, 0).ok_or(NetlinkError::Malformed("acknowledgement"))?;
    let errno = code.cast_signed().wrapping_neg();
    if errno == 0 {
        return Ok(());
    }
    let sentence = if message.flags & NLM_F_ACK_TLVS != 0 {
        let echoed = if message.flags & NLM_F_CAPPED != 0 {
            HEADER_LEN
        } else {
            u32_at(message.body, 4)
                .and_then(|length| usize::try_from(length).ok())
                .map_or(HEADER_LEN, |length| length.next_multiple_of(4))
        };
        Attributes::after(message.body, echoed.saturating_add(4))
            .find(NLMSGERR_ATTR_MSG)
            .and_then(text)
            .unwrap_or_default()
    } else {
        ""
    };
    Err(NetlinkError::Refused {
        index,
        errno,
        message: sentence.to_owned(),
    })
}
