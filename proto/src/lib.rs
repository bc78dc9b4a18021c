//! The gRPC interface of Wardline: generated messages, client and server, and documents of their
//! shape.

pub mod audit;
pub mod backup;
pub mod decoded;
pub mod document;
pub mod letters;
#[cfg(test)]
mod page;
pub mod parts;
mod render;
pub mod time;
mod tree;

/// Package `wardline.v1`.
pub mod v1 {
    #![expect(
        unused_qualifications,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        reason = "generated: full paths throughout, and the generator's own attributes"
    )]
    tonic::include_proto!("wardline.v1");
}

/// The encoded `FileDescriptorSet` of the interface and all that it imports.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/wardline.bin"));
