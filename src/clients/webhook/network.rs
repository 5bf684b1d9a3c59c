//! Which addresses a customer's webhook may lead to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network; write an address and a prefix length, such as 10.0.0.0/8")]
pub struct NoNetwork(String);

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let parsed: IpAddr = address.parse().ok()?;
            let bits: u8 = prefix.parse().ok()?;
            let bits_max = if parsed.is_ipv4() { 32 } else { 128 };
            (bits <= bits_max).then_some(Self {
                address: parsed,
                prefix: bits,
            })
        };
        parse().ok_or_else(|| NoNetwork(text.to_owned()))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.address, self.prefix)
    }
}

impl Network {
    /// Whether the address lies in this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(candidate)) => {
                let mask = u32::MAX.checked_shl(u32::from(32 - self.prefix)).unwrap_or(0);
                network.to_bits() & mask == candidate.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(candidate)) => {
                let mask = u128::MAX.checked_shl(u32::from(128 - self.prefix)).unwrap_or(0);
                network.to_bits() & mask == candidate.to_bits() & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// Whether a webhook may be called at this address: it is public, or in a network that was allowed.
pub(super) fn may_call(address: IpAddr, allowed: &[Network]) -> bool {
    is_public(address) || allowed.iter().any(|network| network.contains(address))
}

/// Whether an address belongs to somebody on the public internet. Where an address carries another one inside, nobody
/// needs it for a webhook and filters have been fooled with it: it counts as not public.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

/// Answers inside every machine at Azure with what the platform knows of it, under an address that looks public.
const AZURE_PLATFORM: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let reserved = a == 0
        || a >= 240
        || a == 100 && (64..128).contains(&b)
        || a == 192 && b == 0 && c == 0
        || a == 192 && b == 88 && c == 99
        || a == 198 && (b == 18 || b == 19)
        || address == AZURE_PLATFORM;
    !(reserved
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    // Only 2000::/3 is handed out; of it Teredo, 6to4 and documentation are no hosts.
    let global_unicast = a & 0xe000 == 0x2000;
    let special = a == 0x2001 && (b < 0x0200 || b == 0x0db8) || a == 0x2002 || a == 0x3fff;
    global_unicast && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_inside_a_house_are_refused() {
        for inside in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "224.0.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.0.8",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:8.8.8.8",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "::8.8.8.8",
        ] {
            assert!(!may_call(address(inside), &[]), "{inside}");
        }
        for outside in [
            "8.8.8.8",
            "93.184.216.34",
            "2606:2800:220:1::1",
            "2a00:1450:4001::1",
            "100.128.0.1",
        ] {
            assert!(may_call(address(outside), &[]), "{outside}");
        }
    }

    #[test]
    fn an_allowed_network_opens_exactly_its_addresses() {
        let allowed: Vec<Network> = vec!["127.0.0.0/8".parse().unwrap(), "fd00::/16".parse().unwrap()];
        assert!(may_call(address("127.0.0.1"), &allowed));
        assert!(may_call(address("fd00::5"), &allowed));
        assert!(!allowed[0].contains(address("128.0.0.1")));
        assert!(!may_call(address("10.0.0.1"), &allowed));
        assert!(!may_call(address("fd01::5"), &allowed));
        assert!("0.0.0.0/0".parse::<Network>().unwrap().contains(address("9.9.9.9")));
    }

    #[test]
    fn text_that_is_no_network_is_refused() {
        for text in ["10.0.0.0", "10.0.0.0/33", "x/8", "::/129", "10.0.0.0/-1"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
