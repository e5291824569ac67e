//! W1 and W2: which URLs and addresses are refused, also when a name's answers change.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use capstan_events::limits::{
    ADDRESSES_MAX, ALLOWED_NETWORKS_MAX, CONNECT_TIME_MAX, HTTPS_PORT, LOOKUP_TIME_MAX,
    SINK_PORT_MIN, URL_BYTES_MAX,
};
use capstan_events::{
    FailureKind, Lookup, Outcome, Policy, PolicyError, Resolve, Sink, SinkError, SinkHost,
    SystemResolver,
};
use proptest::prelude::*;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{Answers, Sender, event};
use capstan_testkit::https::{Authority, Reply, Server};

fn parse(text: &str) -> Result<Sink, SinkError> {
    Sink::parse(text, &Policy::default())
}

fn judge(policy: &Policy, address: &str) -> Result<(), &'static str> {
    policy.judge(address.parse().unwrap()).map_err(|error| error.kind)
}

#[test]
fn sinks_are_https_urls_of_public_hosts() {
    for (text, normal, origin) in [
        ("https://hooks.example.com", "https://hooks.example.com/", "https://hooks.example.com"),
        (
            "HTTPS://Hooks.Example.com:443/a?b=c",
            "https://hooks.example.com/a?b=c",
            "https://hooks.example.com",
        ),
        (
            "https://hooks.example.com:8443/a/../b",
            "https://hooks.example.com:8443/b",
            "https://hooks.example.com:8443",
        ),
        (
            "https://hooks.example.com:1024",
            "https://hooks.example.com:1024/",
            "https://hooks.example.com:1024",
        ),
        (
            "https://hooks.example.com:65535",
            "https://hooks.example.com:65535/",
            "https://hooks.example.com:65535",
        ),
        (
            "https://xn--bcher-kva.example/",
            "https://xn--bcher-kva.example/",
            "https://xn--bcher-kva.example",
        ),
        ("https://93.184.215.14/", "https://93.184.215.14/", "https://93.184.215.14"),
        // A public address in another notation is that address.
        ("https://0x5d.184.55054/", "https://93.184.215.14/", "https://93.184.215.14"),
        (
            "https://[2606:2800:21F:CB07::1]:8443/",
            "https://[2606:2800:21f:cb07::1]:8443/",
            "https://[2606:2800:21f:cb07::1]:8443",
        ),
        (
            "https://hooks.example.com/%7Eme?x=%20",
            "https://hooks.example.com/%7Eme?x=%20",
            "https://hooks.example.com",
        ),
        (
            "https://hooks.example.com/a@b",
            "https://hooks.example.com/a@b",
            "https://hooks.example.com",
        ),
    ] {
        let sink = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((sink.as_str(), sink.origin()), (normal, origin), "{text}");
        assert_eq!(parse(sink.as_str()).as_ref(), Ok(&sink), "the normal form is a sink");
    }
}

#[test]
fn what_is_no_sink_says_why() {
    let allowed_everywhere = Policy::parse(["0.0.0.0/0", "::/0"]).unwrap();
    for text in [
        "",
        "https",
        "https:",
        "https:hooks.example.com",
        "https:/hooks.example.com",
        "http://hooks.example.com",
        "file:///etc/passwd",
        "ftp://hooks.example.com",
        "gopher://x/",
        "javascript:alert(1)",
        "unix:/run/x",
        "hooks.example.com",
        "//hooks.example.com",
        "httpsx://hooks.example.com",
        "view-source:https://hooks.example.com",
    ] {
        assert_eq!(Sink::parse(text, &allowed_everywhere), Err(SinkError::NotHttps), "{text}");
    }
    for text in [
        "https://a@hooks.example.com/",
        "https://a:b@hooks.example.com/",
        "https://@hooks.example.com/",
        "https://hooks.example.com:443@evil.example/",
        "https://a%40b@hooks.example.com/",
        "https://hooks.example.com:a@evil.example/#@hooks.example.com",
    ] {
        assert_eq!(Sink::parse(text, &allowed_everywhere), Err(SinkError::UserInfo), "{text}");
    }
    for text in [
        " https://hooks.example.com",
        "https://hooks.example.com ",
        "https://hooks.example.com/\r\nHost: x",
        "https://ho\toks.example.com",
        "https:\\\\hooks.example.com",
        "https://hooks.example.com\\@evil.example",
        "https://b\u{fc}cher.example",
        "https://hooks.example.com/\u{0}",
        "https://\u{ff11}27.0.0.1/",
        "https://hooks\u{3002}example.com",
    ] {
        assert_eq!(Sink::parse(text, &allowed_everywhere), Err(SinkError::Characters), "{text}");
    }
    for text in ["https://hooks.example.com/#", "https://hooks.example.com/a#b"] {
        assert_eq!(Sink::parse(text, &allowed_everywhere), Err(SinkError::Fragment), "{text}");
    }
    for port in [0, 1, 22, 25, 80, 110, 389, 442, HTTPS_PORT + 1, 465, 993, SINK_PORT_MIN - 1] {
        let text = format!("https://hooks.example.com:{port}/");
        assert_eq!(Sink::parse(&text, &allowed_everywhere), Err(SinkError::Port(port)), "{text}");
    }
    for text in [
        "https://",
        "https:///",
        "https:///hooks.example.com",
        "https://?",
        "https://:8443/",
        "https://hooks.example.com:65536/",
        "https://hooks.example.com:x/",
        "https://[::1",
        "https://[::1%25eth0]/",
        "https://1.2.3.4.5/",
        "https://256.1.1.1/",
        "https://0x100000000/",
        "https://a b/",
        "https://a<b/",
        "https://%00/",
        "https://ho%2Foks/",
        "https://xn--/",
        "https://[127.0.0.1]/",
    ] {
        let error = Sink::parse(text, &allowed_everywhere).unwrap_err();
        assert!(matches!(error, SinkError::NotUrl(_) | SinkError::Characters), "{text}: {error}");
    }
    for text in [
        "https://hooks.example.com./",
        "https://localhost./",
        "https://./",
        "https://a..b/",
        &format!("https://{}.example/", "a".repeat(64)),
        &format!("https://{}example/", "a.".repeat(130)),
    ] {
        let error = Sink::parse(text, &allowed_everywhere).unwrap_err();
        assert!(matches!(error, SinkError::HostName(_) | SinkError::NotUrl(_)), "{text}: {error}");
    }
    let long = |bytes: usize| format!("https://hooks.example.com/{}", "a".repeat(bytes - 26));
    assert!(parse(&long(URL_BYTES_MAX)).is_ok());
    assert_eq!(parse(&long(URL_BYTES_MAX + 1)), Err(SinkError::TooLong));
}

/// Every notation of an address is judged as this address.
#[test]
fn forbidden_hosts_are_refused_in_every_notation() {
    for host in [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "127.255.255.254",
        "%31%32%37.0.0.1",
        "0",
        "0.0.0.0",
        "10.0.0.1",
        "0xa.1",
        "012.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "3232235777",
        "169.254.169.254",
        "0xa9fea9fe",
        "2852039166",
        "0251.0376.0251.0376",
        "100.64.0.1",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "192.88.99.1",
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b:1::1]",
        "[2002:7f00:1::]",
        "[2002:a9fe:a9fe::1]",
        "[2001:0:53aa:64c:0:fbff:5601:5601]",
        "[fd00:ec2::254]",
        "[fd20:ce::254]",
        "[fc00::1]",
        "[fe80::1]",
        "[fec0::1]",
        "[ff02::1]",
        "[2001:db8::1]",
        "[3fff::1]",
        "[2001:2::1]",
        "[2001:10::1]",
        "[100::1]",
        "[5f00::1]",
        "[2606:2800::5efe:7f00:1]",
        "[4000::1]",
        "localhost",
        "LOCALHOST",
        "app.localhost",
        "loc%61lhost",
    ] {
        let text = format!("https://{host}/");
        let error = parse(&text).unwrap_err();
        assert!(matches!(error, SinkError::Address(_)), "{text}: {error}");
    }
}

#[test]
fn addresses_are_judged_by_their_kind() {
    let none = Policy::default();
    for (address, kind) in [
        ("0.0.0.0", "the unspecified address"),
        ("0.1.2.3", "an address of this network"),
        ("9.255.255.255", ""),
        ("10.0.0.0", "a private address"),
        ("10.255.255.255", "a private address"),
        ("11.0.0.0", ""),
        ("100.63.255.255", ""),
        ("100.64.0.0", "a shared address of a provider"),
        ("100.127.255.255", "a shared address of a provider"),
        ("100.128.0.0", ""),
        ("126.255.255.255", ""),
        ("127.0.0.0", "a loopback address"),
        ("127.255.255.255", "a loopback address"),
        ("128.0.0.0", ""),
        ("168.63.129.15", ""),
        ("168.63.129.16", "an address of a cloud's host"),
        ("169.253.255.255", ""),
        ("169.254.0.0", "a link-local address"),
        ("169.254.169.254", "a link-local address"),
        ("169.255.0.0", ""),
        ("172.15.255.255", ""),
        ("172.16.0.0", "a private address"),
        ("172.31.255.255", "a private address"),
        ("172.32.0.0", ""),
        ("192.0.0.255", "an address of a protocol"),
        ("192.0.1.0", ""),
        ("192.0.2.255", "an address for documentation"),
        ("192.88.99.1", "a relay of 6to4"),
        ("192.168.0.0", "a private address"),
        ("192.169.0.0", ""),
        ("198.17.255.255", ""),
        ("198.18.0.0", "an address for benchmarks"),
        ("198.19.255.255", "an address for benchmarks"),
        ("198.20.0.0", ""),
        ("198.51.100.7", "an address for documentation"),
        ("203.0.113.7", "an address for documentation"),
        ("223.255.255.255", ""),
        ("224.0.0.0", "a multicast address"),
        ("239.255.255.255", "a multicast address"),
        ("240.0.0.0", "a reserved address"),
        ("255.255.255.254", "a reserved address"),
        ("255.255.255.255", "the broadcast address"),
        ("::", "the unspecified address"),
        ("::1", "a loopback address"),
        ("::2", "an IPv4-compatible address"),
        ("::8.8.8.8", "an IPv4-compatible address"),
        ("::ffff:8.8.8.8", ""),
        ("::ffff:10.0.0.1", "a private address"),
        ("::ffff:0.0.0.0", "the unspecified address"),
        ("::ffff:224.0.0.1", "a multicast address"),
        ("64:ff9b::8.8.8.8", ""),
        ("64:ff9b::10.0.0.1", "a private address"),
        ("64:ff9b::0.0.0.0", "an address of this network"),
        ("64:ff9b::224.0.0.1", "a multicast address"),
        ("64:ff9b::255.255.255.255", "a reserved address"),
        ("64:ff9b:0:1::8.8.8.8", "an address that is not assigned as global"),
        ("64:ff9b:1::8.8.8.8", "an address of a local translation"),
        ("100::1", "an address that is not assigned as global"),
        ("1fff:ffff::1", "an address that is not assigned as global"),
        ("2000::1", ""),
        ("2001::1", "an address of Teredo"),
        ("2001:2::1", "an address for benchmarks"),
        ("2001:1::1", "an address of a protocol"),
        ("2001:1ff:ffff::1", "an address of a protocol"),
        ("2001:200::1", ""),
        ("2001:4860:4860::8888", ""),
        ("2001:db8::1", "an address for documentation"),
        ("2002:808:808::1", "an address of 6to4"),
        ("2606:2800:21f::5efe:a00:1", "an address of ISATAP"),
        ("2606:2800:21f::200:5efe:a00:1", "an address of ISATAP"),
        ("2606:2800:21f::1:5efe:a00:1", ""),
        ("3ffe::1", ""),
        ("3fff:fff::1", "an address for documentation"),
        ("3fff:1000::1", ""),
        ("4000::1", "an address that is not assigned as global"),
        ("5f00::1", "an address that is not assigned as global"),
        ("fbff::1", "an address that is not assigned as global"),
        ("fc00::1", "a unique local address"),
        ("fd00:ec2::254", "a unique local address"),
        ("fe80::1", "a link-local address"),
        ("febf::1", "a link-local address"),
        ("fec0::1", "a site-local address"),
        ("ff02::1", "a multicast address"),
    ] {
        let expected = if kind.is_empty() { Ok(()) } else { Err(kind) };
        assert_eq!(judge(&none, address), expected, "{address}");
    }
}

#[test]
fn an_operator_allows_networks() {
    let policy = Policy::parse(["10.1.0.0/16", "127.0.0.1/32", "fd00:7::/32"]).unwrap();
    for address in ["10.1.255.255", "127.0.0.1", "::ffff:10.1.0.1", "fd00:7::9", "8.8.8.8"] {
        assert_eq!(judge(&policy, address), Ok(()), "{address}");
    }
    for address in ["10.2.0.0", "127.0.0.2", "64:ff9b::10.1.0.1", "::10.1.0.1", "fd00:8::1", "::1"]
    {
        assert!(judge(&policy, address).is_err(), "{address}");
    }
    let sink = Sink::parse("https://localhost:8443/", &policy).unwrap();
    assert_eq!(sink.host(), &SinkHost::Name("localhost".into()));

    // Not even the widest networks have these.
    let all = Policy::parse(["0.0.0.0/0", "::/0"]).unwrap();
    for address in ["0.0.0.0", "::", "::ffff:0.0.0.0", "224.0.0.1", "ff02::1", "255.255.255.255"] {
        assert!(judge(&all, address).is_err(), "{address}");
    }
    assert_eq!(judge(&all, "169.254.169.254"), Ok(()));
}

#[test]
fn networks_are_written_exactly() {
    let text = |text: &str| Policy::parse([text]).unwrap_err().to_string();
    assert_eq!(
        text("10.0.0.1/8"),
        "allowed network `10.0.0.1/8`: bits behind the prefix are set, write 10.0.0.0/8"
    );
    for wrong in
        ["10.0.0.0", "10.0.0.0/33", "::/129", "10.0.0/8", "example.com/8", "", "010.0.0.0/8"]
    {
        assert_eq!(Policy::parse([wrong]), Err(PolicyError::NotANetwork(wrong.into())), "{wrong}");
    }
    assert!(matches!(Policy::parse(["::ffff:10.0.0.0/104"]), Err(PolicyError::Mapped(_))));
    let many = |count: usize| Policy::parse((0..count).map(|number| format!("10.{number}.0.0/16")));
    assert!(many(ALLOWED_NETWORKS_MAX).is_ok());
    assert_eq!(many(ALLOWED_NETWORKS_MAX + 1), Err(PolicyError::TooMany));
}

proptest! {
    /// What the standard library knows about an address is never overruled, embedded or not.
    #[test]
    fn no_special_address_is_public(bits in any::<u32>(), prefix in 0..4_usize) {
        let v4 = Ipv4Addr::from(bits);
        let special = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_broadcast()
            || v4.is_documentation() || v4.is_unspecified() || v4.is_multicast();
        let text = match prefix {
            0 => v4.to_string(),
            1 => format!("::ffff:{v4}"),
            2 => format!("64:ff9b::{v4}"),
            _ => format!("::{v4}"),
        };
        let allowed = judge(&Policy::default(), &text).is_ok();
        prop_assert!(!(special && allowed), "{text}");
        prop_assert!(prefix != 3 || !allowed, "{text}");
    }

    /// Any number that is read as an address is judged as that address.
    #[test]
    fn notations_do_not_matter(bits in any::<u32>()) {
        let v4 = Ipv4Addr::from(bits);
        let [a, b, c, d] = v4.octets();
        let expected = judge(&Policy::default(), &v4.to_string()).is_ok();
        let low = bits & 0xff_ffff;
        for host in [
            format!("{bits}"), format!("{bits:#x}"), format!("0{bits:o}"), format!("{a}.{low}"),
            format!("{a:#x}.{b}.0{c:o}.{d}"), format!("[::ffff:{v4}]"), format!("[64:ff9b::{v4}]"),
        ] {
            let sink = parse(&format!("https://{host}/"));
            prop_assert_eq!(sink.is_ok(), expected, "{}", host);
        }
    }

    /// Whatever is taken is https, has a port that is allowed, and one reading.
    #[test]
    fn what_is_taken_has_one_reading(text in "https://[a-zA-Z0-9:@/?#\\[\\].%\\\\ _-]{0,40}") {
        if let Ok(sink) = parse(&text) {
            prop_assert!(sink.port() == 443 || sink.port() >= 1_024);
            let start = format!("{}/", sink.origin());
            prop_assert!(sink.as_str().starts_with(&start));
            prop_assert!(!sink.origin().contains('@'));
            let again = parse(sink.as_str()).unwrap();
            prop_assert_eq!(again.host(), sink.host());
        }
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The server listens on all of 127/8, so that a connection to any of it is seen; only 127.0.0.1 is allowed.
async fn everywhere(authority: &Authority) -> Server {
    let config = authority.server_config(&["sink.test"], false);
    let closing = |_: &_| Reply::status(200, "connection: close\r\n").close();
    Server::listen(Ipv4Addr::UNSPECIFIED, config, closing).await
}

fn only_one(authority: &Authority, resolver: Arc<dyn Resolve>) -> Sender {
    Sender::with(authority, resolver, Policy::parse(["127.0.0.1/32"]).unwrap(), crate::ISSUER)
}

/// W2: the name has an allowed address first, then another.
#[tokio::test]
async fn a_name_that_moves_inside_is_refused() {
    let authority = Authority::generate();
    let server = everywhere(&authority).await;
    let resolver = Answers::new(vec![
        vec![ip("127.0.0.1")],
        vec![ip("127.0.0.2")],
        vec![ip("127.0.0.1"), ip("127.0.0.2")],
        vec![ip("127.0.0.2"), ip("127.0.0.1")],
        vec![ip("127.0.0.1"), ip("::ffff:169.254.169.254")],
        vec![ip("127.0.0.1")],
    ]);
    let sender = only_one(&authority, Arc::clone(&resolver) as _);
    let sink = sender.sink(&server.url());
    assert_eq!(sender.deliver(&sink, &event("01")).await, Outcome::Delivered);
    for forbidden in ["127.0.0.2", "127.0.0.2", "127.0.0.2", "::ffff:169.254.169.254"] {
        match sender.deliver(&sink, &event("02")).await {
            Outcome::Refused(error) => assert_eq!(error.address, ip(forbidden)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(server.connections(), 1, "no address of a refused name is connected to");
    assert_eq!(sender.deliver(&sink, &event("03")).await, Outcome::Delivered);
    assert_eq!(
        resolver.asked(),
        6,
        "one lookup a connection: what was judged is what is connected to"
    );
}

#[tokio::test]
async fn consent_is_not_asked_for_inside() {
    let authority = Authority::generate();
    let server = everywhere(&authority).await;
    let sender = only_one(&authority, Answers::new(vec![vec![ip("127.0.0.2")]]));
    let answer = sender.client.ask_consent(&sender.sink(&server.url()), None).await;
    assert!(matches!(answer, Err(Outcome::Refused(_))), "{answer:?}");
    assert_eq!(server.connections(), 0);
}

/// An address in a URL is judged again by the client: the sink may have been stored under another policy.
#[tokio::test]
async fn a_sink_of_another_policy_is_refused() {
    let authority = Authority::generate();
    let server = everywhere(&authority).await;
    let wide = Policy::parse(["127.0.0.0/8"]).unwrap();
    let text = format!("https://127.0.0.2:{}/", server.address.port());
    let sink = Sink::parse(&text, &wide).unwrap();
    let sender = only_one(&authority, Answers::loopback());
    let outcome = sender.deliver(&sink, &event("01")).await;
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    assert_eq!(server.connections(), 0);
}

/// The next address is tried where one does not answer.
#[tokio::test]
async fn every_address_is_tried() {
    let authority = Authority::generate();
    let server = Server::start(&authority, |_| Reply::status(200, "")).await;
    let resolver = Answers::new(vec![vec![ip("127.0.0.3"), ip("127.0.0.2"), ip("127.0.0.1")]]);
    let sender = Sender::new(&authority, resolver);
    let sink = sender.sink(&server.url());
    assert_eq!(sender.deliver(&sink, &event("01")).await, Outcome::Delivered);
}

/// An address that drops what is sent to it holds a delivery up for a moment only.
#[tokio::test]
async fn addresses_that_do_not_answer_are_passed_over() {
    let authority = Authority::generate();
    let server = Server::start(&authority, |_| Reply::status(200, "")).await;
    // A listener whose queue is full answers nothing: Linux drops the requests for connections.
    let silent = tokio::net::TcpSocket::new_v4().unwrap();
    silent.bind((Ipv4Addr::new(127, 0, 0, 2), server.address.port()).into()).unwrap();
    let silent = silent.listen(0).unwrap();
    let mut queued = Vec::new();
    while let Ok(connected) =
        timeout(Duration::from_millis(200), TcpStream::connect(silent.local_addr().unwrap())).await
    {
        queued.push(connected.unwrap());
    }
    let answers = |last: &str| Answers::new(vec![vec![ip("127.0.0.2"), ip(last)]]);
    let sender = Sender::new(&authority, answers("127.0.0.1"));
    let sink = sender.sink(&server.url());
    let only_silent = Sender::new(&authority, answers("127.0.0.2"));
    let event = event("01");
    let (delivered, failed) =
        tokio::join!(sender.deliver(&sink, &event), only_silent.deliver(&sink, &event));
    assert_eq!(delivered, Outcome::Delivered);
    match failed {
        Outcome::Failed(failure) => {
            assert_eq!(failure.kind, FailureKind::Connect);
            assert_eq!(failure.detail, format!("no connection within {CONNECT_TIME_MAX:?}"));
        }
        other => panic!("{other:?}"),
    }
}

#[derive(Debug)]
struct Broken(bool);

impl Resolve for Broken {
    fn resolve<'a>(&'a self, _: &'a str) -> Lookup<'a> {
        let hangs = self.0;
        Box::pin(async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            Err(io::Error::other("SERVFAIL"))
        })
    }
}

#[tokio::test]
async fn lookups_fail_in_time_and_have_few_answers() {
    let authority = Authority::generate();
    let server = Server::start(&authority, |_| Reply::status(200, "")).await;
    let addresses = |count: usize| vec![vec![ip("127.0.0.1"); count]];
    let late = format!("longer than {LOOKUP_TIME_MAX:?}");
    let resolvers: [(Arc<dyn Resolve>, Option<&str>); 5] = [
        (Arc::new(Broken(false)), Some("SERVFAIL")),
        (Arc::new(Broken(true)), Some(&late)),
        (Answers::new(addresses(0)), Some("no address")),
        (Answers::new(addresses(ADDRESSES_MAX + 1)), Some("more than 32")),
        (Answers::new(addresses(ADDRESSES_MAX)), None),
    ];
    for (resolver, expected) in resolvers {
        let sender = Sender::new(&authority, resolver);
        match (sender.deliver(&sender.sink(&server.url()), &event("01")).await, expected) {
            (Outcome::Failed(failure), Some(expected)) => {
                assert_eq!(failure.kind, FailureKind::Lookup);
                assert!(failure.detail.contains(expected), "{failure}");
            }
            (outcome, expected) => {
                assert_eq!((outcome, expected), (Outcome::Delivered, None));
            }
        }
    }
}

#[tokio::test]
async fn the_system_resolves_names() {
    let found = SystemResolver::default().resolve("localhost").await.unwrap();
    assert!(!found.is_empty() && found.iter().all(IpAddr::is_loopback), "{found:?}");
    let nothing = SystemResolver::default().resolve("a\0b").await;
    assert!(nothing.is_err(), "{nothing:?}");
}
