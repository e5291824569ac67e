//! The questions over gRPC.

use std::collections::BTreeSet;

use capstan_proto::v1;
use capstan_testkit::generate::Question;
use proptest::prelude::*;
use tonic::{Code, Response, Status};

use super::{
    Answers, capabilities_request, check_request, explain_request, identities_request,
    scopes_request,
};
use crate::common::InProcess;
use crate::raw::reason;

/// Small, so that most lists have several pages.
const PAGE_SIZE: i32 = 2;

pub(super) async fn answers(server: &InProcess, question: &Question) -> Answers {
    let mut decisions = server.decisions();
    let capabilities = decisions.list_capabilities(capabilities_request(question)).await;
    let who = identities_request(question, PAGE_SIZE);
    let places = scopes_request(question, PAGE_SIZE);
    let plain_identities = identities(server, who.clone()).await;
    let plain_scopes = scopes(server, places.clone()).await;
    let of_identities =
        identities(server, v1::ListIdentitiesRequest { include_conditional: true, ..who }).await;
    let of_scopes =
        scopes(server, v1::ListScopesRequest { include_conditional: true, ..places }).await;
    // Without the field nothing is conditional; with it the other entries are the same.
    assert_eq!(plain_identities, of_identities.clone().map(|(all, _)| (all, vec![])));
    assert_eq!(plain_scopes, of_scopes.clone().map(|(all, _)| (all, vec![])));
    Answers {
        check: answer(decisions.check(check_request(question)).await),
        capabilities: capabilities.unwrap().into_inner(),
        identities: plain_identities.map(|(all, _)| all),
        conditional_identities: of_identities.map(|(_, conditional)| conditional),
        scopes: plain_scopes.map(|(all, _)| all),
        conditional_scopes: of_scopes.map(|(_, conditional)| conditional),
        explanation: answer(decisions.explain(explain_request(question)).await),
    }
}

/// The response, or the text of the only possible error of a well-formed question.
fn answer<T>(answer: Result<Response<T>, Status>) -> Result<T, String> {
    answer.map(Response::into_inner).map_err(|status| {
        let found = (status.code(), &*reason(&status));
        assert_eq!(found, (Code::InvalidArgument, "INVALID_FIELD"), "{status}");
        status.message().to_owned()
    })
}

/// The identities of all pages, and the conditional ones.
async fn identities(
    server: &InProcess,
    mut request: v1::ListIdentitiesRequest,
) -> Result<(Vec<String>, Vec<v1::ConditionalIdentity>), String> {
    let (mut all, mut conditional) = (Vec::new(), Vec::new());
    loop {
        let page = answer(server.decisions().list_identities(request.clone()).await)?;
        let entries = page.identities.len() + page.conditional.len();
        assert!(i32::try_from(entries).unwrap() <= PAGE_SIZE, "{page:?}");
        all.extend(page.identities);
        conditional.extend(page.conditional);
        if page.next_page_token.is_empty() {
            return Ok((all, conditional));
        }
        request.page_token = page.next_page_token;
    }
}

/// The scopes of all pages, and the conditional ones.
async fn scopes(
    server: &InProcess,
    mut request: v1::ListScopesRequest,
) -> Result<(Vec<v1::ScopeResult>, Vec<v1::ConditionalScope>), String> {
    let (mut all, mut conditional) = (Vec::new(), Vec::new());
    loop {
        let page = answer(server.decisions().list_scopes(request.clone()).await)?;
        let scopes: BTreeSet<_> = page.scopes.iter().map(|found| &found.scope).collect();
        let others = page.conditional.iter().filter(|found| !scopes.contains(&found.scope));
        let entries = scopes.len() + others.count();
        assert!(i32::try_from(entries).unwrap() <= PAGE_SIZE, "{page:?}");
        all.extend(page.scopes);
        conditional.extend(page.conditional);
        if page.next_page_token.is_empty() {
            return Ok((all, conditional));
        }
        request.page_token = page.next_page_token;
    }
}

/// Sends all questions in one batch, and in a stream of batches. The results are those of Check, in order.
pub(super) async fn batches_answer(
    server: &InProcess,
    questions: &[Question],
    checks: &[Result<v1::CheckResponse, String>],
) -> Result<(), TestCaseError> {
    let expected: Vec<_> = checks.iter().map(result).collect();
    let mut decisions = server.decisions();
    let whole = decisions.batch_check(batch(questions)).await.unwrap().into_inner();
    prop_assert_eq!(whole.revision, 1);
    prop_assert_eq!(&whole.results, &expected);

    // Batches of 3, 3 and 2, and an empty one.
    let batches: Vec<_> = questions.chunks(3).chain([&[][..]]).map(batch).collect();
    let lengths: Vec<_> = batches.iter().map(|batch| batch.checks.len()).collect();
    let answers = decisions.stream_check(tokio_stream::iter(batches)).await;
    let mut answers = answers.unwrap().into_inner();
    let (mut found, mut found_lengths) = (Vec::new(), Vec::new());
    while let Some(answer) = answers.message().await.unwrap() {
        prop_assert_eq!(answer.revision, 1);
        found_lengths.push(answer.results.len());
        found.extend(answer.results);
    }
    prop_assert_eq!(found_lengths, lengths);
    prop_assert_eq!(found, expected);
    Ok(())
}

fn batch(questions: &[Question]) -> v1::BatchCheckRequest {
    let item = |question: &Question| {
        let v1::CheckRequest { identity, capability, resource, properties, .. } =
            check_request(question);
        v1::CheckItem { identity, capability, resource, properties }
    };
    v1::BatchCheckRequest { checks: questions.iter().map(item).collect(), consistency: None }
}

/// The batch result that corresponds to an answer of Check.
fn result(check: &Result<v1::CheckResponse, String>) -> v1::CheckResult {
    match check {
        Ok(v1::CheckResponse { allowed, reason, valid_until, .. }) => v1::CheckResult {
            allowed: *allowed,
            reason: *reason,
            error: None,
            valid_until: *valid_until,
        },
        Err(message) => v1::CheckResult {
            error: Some(v1::ItemError {
                code: Code::InvalidArgument.into(),
                reason: "INVALID_FIELD".into(),
                message: message.clone(),
            }),
            ..Default::default()
        },
    }
}
