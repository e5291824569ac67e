//! The live screen: its state, its event loop, and the terminal.
//!
//! **Invariant**: however the loop ends, by a key, a signal, an error or a panic, the terminal is restored.

use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context as _;
use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures_util::StreamExt as _;
use tokio::time::Instant;

use super::draw::{Live, Picture};
use super::history::History;
use super::sample::Sample;
use super::scrape::Metrics;
use super::view::View;
use crate::figures;
use crate::limits::{TOP_INTERVAL_MAX, TOP_INTERVAL_MIN};
use crate::signals::{self, Signal};
use capstan_server::clock::Clock;

/// The state of the screen.
#[derive(Debug)]
pub(super) struct Board {
    url: String,
    interval: Duration,
    coloured: bool,
    began: Instant,
    /// The last successful scrape, and its time.
    last: (Sample, Instant),
    now: Shown,
    /// The picture that stays visible during a pause.
    paused: Option<Shown>,
    help: bool,
}

#[derive(Clone, Debug)]
struct Shown {
    view: View,
    history: History,
    /// The error of the last scrape, if it failed.
    away: Option<String>,
}

impl Board {
    /// Shows the totals of the first scrape.
    pub(super) fn new(url: &str, interval: Duration, coloured: bool, first: Sample) -> Self {
        let view = View::total(&first, Clock::System.now());
        let began = Instant::now();
        Self {
            url: url.into(),
            interval,
            coloured,
            began,
            last: (first, began),
            now: Shown { view, history: History::default(), away: None },
            paused: None,
            help: false,
        }
    }

    pub(super) fn picture(&self) -> Picture<'_> {
        let Shown { view, history, away } = self.paused.as_ref().unwrap_or(&self.now);
        let live = Live {
            history,
            every: figures::interval(self.interval),
            paused: self.paused.is_some(),
            away: away.as_deref(),
            help: self.help,
        };
        Picture { view, url: &self.url, live: Some(live), coloured: self.coloured }
    }

    /// Handles a scrape that ended at this time.
    pub(super) fn scraped(&mut self, scraped: anyhow::Result<Sample>, at: Instant) {
        match scraped {
            Ok(sample) => {
                let (earlier, before) = &self.last;
                let view = View::between(earlier, &sample, at - *before, Clock::System.now());
                self.now.history.add(&view, at - self.began);
                self.now.view = view;
                self.now.away = None;
                self.last = (sample, at);
            }
            // The root cause alone: the screen shows the URL already.
            Err(error) => self.now.away = Some(error.root_cause().to_string()),
        }
    }

    /// Handles a key press. `Break` ends the program.
    pub(super) fn pressed(&mut self, key: KeyEvent) -> ControlFlow<()> {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && key.code == KeyCode::Char('c') {
            return ControlFlow::Break(());
        }
        if self.help {
            self.help = false;
            return ControlFlow::Continue(());
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return ControlFlow::Break(()),
            KeyCode::Char('p' | ' ') => {
                self.paused = if self.paused.is_some() { None } else { Some(self.now.clone()) };
            }
            KeyCode::Char('+' | '=') => self.interval = (self.interval * 2).min(TOP_INTERVAL_MAX),
            KeyCode::Char('-') => self.interval = (self.interval / 2).max(TOP_INTERVAL_MIN),
            KeyCode::Char('?' | 'h') => self.help = true,
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// The terminal in raw mode with an alternate screen. Dropping it restores the terminal.
struct Terminal(ratatui::DefaultTerminal);

impl Terminal {
    fn open() -> io::Result<Self> {
        // A failed initialization may have changed the terminal already.
        ratatui::try_init().map(Self).inspect_err(|_| drop(ratatui::try_restore()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // ratatui's panic hook has restored the terminal before it printed the panic message. Restoring it
        // again would move the cursor to before that message.
        if !std::thread::panicking() {
            // An error means that the terminal is gone.
            let _ = ratatui::try_restore();
        }
    }
}

type Scraping<'m> = Pin<Box<dyn Future<Output = anyhow::Result<Sample>> + 'm>>;

/// Runs until a key or a signal ends it.
///
/// # Errors
///
/// The terminal cannot be used.
pub(super) async fn run(metrics: &Metrics, mut board: Board) -> anyhow::Result<()> {
    let mut stop = std::pin::pin!(signals::stop(&[Signal::HangUp])?);
    let mut terminal = Terminal::open().context("cannot use the terminal")?;
    let mut events = EventStream::new();
    let mut began = board.began;
    let mut scraping: Option<Scraping<'_>> = None;
    loop {
        terminal.0.draw(|frame| frame.render_widget(&board.picture(), frame.area()))?;
        let is_scraping = scraping.is_some();
        let scraped = async {
            match &mut scraping {
                Some(scraping) => scraping.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            scraped = scraped => {
                scraping = None;
                board.scraped(scraped, Instant::now());
            }
            () = tokio::time::sleep_until(began + board.interval), if !is_scraping => {
                began = Instant::now();
                scraping = Some(Box::pin(metrics.sample()));
            }
            event = events.next() => {
                let event = event.transpose().context("cannot read from the terminal")?;
                match event {
                    Some(Event::Key(key)) if key.kind == KeyEventKind::Press => {
                        if board.pressed(key).is_break() {
                            return Ok(());
                        }
                    }
                    // A resize is handled by the next draw.
                    Some(_) => {}
                    None => return Ok(()),
                }
            }
            _ = &mut stop => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
