//! How fast the capture alone drains a backlog, and what CPU it takes: nothing is stored or published.
//!
//! `drain <url> <changes>` makes a slot, waits for a line on stdin while a workload is run, then reads that many changes.
//! Prints one line of JSON. The slot and the publication `towpath_drain` stay behind.

use std::time::Instant;

use towpath_contract::{Batch, Resume, Source};
use towpath_postgres::{PostgresConfig, PostgresSource};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(url), Some(wanted)) = (args.next(), args.next()) else { return Err("drain <url> <changes>".into()) };
    let wanted: usize = wanted.parse()?;
    let config: PostgresConfig =
        serde_json::from_value(serde_json::json!({ "url": url, "snapshot": { "mode": "never" } }))?;
    let spool = std::env::temp_dir().join(format!("towpath-drain-{}", std::process::id()));
    let source = PostgresSource::new("drain", config, spool);

    let mut batch = Batch::new();
    let mut capture = source.open(Resume::default()).await?;
    capture.next(&mut batch).await?;
    let resume =
        Resume { identity: Some(capture.identity().to_owned()), position: batch.position, ..Resume::default() };
    capture.close().await?;

    println!("ready");
    std::io::stdin().read_line(&mut String::new())?;
    let mut capture = source.open(resume).await?;
    let (mut changes, mut batches, mut bytes) = (0, 0u64, 0);
    let (mut started, mut cpu) = (None, 0.0);
    while changes < wanted {
        batch.clear(2 << 20);
        capture.next(&mut batch).await?;
        if !batch.is_empty() && started.is_none() {
            (started, cpu) = (Some(Instant::now()), cpu_seconds()?);
        }
        changes += batch.len();
        bytes += batch.bytes();
        batches += 1;
        if let Some(position) = &batch.position {
            capture.recorded(position);
        }
    }
    let seconds = started.unwrap_or_else(Instant::now).elapsed().as_secs_f64();
    let cpu = cpu_seconds()? - cpu;
    println!(
        "{{\"changes\":{changes},\"batches\":{batches},\"bytes\":{bytes},\"seconds\":{seconds:.3},\"changes_per_second\":{:.0},\
         \"cpu_seconds_per_million\":{:.2},\"resident_kb_max\":{}}}",
        changes as f64 / seconds,
        cpu / changes as f64 * 1e6,
        resident_kb_max()?
    );
    capture.close().await?;
    Ok(())
}

/// User and system time of this process, from /proc (proc_pid_stat(5), fields 14 and 15, in hundredths).
fn cpu_seconds() -> Result<f64, Box<dyn std::error::Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit_once(')').ok_or("no name")?.1;
    let ticks = after_name.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / 100.0)
}

fn resident_kb_max() -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM")).ok_or("no VmHWM")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse()?)
}
