//! What thousands of configured backends cost: to start, to reload, to keep, and to find one of them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{Bench, Visit};
use crate::case::{FLEET_SMALL, Load};
use crate::http;
use crate::memory::Resident;
use crate::peers::{Peer, Running};
use crate::workload::Workload;

/// A small fleet beside a large one. The same ten names are asked of both, so what differs is only how many others
/// there are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FleetFigures {
    pub small: FleetSize,
    pub large: FleetSize,
    /// The large one again, while it reloads over and over.
    pub reloading: Vec<Visit>,
    /// Times of single reloads, milliseconds: nothing else to do, and under load.
    pub reload_ms: Vec<f64>,
    pub reload_under_load_ms: Vec<f64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FleetSize {
    pub backends: usize,
    pub start_ms: f64,
    /// Memory right after the start, bytes.
    pub resident_bytes: u64,
    pub visits: Vec<Visit>,
}

const RELOADS: usize = 3;
const PAUSE_BETWEEN_RELOADS: Duration = Duration::from_millis(100);
const LOAD: Load = Load { workload: Workload::Call, connections: 32, rate: None };

/// Three visits a round; starting and reloading take longer the more there are.
pub(super) fn time(backends: usize, rounds: usize, visit: Duration) -> Duration {
    visit * 3 * rounds as u32 + Duration::from_secs(1) + Duration::from_micros(500) * backends as u32
}

impl Bench<'_> {
    pub(super) fn govern(&mut self, peer: Peer, backends: usize) -> Result<FleetFigures> {
        let start = |size: usize| {
            let running = Running::start_as(peer, &format!("{}-fleet-{size}", peer.name()), size, &self.setting)?;
            let figures = FleetSize {
                backends: size,
                start_ms: running.start_time.as_secs_f64() * 1e3,
                resident_bytes: Resident::of(&running.pids()).now,
                visits: Vec::new(),
            };
            Ok::<_, anyhow::Error>((running, figures))
        };
        let (mut few, mut small) = start(FLEET_SMALL)?;
        let (mut many, mut large) = start(backends)?;
        let (urls_few, urls_many) = (few.fleet_urls(FLEET_SMALL), many.fleet_urls(backends));
        let (mut reloading, mut reload_under_load_ms) = (Vec::new(), Vec::new());
        for _ in 0..self.plan.rounds {
            small.visits.push(self.visit(&mut few, &urls_few, LOAD)?);
            large.visits.push(self.visit(&mut many, &urls_many, LOAD)?);
            let (visit, times) = self.visit_while_reloading(&mut many, &urls_many)?;
            reloading.push(visit);
            reload_under_load_ms.extend(times);
        }
        let reload_ms = (0..RELOADS).map(|_| reload(many.admin)).collect::<Result<_>>()?;
        Ok(FleetFigures { small, large, reloading, reload_ms, reload_under_load_ms })
    }

    fn visit_while_reloading(&self, running: &mut Running, urls: &[String]) -> Result<(Visit, Vec<f64>)> {
        let over = AtomicBool::new(false);
        let admin = running.admin;
        std::thread::scope(|scope| {
            let reloads = scope.spawn(|| {
                let mut times = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    times.push(reload(admin)?);
                    std::thread::sleep(PAUSE_BETWEEN_RELOADS);
                }
                Ok::<_, anyhow::Error>(times)
            });
            let visit = self.visit(running, urls, LOAD);
            over.store(true, Ordering::Relaxed);
            let times = reloads.join().expect("a reload returns its errors")?;
            Ok((visit?, times))
        })
    }
}

/// Milliseconds until the new configuration is in force.
fn reload(admin: SocketAddr) -> Result<f64> {
    let begun = Instant::now();
    let answer = http::post(admin, "/reload").context("POST /reload")?;
    ensure!(answer.status == 200, "POST /reload was answered with {}", answer.status);
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}
