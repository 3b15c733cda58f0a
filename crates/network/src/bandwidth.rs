//! How fast a container sends and receives on a network: token buckets on the host's side, out of
//! the container's reach.
//!
//! ```text
//! to the container    bridge ──▶ veth: bucket (tbf) ──▶ container
//! from the container  container ──▶ veth: all of it to ──▶ ifb: bucket (tbf) ──▶ veth ──▶ bridge
//! ```
//!
//! What the container sends is queued as what it receives is: dropping what is beyond the rate, as a
//! rule of the firewall could, would cost TCP a good part of the rate that is left. For that a device
//! of its own is needed, because the kernel queues only what leaves a device; it is made for
//! containers with such a limit alone, and named after the veth.

use std::collections::BTreeMap;

use crate::netlink::{Batch, Family, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NetlinkError, Socket};
use crate::network::Network;
use crate::route::Route;

/// Options of networks and of places on them.
pub const OPTIONS: [&str; 4] = [
    "ingress-rate",
    "ingress-burst",
    "egress-rate",
    "egress-burst",
];

/// Slower than this nothing works any more.
const SLOWEST: u64 = 8_000;
const FASTEST: u64 = 1_000_000_000_000;
/// Packets above the burst are not sent: this is twice the usual one.
const SMALLEST_BURST: u64 = 3_200;
const LARGEST_BURST: u64 = 1 << 30;
/// The kernel hands packets of many segments around as one.
const USUAL_BURST: u64 = 64 << 10;

/// A limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Bits a second.
    pub rate: u64,
    /// Bytes that may pass at once.
    pub burst: u32,
}

/// Both directions, as the container sees them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// What it receives.
    pub ingress: Option<Limit>,
    /// What it sends.
    pub egress: Option<Limit>,
}

/// Options that are no limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBandwidth {
    /// A rate.
    #[error(
        "invalid {option} {value:?}: write bits a second, such as 500kbit, 10mbit or 1gbit, from 8kbit to 1000gbit"
    )]
    Rate {
        /// The option.
        option: &'static str,
        /// Its value.
        value: String,
    },
    /// A burst.
    #[error("invalid {option} {value:?}: write bytes, such as 64k or 1m, from 3200 to 1g")]
    Burst {
        /// The option.
        option: &'static str,
        /// Its value.
        value: String,
    },
    /// A burst without a rate.
    #[error("{burst} needs {rate}")]
    NoRate {
        /// The burst's option.
        burst: &'static str,
        /// The rate's.
        rate: &'static str,
    },
}

impl Bandwidth {
    /// The limits that options say: those of a place before those of its network.
    ///
    /// # Errors
    /// A value is malformed or out of bounds.
    pub fn of(
        place: &BTreeMap<String, String>,
        network: &BTreeMap<String, String>,
    ) -> Result<Self, InvalidBandwidth> {
        let value = |option: &str| {
            let value = place.get(option).or_else(|| network.get(option));
            value
                .map(|text| text.trim())
                .filter(|text| !text.is_empty())
        };
        let limit = |rate_name: &'static str, burst_name: &'static str| {
            let rate = value(rate_name).map(|text| {
                let rate = number(text, 1000).filter(|n| (SLOWEST..=FASTEST).contains(n));
                rate.ok_or_else(|| InvalidBandwidth::Rate {
                    option: rate_name,
                    value: text.to_owned(),
                })
            });
            let burst = value(burst_name).map(|text| {
                let bounds = SMALLEST_BURST..=LARGEST_BURST;
                let burst = number(text, 1024).filter(|n| bounds.contains(n));
                burst.ok_or_else(|| InvalidBandwidth::Burst {
                    option: burst_name,
                    value: text.to_owned(),
                })
            });
            match (rate.transpose()?, burst.transpose()?) {
                (None, None) => Ok(None),
                (None, Some(_)) => Err(InvalidBandwidth::NoRate {
                    burst: burst_name,
                    rate: rate_name,
                }),
                (Some(rate), burst) => {
                    // As much as passes in 20 ms, in which even a busy host looks again.
                    let usual = (rate / 8 / 50).clamp(USUAL_BURST, LARGEST_BURST);
                    let burst = u32::try_from(burst.unwrap_or(usual)).unwrap_or(u32::MAX);
                    Ok(Some(Limit { rate, burst }))
                }
            }
        };
        let [ingress_rate, ingress_burst, egress_rate, egress_burst] = OPTIONS;
        Ok(Self {
            ingress: limit(ingress_rate, ingress_burst)?,
            egress: limit(egress_rate, egress_burst)?,
        })
    }

    /// Whether there is none.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }

    /// Limits what passes the veth whose host's end is `veth`.
    ///
    /// # Errors
    /// The kernel refuses; nothing is left of it then but what goes with the veth.
    pub fn set(&self, veth: &str) -> Result<(), NetlinkError> {
        let mut route = Route::open()?;
        let index = index(&mut route, veth)?;
        let mut socket = Socket::open(Family::Route)?;
        let mut batch = Batch::new();
        if let Some(limit) = self.ingress {
            bucket(&mut batch, index, limit);
        }
        if let Some(limit) = self.egress {
            let device = device(veth);
            make_device(&mut socket, &device)?;
            let target = self::index(&mut route, &device)?;
            bucket(&mut batch, target, limit);
            redirect(&mut batch, index, target);
        }
        if batch.len() == 0 {
            return Ok(());
        }
        let outcome = socket.execute(&mut batch);
        if outcome.is_err() && self.egress.is_some() {
            lift(veth).ok();
        }
        outcome
    }
}

/// Deletes the device through which a veth's container sent; that there is none is no error.
///
/// # Errors
/// The kernel refuses.
pub fn lift(veth: &str) -> Result<(), NetlinkError> {
    Route::open()?.delete_link(&device(veth))
}

impl Network {
    /// Whether a link has a name that this network gives to its veths.
    pub fn names(&self, veth: &str) -> bool {
        veth.starts_with(self.core.factory.veth_prefix.as_str())
    }
}

/// Deletes devices that no container needs any more: those without a veth, whoever made them, and
/// those whose veth is `ours` and not `live`. Answers the live veths that have one.
///
/// # Errors
/// The kernel does not list its links, or does not let one be deleted.
pub fn sweep(
    ours: impl Fn(&str) -> bool,
    live: impl Fn(&str) -> bool,
) -> Result<Vec<String>, NetlinkError> {
    let mut route = Route::open()?;
    let links = route.links()?;
    let mut kept = Vec::new();
    for device in links.iter().filter(|link| link.kind == "ifb") {
        let Some(veth) = veth_of(&device.name) else {
            continue;
        };
        let exists = links.iter().any(|link| link.name == veth);
        if exists && live(&veth) {
            kept.push(veth);
        } else if !exists || ours(&veth) {
            route.delete_link(&device.name)?;
        }
    }
    Ok(kept)
}

/// The device's name: that of the veth with another second letter (v to i, u to j).
fn device(veth: &str) -> String {
    let rest = veth.get(2..).unwrap_or_default();
    if veth.starts_with("hu") {
        format!("hj{rest}")
    } else {
        format!("hi{rest}")
    }
}

fn veth_of(device: &str) -> Option<String> {
    let (kind, rest) = device.split_at_checked(2)?;
    match kind {
        "hi" => Some(format!("hv{rest}")),
        "hj" => Some(format!("hu{rest}")),
        _ => None,
    }
}

/// `10mbit`, `10m` or `10000000`; the unit's steps are of 1000 or 1024.
fn number(text: &str, step: u64) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let unit = if step == 1000 { "bit" } else { "b" };
    let short = lower.strip_suffix(unit).unwrap_or(&lower);
    let digits = short.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let power = match short.get(digits.len()..)? {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        _ => return None,
    };
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| plain)?;
    number.checked_mul(step.checked_pow(power)?)
}

fn index(route: &mut Route, name: &str) -> Result<u32, NetlinkError> {
    let link = route.link(name)?;
    link.map(|link| link.index).ok_or(NetlinkError::Refused {
        index: 0,
        errno: libc::ENODEV,
        message: format!("there is no interface {name}"),
    })
}

const RTM_NEWLINK: u16 = 16;
const RTM_NEWQDISC: u16 = 36;
const RTM_NEWTFILTER: u16 = 44;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const ROOT: u32 = 0xffff_ffff;
/// Where what arrives at a device is attached, and the handle of what is there.
const ARRIVING: u32 = 0xffff_fff1;
const ARRIVING_HANDLE: u32 = 0xffff_0000;

/// Makes the device and brings it up.
fn make_device(socket: &mut Socket, name: &str) -> Result<(), NetlinkError> {
    const IFF_UP: u32 = 1;
    let mut header = [0; 16];
    header[8..12].copy_from_slice(&IFF_UP.to_ne_bytes());
    header[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
    let mut batch = Batch::new();
    batch
        .request(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE, &header)
        .text(IFLA_IFNAME, name)
        .nest(IFLA_LINKINFO, |info| {
            info.text(1, "ifb");
        });
    socket.execute(&mut batch)
}

/// `struct tcmsg`.
fn header(index: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    [0, index, handle, parent, info]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect()
}

/// Has what leaves a device pass a token bucket.
fn bucket(batch: &mut Batch, index: u32, limit: Limit) {
    const ETHERNET: u8 = 1;
    const TCA_TBF_PARMS: u16 = 1;
    const TCA_TBF_RATE64: u16 = 4;
    const TCA_TBF_BURST: u16 = 6;
    let rate = limit.rate / 8;
    // What is queued beyond the burst waits 50 ms at most.
    let queue = u32::try_from(rate / 20).unwrap_or(u32::MAX).max(16 << 10);
    let queue = queue.saturating_add(limit.burst);
    // struct tc_tbf_qopt: rate, peak rate, bytes that may wait, and two that go by attributes.
    let mut parameters = vec![0; 36];
    parameters[1] = ETHERNET;
    let classic = u32::try_from(rate).unwrap_or(u32::MAX);
    parameters[8..12].copy_from_slice(&classic.to_ne_bytes());
    parameters[24..28].copy_from_slice(&queue.to_ne_bytes());
    batch
        .request(
            RTM_NEWQDISC,
            NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE,
            &header(index, 0, ROOT, 0),
        )
        .text(TCA_KIND, "tbf")
        .nest(TCA_OPTIONS, |options| {
            options
                .attr(TCA_TBF_PARMS, &parameters)
                .attr(TCA_TBF_RATE64, &rate.to_ne_bytes())
                .u32(TCA_TBF_BURST, limit.burst);
        });
}

/// Has what arrives at a device leave by another, which hands it back.
fn redirect(batch: &mut Batch, index: u32, target: u32) {
    const TCA_U32_SEL: u16 = 5;
    const TCA_U32_ACT: u16 = 7;
    const TCA_MIRRED_PARMS: u16 = 2;
    const STOLEN: u32 = 4;
    const REDIRECT: u32 = 1;
    const TERMINAL: u8 = 1;
    const FIRST: u32 = 1 << 16;
    let every_protocol = u32::from(3_u16.to_be());
    batch
        .request(
            RTM_NEWQDISC,
            NLM_F_ACK | NLM_F_CREATE,
            &header(index, ARRIVING_HANDLE, ARRIVING, 0),
        )
        .text(TCA_KIND, "ingress");
    // struct tc_u32_sel with one key, which every packet has.
    let mut selector = vec![0; 32];
    selector[0] = TERMINAL;
    selector[2] = 1;
    // struct tc_mirred: index, capabilities, action, two counts, what is done, where to.
    let mirror = [0, 0, STOLEN, 0, 0, REDIRECT, target];
    let mirror: Vec<u8> = mirror.iter().flat_map(|word| word.to_ne_bytes()).collect();
    batch
        .request(
            RTM_NEWTFILTER,
            NLM_F_ACK | NLM_F_CREATE,
            &header(index, 0, ARRIVING_HANDLE, FIRST | every_protocol),
        )
        .text(TCA_KIND, "u32")
        .nest(TCA_OPTIONS, |options| {
            options
                .attr(TCA_U32_SEL, &selector)
                .nest(TCA_U32_ACT, |actions| {
                    actions.nest(1, |action| {
                        action.text(1, "mirred").nest(2, |options| {
                            options.attr(TCA_MIRRED_PARMS, &mirror);
                        });
                    });
                });
        });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn rates_are_read_as_bits_and_bursts_as_bytes() {
        for (text, rate) in [
            ("8000", 8_000),
            ("10mbit", 10_000_000),
            ("10M", 10_000_000),
            ("500Kbit", 500_000),
            ("1gbit", 1_000_000_000),
        ] {
            let read = Bandwidth::of(&options(&[("ingress-rate", text)]), &options(&[]));
            let limit = read.expect(text).ingress.expect("a limit");
            assert_eq!(limit.rate, rate, "{text}");
            assert!(u64::from(limit.burst) >= USUAL_BURST, "{text}");
        }
        let read = Bandwidth::of(
            &options(&[("egress-rate", "1gbit"), ("egress-burst", "256kb")]),
            &options(&[("ingress-rate", "9mbit"), ("egress-rate", "1mbit")]),
        );
        let read = read.expect("limits");
        let egress = read.egress.expect("a limit");
        assert_eq!((egress.rate, egress.burst), (1_000_000_000, 256 << 10));
        assert_eq!(read.ingress.map(|limit| limit.rate), Some(9_000_000));
        let none = Bandwidth::of(&options(&[]), &options(&[("mtu", "9000")]));
        assert!(none.expect("none").is_unlimited());
    }

    #[test]
    fn options_that_are_no_limit_are_refused() {
        for (key, value) in [
            ("ingress-rate", "fast"),
            ("ingress-rate", "7999"),
            ("ingress-rate", "2000gbit"),
            ("ingress-rate", "-5m"),
            ("ingress-rate", "1.5mbit"),
            ("ingress-rate", "10mbps"),
            ("egress-burst", "64k"),
        ] {
            let read = Bandwidth::of(&options(&[(key, value)]), &options(&[]));
            assert!(read.is_err(), "{key}={value}");
        }
        for burst in ["1", "2g", "9t"] {
            let both = options(&[("egress-rate", "1mbit"), ("egress-burst", burst)]);
            assert!(Bandwidth::of(&both, &options(&[])).is_err(), "{burst}");
        }
    }

    #[test]
    fn device_leads_back_to_its_veth() {
        for veth in ["hv12345678", "huabcdefg000001"] {
            let device = device(veth);
            assert_ne!(device, veth);
            assert_eq!(veth_of(&device).as_deref(), Some(veth));
        }
        assert_eq!(veth_of("eth0"), None);
    }
}
