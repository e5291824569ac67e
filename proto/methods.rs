//! The table of the schema's methods. The build script generates it from the descriptors.

/// A method of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// The HTTP path: `/package.Service/Method`.
    pub path: &'static str,
    /// The method's name, without package and service.
    pub name: &'static str,
    /// The name in metrics and logs, unique among all methods: `name`, after `iam.` if the package is
    /// `capstan.iam.v1`.
    pub label: &'static str,
    /// Whether requests or responses are streamed.
    pub streams: bool,
    /// Whether its responses are decisions: they have a `Reason`.
    pub decides: bool,
    /// Who may call it.
    pub access: Access,
    /// Whether it changes the policy.
    pub writes: bool,
}

/// Who may call a method: its option `capstan.iam.v1.authorization`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody who is let in.
    Open,
    /// The operator only.
    Operator,
    /// Everybody who is identified. The response has the objects where the caller holds these capabilities.
    Narrowed(&'static [&'static str]),
    /// Who holds the capabilities at the path in the field.
    At(Needed),
    /// Who holds the capabilities at the parent of the path in the field.
    AtParentOf(Needed),
}

/// The capabilities that a method needs, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needed {
    /// All of these. `TYPE.list` and the like stand for a capability of the resource's type.
    pub capabilities: &'static [&'static str],
    /// The field of the request with the path, such as `group.id`.
    pub field: &'static str,
}

/// All methods, by service, in order of the schema's files.
pub const METHODS: &[Method] = &include!(concat!(env!("OUT_DIR"), "/methods.rs"));

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn the_table_agrees_with_the_schema() {
        let find = |path| METHODS.iter().find(|method| method.path == path).unwrap();
        let named = |test: fn(&Method) -> bool| {
            METHODS.iter().filter(|it| test(it)).map(|it| it.name).collect::<Vec<_>>()
        };
        let roles = find("/capstan.iam.v1.RoleService/ListRoles");
        assert_eq!((roles.name, roles.label, roles.writes), ("ListRoles", "iam.ListRoles", false));
        assert_eq!(roles.access, Access::Narrowed(&["roles.list"]));
        let needed = Needed { capabilities: &["groups.update"], field: "group.id" };
        let update = find("/capstan.iam.v1.GroupService/UpdateGroup");
        assert_eq!((update.access, update.writes), (Access::At(needed), true));
        assert_eq!(
            named(|method| method.streams),
            ["StreamCheck", "Export", "Import", "Watch", "Backup"]
        );
        let decide = ["Check", "BatchCheck", "StreamCheck", "Explain"];
        assert_eq!(named(|method| method.decides), decide);
        assert_eq!(
            named(|method| method.access == Access::Operator),
            ["Import", "Backup", "SetCatalog"]
        );
    }

    /// A method that takes a request id changes something, and every change can be rehearsed.
    #[test]
    fn methods_that_write_say_so() {
        let set = prost_types::FileDescriptorSet::decode(crate::DESCRIPTOR_SET).unwrap();
        let mut writes = 0;
        for file in set.file.iter().filter(|file| file.package().starts_with("capstan.")) {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    let input = method.input_type().rsplit('.').next().unwrap();
                    let message = file.message_type.iter().find(|it| it.name() == input).unwrap();
                    let has = |field| message.field.iter().any(|it| it.name() == field);
                    let rehearsed = has("validate_only") || has("dry_run");
                    let entry = METHODS.iter().find(|entry| entry.path == path).unwrap();
                    assert_eq!(entry.writes, rehearsed, "{path}");
                    assert_eq!(has("request_id"), has("validate_only"), "{path}");
                    writes += usize::from(entry.writes);
                }
            }
        }
        assert_eq!(writes, 39);
    }
}
