//! Saved contexts, and completion of ids of a server.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Output;

use super::server::Fake;
use crate::common::{command, folder, stderr, stdout};

/// Runs `capstan` with its contexts in this folder.
fn within(config: &Path, arguments: &[&str], env: &[(&str, &str)]) -> Output {
    command(arguments).env("XDG_CONFIG_HOME", config).envs(env.iter().copied()).output().unwrap()
}

fn done(config: &Path, arguments: &[&str]) -> String {
    let output = within(config, arguments, &[]);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    stdout(&output)
}

#[test]
fn commands_use_the_chosen_context() {
    let (server, config) = (Fake::start(), folder("contexts"));
    let add = |name: &str, more: &[&str]| {
        done(&config, &[&["context", "add", name, "--addr", &server.addr], more].concat())
    };
    add("dev", &["--as", "alice", "--output", "json"]);
    add("plain", &[]);
    assert_eq!(done(&config, &["context", "use", "dev"]), "");
    let file = config.join("capstan/contexts.toml");
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(file.parent().unwrap()).unwrap().mode() & 0o777, 0o700);

    // The address, the identity and the format of the context.
    let listed = done(&config, &["iam", "groups", "list"]);
    assert!(listed.starts_with("{\"groups\":"), "{listed}");
    assert!(server.calls().iter().all(|call| call.caller.as_deref() == Some("alice")));
    // Options win.
    let listed = done(&config, &["iam", "groups", "list", "-o", "id", "--as", "bob"]);
    assert!(listed.starts_with("acme\n"), "{listed}");
    assert_eq!(server.calls()[0].caller.as_deref(), Some("bob"));
    // Another server is not told who calls.
    done(&config, &["iam", "groups", "list", "--addr", &server.addr]);
    assert_eq!(server.calls()[0].caller, None);
    for (arguments, env) in [
        (&["iam", "groups", "list", "--context", "plain"][..], &[][..]),
        (&["iam", "groups", "list"], &[("CAPSTAN_CONTEXT", "plain")]),
    ] {
        assert_eq!(within(&config, arguments, env).status.code(), Some(0));
        assert_eq!(server.calls()[0].caller, None, "{arguments:?}");
    }
    // The built-in roles need no server, unless one is named.
    assert!(done(&config, &["roles", "list", "-o", "json"]).contains("registry.pull"));
    assert!(server.calls().is_empty());
    let roles = done(&config, &["roles", "list", "--context", "dev", "-o", "json"]);
    assert!(roles.contains("acme/puller"), "{roles}");
    assert!(server.calls().iter().all(|call| call.caller.as_deref() == Some("alice")));
}

#[test]
fn contexts_are_listed_shown_and_removed() {
    let config = folder("contexts-list");
    assert!(done(&config, &["context", "list"]).contains("capstan context add"));
    done(&config, &["context", "add", "a", "--addr", "unix:/run/a.sock"]);
    done(&config, &["context", "add", "b", "--addr", "http://127.0.0.1:1", "--as", "bob"]);
    done(&config, &["context", "use", "b"]);
    let json: serde_json::Value =
        serde_json::from_str(&done(&config, &["context", "list", "--output", "json"])).unwrap();
    assert_eq!(
        json["contexts"],
        serde_json::json!([
            {"name": "a", "current": false, "addr": "unix:/run/a.sock"},
            {"name": "b", "current": true, "addr": "http://127.0.0.1:1", "as": "bob"},
        ])
    );
    let shown = done(&config, &["context", "show"]);
    for part in ["http://127.0.0.1:1", "bob", "capstan context use"] {
        assert!(shown.contains(part), "{shown}");
    }
    let shown = done(&config, &["context", "show", "--context", "a", "-o", "json"]);
    assert!(shown.contains("\"from\":\"--context\""), "{shown}");
    done(&config, &["context", "rm", "b"]);
    assert!(done(&config, &["context", "show"]).contains("http://127.0.0.1:4480"));
    for (arguments, part) in [
        (&["context", "use", "c"][..], "there is no context `c`"),
        (&["context", "remove", "c"], "there is no context `c`"),
        (&["context", "add", "a b", "--addr", "unix:/x"], "no name of a context"),
        (&["context", "add", "c", "--addr", "ftp://x:1"], "the scheme `ftp` is not"),
        (&["context", "add", "c", "--addr", "unix:/x", "--ca", "a"], "unix:/x has no TLS"),
        (&["context", "add", "c", "--addr", "unix:/x", "-o", "tree"], "table or json"),
        (&["check", "a", "b.c", "d", "--context", "c"], "there is no context `c`"),
        (&["check", "a", "b.c", "d", "--context", "a", "--addr", "unix:/x"], "give one of them"),
    ] {
        let output = within(&config, arguments, &[]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(part), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn a_broken_file_says_where_and_ends_only_what_needs_it() {
    let config = folder("contexts-broken");
    std::fs::create_dir_all(config.join("capstan")).unwrap();
    let file = config.join("capstan/contexts.toml");
    std::fs::write(&file, "[contexts.a]\naddr = \"unix:/x\"\nadr = 1\n").unwrap();
    for arguments in
        [&["iam", "groups", "list"][..], &["check", "a", "b.c", "d"], &["context", "list"]]
    {
        let output = within(&config, arguments, &[]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let error = stderr(&output);
        assert!(
            error.contains(&format!(
                "contexts in {}: line 3, column 1: unknown field",
                file.display()
            )),
            "{error}"
        );
    }
    for arguments in [
        &["roles", "list"][..],
        &["policy", "validate", "deploy/quickstart/policy.yaml"],
        &["check", "alice", "repo.list", "acme", "--policy", "deploy/quickstart/policy.yaml"],
    ] {
        assert_eq!(within(&config, arguments, &[]).status.code(), Some(0), "{arguments:?}");
    }
}

/// Calls the function that the script for Bash defines, as Bash does at a TAB.
fn tab(config: &Path, line: &str) -> Vec<String> {
    const TAB: &str = r#"
source <(capstan completions bash) || exit 9
COMP_LINE="$LINE" COMP_POINT=${#LINE}
_capstan
for reply in "${COMPREPLY[@]}"; do printf '%s|\n' "$reply"; done
"#;
    let binary = Path::new(env!("CARGO_BIN_EXE_capstan"));
    let path = std::env::var("PATH").unwrap();
    let output = std::process::Command::new("bash")
        .args(["--norc", "-c", TAB])
        .env("PATH", format!("{}:{path}", binary.parent().unwrap().display()))
        .env_remove("CAPSTAN_ADDR")
        .env_remove("CAPSTAN_CONTEXT")
        .env("XDG_CONFIG_HOME", config)
        .env("CAPSTAN_COMPLETE_MS", "30000")
        .env("LINE", line)
        .output()
        .unwrap();
    assert_eq!((stderr(&output), output.status.code()), (String::new(), Some(0)), "{line}");
    let words = stdout(&output)
        .lines()
        .map(|line| line.trim_end_matches('|').trim_end().to_owned())
        .collect::<Vec<_>>();
    words.into_iter().filter(|word| !word.starts_with('-')).collect()
}

#[test]
fn ids_and_names_of_contexts_are_completed() {
    let (server, config) = (Fake::start(), folder("contexts-completion"));
    done(&config, &["context", "add", "dev", "--addr", &server.addr, "--as", "alice"]);
    done(&config, &["context", "add", "desk", "--addr", "unix:/x"]);
    assert_eq!(tab(&config, "capstan context use de"), ["desk", "dev"]);
    assert_eq!(tab(&config, "capstan check --context dev"), ["dev"]);
    let ids = |line: &str| tab(&config, &line.replace("capstan", "capstan --context dev"));
    assert_eq!(ids("capstan iam groups describe "), ["acme", "acme/web", "acme/web/eu", "other"]);
    assert_eq!(ids("capstan iam groups describe acme/web/"), ["acme/web/eu"]);
    assert!(server.calls().iter().all(|call| call.caller.as_deref() == Some("alice")));
    assert_eq!(ids("capstan iam role-bindings delete acme/web/"), ["acme/web/b2", "acme/web/b3"]);
    assert_eq!(ids("capstan iam role-bindings create --identity "), ["acme/ci", "alice"]);
    assert_eq!(ids("capstan iam role-bindings create --role "), ["acme/puller", "owner", "viewer"]);
    assert_eq!(
        ids("capstan iam role-bindings create --scope acme/web/"),
        ["acme/web/eu", "acme/web/nginx"]
    );
    assert_eq!(ids("capstan iam resources describe "), ["acme/web/nginx"]);
    assert_eq!(ids("capstan iam roles describe acme"), ["acme/puller"]);
    assert_eq!(ids("capstan policy export --parent o"), ["other"]);
    let tokens = ["acme/b0b0b0b0b0b0b0b0", "acme/web/c1c1c1c1c1c1c1c1"];
    assert_eq!(ids("capstan auth pull-token revoke ac"), tokens);
    assert_eq!(
        ids("capstan iam group-invites delete ac"),
        ["acme/open", "acme/web/e3e3e3e3e3e3e3e3"]
    );
    let subscriptions = "capstan events subscriptions";
    assert_eq!(ids(&format!("{subscriptions} confirm ac")), ["acme/s1", "acme/web/s2"]);
    let types = ["role_binding.created", "role_binding.updated", "role_binding.deleted"];
    assert_eq!(ids(&format!("{subscriptions} create --type role_binding.")), types);
    assert_eq!(ids("capstan events tail --type policy.u"), ["policy.updated"]);
    assert_eq!(ids("capstan events tail --parent o"), ["other"]);
    let create = "capstan auth pull-token create";
    assert_eq!(ids(&format!("{create} --role acme/")), ["acme/puller"]);
    assert_eq!(ids(&format!("{create} --group o")), ["other"]);
    // The formats of this command, and not those that only others write.
    let formats = ["table", "json", "env", "docker", "pip", "npm", "maven", "apk"];
    assert_eq!(ids(&format!("{create} --output ")), formats);
}
