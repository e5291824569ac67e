//! Positions of subscriptions: where they begin, and what is kept when they begin anew.

use capstan_testkit::managed::operations as make;

use super::*;
use crate::feed::position::Position;

fn position(running: &Running, id: &str) -> Option<Position> {
    let view = running.published.current().unwrap().view().unwrap();
    let value = view.get(&Position::key(path(id).as_path())).unwrap();
    value.map(|value| Position::decode(&value).unwrap())
}

fn set_disabled(id: &str, disabled: bool) -> Operation {
    make::resubscribe(id, |update| update.disabled = Some(disabled))
}

#[tokio::test]
async fn one_that_is_enabled_again_begins_anew_at_the_rate_of_its_sink() {
    let journal = acme().await;
    let running = start(&journal).await;
    let new = capstan_iam::CreateSubscription {
        id: Some(path("acme/hook")),
        ..make::new_subscription("acme", "https://hooks.example/acme")
    };
    running.as_alice(Operation::CreateSubscription(new)).await;
    let first = position(&running, "acme/hook").unwrap();
    assert_eq!(first, Position::beginning(first.created, first.next));
    let slow = Position { attempts: 2, event: 1, interval_millis: 500, ..first };
    running.writes.positions(vec![(path("acme/hook"), slow)]);
    // What comes behind it in the queue is answered after it.
    running.as_alice(set_disabled("acme/hook", true)).await;
    assert_eq!(position(&running, "acme/hook"), Some(slow));
    running.as_alice(create("acme/x")).await;
    running.as_alice(set_disabled("acme/hook", false)).await;
    let again = position(&running, "acme/hook").unwrap();
    assert!(again.next > slow.next, "{again:?}");
    let begun = Position::beginning(first.created, again.next);
    assert_eq!(again, Position { interval_millis: 500, ..begun });
    running.as_alice(make::unsubscribe("acme/hook")).await;
    assert_eq!(position(&running, "acme/hook"), None);
}
