//! What the certificate of a client calls its client: the names among its subject alternative names that count.
//!
//! ```text
//! leaf ─▶ any URI? ─┬─ yes ─▶ exactly one, a SPIFFE ID ─▶ that, and no DNS name
//!                   └─ no ──▶ no more than TLS_DNS_NAMES_MAX DNS names ─▶ those that are host names, in lower case
//! everything else: nobody's
//! ```
//!
//! **Invariants**: the common name is never read. What is known by a SPIFFE ID is known by that alone, so that a workload is not two
//! callers. A wildcard is the name of no host, and matches nothing.

use capstan_iam::{ClientCertificate as Own, check_dns_name};
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use crate::limits::TLS_DNS_NAMES_MAX;

/// The names of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// It has none that counts, and is nobody's.
    Nobody,
    /// Its only URI (X.509-SVID, section 2).
    SpiffeId(Box<str>),
    /// Its DNS names, at least one: as [`check_dns_name`] has them, in order, each once.
    Dns(Box<[Box<str>]>),
}

impl Names {
    /// Those of the certificate of a client, which was verified.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Self {
        read(certificate).unwrap_or(Self::Nobody)
    }

    /// Whether the name that an identity has is among them.
    pub(crate) fn has(&self, own: &Own) -> bool {
        match (self, own) {
            (Self::SpiffeId(id), Own::SpiffeId(wanted)) => **id == **wanted,
            (Self::Dns(names), Own::DnsName(wanted)) => names.iter().any(|name| **name == **wanted),
            _ => false,
        }
    }
}

/// The URIs of a certificate, as far as they matter.
enum Uris<'c> {
    None,
    One(&'c str),
    /// Several, or one that cannot be read.
    Unclear,
}

fn read(certificate: &CertificateDer<'_>) -> Option<Names> {
    /// The tag of a URI (RFC 5280, section 4.2.1.6).
    const URI: u32 = 6;
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let (mut uris, mut hosts) = (Uris::None, Vec::new());
    for name in &names.value.general_names {
        match name {
            GeneralName::URI(uri) => {
                uris = match uris {
                    Uris::None => Uris::One(uri),
                    Uris::One(_) | Uris::Unclear => Uris::Unclear,
                }
            }
            GeneralName::Invalid(tag, _) if tag.0 == URI => uris = Uris::Unclear,
            GeneralName::DNSName(host) => hosts.push(*host),
            _ => {}
        }
    }
    match uris {
        Uris::None => dns_names(&hosts).map(Names::Dns),
        Uris::One(uri) if uri.starts_with("spiffe://") => Some(Names::SpiffeId(uri.into())),
        Uris::One(_) | Uris::Unclear => None,
    }
}

/// The host names among DNS names.
fn dns_names(hosts: &[&str]) -> Option<Box<[Box<str>]>> {
    if hosts.len() > TLS_DNS_NAMES_MAX {
        return None;
    }
    let hosts = hosts.iter().map(|host| host.to_ascii_lowercase());
    let mut names: Vec<Box<str>> =
        hosts.filter(|host| check_dns_name(host).is_ok()).map(Into::into).collect();
    names.sort_unstable();
    names.dedup();
    (!names.is_empty()).then(|| names.into())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, DnType, KeyPair, SanType};

    use super::*;

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().unwrap())
    }

    fn signed(change: impl FnOnce(&mut CertificateParams)) -> Names {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "cn.example");
        change(&mut params);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Names::of(certificate.der())
    }

    fn of(names: &[SanType]) -> Names {
        signed(|params| params.subject_alt_names = names.to_vec())
    }

    /// With an extension of this content in place of names: general names, one after another.
    fn raw(content: &[u8]) -> Names {
        let sequence = [&[0x30, u8::try_from(content.len()).unwrap()], content].concat();
        signed(|params| {
            let names = CustomExtension::from_oid_content(&[2, 5, 29, 17], sequence);
            params.custom_extensions.push(names);
        })
    }

    fn hosts(names: &[&str]) -> Names {
        Names::Dns(names.iter().map(|name| (*name).into()).collect())
    }

    const CI: &str = "spiffe://example.org/ci";

    #[test]
    fn one_spiffe_id_is_the_only_name() {
        let ci = Names::SpiffeId(CI.into());
        assert_eq!(of(&[uri(CI)]), ci);
        assert_eq!(of(&[dns("ci.example.org"), uri(CI), dns("b.example.org")]), ci);
        let address = SanType::IpAddress([192, 0, 2, 1].into());
        assert_eq!(of(&[address, uri(CI)]), ci);
    }

    /// Whatever DNS names are beside them.
    #[test]
    fn other_uris_are_nobodys() {
        for uris in [
            &[uri(CI), uri("spiffe://example.org/other")][..],
            &[uri(CI), uri(CI)],
            &[uri(CI), uri("https://example.org/ci")],
            &[uri("https://example.org/ci")],
            &[uri("")],
        ] {
            assert_eq!(of(uris), Names::Nobody, "{uris:?}");
            let hosts = [&[dns("ci.example.org")], uris].concat();
            assert_eq!(of(&hosts), Names::Nobody, "{hosts:?}");
        }
    }

    #[test]
    fn dns_names_count_without_a_uri() {
        assert_eq!(of(&[dns("ci.example.org")]), hosts(&["ci.example.org"]));
        // In order and in lower case, each once.
        let several = [dns("B.example.org"), dns("a"), dns("b.EXAMPLE.org"), dns("b.example.org")];
        assert_eq!(of(&several), hosts(&["a", "b.example.org"]));
        let mail = SanType::Rfc822Name("ci@example.org".try_into().unwrap());
        assert_eq!(of(&[mail, dns("ci.example.org")]), hosts(&["ci.example.org"]));
    }

    #[test]
    fn what_names_no_host_matches_nothing() {
        for name in ["*.example.org", "*", "ci.example.org.", "ci_1.example.org", "192.0.2.1", ""] {
            assert_eq!(of(&[dns(name)]), Names::Nobody, "{name}");
            assert_eq!(of(&[dns(name), dns("a")]), hosts(&["a"]), "{name}");
        }
        // The common name, an address of the network, and one of mail.
        assert_eq!(of(&[]), Names::Nobody);
        assert_eq!(of(&[SanType::IpAddress([192, 0, 2, 1].into())]), Names::Nobody);
        let mail = SanType::Rfc822Name("ci.example.org".try_into().unwrap());
        assert_eq!(of(&[mail]), Names::Nobody);
    }

    #[test]
    fn dns_names_are_limited() {
        let many = |count: usize| -> Vec<_> {
            (0..count).map(|at| dns(&format!("h{at:02}.example.org"))).collect()
        };
        let Names::Dns(most) = of(&many(TLS_DNS_NAMES_MAX)) else { panic!("they are read") };
        assert_eq!((most.len(), TLS_DNS_NAMES_MAX), (32, 32));
        assert_eq!(of(&many(TLS_DNS_NAMES_MAX + 1)), Names::Nobody);
        // Those that match nothing are read, too; beside a SPIFFE ID none is.
        let wildcards = vec![dns("*.example.org"); TLS_DNS_NAMES_MAX];
        assert_eq!(of(&[wildcards, vec![dns("a")]].concat()), Names::Nobody);
        let ci = [many(TLS_DNS_NAMES_MAX + 1), vec![uri(CI)]].concat();
        assert_eq!(of(&ci), Names::SpiffeId(CI.into()));
    }

    #[test]
    fn names_that_cannot_be_read_prove_nothing() {
        let host = b"\x82\x01a";
        assert_eq!(raw(host), hosts(&["a"]));
        // A URI that is no text is one all the same.
        assert_eq!(raw(&[&host[..], b"\x86\x01\xff"].concat()), Names::Nobody);
        let spiffe = [&[0x86, u8::try_from(CI.len()).unwrap()], CI.as_bytes()].concat();
        assert_eq!(raw(&spiffe), Names::SpiffeId(CI.into()));
        for bad in
            [[b"\x86\x01\xff", &spiffe[..]].concat(), [&spiffe[..], b"\x86\x01\xff"].concat()]
        {
            assert_eq!(raw(&bad), Names::Nobody);
        }
        // A DNS name that is none, beside one.
        assert_eq!(raw(b"\x82\x01\xff\x82\x01a"), hosts(&["a"]));
        // One that is cut off.
        assert_eq!(raw(b"\x82\x05a"), Names::Nobody);
        // A NUL ends no name.
        assert_eq!(raw(b"\x82\x03a\0b"), Names::Nobody);
        // Names twice.
        let twice = signed(|params| {
            params.subject_alt_names = vec![dns("a")];
            let more =
                CustomExtension::from_oid_content(&[2, 5, 29, 17], b"\x30\x03\x82\x01b".to_vec());
            params.custom_extensions.push(more);
        });
        assert_eq!(twice, Names::Nobody);
        assert_eq!(Names::of(&CertificateDer::from(vec![0x30, 0])), Names::Nobody);
    }

    #[test]
    fn a_name_is_compared_as_a_whole_and_with_its_kind() {
        let (spiffe, host) = (Names::SpiffeId("a".into()), hosts(&["a", "b.example.org"]));
        let is = |id: &str| Own::SpiffeId(id.into());
        let has = |name: &str| Own::DnsName(name.into());
        assert!(spiffe.has(&is("a")) && host.has(&has("a")) && host.has(&has("b.example.org")));
        for (names, own) in [
            (&spiffe, has("a")),
            (&spiffe, is("")),
            (&host, is("a")),
            (&host, has("example.org")),
            (&host, has("B.example.org")),
            (&host, has("")),
            (&Names::Nobody, has("")),
            (&Names::Nobody, is("")),
        ] {
            assert!(!names.has(&own), "{names:?} {own:?}");
        }
    }
}
