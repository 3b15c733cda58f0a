//! Subnets of `network create`: each gateway, range and address goes to the subnet it lies in.

use std::net::IpAddr;

use hull_api_types::network::IpamConfig;

/// A subnet of either version of IP.
struct Subnet {
    first: IpAddr,
    prefix: u32,
}

impl Subnet {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        Some(Self {
            first: address.parse().ok()?,
            prefix: prefix.parse().ok()?,
        })
    }

    fn contains(&self, address: IpAddr) -> bool {
        let (ours, theirs, width) = match (self.first, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits().into(), b.to_bits().into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
            _ => return false,
        };
        let differ: u128 = ours ^ theirs;
        let host_bits = u32::saturating_sub(width, self.prefix);
        differ.checked_shr(host_bits).unwrap_or(0) == 0
    }
}

/// The address before the prefix, if there is one.
fn address(text: &str) -> Option<IpAddr> {
    text.split('/').next()?.parse().ok()
}

/// Puts each part beside the subnet in which it lies. What is malformed goes with the first, for
/// the daemon to complain about.
///
/// # Errors
/// A part lies in none, or two of a kind in one.
pub(crate) fn ranges(
    subnets: &[String],
    gateways: &[String],
    ip_ranges: &[String],
    auxiliary: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<IpamConfig>, String> {
    let parsed: Vec<_> = subnets.iter().map(|text| Subnet::parse(text)).collect();
    let mut configs: Vec<IpamConfig> = subnets
        .iter()
        .map(|subnet| IpamConfig {
            subnet: subnet.clone(),
            ..IpamConfig::default()
        })
        .collect();
    let place = |what: &str, text: &str| -> Result<usize, String> {
        if subnets.is_empty() {
            return Err(format!("{what} needs the --subnet in which it lies"));
        }
        let Some(address) = address(text) else {
            return Ok(0);
        };
        let lies_in = |subnet: &Option<Subnet>| {
            subnet
                .as_ref()
                .is_some_and(|subnet| subnet.contains(address))
        };
        // One that cannot be read may be the one that was meant.
        let malformed = |subnet: &Option<Subnet>| subnet.is_none();
        let found = parsed.iter().position(lies_in);
        found
            .or_else(|| parsed.iter().position(malformed))
            .ok_or_else(|| format!("no matching subnet for {what} {text}"))
    };
    for gateway in gateways {
        let index = place("gateway", gateway)?;
        set(&mut configs, index, |c| &mut c.gateway, "gateway", gateway)?;
    }
    for range in ip_ranges {
        let index = place("range", range)?;
        set(&mut configs, index, |c| &mut c.ip_range, "range", range)?;
    }
    for (name, text) in auxiliary {
        let index = place("aux-address", &text)?;
        if let Some(config) = configs.get_mut(index) {
            config.auxiliary_addresses.insert(name, text);
        }
    }
    Ok(configs)
}

fn set(
    configs: &mut [IpamConfig],
    index: usize,
    slot: impl Fn(&mut IpamConfig) -> &mut String,
    what: &str,
    text: &str,
) -> Result<(), String> {
    let Some(config) = configs.get_mut(index) else {
        return Ok(());
    };
    let known = slot(config).clone();
    if !known.is_empty() {
        return Err(format!(
            "cannot configure multiple {what}s ({text}, {known}) on the same subnet ({})",
            config.subnet
        ));
    }
    text.clone_into(slot(config));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn parts_go_to_the_subnet_they_lie_in() {
        let aux = [("a", "fd00:7::9"), ("b", "10.7.0.9")];
        let made = ranges(
            &strings(&["10.7.0.0/16", "fd00:7::/64"]),
            &strings(&["fd00:7::1", "10.7.0.1"]),
            &strings(&["fd00:7::100/120"]),
            aux.map(|(name, text)| (name.to_owned(), text.to_owned())),
        )
        .unwrap();
        assert_eq!(made[0].gateway, "10.7.0.1");
        assert_eq!(made[0].ip_range, "");
        assert_eq!(made[0].auxiliary_addresses["b"], "10.7.0.9");
        assert_eq!(made[1].gateway, "fd00:7::1");
        assert_eq!(made[1].ip_range, "fd00:7::100/120");
        assert_eq!(made[1].auxiliary_addresses["a"], "fd00:7::9");
    }

    #[test]
    fn parts_without_a_subnet_are_refused() {
        let none = || Vec::<(String, String)>::new();
        let of = |subnets: &[&str], gateways: &[&str]| {
            ranges(&strings(subnets), &strings(gateways), &[], none())
        };
        assert!(of(&[], &["10.0.0.1"]).is_err());
        assert!(of(&["10.0.0.0/24"], &["10.1.0.1"]).is_err());
        assert!(of(&["10.0.0.0/24"], &["10.0.0.1", "10.0.0.2"]).is_err());
        // What is malformed is the daemon's to refuse.
        assert!(of(&["10.0.0.0"], &["10.0.0.1"]).is_ok());
        assert!(of(&["0.0.0.0/0", "::/0"], &["::1", "1.1.1.1"]).is_ok());
    }
}
