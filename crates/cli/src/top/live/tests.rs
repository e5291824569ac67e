//! The effects of keys and scrapes on the board.

use anyhow::anyhow;

use super::super::history::Curve;
use super::*;

fn sample(calls: u64) -> Sample {
    Sample::of(&format!("capstan_requests_total{{rpc=\"Check\",code=\"OK\"}} {calls}"))
}

fn board() -> Board {
    Board::new("http://pdp:4481", Duration::from_secs(1), false, sample(10))
}

fn press(board: &mut Board, code: KeyCode) -> ControlFlow<()> {
    board.pressed(KeyEvent::new(code, KeyModifiers::NONE))
}

fn typed(board: &mut Board, keys: &str) {
    for key in keys.chars() {
        assert!(press(board, KeyCode::Char(key)).is_continue(), "{key}");
    }
}

/// The displayed number of calls, and the number of one-second columns with a value.
fn shown(board: &Board) -> (u64, usize) {
    let Picture { view, live, .. } = board.picture();
    let columns = live.unwrap().history.columns(Curve::CallsPerSecond, 300);
    (view.all.calls.count, columns.iter().flatten().count())
}

#[test]
fn each_scrape_is_compared_with_the_one_before() {
    let mut board = board();
    assert_eq!(shown(&board), (10, 0), "not the total at first");
    let mut at = board.began;
    for (calls, expected) in [(15, (5, 1)), (15, (0, 2)), (18, (3, 3))] {
        at += Duration::from_secs(1);
        board.scraped(Ok(sample(calls)), at);
        assert_eq!(shown(&board), expected);
    }
}

#[test]
fn an_unreachable_server_is_reported_until_it_is_back() {
    let mut board = board();
    let mut at = board.began + Duration::from_secs(1);
    board.scraped(Ok(sample(11)), at);
    at += Duration::from_secs(1);
    board.scraped(Err(anyhow!("refused").context("cannot reach it")), at);
    assert_eq!(board.picture().live.unwrap().away, Some("refused"));
    assert_eq!(shown(&board), (1, 1), "the last values are not kept");
    at += Duration::from_secs(1);
    board.scraped(Ok(sample(13)), at);
    assert_eq!(board.picture().live.unwrap().away, None);
    assert_eq!(shown(&board), (2, 3), "calls of the failed scrape are lost");
    assert_eq!(board.picture().view.seconds, Some(2.0));
}

#[test]
fn a_pause_stops_the_display_and_not_the_measurement() {
    let mut board = board();
    typed(&mut board, "p");
    let mut at = board.began;
    for calls in [11, 13] {
        at += Duration::from_secs(1);
        board.scraped(Ok(sample(calls)), at);
        assert_eq!(shown(&board), (10, 0));
        assert!(board.picture().live.unwrap().paused);
    }
    typed(&mut board, " ");
    assert_eq!(shown(&board), (2, 2));
    assert!(!board.picture().live.unwrap().paused);
}

#[test]
fn the_interval_stays_within_its_limits() {
    let mut board = board();
    typed(&mut board, "+");
    assert_eq!(board.picture().live.unwrap().every, "2 s");
    typed(&mut board, &"=".repeat(20));
    assert_eq!(board.interval, TOP_INTERVAL_MAX);
    typed(&mut board, &"-".repeat(20));
    assert_eq!(board.interval, TOP_INTERVAL_MIN);
    assert_eq!(board.picture().live.unwrap().every, "0.1 s");
}

#[test]
fn any_key_closes_the_help_and_does_nothing_else() {
    let mut board = board();
    for key in ['p', 'q', '?', '+'] {
        typed(&mut board, "?");
        assert!(board.picture().live.unwrap().help);
        typed(&mut board, &key.to_string());
        let live = board.picture().live.unwrap();
        assert!(!live.help && !live.paused && live.every == "1 s", "{key}");
    }
}

#[test]
fn three_keys_quit() {
    let mut board = board();
    assert!(press(&mut board, KeyCode::Char('q')).is_break());
    assert!(press(&mut board, KeyCode::Esc).is_break());
    typed(&mut board, "cx?");
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert!(board.pressed(control_c).is_break(), "not while the help is open");
}
