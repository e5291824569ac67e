//! The way in of Envoy: external authorization, and the routes that say what a request needs.

pub(crate) mod answer;
pub mod ext_authz;
mod request;
pub mod routes;
