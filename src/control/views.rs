//! What the admin pages say, as JSON.

use serde_json::{Map, Value, json};

use super::Source;
use super::gather::{Gathered, Worker};
use crate::config::Fault;
use crate::config::model::{Admin, Backend, Choice, Config, EndpointUrl, Limits, Log, Route, Server, Sessions};
use crate::seam::{Cached, Coalesced, EndpointStats, Era, Invalidation, Latency, SessionEvent, Snapshot, WorkerStats};

/// `/config`: keys are named as in the file. Structs are taken apart by name, so that a new key
/// cannot be forgotten here.
pub(super) fn config(config: &Config, source: &Source, generation: u64) -> Value {
    let Config { server, admin, log, limits, sessions, backends, routes } = config;
    let backends: Map<_, _> = backends.iter().map(|(name, backend)| (name.clone(), backend_keys(backend))).collect();
    json!({
        "generation": generation,
        "source": match source {
            Source::File(path) => json!(path.display().to_string()),
            Source::Fixed => json!("embedded"),
        },
        "config": {
            "server": server_keys(server),
            "admin": admin_keys(admin),
            "log": log_keys(log),
            "limits": limit_keys(limits),
            "sessions": session_keys(sessions),
            "backends": backends,
            "routes": routes.iter().map(route_keys).collect::<Vec<_>>(),
        },
    })
}

fn server_keys(server: &Server) -> Value {
    let Server {
        listen,
        workers,
        io_driver,
        drain_timeout,
        handover_timeout,
        public_url,
        trusted_hops,
        allowed_origins,
        allowed_hosts,
        resolve_interval,
        traceparent,
    } = server;
    json!({
        "listen": listen,
        "workers": workers,
        "io_driver": io_driver.name(),
        "drain_timeout_ms": drain_timeout.as_millis(),
        "handover_timeout_ms": handover_timeout.as_millis(),
        "public_url": public_url,
        "trusted_hops": trusted_hops,
        "allowed_origins": allowed_origins,
        "allowed_hosts": allowed_hosts,
        "resolve_interval_ms": resolve_interval.as_millis(),
        "traceparent": traceparent.name(),
    })
}

fn admin_keys(admin: &Admin) -> Value {
    let Admin { listen, token } = admin;
    let listen = listen.map_or("off".to_owned(), |address| address.to_string());
    json!({ "listen": listen, "token": token.as_ref().map(|_| "***") })
}

fn log_keys(log: &Log) -> Value {
    let Log { access } = log;
    json!({ "access": access.to_string() })
}

fn limit_keys(limits: &Limits) -> Value {
    let Limits {
        head_bytes_max,
        target_bytes_max,
        headers_max,
        body_bytes_max,
        envelope_bytes_max,
        legacy_look_bytes_max,
        shared_reply_bytes_max,
        cache_bytes_max,
        connections_per_worker_max,
        connections_per_ip_max,
        exchanges_per_worker_max,
        memory_soft_bytes,
        memory_hard_bytes,
        head_timeout,
        body_timeout,
        idle_timeout,
        write_timeout,
    } = limits;
    json!({
        "head_bytes_max": head_bytes_max,
        "target_bytes_max": target_bytes_max,
        "headers_max": headers_max,
        "body_bytes_max": body_bytes_max,
        "envelope_bytes_max": envelope_bytes_max,
        "legacy_look_bytes_max": legacy_look_bytes_max,
        "shared_reply_bytes_max": shared_reply_bytes_max,
        "cache_bytes_max": cache_bytes_max,
        "connections_per_worker_max": connections_per_worker_max,
        "connections_per_ip_max": connections_per_ip_max,
        "exchanges_per_worker_max": exchanges_per_worker_max,
        "memory_soft_bytes": memory_soft_bytes,
        "memory_hard_bytes": memory_hard_bytes,
        "head_timeout_ms": head_timeout.as_millis(),
        "body_timeout_ms": body_timeout.as_millis(),
        "idle_timeout_ms": idle_timeout.as_millis(),
        "write_timeout_ms": write_timeout.as_millis(),
    })
}

fn session_keys(sessions: &Sessions) -> Value {
    let Sessions { keys, max_age } = sessions;
    json!({ "keys": keys.iter().map(|_| "***").collect::<Vec<_>>(), "max_age_ms": max_age.as_millis() })
}

fn backend_keys(backend: &Backend) -> Value {
    let Backend {
        endpoints,
        protocol,
        balance,
        connect_timeout,
        first_byte_timeout,
        stream_idle_timeout,
        request_timeout,
        stream_timeout,
        keep_alive,
        keep_alive_streams,
        session_generation,
        coalesce,
        cache,
        idle_conns_max,
        idle_timeout,
        conn_age_max,
        connect_cooldown,
    } = backend;
    json!({
        "endpoints": endpoints.iter().map(url_text).collect::<Vec<_>>(),
        "protocol": protocol.name(),
        "balance": balance.name(),
        "connect_timeout_ms": connect_timeout.as_millis(),
        "first_byte_timeout_ms": first_byte_timeout.as_millis(),
        "stream_idle_timeout_ms": stream_idle_timeout.as_millis(),
        "request_timeout_ms": request_timeout.as_millis(),
        "stream_timeout_ms": stream_timeout.as_millis(),
        "keep_alive_ms": keep_alive.as_millis(),
        "keep_alive_streams": keep_alive_streams.name(),
        "session_generation": session_generation,
        "coalesce": { "enabled": coalesce.enabled, "legacy_shared": coalesce.legacy_shared },
        "cache": {
            "enabled": cache.enabled,
            "ttl_max_ms": cache.ttl_max.as_millis(),
            "scope_max": cache.scope_max.name(),
            "legacy_ttl_ms": cache.legacy_ttl.as_millis(),
            "stale_if_error_ms": cache.stale_if_error.as_millis(),
            "stale_while_revalidate_ms": cache.stale_while_revalidate.as_millis(),
            "subscribe": cache.subscribe.name(),
        },
        "idle_conns_max": idle_conns_max,
        "idle_timeout_ms": idle_timeout.as_millis(),
        "conn_age_max_ms": conn_age_max.as_millis(),
        "connect_cooldown_ms": connect_cooldown.as_millis(),
    })
}

fn route_keys(route: &Route) -> Value {
    let Route { host, path, backend, methods, session_binding, body } = route;
    json!({
        "host": host,
        "path": path,
        "backend": backend,
        "methods": methods,
        "session_binding": session_binding.name(),
        "body": body.name(),
    })
}

fn url_text(url: &EndpointUrl) -> String {
    format!("http://{}{}", url.authority, url.path)
}

/// `/backends`: every endpoint with what all workers together know of it.
pub(super) fn backends(snapshot: &Snapshot, total: &WorkerStats) -> Value {
    let backends: Map<_, _> = snapshot
        .clusters
        .iter()
        .map(|cluster| {
            let endpoints = cluster.backend.endpoints.iter().map(|url| {
                let resolved = cluster
                    .endpoints
                    .iter()
                    .filter(|endpoint| endpoint.authority == url.authority && endpoint.path == url.path);
                let addresses = resolved.map(|endpoint| {
                    let stats = total.endpoints.get(&endpoint.id).copied().unwrap_or_default();
                    endpoint_state(&endpoint.address.to_string(), &stats)
                });
                json!({ "url": url_text(url), "addresses": addresses.collect::<Vec<_>>() })
            });
            (cluster.name.to_string(), json!({ "endpoints": endpoints.collect::<Vec<_>>() }))
        })
        .collect();
    json!({ "generation": snapshot.generation, "backends": backends })
}

fn endpoint_state(address: &str, stats: &EndpointStats) -> Value {
    let EndpointStats { active, idle, requests, connect_failures, cooling, eras } = stats;
    json!({
        "address": address,
        "active": active,
        "idle": idle,
        "requests": requests,
        "connect_failures": connect_failures,
        "cooling": cooling,
        "era": eras.label(),
    })
}

/// `/stats`: each worker, and their sum.
pub(super) fn stats(gathered: &Gathered) -> Value {
    json!({
        "workers": gathered.workers.iter().enumerate().map(|(number, worker)| worker_state(number, worker)).collect::<Vec<_>>(),
        "total": counted(&gathered.total),
    })
}

fn worker_state(number: usize, worker: &Worker) -> Value {
    json!({
        "worker": number,
        "up": worker.up,
        "busy_ratio": worker.busy,
        "cpu_seconds": worker.stats.cpu.as_secs_f64(),
        "age_seconds": worker.stats.age.as_secs_f64(),
        "stall_micros": quantiles(&worker.stats.stalls),
        "counted": counted(&worker.stats),
    })
}

fn counted(stats: &WorkerStats) -> Value {
    json!({
        "requests": stats.requests.values().sum::<u64>(),
        "refused": stats.refused.iter().sum::<u64>(),
        "by_era": by_label(Era::ALL.iter().map(|era| era.label()), &stats.by_era),
        "coalesced": by_label(Coalesced::ALL.iter().map(|result| result.label()), &stats.coalesced),
        "cache": by_label(Cached::ALL.iter().map(|result| result.label()), &stats.cached),
        "cache_invalidations": by_label(Invalidation::ALL.iter().map(|reason| reason.label()), &stats.invalidated),
        "cache_bytes": stats.cache_bytes,
        "cache_entries": stats.cache_entries,
        "sessions": by_label(SessionEvent::ALL.iter().map(|event| event.label()), &stats.sessions),
        "accepted": stats.accepted,
        "client_connections": stats.client_connections,
        "upstream_connections": stats.upstream_connections,
        "exchanges": stats.exchanges,
        "streams": stats.streams,
        "connects": stats.connects,
        "reused": stats.reused,
        "retries": stats.retries,
        "request_body_bytes": stats.request_body_bytes,
        "response_body_bytes": stats.response_body_bytes,
        "panics": stats.panics,
        "request_duration_micros": quantiles(&stats.request_duration),
        "upstream_duration_micros": quantiles(&stats.upstream_duration),
        "overhead_micros": quantiles(&stats.overhead),
    })
}

fn by_label(labels: impl Iterator<Item = &'static str>, counts: &[u64]) -> Value {
    labels.zip(counts).map(|(label, count)| (label.to_owned(), json!(count))).collect::<Map<_, _>>().into()
}

fn quantiles(latency: &Latency) -> Value {
    let at = |quantile: f64| latency.0.value_at_quantile(quantile);
    json!({ "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999), "max": latency.0.max() })
}

/// The faults of a refused reload.
pub(super) fn faults(faults: &[Fault]) -> Value {
    let each = faults.iter().map(|fault| {
        let Fault { file, line, key, problem, remedy } = fault;
        json!({ "file": file, "line": line, "key": key, "problem": problem, "remedy": remedy })
    });
    json!({ "error": "the configuration has faults; nothing has changed", "faults": each.collect::<Vec<_>>() })
}
