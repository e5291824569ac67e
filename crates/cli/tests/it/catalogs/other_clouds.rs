//! Catalogs with the permission names of other clouds: GCP's dots, Azure's slashes, AWS's colons.

use capstan_proto::v1;
use serde_json::{Value, json};
use tonic::Code;

use super::{decisions, serve};
use crate::common::{capstan, folder, stderr, stdout};

/// A catalog of each form, with its capabilities.
fn clouds() -> [(&'static str, Value, Vec<&'static str>); 3] {
    let roles = |all: &[&str]| json!([{"name": "reader", "capabilities": [all[0]]}, {"name": "admin", "capabilities": all}]);
    let gcp =
        vec!["compute.instances.get", "compute.instances.setIamPolicy", "storage.buckets.list"];
    let azure = vec![
        "Microsoft.Compute/virtualMachines/read",
        "Microsoft.Compute/virtualMachines/start/action",
        "Microsoft.Storage/storageAccounts/blobServices/containers/read",
    ];
    let aws = vec!["s3:GetObject", "ec2:DescribeInstances", "execute-api:Invoke"];
    [
        (
            "gcp",
            json!({"name": "gcp", "roles": roles(&gcp), "resources": [
                {"name": "compute.instances", "actions": ["get", "setIamPolicy"]},
                {"name": "storage.buckets", "actions": ["list"]},
            ]}),
            gcp,
        ),
        (
            "azure",
            json!({"name": "azure", "roles": roles(&azure), "resources": [{"name": "Microsoft", "actions": [
                "Compute/virtualMachines/read",
                "Compute/virtualMachines/start/action",
                "Storage/storageAccounts/blobServices/containers/read",
            ]}]}),
            azure,
        ),
        ("aws", json!({"name": "aws", "roles": roles(&aws), "capabilities": aws}), aws),
    ]
}

#[tokio::test]
async fn permissions_of_other_clouds_are_asked_listed_and_searched() {
    for (name, catalog, capabilities) in clouds() {
        let policy = json!({
            "version": 1, "catalog": catalog, "groups": [{"id": "acme"}],
            "identities": [{"id": "reader"}, {"id": "admin"}],
            "role_bindings": [
                {"identity": "reader", "role": "reader", "scope": "acme"},
                {"identity": "admin", "role": "admin", "scope": "acme"},
            ],
        });
        let server = serve(&format!("clouds-{name}"), &policy).await;
        let names: Vec<String> = capabilities.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(decisions(&server, "reader", &names).await, [true, false, false], "{name}");
        assert_eq!(decisions(&server, "admin", &names).await, [true, true, true], "{name}");
        let mut client = server.decisions();
        let request = v1::ListCapabilitiesRequest {
            identity: "admin".into(),
            resource: "acme/x".into(),
            ..Default::default()
        };
        let mut sorted = names.clone();
        sorted.sort();
        let listed = client.list_capabilities(request).await.unwrap().into_inner();
        assert_eq!(listed.capabilities, sorted);
        for (capability, wanted) in
            names.iter().zip([vec!["admin", "reader"], vec!["admin"], vec!["admin"]])
        {
            let request = v1::ListIdentitiesRequest {
                capability: capability.clone(),
                resource: "acme/x".into(),
                ..Default::default()
            };
            let found = client.list_identities(request).await.unwrap().into_inner();
            assert_eq!(found.identities, wanted, "{capability}");
            let request = v1::ListScopesRequest {
                identity: "admin".into(),
                capability: capability.clone(),
                ..Default::default()
            };
            let found = client.list_scopes(request).await.unwrap().into_inner();
            assert_eq!(found.scopes.iter().map(|it| &*it.scope).collect::<Vec<_>>(), ["acme"]);
        }
        let request = v1::CheckRequest {
            identity: "admin".into(),
            capability: format!("{}x", names[0]),
            resource: "acme".into(),
            ..Default::default()
        };
        assert_eq!(client.check(request).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[test]
fn catalogs_of_other_clouds_are_files() {
    let folder = folder("clouds-files");
    for (name, catalog, capabilities) in clouds() {
        let file = folder.join(format!("{name}.json"));
        std::fs::write(&file, catalog.to_string()).unwrap();
        let output = capstan(&["roles", "list", "--catalog", file.to_str().unwrap(), "-o", "json"]);
        assert!(output.status.success(), "{}", stderr(&output));
        let list: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(list["catalog"], name);
        let held = list["roles"].as_array().unwrap().iter().find(|role| role["name"] == "admin");
        assert_eq!(held.unwrap()["capabilities"].as_array().unwrap().len(), capabilities.len());
    }
    // Names of roles and of catalogs have neither slashes nor colons.
    for wrong in [
        json!({"name": "a/b"}),
        json!({"name": "c", "roles": [{"name": "a:b", "capabilities": []}]}),
        json!({"name": "c", "capabilities": ["s3:"]}),
        json!({"name": "c", "resources": [{"name": "/a", "actions": []}]}),
    ] {
        let file = folder.join("wrong.json");
        std::fs::write(&file, wrong.to_string()).unwrap();
        let output = capstan(&["roles", "list", "--catalog", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{wrong}");
    }
}
