//! A report as JUnit XML: a suite a file, a case a test.

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

use super::{Report, TestResult};

/// # Errors
///
/// The report has characters that XML cannot have.
pub(super) fn of(report: &Report) -> anyhow::Result<String> {
    let mut all = quick_junit::Report::new("capstan policy test");
    for tests in report.tests.chunk_by(|one, next| one.file == next.file) {
        let mut suite = TestSuite::new(tests.first().map_or("", |test| &test.file));
        suite.add_test_cases(tests.iter().map(case));
        all.add_test_suite(suite);
    }
    Ok(all.to_string()?)
}

fn case(test: &TestResult) -> TestCase {
    let TestResult { file, line, question, passed, expected, actual, reason } = test;
    let mut status = TestCaseStatus::success();
    if !passed {
        let reason = reason.filter(|reason| !actual.contains(reason));
        let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        status.set_message(format!("expected {expected}, got {actual}{reason}"));
    }
    let mut case = TestCase::new(question.as_str(), status);
    case.set_classname(format!("{file}:{line}"));
    case
}
