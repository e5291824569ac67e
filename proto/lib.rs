//! Capstan's schema: the generated messages and services, their codec, and the descriptor set.
//!
//! The `.proto` files in this directory are the source. Clients in other languages generate their
//! own code from them. Fields are added, never changed or reused; a golden test holds this.

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

/// Package `capstan.iam`.
pub mod iam {
    /// Package `capstan.iam.v1`.
    #[expect(
        missing_docs,
        clippy::allow_attributes,
        clippy::clone_on_ref_ptr,
        clippy::allow_attributes_without_reason,
        reason = "generated code"
    )]
    pub mod v1 {
        tonic::include_proto!("capstan.iam.v1");
    }
}

/// The encoded `FileDescriptorSet` of all schema files and their imports, with options and source
/// info. gRPC reflection and the schema test read it.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

pub mod codec;
pub mod contract;
pub mod frame;
pub mod methods;
pub mod plain;
