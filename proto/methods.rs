//! Every method of the schema, made from its descriptors when this crate is built.

/// A method of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// The path of its HTTP requests: `/package.Service/Method`.
    pub path: &'static str,
    /// Its own name.
    pub name: &'static str,
    /// Whether requests or responses are streams.
    pub streams: bool,
    /// Whether its responses are decisions, each with a reason.
    pub decides: bool,
}

/// The methods, service by service, in the order of the schema's files.
pub const METHODS: &[Method] = &include!(concat!(env!("OUT_DIR"), "/methods.rs"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_the_schema_says() {
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
