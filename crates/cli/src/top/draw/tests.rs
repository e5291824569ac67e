//! Screens of sample views: the layout, and the omitted parts on small screens.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::super::sample::Sample;
use super::*;

const URL: &str = "http://127.0.0.1:4481";
const NOW: Timestamp = Timestamp::new(1_795_000_000, 0);

/// The metrics of a busy server after `hundreds` times 100 calls.
fn scrape(hundreds: u64) -> Sample {
    use std::fmt::Write as _;
    let mut text = String::new();
    for (rpc, code, per_hundred) in [
        ("BatchCheck", "OK", 10),
        ("Check", "OK", 85),
        ("Check", "INVALID_ARGUMENT", 3),
        ("Check", "RESOURCE_EXHAUSTED", 2),
        ("Explain", "OK", 0),
    ] {
        let calls = hundreds * per_hundred;
        let labels = format!("rpc=\"{rpc}\",code=\"{code}\"");
        writeln!(text, "capstan_requests_total{{{labels}}} {calls}").unwrap();
    }
    for (rpc, reason, per_hundred) in [
        ("BatchCheck", "GRANTED", 1_000),
        ("Check", "GRANTED", 60),
        ("Check", "UNKNOWN_IDENTITY", 1),
        ("Check", "EXPIRED", 0),
        ("Check", "CONDITION_NOT_MET", 4),
        ("Check", "CAPABILITY_NOT_IN_ROLE", 300),
        ("Check", "NO_BINDING", 20),
    ] {
        let decisions = hundreds * per_hundred;
        let labels = format!("rpc=\"{rpc}\",reason=\"{reason}\"");
        writeln!(text, "capstan_decision_reasons_total{{{labels}}} {decisions}").unwrap();
    }
    for (rpc, allowed, per_hundred) in
        [("BatchCheck", true, 1_000), ("Check", true, 60), ("Check", false, 325)]
    {
        let decisions = hundreds * per_hundred;
        let labels = format!("rpc=\"{rpc}\",allowed=\"{allowed}\"");
        writeln!(text, "capstan_decisions_total{{{labels}}} {decisions}").unwrap();
    }
    for (rpc, le, per_hundred) in [
        ("BatchCheck", "0.0001", 0),
        ("BatchCheck", "0.001", 9),
        ("BatchCheck", "+Inf", 10),
        ("Check", "0.000025", 80),
        ("Check", "0.0001", 90),
        ("Check", "0.001", 90),
        ("Check", "+Inf", 90),
    ] {
        let labels = format!("le=\"{le}\",rpc=\"{rpc}\"");
        let calls = hundreds * per_hundred;
        writeln!(text, "capstan_request_duration_seconds_bucket{{{labels}}} {calls}").unwrap();
    }
    text += "capstan_shed_total{scope=\"peer\"} 0\ncapstan_snapshot_revision 7\n\
             capstan_snapshot_identities 15\ncapstan_snapshot_role_bindings 17\n\
             capstan_in_flight 3\ncapstan_loads_total{outcome=\"applied\"} 7\n\
             capstan_last_load_timestamp_seconds{outcome=\"applied\"} 1794999700\n\
             capstan_load_duration_seconds 0.0021\n";
    Sample::of(&text)
}

fn second(hundreds: u64) -> View {
    View::between(&scrape(0), &scrape(hundreds), Duration::from_secs(1), NOW)
}

fn live(history: &History) -> Live<'_> {
    Live { history, every: "1 s".into(), paused: false, away: None, help: false }
}

/// A screen of this size, as text.
fn screen(width: u16, height: u16, picture: &Picture<'_>) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| frame.render_widget(picture, frame.area())).unwrap();
    let rows = terminal.backend().buffer().content().chunks(usize::from(width));
    let rows = rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>());
    rows.map(|row| format!("{}\n", row.trim_end())).collect()
}

fn busy() -> (View, History) {
    let mut history = History::default();
    for at in 1..=200 {
        // Values that rise and fall.
        history.add(&second(at % 40 + 5), Duration::from_secs(at));
    }
    (second(12), history)
}

#[test]
fn a_usual_screen() {
    let (view, history) = busy();
    let picture = Picture { view: &view, url: URL, live: Some(live(&history)), coloured: true };
    assert_eq!(screen(80, 24, &picture), USUAL.trim_start());
}

#[test]
fn a_screen_in_trouble() {
    let (mut view, history) = busy();
    view.state.panics = 1;
    view.state.loads.rejected = 2;
    view.state.loads.last_rejected = Some(Timestamp::new(1_795_000_000 - 7_200, 0));
    let mut live = live(&history);
    (live.paused, live.away) = (true, Some("connection refused"));
    let picture = Picture { view: &view, url: URL, live: Some(live), coloured: true };
    let text = screen(80, 5, &picture);
    assert_eq!(text, TROUBLE.trim_start());
    view.restarted = true;
    let picture = Picture { view: &view, url: URL, live: None, coloured: true };
    assert!(screen(80, 5, &picture).contains("\nthe server started anew: counted from zero\n"));
}

/// And in words, above everything else but a server that is away.
#[test]
fn a_refused_reload_is_loud() {
    let (mut view, history) = busy();
    let refused = "\nRELOAD REFUSED: the old policy is served, and the server's log says why\n";
    for (rejected, restarted, is_loud) in
        [(1_794_999_699, false, false), (1_794_999_701, false, true), (1_794_999_701, true, true)]
    {
        view.state.loads.last_rejected = Some(Timestamp::new(rejected, 0));
        view.restarted = restarted;
        for live in [None, Some(live(&history))] {
            let picture = Picture { view: &view, url: URL, live, coloured: true };
            assert_eq!(screen(80, 24, &picture).contains(refused), is_loud);
        }
    }
    let mut live = live(&history);
    live.away = Some("connection refused");
    let picture = Picture { view: &view, url: URL, live: Some(live), coloured: true };
    assert!(!screen(80, 24, &picture).contains(refused));
}

/// A rejected load after the last applied one is red, so that an operator notices it.
#[test]
fn a_stale_policy_is_red() {
    let (mut view, _) = busy();
    view.state.loads.rejected = 2;
    let mut red = |rejected: i64| {
        view.state.loads.last_rejected = Some(Timestamp::new(rejected, 0));
        let picture = Picture { view: &view, url: URL, live: None, coloured: true };
        let line = picture.loads(80);
        line.spans.iter().any(|span| span.style.fg == Some(Color::Red))
    };
    assert!(!red(1_794_999_699) && red(1_794_999_700) && red(1_794_999_701));
}

#[test]
fn small_screens_omit_the_least_important_parts() {
    let (view, history) = busy();
    let picture = Picture { view: &view, url: URL, live: Some(live(&history)), coloured: true };
    assert_eq!(screen(44, 24, &picture), NARROW.trim_start());
    assert_eq!(screen(80, 12, &picture), LOW.trim_start());
}

/// Screens of every size, with and without the help, are drawn without a panic.
#[test]
fn every_screen_size_can_be_drawn() {
    let (view, history) = busy();
    let sizes = [0, 1, 2, 4, 9, 16, 23, 40, 71, 72, 90];
    let sizes = sizes.into_iter().flat_map(|width| sizes.map(|height| (width, height)));
    for (width, height) in sizes {
        for help in [false, true] {
            let live = Live { help, ..live(&history) };
            let picture = Picture { view: &view, url: URL, live: Some(live), coloured: true };
            let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
            picture.render(buffer.area, &mut buffer);
        }
        text(&view, URL, width);
    }
}

#[test]
fn help_names_the_keys() {
    let (view, history) = busy();
    let live = Live { help: true, ..live(&history) };
    let picture = Picture { view: &view, url: URL, live: Some(live), coloured: false };
    let text = screen(80, 24, &picture);
    for line in HELP.lines() {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[test]
fn colours_are_drawn_only_if_enabled() {
    let (view, history) = busy();
    for coloured in [false, true] {
        let live = Live { paused: true, help: true, away: Some("x"), ..live(&history) };
        let picture = Picture { view: &view, url: URL, live: Some(live), coloured };
        let mut buffer = Buffer::empty(Rect::new(0, 0, 80, 40));
        picture.render(buffer.area, &mut buffer);
        let has_colour =
            |cell: &ratatui::buffer::Cell| cell.fg != Color::Reset || cell.bg != Color::Reset;
        assert_eq!(buffer.content().iter().any(has_colour), coloured);
    }
}

#[test]
fn text_output_has_no_curves_and_no_keys() {
    let (view, _) = busy();
    assert_eq!(text(&view, URL, 80), TEXT.trim());
    let total = text(&View::total(&scrape(12), NOW), URL, 80);
    assert_eq!(total, TOTAL.trim());
}

#[test]
fn bars_are_as_long_as_their_share() {
    assert_eq!(share_bar(0.0, 4), "    ");
    assert_eq!(share_bar(1.0, 4), "████");
    assert_eq!(share_bar(0.5, 3), "█▌ ");
    assert_eq!(share_bar(1.0 / 32.0, 4), "▏   ");
    assert_eq!(share_bar(0.5, 0), "");
}

/// Names from an attacker's server cannot send control sequences to the terminal.
#[test]
fn control_characters_are_not_drawn() {
    let line = "capstan_requests_total{rpc=\"\u{1b}[2Jboo\",code=\"OK\"} 1\n";
    let text = text(&View::total(&Sample::of(line), NOW), URL, 80);
    assert!(text.contains("boo") && !text.contains('\u{1b}'), "{text:?}");
}

const USUAL: &str = "
capstan top  http://127.0.0.1:4481  every 1 s  2026-11-18T11:06:40Z
version 0.1.0  revision 7  identities 15  bindings 17  in flight 3  shed 0/s
loads applied 7, 5 min ago  rejected 0  the last took 2.1 ms

calls/s  peak 4.4k  5 min                p99  peak 1.0 ms  5 min
                ▂██  ▁▆█   ▅█   ▄█   ▃█              ███████████████████████████
               ▅███ ▃███ ▂███ ▁▇██  ▅██              ███████████████████████████
             ▁▇████▅████▅████▃████▂████              ███████████████████████████
            ▄██████████████████████████              ███████████████████████████

call             calls/s decided/s allowed failed/s    p50    p90    p99  p99.9
all                 1.2k       17k  76.5 %       60  16 µs 100 µs 1.0 ms 1.0 ms
BatchCheck           120       12k 100.0 %        0 600 µs 1.0 ms 1.0 ms 1.0 ms
Check               1.1k      4.6k  15.6 %       60  14 µs  33 µs  93 µs  99 µs

reasons                                            errors
GRANTED                ██████▏    76.5 %    13k/s  INVALID_ARGUMENT         36/s
UNKNOWN_IDENTITY                   0.1 %     12/s  RESOURCE_EXHAUSTED       24/s
EXPIRED                            0.0 %      0/s
CONDITION_NOT_MET                  0.3 %     48/s
CAPABILITY_NOT_IN_ROLE █▊         21.7 %   3.6k/s
NO_BINDING             ▏           1.4 %    240/s

q quit   p pause   + - interval   ? help
";
const TROUBLE: &str = "
capstan top  http://127.0.0.1:4481  every 1 s  PAUSED  2026-11-18T11:06:40Z
panics 1  version 0.1.0  revision 7  identities 15  bindings 17  in flight 3
loads applied 7, 5 min ago  rejected 2, 2 h ago  the last took 2.1 ms
no metrics, asking again every 1 s: connection refused
q quit   p pause   + - interval   ? help
";
const NARROW: &str = "
capstan top  http://127.0.0.1:4481
version 0.1.0  revision 7  identities 15
loads applied 7, 5 min ago  rejected 0

calls/s  peak 4.4k     p99  peak 1.0 ms
      ▁▃▆█▄▆█▄▇█▅▇█▅█        ███████████████

call             calls/s failed/s    p99
all                 1.2k       60 1.0 ms
BatchCheck           120        0 1.0 ms
Check               1.1k       60  93 µs

reasons
GRANTED                ██▎   76.5 %    13k/s
UNKNOWN_IDENTITY              0.1 %     12/s
EXPIRED                       0.0 %      0/s
CONDITION_NOT_MET             0.3 %     48/s
CAPABILITY_NOT_IN_ROLE ▋     21.7 %   3.6k/s
NO_BINDING                    1.4 %    240/s

errors
INVALID_ARGUMENT         36/s
RESOURCE_EXHAUSTED       24/s
q quit   p pause   + - interval   ? help
";
const LOW: &str = "
capstan top  http://127.0.0.1:4481  every 1 s  2026-11-18T11:06:40Z
version 0.1.0  revision 7  identities 15  bindings 17  in flight 3  shed 0/s
loads applied 7, 5 min ago  rejected 0  the last took 2.1 ms

call             calls/s decided/s allowed failed/s    p50    p90    p99  p99.9
all                 1.2k       17k  76.5 %       60  16 µs 100 µs 1.0 ms 1.0 ms
BatchCheck           120       12k 100.0 %        0 600 µs 1.0 ms 1.0 ms 1.0 ms
Check               1.1k      4.6k  15.6 %       60  14 µs  33 µs  93 µs  99 µs

reasons                                            errors
GRANTED                ██████▏    76.5 %    13k/s  INVALID_ARGUMENT         36/s
q quit   p pause   + - interval   ? help
";
const TEXT: &str = "
capstan top  http://127.0.0.1:4481  in 1.0 s  2026-11-18T11:06:40Z
version 0.1.0  revision 7  identities 15  bindings 17  in flight 3  shed 0/s
loads applied 7, 5 min ago  rejected 0  the last took 2.1 ms

call             calls/s decided/s allowed failed/s    p50    p90    p99  p99.9
all                 1.2k       17k  76.5 %       60  16 µs 100 µs 1.0 ms 1.0 ms
BatchCheck           120       12k 100.0 %        0 600 µs 1.0 ms 1.0 ms 1.0 ms
Check               1.1k      4.6k  15.6 %       60  14 µs  33 µs  93 µs  99 µs

reasons                                            errors
GRANTED                ██████▏    76.5 %    13k/s  INVALID_ARGUMENT         36/s
UNKNOWN_IDENTITY                   0.1 %     12/s  RESOURCE_EXHAUSTED       24/s
EXPIRED                            0.0 %      0/s
CONDITION_NOT_MET                  0.3 %     48/s
CAPABILITY_NOT_IN_ROLE █▊         21.7 %   3.6k/s
NO_BINDING             ▏           1.4 %    240/s
";
const TOTAL: &str = "
capstan top  http://127.0.0.1:4481  since it started  2026-11-18T11:06:40Z
version 0.1.0  revision 7  identities 15  bindings 17  in flight 3  shed 0
loads applied 7, 5 min ago  rejected 0  the last took 2.1 ms

call               calls   decided allowed   failed    p50    p90    p99  p99.9
all                 1200       17k  76.5 %       60  16 µs 100 µs 1.0 ms 1.0 ms
BatchCheck           120       12k 100.0 %        0 600 µs 1.0 ms 1.0 ms 1.0 ms
Check               1080      4620  15.6 %       60  14 µs  33 µs  93 µs  99 µs

reasons                                            errors
GRANTED                ██████▏    76.5 %      13k  INVALID_ARGUMENT           36
UNKNOWN_IDENTITY                   0.1 %       12  RESOURCE_EXHAUSTED         24
EXPIRED                            0.0 %        0
CONDITION_NOT_MET                  0.3 %       48
CAPABILITY_NOT_IN_ROLE █▊         21.7 %     3600
NO_BINDING             ▏           1.4 %      240
";
