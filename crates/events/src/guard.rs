//! Which addresses may be connected to.
//!
//! ```text
//! address ─▶ the IPv4 address inside it? ─▶ unusable? ─▶ in a network that the operator allows? ─▶ special? ─▶ public
//!                                             refused       allowed                                  refused     allowed
//! ```
//!
//! Special addresses are those of the IANA special-purpose registries (RFC 6890) that are not globally reachable, and a
//! few that clouds use inside. What is not known to be public is refused.
//!
//! **Invariants**: only this file decides about an address. Of IPv6 only `2000::/3` and what embeds a public IPv4 address
//! by NAT64 can be public. No list of allowed networks reaches an unspecified, multicast or broadcast address.
//!
//! Not known here: prefixes of NAT64 that belong to a network (RFC 6052, section 2.2), and public addresses that a router
//! maps into a private network. Who has those also needs a firewall.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::limits::ALLOWED_NETWORKS_MAX;

/// Which addresses may be connected to: the public ones, and those of the networks that the operator allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    allowed: Vec<IpNet>,
}

/// An address that may not be connected to.
///
/// The address may come from a name that resolves inside only. Write it to the operator's log; tell others
/// [`kind`](Self::kind) alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{address} may not be connected to: it is {kind}. Use a public address, or let the operator allow its network \
     (--webhook-allow)"
)]
pub struct AddressError {
    /// The address as it was found.
    pub address: IpAddr,
    /// What it is, such as `a private address`.
    pub kind: &'static str,
}

/// Why a list of allowed networks is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Not a network in CIDR notation.
    #[error("allowed network `{0}`: expected an address and a prefix length, such as 10.0.0.0/8")]
    NotANetwork(String),
    /// The address has bits behind the prefix.
    #[error("allowed network `{given}`: bits behind the prefix are set, write {network}")]
    HostBits {
        /// What was given.
        given: IpNet,
        /// The network without these bits.
        network: IpNet,
    },
    /// An IPv4 network in the notation of IPv6, which would match nothing.
    #[error("allowed network `{0}`: write the IPv4 network")]
    Mapped(IpNet),
    /// More than [`ALLOWED_NETWORKS_MAX`].
    #[error("more than {ALLOWED_NETWORKS_MAX} allowed networks: name larger ones")]
    TooMany,
}

impl Policy {
    /// Public addresses, and those of these networks.
    ///
    /// # Errors
    ///
    /// If there are too many networks, or one is not the network that its address names.
    pub fn new(allowed: impl IntoIterator<Item = IpNet>) -> Result<Self, PolicyError> {
        let mut networks = Vec::new();
        for given in allowed {
            let network = given.trunc();
            if network != given {
                return Err(PolicyError::HostBits { given, network });
            }
            if matches!(network, IpNet::V6(v6) if MAPPED.contains(&v6)) {
                return Err(PolicyError::Mapped(network));
            }
            if networks.len() == ALLOWED_NETWORKS_MAX {
                return Err(PolicyError::TooMany);
            }
            networks.push(network);
        }
        Ok(Self { allowed: networks })
    }

    /// As [`Policy::new`], of texts such as `10.0.0.0/8`.
    ///
    /// # Errors
    ///
    /// As [`Policy::new`], and if a text is not a network.
    pub fn parse<T: AsRef<str>>(allowed: impl IntoIterator<Item = T>) -> Result<Self, PolicyError> {
        let parse = |text: T| {
            let text = text.as_ref();
            // By the parser of the standard library: that of `ipnet` reads 010.0.0.0 as 10.0.0.0, others as 8.0.0.0.
            let network = text.split_once('/').and_then(|(address, prefix)| {
                IpNet::new(address.parse().ok()?, prefix.parse().ok()?).ok()
            });
            network.ok_or_else(|| PolicyError::NotANetwork(text.to_owned()))
        };
        Self::new(allowed.into_iter().map(parse).collect::<Result<Vec<_>, _>>()?)
    }

    /// Whether this address may be connected to.
    ///
    /// # Errors
    ///
    /// If it may not, with what it is.
    pub fn judge(&self, address: IpAddr) -> Result<(), AddressError> {
        let canonical = address.to_canonical();
        let refused = |kind| Err(AddressError { address, kind });
        if let Some(kind) = unusable(canonical) {
            return refused(kind);
        }
        if self.allowed.iter().any(|network| network.contains(&canonical)) {
            return Ok(());
        }
        let kind = match canonical {
            IpAddr::V4(v4) => special_v4(v4),
            IpAddr::V6(v6) => special_v6(v6),
        };
        kind.map_or(Ok(()), refused)
    }
}

const MAPPED: Ipv6Net = v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96);

/// What nobody can listen on as one peer, or what means the own machine.
const fn unusable(address: IpAddr) -> Option<&'static str> {
    match address {
        address if address.is_unspecified() => Some("the unspecified address"),
        address if address.is_multicast() => Some("a multicast address"),
        IpAddr::V4(Ipv4Addr::BROADCAST) => Some("the broadcast address"),
        _ => None,
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(segments: [u16; 8], prefix: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

/// IPv4 that is not public (IANA IPv4 Special-Purpose Address Registry).
const SPECIAL_V4: &[(Ipv4Net, &str)] = &[
    (v4(0, 0, 0, 0, 8), "an address of this network"),
    (v4(10, 0, 0, 0, 8), "a private address"),
    (v4(100, 64, 0, 0, 10), "a shared address of a provider"),
    (v4(127, 0, 0, 0, 8), "a loopback address"),
    // Inside Azure, in a public range: the host's own services.
    (v4(168, 63, 129, 16, 32), "an address of a cloud's host"),
    (v4(169, 254, 0, 0, 16), "a link-local address"),
    (v4(172, 16, 0, 0, 12), "a private address"),
    (v4(192, 0, 0, 0, 24), "an address of a protocol"),
    (v4(192, 0, 2, 0, 24), "an address for documentation"),
    (v4(192, 88, 99, 0, 24), "a relay of 6to4"),
    (v4(192, 168, 0, 0, 16), "a private address"),
    (v4(198, 18, 0, 0, 15), "an address for benchmarks"),
    (v4(198, 51, 100, 0, 24), "an address for documentation"),
    (v4(203, 0, 113, 0, 24), "an address for documentation"),
    (v4(240, 0, 0, 0, 4), "a reserved address"),
];

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    SPECIAL_V4.iter().find(|(network, _)| network.contains(&address)).map(|(_, kind)| *kind)
}

/// All of IPv6 that is assigned as global unicast.
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

/// NAT64 (RFC 6052): the last 32 bits are the IPv4 address that is connected to.
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);

/// IPv6 that is not public (IANA IPv6 Special-Purpose Address Registry). The first that contains an address names it.
const SPECIAL_V6: &[(Ipv6Net, &str)] = &[
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), "a loopback address"),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 96), "an IPv4-compatible address"),
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), "an address of a local translation"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32), "an address of Teredo"),
    (v6([0x2001, 2, 0, 0, 0, 0, 0, 0], 48), "an address for benchmarks"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), "an address of a protocol"),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), "an address for documentation"),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), "an address of 6to4"),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), "an address for documentation"),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), "a unique local address"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "a link-local address"),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), "a site-local address"),
];

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    let [.., a, b, c, d] = address.octets();
    if NAT64.contains(&address) {
        return special_v4(Ipv4Addr::new(a, b, c, d))
            .or(unusable(IpAddr::V4(Ipv4Addr::new(a, b, c, d))));
    }
    if let Some((_, kind)) = SPECIAL_V6.iter().find(|(network, _)| network.contains(&address)) {
        return Some(kind);
    }
    // ISATAP (RFC 5214) sends to the IPv4 address in the last 32 bits.
    let [.., scope, tunnel, _, _] = address.segments();
    if tunnel == 0x5efe && matches!(scope, 0 | 0x200) {
        return Some("an address of ISATAP");
    }
    (!GLOBAL_V6.contains(&address)).then_some("an address that is not assigned as global")
}
