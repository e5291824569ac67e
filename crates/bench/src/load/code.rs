//! The names under which errors are counted: those of gRPC's status codes, and [`TRANSPORT`].

use capstan_server::telemetry::metrics::CODES;
use tonic::Code;

/// The name of an error: that of a gRPC status code, such as `UNAVAILABLE`, or `TRANSPORT` if
/// no status arrived.
pub type ErrorName = &'static str;

/// No gRPC status arrived: the connection broke or could not be opened.
pub(crate) const TRANSPORT: ErrorName = "TRANSPORT";

/// The name of a status code.
pub(crate) fn name(code: Code) -> ErrorName {
    usize::try_from(i32::from(code)).ok().and_then(|at| CODES.get(at)).copied().unwrap_or(TRANSPORT)
}

/// The name of a status code by its number; that of `UNKNOWN` for a number that gRPC does not define.
pub(crate) fn name_of(number: i32) -> ErrorName {
    name(Code::from_i32(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_grpc() {
        assert_eq!(name_of(3), "INVALID_ARGUMENT");
        assert_eq!(name(Code::Unauthenticated), "UNAUTHENTICATED");
        assert_eq!([name_of(-1), name_of(17)], ["UNKNOWN"; 2]);
    }
}
