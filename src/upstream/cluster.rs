//! Backends as the workers see them: clusters of resolved endpoints.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::{AHashMap, AHashSet};
use sha2::{Digest, Sha256};

use crate::coalesce::Epochs;
use crate::config::model::{Backend, Config, EndpointUrl, Subscribe};
use crate::seam::{Label, Names};

/// Identity of one endpoint for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(pub u64);

/// One address of one endpoint URL of one backend.
#[derive(Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Kept over reloads while backend, URL and address stay the same.
    pub id: EndpointId,
    /// Where to connect.
    pub address: SocketAddr,
    /// What goes into `Host`.
    pub authority: String,
    /// Path of the endpoint's URL.
    pub path: String,
    /// The same in every process with the same configuration: what a sealed session names.
    pub identity: u64,
}

/// One backend.
#[derive(Debug)]
pub struct Cluster {
    /// The backend's name.
    pub name: Arc<str>,
    /// Metric label.
    pub label: Label,
    /// In configuration order; several when a name has several addresses, none while it has none.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// The configuration as used.
    pub backend: Backend,
    /// What makes its kept answers void. Its own for as long as the backend stays as it is (P-070,
    /// P-119).
    pub epochs: Arc<Epochs>,
}

impl Cluster {
    /// The endpoint of this identity, if the cluster still has it.
    #[must_use]
    pub fn by_identity(&self, identity: u64) -> Option<&Arc<Endpoint>> {
        self.endpoints.iter().find(|endpoint| endpoint.identity == identity)
    }
}

/// All backends, sorted by name.
#[derive(Debug, Default)]
pub struct ClusterTable {
    clusters: Vec<Arc<Cluster>>,
    by_name: AHashMap<Arc<str>, usize>,
    endpoints: AHashSet<EndpointId>,
    /// Places of those whose changes are listened for.
    subscribed: Vec<usize>,
}

/// Ids are never used again: a worker's state for an old endpoint can not be taken for a new one's.
static NEXT_ENDPOINT: AtomicU64 = AtomicU64::new(1);

impl ClusterTable {
    /// See [`crate::seam::Snapshot::build`].
    #[must_use]
    pub fn build(
        config: &Config,
        addresses: &BTreeMap<EndpointUrl, Vec<SocketAddr>>,
        previous: Option<&Self>,
        names: &mut Names,
    ) -> Self {
        let mut table = Self::default();
        for (name, backend) in &config.backends {
            let old = previous.and_then(|table| table.find(name));
            let endpoints: Vec<_> = backend
                .endpoints
                .iter()
                .flat_map(|url| addresses.get(url).into_iter().flatten().map(move |address| (url, *address)))
                .map(|(url, address)| keep_or_make(old, name, backend.session_generation, url, address))
                .collect();
            let unchanged = old.filter(|old| old.backend == *backend && old.endpoints == endpoints);
            table.add(unchanged.map(Arc::clone).unwrap_or_else(|| {
                Arc::new(Cluster {
                    name: Arc::from(name.as_str()),
                    label: names.intern(name),
                    endpoints,
                    backend: backend.clone(),
                    epochs: Arc::default(),
                })
            }));
        }
        table
    }

    fn add(&mut self, cluster: Arc<Cluster>) {
        let place = self.clusters.len();
        self.by_name.insert(Arc::clone(&cluster.name), place);
        self.endpoints.extend(cluster.endpoints.iter().map(|endpoint| endpoint.id));
        let cache = &cluster.backend.cache;
        if cache.enabled && cache.subscribe != Subscribe::Off {
            self.subscribed.push(place);
        }
        self.clusters.push(cluster);
    }

    /// A cluster's place by its backend's name.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// By name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.position(name).map(|index| &self.clusters[index])
    }

    /// By place, as [`ClusterTable::position`] gave it for this table.
    #[must_use]
    pub fn at(&self, index: usize) -> &Arc<Cluster> {
        &self.clusters[index]
    }

    /// All, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.clusters.iter()
    }

    /// Those whose changes are listened for, see [`crate::config::model::Cache::subscribe`].
    pub fn subscribed(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.subscribed.iter().map(|place| self.at(*place))
    }

    /// Whether an endpoint belongs to one of them.
    #[must_use]
    pub fn has_endpoint(&self, id: EndpointId) -> bool {
        self.endpoints.contains(&id)
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.clusters.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clusters.is_empty()
    }
}

fn keep_or_make(
    old: Option<&Arc<Cluster>>,
    name: &str,
    generation: u64,
    url: &EndpointUrl,
    address: SocketAddr,
) -> Arc<Endpoint> {
    let same_generation = old.filter(|cluster| cluster.backend.session_generation == generation);
    let kept = same_generation.and_then(|cluster| {
        cluster.endpoints.iter().find(|endpoint| {
            endpoint.address == address && endpoint.authority == url.authority && endpoint.path == url.path
        })
    });
    kept.map(Arc::clone).unwrap_or_else(|| {
        Arc::new(Endpoint {
            id: EndpointId(NEXT_ENDPOINT.fetch_add(1, Ordering::Relaxed)),
            address,
            authority: url.authority.clone(),
            path: url.path.clone(),
            identity: identity_of(name, generation, url, address),
        })
    })
}

/// Of names and URLs without line feeds, so that no two sets of parts make the same text.
fn identity_of(name: &str, generation: u64, url: &EndpointUrl, address: SocketAddr) -> u64 {
    let text = format!("{name}\n{generation}\n{}\n{}\n{address}", url.authority, url.path);
    let digest = Sha256::digest(text);
    u64::from_be_bytes(*digest.first_chunk().expect("32 bytes"))
}
