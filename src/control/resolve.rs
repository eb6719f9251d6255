//! Endpoint host names to addresses.
//!
//! The system's resolver blocks and cannot be cancelled, so it runs on helper threads: at most
//! [`LOOKUPS_MAX`] in the process, those included that have outlived the deadline of whoever started
//! them. A name without an answer keeps what it resolved to before and is asked again with the next
//! round. Addresses are sorted, so that the same answer in another order changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::iter;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use tracing::{error, info, warn};

use super::aside::aside;
use super::{Control, wait};
use crate::clock;
use crate::config::model::{Config, EndpointUrl};
use crate::seam::{BuildError, Snapshot};

/// Lookups at once.
const LOOKUPS_MAX: usize = 8;

/// For all names of a start, a reload or a round together.
const DEADLINE: Duration = Duration::from_secs(5);

/// How often it is looked whether the next round is due; a reload may have shortened the interval.
const ROUND_LOOK: Duration = Duration::from_secs(1);

/// What each endpoint URL stands for, as [`Snapshot::build`] takes it.
pub type Addresses = BTreeMap<EndpointUrl, Vec<SocketAddr>>;

type Lookup = fn(&str) -> io::Result<Vec<IpAddr>>;
type Answer = (String, io::Result<Vec<IpAddr>>);

/// What each host name resolved to when it last did; empty if it never has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known(BTreeMap<String, Vec<IpAddr>>);

/// Host names and their addresses.
#[derive(Debug)]
pub struct Resolver {
    lookup: Lookup,
    known: Known,
    /// Names whose failure has been reported.
    failing: BTreeSet<String>,
    /// Helper threads alive.
    helpers: Arc<AtomicUsize>,
}

impl Resolver {
    /// Resolves the host names of a configuration; blocks until that is done, or for 5 s at most.
    /// Names that do not resolve are reported and have no addresses yet.
    #[must_use]
    pub fn at_start(config: &Config) -> Self {
        let mut resolver = Self::new(system_lookup);
        let deadline = clock::now() + DEADLINE;
        let names = names(config);
        let answers = resolver.ask(&names);
        let answers = iter::from_fn(|| answers.recv_deadline(deadline).ok()).collect();
        let known = resolver.learn(&names, answers);
        resolver.known = known;
        resolver
    }

    fn new(lookup: Lookup) -> Self {
        Self { lookup, known: Known::default(), failing: BTreeSet::new(), helpers: Arc::default() }
    }

    /// What the endpoints of a configuration stand for by what is known now.
    #[must_use]
    pub fn addresses(&self, config: &Config) -> Addresses {
        self.known.addresses(config)
    }

    /// Starts lookups; the channel closes when the last has ended.
    fn ask(&self, names: &BTreeSet<String>) -> Receiver<Answer> {
        let (answers, receiver) = unbounded();
        let (jobs, queue) = unbounded();
        for name in names {
            jobs.send(name.clone()).expect("its receiver is in this function");
        }
        for _ in 0..names.len().min(LOOKUPS_MAX) {
            let Some(seat) = Seat::take(&self.helpers) else {
                break;
            };
            let helper = Helper { lookup: self.lookup, queue: queue.clone(), answers: answers.clone(), _seat: seat };
            let started = thread::Builder::new().name("ringway-resolve".into()).spawn(move || helper.run());
            if let Err(error) = started {
                error!(%error, "no thread to resolve names on");
            }
        }
        receiver
    }

    /// Joins answers with what is known, and reports each change between success and failure once.
    fn learn(&mut self, names: &BTreeSet<String>, answers: Vec<Answer>) -> Known {
        let (fresh, errors) = sort_out(answers);
        for name in names {
            if fresh.contains_key(name) {
                if self.failing.remove(name) {
                    info!(host = name, "host name resolves again");
                }
            } else if self.failing.insert(name.clone()) {
                let error = errors.get(name).map_or("no answer in time", String::as_str);
                let addresses_kept = self.known.0.get(name).map_or(0, Vec::len);
                warn!(host = name, error, addresses_kept, "host name does not resolve");
            }
        }
        self.failing.retain(|name| names.contains(name));
        self.known.updated(names, fresh)
    }
}

/// Resolves the host names of a configuration on the control loop; what comes out is not in force
/// until [`adopt`]ed.
pub(super) async fn resolve(control: &Control, config: &Config) -> Known {
    let deadline = clock::now() + DEADLINE;
    let names = names(config);
    let receiver = control.resolver.borrow().ask(&names);
    let answers = collect(&receiver, deadline).await;
    control.resolver.borrow_mut().learn(&names, answers)
}

/// Makes addresses the ones that later failures fall back to.
pub(super) fn adopt(control: &Control, known: Known) {
    control.resolver.borrow_mut().known = known;
}

/// Resolves all names again and again, and publishes what has changed.
pub(super) async fn keep_fresh(control: Rc<Control>) {
    let mut last = clock::now();
    while !control.draining.get() {
        monoio::time::sleep(ROUND_LOOK).await;
        if clock::now() >= last + control.config().server.resolve_interval {
            refresh(&control).await;
            last = clock::now();
        }
    }
}

/// Compiles a configuration beside the one in force. The outer error: there is no thread to do it on.
pub(super) async fn compile(
    control: &Control,
    config: &Arc<Config>,
    known: &Known,
) -> io::Result<Result<Snapshot, Vec<BuildError>>> {
    let (config, known, former) = (Arc::clone(config), known.clone(), control.cell.load_full());
    aside(config.backends.len(), move || Snapshot::build(&config, &known.addresses(&config), Some(&former))).await
}

async fn refresh(control: &Control) {
    let _turn = control.turn().await;
    let config = control.config();
    let known = resolve(control, &config).await;
    if known == control.resolver.borrow().known || control.draining.get() {
        return;
    }
    match compile(control, &config, &known).await {
        Ok(Ok(snapshot)) if !control.draining.get() => {
            info!(generation = snapshot.generation, "addresses of host names changed");
            adopt(control, known);
            control.publish(config, snapshot);
        }
        Ok(Ok(_)) => {}
        // It was built from the same configuration before.
        Ok(Err(faults)) => error!(?faults, "new addresses cannot be put in force"),
        Err(error) => error!(%error, "no thread to put new addresses in force on"),
    }
}

async fn collect(answers: &Receiver<Answer>, deadline: Instant) -> Vec<Answer> {
    let mut collected = Vec::new();
    while let Some(answer) = wait::next(answers, deadline).await {
        collected.push(answer);
    }
    collected
}

impl Known {
    /// With the fresh answers in, and without the names that nobody uses any more.
    fn updated(&self, names: &BTreeSet<String>, mut fresh: BTreeMap<String, Vec<IpAddr>>) -> Self {
        let old = |name: &String| self.0.get(name).cloned().unwrap_or_default();
        Self(names.iter().map(|name| (name.clone(), fresh.remove(name).unwrap_or_else(|| old(name)))).collect())
    }

    /// What the endpoints of a configuration stand for.
    pub(super) fn addresses(&self, config: &Config) -> Addresses {
        endpoints(config).map(|url| (url.clone(), self.addresses_of(url))).collect()
    }

    fn addresses_of(&self, url: &EndpointUrl) -> Vec<SocketAddr> {
        if let Ok(literal) = url.host.parse() {
            return vec![SocketAddr::new(literal, url.port)];
        }
        let known = self.0.get(&url.host).into_iter().flatten();
        known.map(|address| SocketAddr::new(*address, url.port)).collect()
    }
}

fn endpoints(config: &Config) -> impl Iterator<Item = &EndpointUrl> {
    config.backends.values().flat_map(|backend| &backend.endpoints)
}

/// The hosts that are not addresses already.
fn names(config: &Config) -> BTreeSet<String> {
    let names = endpoints(config).filter(|url| url.host.parse::<IpAddr>().is_err());
    names.map(|url| url.host.clone()).collect()
}

/// Answers with at least one address, sorted; and why the others are not among them.
fn sort_out(answers: Vec<Answer>) -> (BTreeMap<String, Vec<IpAddr>>, BTreeMap<String, String>) {
    let (mut fresh, mut errors) = (BTreeMap::new(), BTreeMap::new());
    for (name, answer) in answers {
        match answer {
            Ok(addresses) if addresses.is_empty() => drop(errors.insert(name, "no addresses".into())),
            Ok(mut addresses) => {
                addresses.sort_unstable();
                addresses.dedup();
                fresh.insert(name, addresses);
            }
            Err(error) => drop(errors.insert(name, error.to_string())),
        }
    }
    (fresh, errors)
}

/// A place among the [`LOOKUPS_MAX`].
#[derive(Debug)]
struct Seat(Arc<AtomicUsize>);

impl Seat {
    /// `None` when all are taken, by lookups that hang.
    fn take(helpers: &Arc<AtomicUsize>) -> Option<Self> {
        // Only the control thread takes seats, so the number can have gone down since, never up.
        let free = helpers.load(Ordering::Acquire) < LOOKUPS_MAX;
        free.then(|| {
            helpers.fetch_add(1, Ordering::AcqRel);
            Self(Arc::clone(helpers))
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One thread's share of a round of lookups.
struct Helper {
    lookup: Lookup,
    queue: Receiver<String>,
    answers: Sender<Answer>,
    _seat: Seat,
}

impl Helper {
    /// Until no name waits, or nobody does for the answers.
    fn run(self) {
        while let Ok(name) = self.queue.try_recv() {
            let answer = (self.lookup)(&name);
            if self.answers.send((name, answer)).is_err() {
                return;
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "blocks, on a helper thread of its own")]
fn system_lookup(name: &str) -> io::Result<Vec<IpAddr>> {
    use std::net::ToSocketAddrs;
    Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn config(endpoints: &[&str]) -> Config {
        let text = format!("[backends.b]\nendpoints = {endpoints:?}\n");
        config::load_str("test", &text).expect("a configuration")
    }

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    fn named(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn refused() -> io::Result<Vec<IpAddr>> {
        Err(io::Error::other("no such host"))
    }

    #[test]
    fn literal_addresses_are_not_asked_for() {
        let config = config(&["http://10.0.0.7:9001/mcp", "http://[::1]/mcp", "http://a.test/mcp"]);
        assert_eq!(names(&config), named(&["a.test"]));
        let addresses = Known::default().addresses(&config);
        let addresses: Vec<_> = addresses.into_values().flatten().map(|address| address.to_string()).collect();
        assert_eq!(addresses, ["10.0.0.7:9001", "[::1]:80"]);
    }

    #[test]
    fn the_same_addresses_in_another_order_are_the_same() {
        let mut resolver = Resolver::new(|_| refused());
        let names = named(&["a.test"]);
        let first = resolver.learn(&names, vec![("a.test".into(), Ok(addresses(&["10.0.0.2", "10.0.0.1"])))]);
        let again = ["10.0.0.1", "10.0.0.2", "10.0.0.1"];
        let second = resolver.learn(&names, vec![("a.test".into(), Ok(addresses(&again)))]);
        assert_eq!(first, second);
    }

    #[test]
    fn a_name_that_fails_keeps_its_addresses_and_one_that_never_resolved_has_none() {
        let mut resolver = Resolver::new(|_| refused());
        let names = named(&["a.test", "b.test", "silent.test"]);
        resolver.known = resolver.learn(&names, vec![("a.test".into(), Ok(addresses(&["10.0.0.1"])))]);
        assert_eq!(resolver.failing, named(&["b.test", "silent.test"]));
        let answers = vec![("a.test".into(), refused()), ("b.test".into(), Ok(vec![]))];
        let known = resolver.learn(&names, answers);
        assert_eq!(known.0["a.test"], addresses(&["10.0.0.1"]));
        assert_eq!((known.0["b.test"].len(), known.0["silent.test"].len()), (0, 0));
        assert_eq!(resolver.failing, names);
    }

    #[test]
    fn names_out_of_use_are_forgotten() {
        let mut resolver = Resolver::new(|_| refused());
        resolver.known = resolver.learn(&named(&["a.test", "b.test"]), vec![]);
        let known = resolver.learn(&named(&["b.test"]), vec![]);
        assert_eq!((known.0.len(), resolver.failing.len()), (1, 1));
    }

    #[test]
    fn lookups_that_hang_take_no_more_threads_than_there_are_seats() {
        let resolver = Resolver::new(|_| {
            thread::park();
            refused()
        });
        let many: BTreeSet<_> = (0..20).map(|number| format!("{number}.test")).collect();
        let first = resolver.ask(&many);
        let second = resolver.ask(&many);
        assert_eq!(resolver.helpers.load(Ordering::Acquire), LOOKUPS_MAX);
        assert!(first.try_recv().is_err_and(|error| error.is_empty()), "the first round waits");
        assert!(second.try_recv().is_err_and(|error| error.is_disconnected()), "the second gets no thread");
    }

    #[test]
    fn this_machine_knows_itself() {
        let config = config(&["http://localhost:9001/mcp"]);
        let addresses = Resolver::at_start(&config).addresses(&config);
        let found: Vec<_> = addresses.into_values().flatten().collect();
        assert!(!found.is_empty() && found.iter().all(|address| address.ip().is_loopback() && address.port() == 9001));
    }
}
