//! What of the documents is not run: which commands and blocks, why, and which test runs the same instead.

/// A command that a test cannot run to its end.
pub(super) struct Exempt {
    pub(super) document: &'static str,
    /// Every command of the document that begins so.
    pub(super) begins: &'static str,
    pub(super) why: &'static str,
    /// The name of a test that runs the same, if there is one.
    pub(super) instead: Option<&'static str>,
}

const fn exempt(
    document: &'static str,
    begins: &'static str,
    why: &'static str,
    instead: Option<&'static str>,
) -> Exempt {
    Exempt { document, begins, why, instead }
}

const THIS: &str = "runs this very test";
const MINUTES: &str = "needs minutes or an idle machine";
const NETWORK: &str = "installs from the network";
const EXAMPLE: &str = "needs the running example, with Envoy and a registry";
const HOST: &str = "needs the host r.example with TLS; the test has the same settings over HTTP";
const CLUSTER: &str = "needs a cluster";
const CERTIFICATES: &str = "needs certificates of the reader";
const RECEIVER: &str = "needs certificates of the reader, and serves until it is stopped";
const ISSUER: &str = "needs an issuer of the reader, and its tokens";
const STORE: &str = "needs the store that it names";
const PROFILER: &str = "needs a profiler, and its figures are read by people";

/// Each is checked without being run: `capstan` takes the arguments, `cargo` has the package, the test and the filter,
/// a script exists.
pub(super) const COMMANDS: &[Exempt] = &[
    exempt("README.md", "dev/test", THIS, None),
    exempt(
        "README.md",
        "source <(capstan completions zsh)",
        "for zsh",
        Some("zsh_completes_names"),
    ),
    exempt("README.md", "capstan completions fish", "for fish", Some("fish_completes_names")),
    exempt("README.md", "target/release/capstan top", "a screen", Some("a_usual_screen")),
    exempt("README.md", "python3 -m venv", "dev/test does it, into target/python", None),
    exempt("README.md", "venv/bin/pip install", NETWORK, None),
    exempt(
        "README.md",
        "buf curl",
        "dev/test installs no buf; both tools need reflection and a plain call",
        Some("reflection_is_off_unless_requested"),
    ),
    exempt("README.md", "grpcurl", "likewise", Some("reflection_is_off_unless_requested")),
    exempt(
        "README.md",
        "deploy/examples/registry/run",
        EXAMPLE,
        Some("permissions_of_every_role_match_the_golden_file"),
    ),
    exempt(
        "docs/CALLERS.md",
        "capstan serve --data store",
        ISSUER,
        Some("a_token_counts_or_is_refused_as_all_others_are"),
    ),
    exempt(
        "docs/CALLERS.md",
        "capstan check bob",
        CERTIFICATES,
        Some("a_certificate_names_a_caller"),
    ),
    exempt(
        "docs/CALLERS.md",
        "capstan auth whoami",
        ISSUER,
        Some("a_command_calls_with_the_token_of_a_file"),
    ),
    exempt("docs/CALLERS.md", "capstan auth", ISSUER, Some("a_person_logs_in_by_the_browser")),
    exempt(
        "docs/CALLERS.md",
        "curl https://iam.example.com/oauth2",
        ISSUER,
        Some("a_narrowed_token_can_what_it_says_and_nothing_else"),
    ),
    exempt("docs/CALLERS.md", "curl", ISSUER, Some("a_login_is_kept_for_its_owner_alone")),
    exempt(
        "docs/OPERATING.md",
        "capstan keys",
        STORE,
        Some("what_takes_the_first_token_away_takes_the_access_token_away"),
    ),
    exempt(
        "docs/CALLERS.md",
        "capstan iam",
        ISSUER,
        Some("a_token_counts_or_is_refused_as_all_others_are"),
    ),
    exempt(
        "docs/OPERATING.md",
        "capstan serve --policy acme.yaml --listen unix:/run/capstan/grpc.sock",
        "needs the group that it names",
        Some("a_unix_socket_has_the_mode_and_the_group_that_it_is_given"),
    ),
    exempt(
        "docs/HARDENING.md",
        "capstan config check capstan.toml",
        STORE,
        Some("each_file_that_is_wrong_is_told_with_the_place_that_names_it"),
    ),
    exempt(
        "docs/HARDENING.md",
        "capstan serve --config capstan.toml",
        STORE,
        Some("options_go_before_the_environment_and_that_before_the_file"),
    ),
    exempt("CONTRIBUTING.md", "dev/test", THIS, None),
    exempt("CONTRIBUTING.md", ".ci/run", THIS, None),
    exempt(
        "deploy/examples/registry/README.md",
        "deploy/examples/registry/run",
        EXAMPLE,
        Some("permissions_of_every_role_match_the_golden_file"),
    ),
    exempt(
        "deploy/examples/registry/README.md",
        "skopeo",
        EXAMPLE,
        Some("container_tools_match_the_golden_file"),
    ),
    exempt("deploy/examples/webhook/README.md", "python3 -m venv", "dev/test does it", None),
    exempt("deploy/examples/webhook/README.md", "venv/bin/pip install", NETWORK, None),
    exempt(
        "deploy/examples/webhook/README.md",
        "venv/bin/python receiver.py",
        RECEIVER,
        Some("python_takes_what_is_signed_and_nothing_else"),
    ),
    exempt("deploy/examples/webhook/README.md", "npm ci", NETWORK, None),
    exempt(
        "deploy/examples/webhook/README.md",
        "node receiver.mjs",
        RECEIVER,
        Some("node_takes_what_is_signed_and_nothing_else"),
    ),
    exempt(
        "deploy/examples/webhook/README.md",
        "cargo run -p capstan-events --example receiver",
        RECEIVER,
        Some("rust_takes_what_is_signed_and_nothing_else"),
    ),
    exempt("docs/CLIENTS.md", "pip", HOST, Some("package_managers_match_the_golden_file")),
    exempt("docs/CLIENTS.md", "uv", HOST, Some("package_managers_match_the_golden_file")),
    exempt("docs/CLIENTS.md", "docker", HOST, Some("container_tools_match_the_golden_file")),
    exempt("deploy/kubernetes/README.md", "deploy/kubernetes/image/build", MINUTES, None),
    exempt("deploy/kubernetes/README.md", "kubectl", CLUSTER, Some("probes_work_as_written")),
    exempt(
        "deploy/kubernetes/README.md",
        "helm",
        CLUSTER,
        Some("three_sets_of_values_match_the_golden_files"),
    ),
    exempt("docs/CLIENTS.md", "podman", HOST, Some("container_tools_match_the_golden_file")),
    exempt(
        "deploy/examples/registry/README.md",
        "capstan auth pull-token",
        EXAMPLE,
        Some("a_pull_token_of_a_store_logs_in_until_it_is_revoked"),
    ),
    exempt("docs/CLIENTS.md", "skopeo", HOST, Some("container_tools_match_the_golden_file")),
    exempt("docs/CLIENTS.md", "ctr", HOST, Some("container_tools_match_the_golden_file")),
    exempt("docs/CLIENTS.md", "helm", HOST, Some("container_tools_match_the_golden_file")),
    exempt(
        "docs/MANAGING.md",
        "capstan audit verify",
        "the server of the page runs",
        Some("an_organization_is_made_structured_delegated_and_audited"),
    ),
    exempt(
        "docs/OPERATING.md",
        "capstan serve --policy acme.yaml --listen 0.0.0.0:4480 --tls-cert",
        CERTIFICATES,
        Some("clients_must_have_a_certificate_of_the_authority"),
    ),
    exempt(
        "docs/OPERATING.md",
        "capstan check alice repo.list acme --addr https://",
        CERTIFICATES,
        Some("clients_must_have_a_certificate_of_the_authority"),
    ),
    exempt("docs/OPERATING.md", "cargo build --release", MINUTES, None),
    exempt("docs/OPERATING.md", "cargo bench", MINUTES, None),
    exempt("docs/PERFORMANCE.md", "cargo build --release", MINUTES, None),
    exempt("docs/PERFORMANCE.md", "cargo bench", MINUTES, None),
    exempt("docs/PERFORMANCE.md", "taskset -c 1 cargo bench", MINUTES, None),
    exempt("docs/PERFORMANCE.md", "dev/instructions", MINUTES, None),
    exempt(
        "docs/PERFORMANCE.md",
        "cargo test --release",
        "the same test runs without --release",
        Some("the_allocations_of_a_call_are_limited"),
    ),
    exempt(
        "docs/PERFORMANCE.md",
        "target/release/capstan bench --workload big-W",
        MINUTES,
        Some("every_mode_counts_its_requests_and_verifies_every_decision"),
    ),
    exempt("docs/PERFORMANCE.md", "valgrind", PROFILER, None),
    exempt("docs/PERFORMANCE.md", "callgrind_control", PROFILER, None),
    exempt("docs/PERFORMANCE.md", "perf", PROFILER, None),
    exempt("docs/PERFORMANCE.md", "LD_PRELOAD", "needs a build without a feature", None),
    exempt("docs/TESTING.md", "PROPTEST_CASES", MINUTES, None),
    exempt("docs/TESTING.md", "CAPSTAN_", MINUTES, None),
    exempt("docs/TESTING.md", "SHUTTLE_ITERATIONS", MINUTES, None),
    exempt("docs/TESTING.md", "cargo test", MINUTES, None),
    exempt("docs/TESTING.md", "cargo +nightly", "needs a nightly compiler", None),
    exempt("docs/TESTING.md", "cargo check", "needs the standard library of that target", None),
    exempt("docs/TESTING.md", "cargo install", NETWORK, None),
    exempt("docs/TESTING.md", "rustup", NETWORK, None),
    exempt("docs/TESTING.md", "dev/fuzz", "needs a nightly compiler", None),
];

/// Blocks of other languages than shells that no test runs or reads: document, language, and why.
pub(super) const BLOCKS: &[(&str, &str, &str)] = &[
    ("README.md", "text", "a picture"),
    ("docs/AUTHZEN.md", "http", "authzen::the_page_has_an_answer_of_the_demo sends it"),
    ("docs/AUTHZEN.md", "json", "and reads it"),
    (
        "deploy/kubernetes/README.md",
        "yaml",
        "kubernetes::monitoring starts Prometheus with the same",
    ),
    ("docs/SERVICES.md", "proto", "shop.proto of examples/services has the same"),
    ("docs/SERVICES.md", "rust", "lib.rs of examples/services has the same, and is tested"),
    ("docs/MANAGING.md", "json", "a file that the command below it reads"),
    ("docs/CLIENTS.md", "", "a .netrc; registry::package_managers writes the same"),
    ("docs/CLIENTS.md", "ini", "a .npmrc; likewise"),
    ("docs/CLIENTS.md", "yaml", "a .yarnrc.yml; likewise"),
    ("docs/CLIENTS.md", "xml", "a settings.xml; likewise"),
    ("docs/CLIENTS.md", "groovy", "a build.gradle; likewise"),
    ("docs/CLIENTS.md", "toml", "a hosts.toml; registry::container_tools writes the same"),
    ("docs/HARDENING.md", "toml", "the command below it reads it"),
    ("docs/HARDENING.md", "text", "needs root, and a machine that systemd runs"),
    ("docs/THREATS.md", "text", "a picture"),
    ("docs/STORE.md", "text", "pictures of files and records; tests of crates/store hold them"),
    ("docs/CLIENTS.md", "python", "oras; registry::container_tools runs the same"),
];

/// Blocks of YAML that are part of a document: document, first line, and which document they are part of.
pub(super) const PARTS: &[(&str, &str, Part)] = &[
    ("README.md", "# yaml-language-server: $schema=policy.schema.json", Part::Catalog),
    ("docs/ENVOY.md", "credentials:", Part::Policy),
    ("docs/ENVOY.md", "typed_per_filter_config:", Part::Envoy),
];

/// How a part becomes a whole document.
pub(super) enum Part {
    /// A policy that lacks its catalog.
    Catalog,
    /// A policy that lacks everything but the part.
    Policy,
    /// A part of Envoy's configuration, which only Envoy reads.
    Envoy,
}
