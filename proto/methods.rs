//! The table of the schema's methods. The build script generates it from the descriptors.

/// A method of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// The HTTP path: `/package.Service/Method`.
    pub path: &'static str,
    /// The method's name, without package and service.
    pub name: &'static str,
    /// Whether requests or responses are streamed.
    pub streams: bool,
    /// Whether its responses are decisions: they have a `Reason`.
    pub decides: bool,
}

/// All methods, by service, in order of the schema's files.
pub const METHODS: &[Method] = &include!(concat!(env!("OUT_DIR"), "/methods.rs"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_agrees_with_the_schema() {
        let find = |path| METHODS.iter().find(|method| method.path == path).unwrap();
        let named = |test: fn(&Method) -> bool| {
            METHODS.iter().filter(|it| test(it)).map(|it| it.name).collect::<Vec<_>>()
        };
        assert_eq!(find("/capstan.v1.RoleService/ListRoles").name, "ListRoles");
        assert_eq!(named(|method| method.streams), ["StreamCheck"]);
        let decide = ["Check", "BatchCheck", "StreamCheck", "Explain"];
        assert_eq!(named(|method| method.decides), decide);
    }
}
