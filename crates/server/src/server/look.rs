//! What a start would find in the files that a configuration names, looked at beforehand.
//!
//! **Invariants**: what serves reads the files, by the same functions. Nothing is made, changed, locked or bound, so that a server which runs with
//! this configuration is not disturbed. A pipe is not read: whoever starts the server would find it empty.

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::sync::Arc;

use capstan_engine::Catalog;
use capstan_events::Roots;
use capstan_policy::Catalogs;

use super::config::{Config, Feed, Misfit};
use crate::feed::source::{Source, load_catalog, read};
use crate::telemetry::decision_log::Target;
use crate::transport::listen::{self, Address};
use crate::transport::tls;
use crate::{askers, envoy::routes};

/// Everything that keeps a server from starting and that is in the files, folders and sockets which this configuration names. A store is not
/// looked at: whoever opens it does.
#[must_use]
pub fn look(config: &Config) -> Vec<Misfit> {
    let mut found = Found(vec![]);
    sockets(config, &mut found);
    if let Some(tls) = &config.tls {
        let files = [&tls.certificate, &tls.key].into_iter().chain(&tls.client_authorities);
        if files.chain(&tls.revocations).all(|file| can_be_read_again(file)) {
            found.extend(tls::look(tls));
        }
    }
    let catalog = match &config.feed {
        Feed::Document(source) => policy(source, config, &mut found),
        Feed::Store(_) => None,
    };
    if let Some(path) = config.routes.as_deref().filter(|path| can_be_read_again(path)) {
        let fits = routes::load(path).and_then(|table| match &catalog {
            Some(catalog) => routes::ensure_known(path, &table, catalog),
            None => Ok(()),
        });
        found.add("routes", fits);
    }
    if let Some(path) = config.callers.as_deref().filter(|path| can_be_read_again(path)) {
        found.add("callers", askers::load(path));
    }
    found.extend(config.tokens.look(can_be_read_again));
    if let Some(webhooks) = &config.webhooks {
        if webhooks.ca.as_deref().is_none_or(can_be_read_again) {
            found.add("webhook-ca", Roots::load(webhooks.ca.as_deref()).map_err(Into::into));
        }
        found.add("signing-keys", webhooks.keys.folder.look(config.clock.now()));
    }
    found.add("decision-log", config.decision_log.as_ref().map_or(Ok(()), Target::look));
    found.0
}

struct Found(Vec<Misfit>);

impl Found {
    fn add<T>(&mut self, option: &'static str, looked: anyhow::Result<T>) {
        self.extend(looked.err().map(|error| (option, error)));
    }

    fn extend(&mut self, all: impl IntoIterator<Item = (&'static str, anyhow::Error)>) {
        self.0.extend(all.into_iter().map(|(option, error)| Misfit {
            options: vec![option],
            problem: format!("{error:#}"),
        }));
    }
}

fn sockets(config: &Config, found: &mut Found) {
    for (option, all) in
        [("listen", &config.listen), ("listen-management", &config.listen_management)]
    {
        for address in all {
            if let Address::Unix(path) = address {
                found.add(option, listen::look(path));
            }
        }
    }
    if let Some(path) = &config.management {
        found.add("management", listen::look(path));
    }
}

/// The catalog of the policy, if it loads.
fn policy(source: &Source, config: &Config, found: &mut Found) -> Option<Arc<Catalog>> {
    let mut catalogs = Catalogs::default();
    let mut has_all = true;
    for name in &config.catalogs {
        if can_be_read_again(Path::new(name)) {
            let loaded = load_catalog(&mut catalogs, name);
            has_all &= loaded.is_ok();
            found.add("catalog", loaded);
        } else {
            has_all = false;
        }
    }
    match source {
        Source::File { path, .. } if !can_be_read_again(path) => None,
        // Without its catalogs it cannot be judged, and what is wrong with them is told.
        Source::File { path, bytes_max } if !has_all => {
            found.add("policy", read(path, *bytes_max));
            None
        }
        _ => {
            let built = source.build(&catalogs, 1, None, config.clock.now());
            let catalog = built.as_ref().ok().map(|built| Arc::clone(built.snapshot.catalog()));
            found.add("policy", built);
            catalog
        }
    }
}

/// Whether to read a file takes nothing away from whoever reads it next. What cannot be looked at can be tried.
fn can_be_read_again(path: &Path) -> bool {
    std::fs::metadata(path).map_or(true, |found| {
        let kind = found.file_type();
        !kind.is_fifo() && !kind.is_char_device()
    })
}
