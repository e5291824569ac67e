//! The metadata of the decision point (Authorization API 1.0, section "Policy Decision Point Metadata").

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::routing::get;
use capstan_events::PublicUrl;
use serde_json::json;

use super::{EVALUATION, EVALUATIONS, SEARCH_ACTION, SEARCH_RESOURCE, SEARCH_SUBJECT};

const WELL_KNOWN: &str = "/.well-known/authzen-configuration";

/// Serves the metadata where clients look for it: the well-known path is inserted before the path of the URL.
pub(super) fn router(url: &PublicUrl) -> Router {
    let base = url.as_str();
    let at = |path: &str| format!("{base}{path}");
    let metadata = json!({
        "policy_decision_point": base,
        "access_evaluation_endpoint": at(EVALUATION),
        "access_evaluations_endpoint": at(EVALUATIONS),
        "search_subject_endpoint": at(SEARCH_SUBJECT),
        "search_resource_endpoint": at(SEARCH_RESOURCE),
        "search_action_endpoint": at(SEARCH_ACTION),
    });
    let metadata = metadata.to_string();
    let answer = move || {
        let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "public, max-age=300")];
        std::future::ready((headers, metadata.clone()))
    };
    Router::new().route(&format!("{WELL_KNOWN}{}", url.path()), get(answer))
}
