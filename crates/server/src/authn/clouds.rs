//! Whether a token is one that a cloud has made for an account.
//!
//! | cloud | issuer | claims |
//! |---|---|---|
//! | AWS, IAM outbound identity federation | `https://ID.tokens.sts.global.api.aws` | `aws_account` in `https://sts.amazonaws.com/` |
//! | Google, ID tokens of instances and service accounts | `https://accounts.google.com` | `google.compute_engine`, or the verified address of a service account |
//! | Azure, access tokens of applications | `https://login.microsoftonline.com/TENANT/v2.0`, `https://sts.windows.net/TENANT/` | `tid`, `azp` or `appid`; not of people |
//! | GitHub Actions | `https://token.actions.githubusercontent.com` | `repository_owner` |
//!
//! **Invariants**: an issuer is compared as a whole, or, at AWS, is one label before a fixed name: nobody else has one like that.
//! A claim that is absent or of another type matches nothing. A person of an account is not its account.

use capstan_iam::{Accounts, Aws, Azure, Github, Google};
use serde_json::Value;

use super::token::Claims;

const AWS_CLAIMS: &str = "https://sts.amazonaws.com/";

/// Whether a token is of one of these accounts.
pub(crate) fn is_of(claims: &Claims, accounts: &Accounts) -> bool {
    let Accounts { aws, google, azure, github } = accounts;
    aws.as_ref().is_some_and(|aws| is_of_aws(claims, aws))
        || google.as_ref().is_some_and(|google| is_of_google(claims, google))
        || azure.as_ref().is_some_and(|azure| is_of_azure(claims, azure))
        || github.as_ref().is_some_and(|github| is_of_github(claims, github))
}

fn text<'c>(claims: &'c Claims, name: &str) -> Option<&'c str> {
    claims.all.get(name).and_then(Value::as_str)
}

fn is_of_aws(claims: &Claims, aws: &Aws) -> bool {
    let account = claims.all.get(AWS_CLAIMS).and_then(|all| all.get("aws_account"));
    Aws::issues(&claims.issuer) && account.and_then(Value::as_str) == Some(&aws.account)
}

fn is_of_google(claims: &Claims, google: &Google) -> bool {
    if !Google::issues(&claims.issuer) {
        return false;
    }
    let instance = claims.all.get("google").and_then(|all| all.get("compute_engine"));
    if let Some(instance) = instance {
        let project = instance.get("project_id").and_then(Value::as_str);
        let number = instance.get("project_number").and_then(Value::as_u64);
        let is_number = google.project_number.is_empty()
            || number.is_some_and(|number| number.to_string() == google.project_number);
        return project == Some(&google.project_id) && is_number;
    }
    let of_project = format!("@{}.iam.gserviceaccount.com", google.project_id);
    claims.verified_email().is_some_and(|email| email.ends_with(&of_project))
}

fn is_of_azure(claims: &Claims, azure: &Azure) -> bool {
    let Azure { tenant_id, client_ids } = azure;
    let application = text(claims, "azp").or_else(|| text(claims, "appid"));
    // Of an application itself the subject is the object. A person who uses the application has a subject of its own.
    let is_application = text(claims, "oid") == Some(&claims.subject)
        && text(claims, "idtyp").is_none_or(|kind| kind == "app");
    azure.issues(&claims.issuer)
        && text(claims, "tid") == Some(tenant_id)
        && is_application
        && application.is_some_and(|one| client_ids.iter().any(|id| id == one))
}

/// Logins are the same in upper and lower case.
fn is_of_github(claims: &Claims, github: &Github) -> bool {
    let owner = text(claims, "repository_owner");
    let is_installed =
        |owner: &str| github.installations.keys().any(|login| login.eq_ignore_ascii_case(owner));
    Github::issues(&claims.issuer) && owner.is_some_and(is_installed)
}

#[cfg(test)]
mod tests {
    use capstan_engine::Timestamp;
    use serde_json::json;

    use super::*;

    const GOOGLE_ISSUER: &str = "https://accounts.google.com";
    const GITHUB_ISSUER: &str = "https://token.actions.githubusercontent.com";
    const TENANT: &str = "01234567-89ab-cdef-0123-456789abcdef";
    const CLIENT: &str = "11111111-89ab-cdef-0123-456789abcdef";

    fn accounts() -> Accounts {
        Accounts {
            aws: Some(Aws { account: "012345678901".into() }),
            google: Some(Google { project_id: "acme-prod".into(), project_number: "77".into() }),
            azure: Some(Azure { tenant_id: TENANT.into(), client_ids: vec![CLIENT.into()] }),
            github: Some(Github { installations: [("Acme".to_owned(), 7)].into() }),
        }
    }

    fn claims(all: &Value) -> Claims {
        let text = |name: &str| all[name].as_str().unwrap_or("s").to_owned();
        Claims {
            issuer: text("iss"),
            subject: text("sub"),
            audiences: vec!["c".into()],
            expires_at: Timestamp::new(2, 0),
            all: all.as_object().unwrap().clone(),
        }
    }

    fn is(all: &Value) -> bool {
        is_of(&claims(all), &accounts())
    }

    /// Each of the changes makes it another account's.
    fn only_as_it_is(token: &Value, changes: &[(&str, Value)]) {
        assert!(is(token), "{token}");
        assert!(!is_of(&claims(token), &Accounts::default()));
        for (name, value) in changes {
            let mut other = token.clone();
            other[*name] = value.clone();
            assert!(!is(&other), "{name}: {value}");
        }
    }

    #[test]
    fn an_account_is_what_its_cloud_says() {
        let account = |account: &str| json!({"aws_account": account, "org_id": "o-1"});
        let token = json!({
            "iss": "https://abc-123.tokens.sts.global.api.aws",
            "https://sts.amazonaws.com/": account("012345678901"),
        });
        only_as_it_is(
            &token,
            &[
                ("https://sts.amazonaws.com/", account("012345678902")),
                ("https://sts.amazonaws.com/", json!("012345678901")),
                ("iss", json!("https://tokens.sts.global.api.aws")),
                ("iss", json!("https://.tokens.sts.global.api.aws")),
                ("iss", json!("https://evil.example/.tokens.sts.global.api.aws")),
                ("iss", json!("https://a.b.tokens.sts.global.api.aws")),
                ("iss", json!("https://abc.tokens.sts.global.api.aws.example")),
                ("iss", json!("http://abc-123.tokens.sts.global.api.aws")),
            ],
        );
        let instance = |id: &str, number: Value| json!({"compute_engine": {"project_id": id, "project_number": number}});
        let token = json!({"iss": GOOGLE_ISSUER, "google": instance("acme-prod", json!(77))});
        only_as_it_is(
            &token,
            &[
                ("google", instance("acme-prod", json!(78))),
                ("google", instance("acme-prod", json!("77"))),
                ("google", instance("acme-test", json!(77))),
                ("iss", json!("accounts.google.com")),
            ],
        );
        let email = "ci@acme-prod.iam.gserviceaccount.com";
        let token = json!({"iss": GOOGLE_ISSUER, "email": email, "email_verified": true});
        only_as_it_is(
            &token,
            &[
                ("email_verified", json!("true")),
                ("email", json!("ci@other-acme-prod.iam.gserviceaccount.com")),
                ("email", json!("ci@acme-prod.iam.gserviceaccount.com.example.com")),
                ("google", instance("other-project", json!(77))),
            ],
        );
        let token = json!({
            "iss": format!("https://login.microsoftonline.com/{TENANT}/v2.0"), "tid": TENANT, "azp": CLIENT,
            "oid": "o", "sub": "o",
        });
        only_as_it_is(
            &token,
            &[
                ("sub", json!("a person's")),
                ("idtyp", json!("user")),
                ("azp", json!(TENANT)),
                ("tid", json!(CLIENT)),
                ("iss", json!(format!("https://login.microsoftonline.com/{CLIENT}/v2.0"))),
                ("iss", json!(format!("https://sts.windows.net/{TENANT}"))),
            ],
        );
        let mut first = token;
        first["iss"] = json!(format!("https://sts.windows.net/{TENANT}/"));
        first.as_object_mut().unwrap().remove("azp");
        first["appid"] = json!(CLIENT);
        assert!(is(&first));
        let token = json!({"iss": GITHUB_ISSUER, "repository_owner": "acme"});
        only_as_it_is(
            &token,
            &[
                ("repository_owner", json!("acme2")),
                ("repository_owner", json!(["acme"])),
                ("iss", json!("https://token.actions.githubusercontent.com/acme")),
            ],
        );
    }
}
