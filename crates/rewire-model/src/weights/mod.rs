//! The weights of a model: initialization, access by name, processing, and conversion to another
//! element type.

pub(crate) mod count;
pub(crate) mod init;
pub(crate) mod named;
pub(crate) mod precision;
pub(crate) mod processing;
pub(crate) mod weight_name;
