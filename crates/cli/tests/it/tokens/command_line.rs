//! `capstan auth whoami`, and `--token-file` of the commands that manage a store.

use std::process::Output;

use serde_json::Value;

use super::World;
use crate::common::{capstan, stderr, stdout};

fn file(world: &World, name: &str, text: &str) -> String {
    let path = world.folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn run(world: &World, arguments: &[&str]) -> Output {
    let addr = format!("http://{}", world.server.address("grpc"));
    capstan(&[arguments, &["--addr", &addr]].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_calls_with_the_token_of_a_file() {
    let world = World::start().await;
    let ann = file(&world, "ann.token", &format!("{}\n", world.people.sign(&world.of_ann())));
    let bot = file(&world, "bot.token", &world.bot.sign(&world.of_bot()));
    let whoami = run(&world, &["auth", "whoami", "--token-file", &ann]);
    let said = stdout(&whoami);
    assert!(whoami.status.success(), "{}", stderr(&whoami));
    for text in [&*world.ann, "token", "acme", "groups"] {
        assert!(said.contains(text), "{text}: {said}");
    }
    let json =
        run(&world, &["auth", "whoami", "--token-file", &bot, "--as", "acme/bot", "-o", "json"]);
    let json: Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!((&json["identity"], &json["authentication"]), (&"acme/bot".into(), &"token".into()));
    assert_eq!(json["scopes"][0]["scope"], "acme");
    assert!(json["expires_at"].is_string(), "{json}");
    let listed = run(&world, &["iam", "folders", "list", "--parent", "acme", "--token-file", &ann]);
    assert!(listed.status.success(), "{}", stderr(&listed));
    let refused =
        run(&world, &["iam", "folders", "create", "x", "--parent", "acme", "--token-file", &ann]);
    assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
    // The operator is who the socket says.
    let socket = world.server.address("management");
    let operator = capstan(&["auth", "whoami", "--addr", &socket]);
    assert!(stdout(&operator).contains("the operator"), "{}", stderr(&operator));
    let both = capstan(&["auth", "whoami", "--addr", &socket, "--token-file", &ann]);
    assert!(stderr(&both).contains("leave it out"), "{}", stderr(&both));
    // What a caller gets wrong.
    let empty = file(&world, "empty.token", "\n");
    let wrong = file(&world, "wrong.token", "a.b.c");
    let absent = world.folder.path().join("absent.token").display().to_string();
    for (token, said) in
        [(&empty, "expected one token"), (&absent, "absent.token"), (&wrong, "AUTHN_FAILED")]
    {
        let refused = run(&world, &["auth", "whoami", "--token-file", token]);
        assert_eq!(refused.status.code(), Some(2));
        assert!(stderr(&refused).contains(said), "{}", stderr(&refused));
    }
    let nobody = run(&world, &["auth", "whoami"]);
    assert!(stderr(&nobody).contains("--token-file"), "{}", stderr(&nobody));
    // In plain text to another machine nothing is sent.
    let far = capstan(&["auth", "whoami", "--token-file", &ann, "--addr", "http://192.0.2.1:4480"]);
    assert!(stderr(&far).contains("ask https://192.0.2.1:4480"), "{}", stderr(&far));
}

/// The audit log says how a caller was proved, and holds no credential.
#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_says_how_a_caller_was_proved() {
    let world = World::start().await;
    let token = world.ci.sign(&world.of_ci());
    let ci = file(&world, "ci.token", &token);
    let made = run(
        &world,
        &[
            "iam",
            "folders",
            "create",
            "built",
            "--parent",
            "acme",
            "--as",
            "acme/ci",
            "--token-file",
            &ci,
        ],
    );
    assert!(made.status.success(), "{}", stderr(&made));
    let addr = world.server.address("management");
    let records = capstan(&["audit", "list", "--parent", "acme", "-o", "json", "--addr", &addr]);
    let text = stdout(&records);
    let records: Value = serde_json::from_str(&text).unwrap();
    let records = records["audit_records"].as_array().unwrap();
    let record = records.iter().find(|record| record["object"] == "acme/built").unwrap();
    assert_eq!((&record["actor"], &record["authentication"]), (&"acme/ci".into(), &"token".into()));
    assert!(!text.contains(&token));
}
