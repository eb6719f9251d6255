//! Reload: the file becomes the configuration in force as a whole, or nothing changes.
//!
//! Load, resolve, build the snapshot, bind what is new; then, with nothing left that can fail,
//! publish. Exchanges in flight finish on the snapshot they began with. Reloads wait for each other:
//! each gets the outcome of a read of the file that began after it was asked for.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use super::access::Output;
use super::aside::aside;
use super::{BoundListener, Control, Fleet, Source, resolve};
use crate::clock;
use crate::config::model::{AccessLog, Choice, Config, IoDriver};
use crate::config::{self, ConfigError, Fault, Loaded};
use crate::seam::BuildError;

/// A file that was written to so short a time ago may be half of what it will be, and half a file can
/// be a good one. Far above what a writer needs between two writes.
const QUIET: Duration = Duration::from_millis(30);

/// How long files are waited for to become quiet, once they have been read.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(2);

/// What became of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// In force, under this generation.
    Done(u64),
    /// Nothing has changed; why.
    Refused(Vec<Fault>),
    /// The embedded default is in force: there is no file.
    NothingToReload,
    /// Too late: the process is about to end.
    Draining,
}

/// Reloads, counts it and logs what came of it.
pub(super) async fn run(control: &Control) -> Outcome {
    let _turn = control.turn().await;
    let is_serving = !control.draining.get();
    if is_serving {
        control.notifier.tell_reloading();
    }
    let outcome = match &control.source {
        Source::File(path) => attempt(control, path).await,
        Source::Fixed => Outcome::NothingToReload,
    };
    if !matches!(outcome, Outcome::Done(_)) {
        // Whoever has moved the file away does not care for the configuration's faults.
        control.access_log.reopen(&control.config().log.access);
    }
    match &outcome {
        Outcome::Done(generation) => {
            control.count(|counters| {
                counters.reloads_ok += 1;
                counters.last_reload_failed = false;
            });
            info!(generation, "configuration reloaded");
        }
        Outcome::Refused(faults) => {
            control.count(|counters| {
                counters.reloads_failed += 1;
                counters.last_reload_failed = true;
            });
            for fault in faults {
                error!(%fault, "configuration fault");
            }
            error!(faults = faults.len(), "reload refused, the configuration stays as it is");
        }
        Outcome::NothingToReload => {
            info!("nothing to reload: the embedded configuration is in force")
        }
        Outcome::Draining => warn!("not reloaded: draining"),
    }
    if is_serving && !control.draining.get() {
        control.notifier.tell_ready();
    }
    outcome
}

async fn attempt(control: &Control, path: &Path) -> Outcome {
    if control.draining.get() {
        return Outcome::Draining;
    }
    let old = control.config();
    let new = match load_quiet(path, old.backends.len()).await {
        Ok(loaded) => {
            for note in loaded.notes {
                warn!(note, "configuration note");
            }
            loaded.config
        }
        Err(error) => return Outcome::Refused(error.faults),
    };
    let faults = unchangeable(&old, &new, path);
    if !faults.is_empty() {
        return Outcome::Refused(faults);
    }
    let known = resolve::resolve(control, &new).await;
    let new = Arc::new(new);
    let snapshot = match resolve::compile(control, &new, &known).await {
        Ok(Ok(snapshot)) => snapshot,
        Ok(Err(errors)) => {
            return Outcome::Refused(errors.into_iter().map(|error| uncompiled(error, path)).collect());
        }
        Err(error) => return Outcome::Refused(vec![no_thread(&error, path)]),
    };
    if control.draining.get() {
        return Outcome::Draining;
    }
    let listen = ListenChange::between(&old.server.listen, &new.server.listen);
    let opened = open_access_log(&new.log.access, path);
    let (access_log, bound) = match (opened, bind_all(&**control.fleet.borrow(), &listen.added, path)) {
        (Ok(access_log), Ok(bound)) => (access_log, bound),
        (opened, bound) => {
            let faults = [opened.err(), bound.err()];
            return Outcome::Refused(faults.into_iter().flatten().flatten().collect());
        }
    };

    let generation = snapshot.generation;
    control.access_log.switch(access_log);
    resolve::adopt(control, known);
    control.publish(new, snapshot);
    let mut fleet = control.fleet.borrow_mut();
    if let Err(error) = fleet.adopt(bound) {
        error!(%error, "workers do not accept at the new addresses");
    }
    for address in listen.removed {
        fleet.release(address);
    }
    Outcome::Done(generation)
}

/// Loads the files as they are when nobody is writing to them; about so many backends are expected.
async fn load_quiet(path: &Path, backends: usize) -> Result<Loaded, ConfigError> {
    let mut first_end = None;
    loop {
        let before = clock::wall();
        let file = path.to_owned();
        let loading = aside(backends, move || config::load_with(&file, &config::process_variable));
        let loaded = loading.await.unwrap_or_else(|error| Err(no_thread(&error, path).into()));
        let Some(file) = written_to(&files_of(path, &loaded), before) else {
            return loaded;
        };
        let now = clock::now();
        if now >= *first_end.get_or_insert(now) + QUIET_WAIT_MAX {
            let problem = format!("has been written to all the time for {} ms", QUIET_WAIT_MAX.as_millis());
            let remedy = "write it elsewhere, then rename it".into();
            return Err(ConfigError { faults: vec![Fault { problem, remedy, ..fault_of(&file, "") }] });
        }
        monoio::time::sleep(QUIET).await;
    }
}

/// What was read, as far as it is known.
fn files_of(path: &Path, loaded: &Result<Loaded, ConfigError>) -> Vec<PathBuf> {
    match loaded {
        Ok(loaded) => loaded.files.clone(),
        Err(error) => {
            let named: BTreeSet<PathBuf> = error.faults.iter().map(|fault| PathBuf::from(&fault.file)).collect();
            std::iter::once(path.to_owned()).chain(named).collect()
        }
    }
}

/// The first file that has changed since shortly before then. By the time of its status, which nobody
/// sets; in the future if the clock was put back, and then it tells nothing.
fn written_to(files: &[PathBuf], then: Duration) -> Option<PathBuf> {
    let changed = |file: &PathBuf| {
        let status = file.metadata().ok()?;
        let seconds = Duration::from_secs(status.ctime().try_into().ok()?);
        Some(seconds + Duration::from_nanos(status.ctime_nsec().try_into().ok()?))
    };
    let is_recent = |at: Duration| at + QUIET > then && at <= clock::wall();
    files.iter().find(|file| changed(file).is_some_and(is_recent)).cloned()
}

/// Keys that the workers or the control loop are built around.
fn unchangeable(old: &Config, new: &Config, path: &Path) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut compare = |key: &str, old: String, new: String| {
        if old != new {
            faults.push(Fault {
                problem: format!("cannot change from {old} to {new} by a reload"),
                remedy: "needs a restart".into(),
                ..fault_of(path, key)
            });
        }
    };
    let driver = |driver: IoDriver| driver.name().to_owned();
    let admin = |address: Option<SocketAddr>| address.map_or("off".to_owned(), |address| address.to_string());
    compare("server.workers", old.server.workers.to_string(), new.server.workers.to_string());
    compare("server.io_driver", driver(old.server.io_driver), driver(new.server.io_driver));
    compare("admin.listen", admin(old.admin.listen), admin(new.admin.listen));
    faults
}

fn no_thread(error: &io::Error, path: &Path) -> Fault {
    Fault {
        problem: format!("no thread to load it on: {error}"),
        remedy: "raise the limit of processes or threads".into(),
        ..fault_of(path, "")
    }
}

fn uncompiled(error: BuildError, path: &Path) -> Fault {
    Fault { problem: error.problem, remedy: "correct this key".into(), ..fault_of(path, &error.key) }
}

/// Binds all, or none: what is bound already is unbound when the faults return.
fn bind_all(fleet: &dyn Fleet, addresses: &[SocketAddr], path: &Path) -> Result<Vec<BoundListener>, Vec<Fault>> {
    let (mut bound, mut faults) = (Vec::new(), Vec::new());
    for address in addresses {
        match fleet.bind(*address) {
            Ok(listener) => bound.push(listener),
            Err(error) => faults.push(Fault {
                problem: format!("cannot listen on {address}: {error}"),
                remedy: "free the address or choose another".into(),
                ..fault_of(path, "server.listen")
            }),
        }
    }
    if faults.is_empty() { Ok(bound) } else { Err(faults) }
}

fn open_access_log(to: &AccessLog, path: &Path) -> Result<Output, Vec<Fault>> {
    Output::open(to).map_err(|error| {
        vec![Fault {
            problem: error.to_string(),
            remedy: "check the path, and that this user may write there".into(),
            ..fault_of(path, "log.access")
        }]
    })
}

fn fault_of(path: &Path, key: &str) -> Fault {
    Fault { file: path.display().to_string(), line: 0, key: key.into(), problem: String::new(), remedy: String::new() }
}

/// Which configured addresses come and go.
#[derive(Debug, PartialEq, Eq)]
struct ListenChange {
    added: Vec<SocketAddr>,
    removed: Vec<SocketAddr>,
}

impl ListenChange {
    fn between(old: &[SocketAddr], new: &[SocketAddr]) -> Self {
        let (old, new) = (BTreeSet::from_iter(old), BTreeSet::from_iter(new));
        Self {
            added: new.difference(&old).map(|address| **address).collect(),
            removed: old.difference(&new).map(|address| **address).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let text = format!("{text}\n[backends.b]\nendpoints = [\"http://10.0.0.7:9001/mcp\"]\n");
        config::load_str("test", &text).expect("a configuration")
    }

    #[test]
    fn keys_that_need_a_restart_are_all_named() {
        let old = config("");
        let driver = if old.server.io_driver == IoDriver::Epoll { "io_uring" } else { "epoll" };
        let new = config(&format!(
            "[server]\nworkers = 3\nio_driver = \"{driver}\"\ndrain_timeout_ms = 1\n[admin]\nlisten = \"off\""
        ));
        let faults = unchangeable(&old, &new, Path::new("ringway.toml"));
        // The environment may fix the driver, and then no file changes it.
        let expected: &[_] = if old.server.io_driver == new.server.io_driver {
            &["server.workers", "admin.listen"]
        } else {
            &["server.workers", "server.io_driver", "admin.listen"]
        };
        assert_eq!(faults.iter().map(|fault| fault.key.as_str()).collect::<Vec<_>>(), expected);
        assert!(faults.iter().all(|fault| fault.remedy == "needs a restart"));
        assert_eq!(unchangeable(&old, &old, Path::new("ringway.toml")), []);
    }

    #[test]
    fn listeners_are_compared_as_configured() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect::<Vec<_>>();
        let old = addresses(&["127.0.0.1:0", "127.0.0.1:8080"]);
        let new = addresses(&["127.0.0.1:8081", "127.0.0.1:0"]);
        assert_eq!(
            ListenChange::between(&old, &new),
            ListenChange { added: addresses(&["127.0.0.1:8081"]), removed: addresses(&["127.0.0.1:8080"]) }
        );
    }
}
