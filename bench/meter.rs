//! What processes cost, as the kernel counts it (proc(5)).

use std::fs;

/// Processor time of the processes that a run concerns, at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) connector_cpu: f64,
    pub(crate) broker_cpu: f64,
    pub(crate) database_cpu: f64,
    /// Of both cores, all processes.
    pub(crate) machine_cpu: f64,
    /// What the connector caused to be written to disk.
    pub(crate) disk_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Meter {
    pub(crate) connector: u32,
    pub(crate) broker: u32,
    pub(crate) database: u32,
}

impl Meter {
    pub(crate) fn read(&self) -> Reading {
        Reading {
            connector_cpu: cpu(self.connector),
            broker_cpu: cpu(self.broker),
            database_cpu: cpu(self.database),
            machine_cpu: machine_cpu(),
            disk_bytes: field(self.connector, "io", "write_bytes:").unwrap_or(0),
        }
    }

    /// The most that the connector ever had resident, in kB.
    pub(crate) fn resident_kb(&self) -> u64 {
        field(self.connector, "status", "VmHWM:").unwrap_or(0)
    }
}

impl Reading {
    pub(crate) fn since(&self, before: &Reading) -> Reading {
        Reading {
            connector_cpu: self.connector_cpu - before.connector_cpu,
            broker_cpu: self.broker_cpu - before.broker_cpu,
            database_cpu: self.database_cpu - before.database_cpu,
            machine_cpu: self.machine_cpu - before.machine_cpu,
            disk_bytes: self.disk_bytes - before.disk_bytes,
        }
    }
}

/// The kernel counts in hundredths of a second.
const TICKS: f64 = 100.0;

/// Seconds of the process and of its children, those that ended included.
pub(crate) fn cpu(pid: u32) -> f64 {
    let own: u64 = stat(pid).iter().sum();
    let children = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children: u64 = children
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
        .map(|child| stat(child)[..2].iter().sum::<u64>())
        .sum();
    (own + children) as f64 / TICKS
}

/// utime, stime, cutime, cstime; zeros when the process has ended.
fn stat(pid: u32) -> [u64; 4] {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold anything.
    let mut fields = line.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').skip(11);
    std::array::from_fn(|_| fields.next().and_then(|field| field.parse().ok()).unwrap_or(0))
}

pub(crate) fn machine_cpu() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = stat.lines().next().unwrap_or_default();
    let fields: Vec<f64> = first.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // All but idle and iowait.
    let busy = fields.iter().enumerate().filter(|(at, _)| !matches!(at, 3 | 4) && *at < 8).map(|(_, ticks)| ticks);
    busy.sum::<f64>() / TICKS
}

fn field(pid: u32, file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}
