//! Certificates of clients that are revoked: lists of them, which are replaced while the server runs.

use std::time::Instant;

use capstan_server::limits::TLS_LIST_BYTES_MAX;
use capstan_testkit::https::Authority;

use super::Files;
use crate::common::{PATIENCE, capstan, stderr};

/// A client with a certificate of this number, and one of the next.
fn files(name: &str) -> Files {
    let files = Files::new(name);
    for (name, serial) in [("seven", 7), ("eight", 8)] {
        let uri = format!("spiffe://acme.example/{name}");
        let (certificate, key) = files.authority.numbered(&[&uri], Some(serial));
        files.write(&format!("{name}.pem"), &certificate.pem());
        files.write(&format!("{name}.key"), &key.serialize_pem());
    }
    files
}

/// Whether a client is let in.
fn asks(files: &Files, address: &str, name: &str) -> bool {
    let (addr, ca) = (format!("https://{address}"), files.path("ca.pem"));
    let (cert, key) = (files.path(&format!("{name}.pem")), files.path(&format!("{name}.key")));
    let tls = ["--addr", &addr, "--ca", &ca, "--cert", &cert, "--key", &key];
    let output = capstan(&[&["check", "alice", "repo.list", "acme"][..], &tls].concat());
    let code = output.status.code();
    assert!([Some(0), Some(2)].contains(&code), "{}", stderr(&output));
    code == Some(0)
}

fn wait_for(files: &Files, address: &str, name: &str, wanted: bool) {
    let begun = Instant::now();
    while asks(files, address, name) != wanted {
        assert!(begun.elapsed() < PATIENCE, "{name} is not {wanted}");
    }
}

#[test]
fn revoked_certificates_are_refused_from_the_next_connection_on() {
    let files = files("tls-revoked");
    let (ca, list) = (files.path("ca.pem"), files.path("revoked.pem"));
    files.write("revoked.pem", &files.authority.revoking(&[], false));
    let mut server = files.serve(&["--client-ca", &ca, "--client-crl", &list]);
    let grpc = server.address("grpc");
    assert!(asks(&files, &grpc, "seven") && asks(&files, &grpc, "eight"));
    files.write("revoked.pem", &files.authority.revoking(&[7, 9], false));
    wait_for(&files, &grpc, "seven", false);
    assert!(asks(&files, &grpc, "eight"));
    // A list that is no list is not loaded, and the one before counts on.
    files.write("revoked.pem", "nothing");
    server.wait_for_log("no list of revoked certificates");
    assert!(!asks(&files, &grpc, "seven") && asks(&files, &grpc, "eight"));
    files.write("revoked.pem", &files.authority.revoking(&[], false));
    wait_for(&files, &grpc, "seven", true);
}

/// What is not known to be in order is not let in: a list that is over, and one of another authority.
#[test]
fn without_a_list_that_counts_nobody_is_let_in() {
    for (name, list) in [
        ("over", |files: &Files| files.authority.revoking(&[], true)),
        ("foreign", |_: &Files| Authority::generate().revoking(&[], false)),
    ] as [(&str, fn(&Files) -> String); 2]
    {
        let files = files(&format!("tls-revoked-{name}"));
        files.write("revoked.pem", &list(&files));
        let (ca, list) = (files.path("ca.pem"), files.path("revoked.pem"));
        let server = files.serve(&["--client-ca", &ca, "--client-crl", &list]);
        assert!(!asks(&files, &server.address("grpc"), "seven"), "{name}");
    }
}

/// Of two lists of one authority only the first would count.
#[test]
fn an_authority_has_one_list() {
    let files = files("tls-revoked-twice");
    let (first, second) =
        (files.authority.revoking(&[7], false), files.authority.revoking(&[8], false));
    files.write("first.pem", &first);
    files.write("second.pem", &second);
    files.write("both.pem", &(first + &second));
    files.write("foreign.pem", &Authority::generate().revoking(&[], false));
    let (cert, key, ca) =
        (files.path("server.pem"), files.path("server.key"), files.path("ca.pem"));
    let serve = |lists: &[&str]| {
        let mut arguments = vec![
            "serve",
            "--demo",
            "--listen",
            "127.0.0.1:0",
            "--http",
            "none",
            "--tls-cert",
            &cert,
        ];
        arguments.extend(["--tls-key", &key, "--client-ca", &ca]);
        let lists: Vec<_> = lists.iter().map(|name| files.path(name)).collect();
        arguments.extend(lists.iter().flat_map(|list| ["--client-crl", list]));
        let output = capstan(&arguments);
        assert_eq!(output.status.code(), Some(2));
        stderr(&output)
    };
    for lists in [&["first.pem", "second.pem"][..], &["both.pem"]] {
        let said = serve(lists);
        assert!(said.contains("a second list of CN=Throw-away authority"), "{said}");
    }
    assert_eq!(TLS_LIST_BYTES_MAX, 16 << 20);
    files.write("long.pem", &"x".repeat((16 << 20) + 1));
    let said = serve(&["long.pem"]);
    assert!(said.contains("longer than 16777216 bytes"), "{said}");
}

#[test]
fn lists_are_for_certificates_of_clients() {
    let output = capstan(&["serve", "--demo", "--client-crl", "revoked.pem"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--client-ca"), "{}", stderr(&output));
}
