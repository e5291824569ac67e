//! The limits of a store that the operator sets with options of `capstan serve`.

use super::end_to_end::Store;
use crate::common::{capstan, stderr, stdout};

impl Store {
    /// Asserts that a command fails because a quota is used up.
    fn uses_up(&self, line: &[&str], quota: &str) {
        let output = self.run(line);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{line:?}: {text}");
        assert!(text.contains("QUOTA") && text.contains(quota), "{text}");
    }
}

const CREATE: [&str; 3] = ["iam", "folders", "create"];

#[test]
fn the_operator_sets_the_quotas() {
    let mut store = Store::start("manage-quotas");
    // There are the organization and its owner's binding.
    store.serve_with(&["--quota-organization-objects", "4", "--quota-caller-objects", "1"]);
    store.done(&[&CREATE[..], &["acme/a"]].concat());
    store.uses_up(&[&CREATE[..], &["acme/b"]].concat(), "caller `alice` has 1 objects");
    store.done(&[&["--operator"], &CREATE[..], &["acme/b"]].concat());
    let more = [&["--operator"], &CREATE[..], &["acme/c"]].concat();
    store.uses_up(&more, "organization `acme` has 4 objects");
    // Another one after a restart.
    store.serve_with(&["--quota-organization-objects", "5"]);
    store.done(&more);

    for (option, whose) in
        [("--quota-caller-changes", "`alice`"), ("--quota-organization-changes", "`acme`")]
    {
        store.serve_with(&[option, "1"]);
        // Of three changes two are in the same minute.
        let outputs = ["x", "y", "z"]
            .map(|name| store.run(&["iam", "folders", "update", "acme/a", "--name", name]));
        let texts = outputs.map(|output| stderr(&output)).concat();
        assert!(texts.contains(whose) && texts.contains("1 changes in this minute"), "{texts}");
    }
}

#[test]
fn the_operator_sets_how_many_audit_records_are_kept() {
    let mut store = Store::start("manage-retention");
    for at in 0..8 {
        store.done(&[&CREATE[..], &[&format!("acme/g{at}")]].concat());
    }
    let records = |store: &Store| {
        let log = store.done(&["audit", "list", "--parent", "acme", "--output", "json"]);
        log.matches("GroupService/CreateGroup").count()
    };
    assert_eq!(records(&store), 8);
    store.serve_with(&["--audit-records", "3"]);
    store.done(&[&CREATE[..], &["acme/last"]].concat());
    assert_eq!(records(&store), 3);
    store.stop();
    let verified = capstan(&["audit", "verify", "--data", &store.data()]);
    assert!(verified.status.success(), "{}{}", stdout(&verified), stderr(&verified));
}

#[test]
fn a_policy_file_has_no_quotas() {
    for option in [
        "--quota-organization-objects",
        "--quota-caller-objects",
        "--quota-organization-changes",
        "--quota-caller-changes",
        "--audit-records",
    ] {
        let refused = capstan(&["serve", "--policy", "no-such-file", option, "7"]);
        assert_eq!(refused.status.code(), Some(2));
        assert!(stderr(&refused).contains("cannot be used with"), "{}", stderr(&refused));
        let refused = capstan(&["serve", "--demo", option, "0"]);
        assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    }
}
