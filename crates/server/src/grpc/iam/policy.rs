//! `PolicyService` and `AuditService`.

use std::pin::Pin;

use capstan_proto::iam::v1;
use capstan_proto::iam::v1::audit_service_server::AuditService;
use capstan_proto::iam::v1::policy_service_server::PolicyService;
use futures_util::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::service::Iam;
use crate::RequestError;
