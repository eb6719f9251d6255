//! What the machine is, which core does what, and whether figures from here may be compared.

use std::fs;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::cpu::{CoreUse, allowed_cores};

/// Which core does what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cores {
    pub generator: usize,
    pub backend: usize,
    /// A proxy with one worker.
    pub proxy: Vec<usize>,
    /// A proxy with two workers.
    pub proxy_of_two: Vec<usize>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    pub kernel: String,
    pub cpu: String,
    pub memory_gib: f64,
    pub cores: Cores,
    pub cores_allowed: usize,
    /// The share of the allowed cores that others used just before the run.
    pub use_at_start: f64,
    pub load_average_at_start: String,
    /// Why figures of this run may not be compared.
    pub reasons: Vec<String>,
}

/// If others use more of a core than this, every figure is partly theirs.
const USE_MAX: f64 = 0.15;
const LOOK: Duration = Duration::from_secs(1);

impl Cores {
    /// The proxy has a core of its own; generator and backend share one only if there is no third.
    pub fn choose(allowed: &[usize]) -> Result<Self> {
        let cores = |generator, backend, proxy: usize, two: &[usize]| Cores {
            generator,
            backend,
            proxy: vec![proxy],
            proxy_of_two: two.to_vec(),
        };
        match *allowed {
            [first, last] => Ok(cores(first, first, last, allowed)),
            [first, second, last] => Ok(cores(first, second, last, allowed)),
            [first, second, .., before, last] => Ok(cores(first, second, last, &[before, last])),
            _ => bail!(
                "cannot compare: only one core may be used here; a proxy that shares it with generator and backend \
                 would be measured with their cache misses and their turns"
            ),
        }
    }
}

impl Machine {
    /// Looks for a second at what others do.
    pub fn look(cores: &Cores, quick: bool) -> Result<Self> {
        let allowed = allowed_cores()?;
        let earlier = CoreUse::read()?;
        std::thread::sleep(LOOK);
        let now = CoreUse::read()?;
        let shares: Vec<f64> = allowed.iter().map(|&core| now.share_since(&earlier, core)).collect();
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let field = |text: &str, name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            value.trim_start_matches([' ', '\t', ':']).to_owned()
        };
        let memory_kib: f64 = field(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0.0);
        let mut machine = Machine {
            kernel: read("/proc/sys/kernel/osrelease"),
            cpu: field(&read("/proc/cpuinfo"), "model name"),
            memory_gib: memory_kib / 1024.0 / 1024.0,
            cores: cores.clone(),
            cores_allowed: allowed.len(),
            use_at_start: shares.iter().sum::<f64>() / shares.len().max(1) as f64,
            load_average_at_start: read("/proc/loadavg"),
            reasons: Vec::new(),
        };
        machine.reasons.extend(allowed.iter().zip(&shares).filter_map(|(core, share)| busy(*core, *share)));
        if quick {
            machine.reasons.push("a quick run: windows of a fraction of a second, one round".to_owned());
        }
        Ok(machine)
    }
}

fn busy(core: usize, share: f64) -> Option<String> {
    let percent = |share: f64| (share * 100.0).round();
    (share > USE_MAX).then(|| {
        format!(
            "others use {} % of core {core} (at most {} % will do): wait, or stop them",
            percent(share),
            percent(USE_MAX)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_never_shares_its_core() {
        assert!(Cores::choose(&[3]).is_err());
        assert!(Cores::choose(&[]).is_err());
        let two = Cores::choose(&[0, 1]).unwrap();
        assert_eq!((two.generator, two.backend, two.proxy), (0, 0, vec![1]));
        let three = Cores::choose(&[0, 1, 2]).unwrap();
        assert_eq!((three.generator, three.backend, three.proxy), (0, 1, vec![2]));
        let many = Cores::choose(&[2, 3, 4, 7]).unwrap();
        assert_eq!((many.generator, many.backend, many.proxy, many.proxy_of_two), (2, 3, vec![7], vec![4, 7]));
    }

    #[test]
    fn a_busy_core_is_a_reason() {
        assert_eq!(busy(1, 0.1), None);
        assert!(busy(1, 0.5).unwrap().starts_with("others use 50 % of core 1"));
    }
}
