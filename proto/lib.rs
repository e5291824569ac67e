//! The schema of Capstan: generated messages and services, how their bytes are read, and the descriptor
//! set.
//!
//! The `.proto` files beside this one are the source; clients in other languages generate their own
//! code from them. Fields are added, never changed: a golden test of the server holds them.

/// Package `capstan.v1`.
#[expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::clone_on_ref_ptr,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("capstan.v1");
}

/// The encoded `FileDescriptorSet` of every schema file and its imports, options kept, as gRPC
/// reflection and the schema test want it.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

pub mod codec;
pub mod contract;
pub mod frame;
pub mod methods;
pub mod plain;
