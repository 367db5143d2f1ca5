//! How punctual the checks are: thousands of instances on many nodes (addresses of the loopback network), one cheap server that all of them are, the
//! real prober, and the real core to take what it finds.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::{mpsc, watch},
};
use uuid::Uuid;

use super::failed;
use crate::{
    core::{Ctx, Input, Settings, State},
    model::{
        agent::Agent,
        app::input::{AppInput, Defaults},
        cluster::ClusterEvent,
        id::{AgentId, InstanceId, Owner, PathId},
        instance::{Condition, Goal, Instance, Placement},
        record::{AppEntry, Record},
        time::{Instant as Moment, Timestamp},
    },
    probe,
    runtime::{batch, handle::Handle},
    store::StoreError,
};

/// Checks of one node.
const PER_AGENT: usize = 100;

/// Seconds between two runs of a check.
const INTERVAL_SECONDS: u64 = 10;

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Checks begun.
    pub runs: u64,
    /// Of these, more than a tenth of a second late.
    pub late: u64,
    /// The latest, milliseconds.
    pub worst_ms: u64,
    /// Results that said something else than "passed".
    pub not_passed: u64,
    /// Connections that the server saw in each whole second after the first interval: fewest and most.
    pub a_second: (u64, u64),
    /// Processor time of the prober's thread, as a part of one processor.
    pub probe_cpu: f64,
    /// Processor time of the core for the results, as a part of one processor.
    pub core_cpu: f64,
}

/// Runs `count` checks for so many seconds; the first interval is not measured.
///
/// # Errors
/// There is no thread, or no room on the loopback network.
pub async fn run(count: usize, seconds: u64) -> Result<Report, StoreError> {
    let io = |error: std::io::Error| failed(&error.to_string());
    let seen: Arc<Vec<AtomicU64>> = Arc::new((0..=seconds + 1).map(|_| AtomicU64::new(0)).collect());
    let began = Instant::now();
    let ports = serve(count.div_ceil(PER_AGENT), seen.clone(), began).map_err(io)?;
    let records = records(count, &ports)?;
    let mut state = State::recover(Settings::default(), records, Moment(0), Timestamp(0));
    let (handle, _submissions) = Handle::new(state.view());
    let (sender, mut results) = mpsc::channel(4096);
    let (stop, stopping) = watch::channel(false);
    let settings = probe::Settings { max_concurrent: probe::MAX_CONCURRENT, nodes: None };
    let punctuality = probe::start(settings, handle.clone(), sender, stopping).map_err(io)?;
    let mut report = Report::default();
    let mut core = Duration::ZERO;
    let (mut ahead, mut random) = (thread_seconds("probe"), 1_u64);
    let end = tokio::time::sleep_until((began + Duration::from_secs(seconds)).into());
    let warm = tokio::time::sleep_until((began + Duration::from_secs(INTERVAL_SECONDS)).into());
    tokio::pin!(end, warm);
    let mut is_warm = false;
    loop {
        tokio::select! {
            () = &mut end => break,
            () = &mut warm, if !is_warm => {
                is_warm = true;
                (ahead, core) = (thread_seconds("probe"), Duration::ZERO);
                punctuality.worst_ms.store(0, Ordering::Relaxed);
                punctuality.late.store(0, Ordering::Relaxed);
                report.runs = punctuality.runs.load(Ordering::Relaxed);
            }
            Some(event) = results.recv() => {
                if let ClusterEvent::Checked(reports) = &event {
                    report.not_passed += reports.iter().filter(|report| !is_passed(report)).count() as u64;
                }
                let now = Moment(began.elapsed().as_millis() as u64);
                let mut bits = || { random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1); random };
                let mut ctx = Ctx { now, wall: Timestamp(1_704_067_200_000 + now.0 as i64), random: &mut bits };
                let at = Instant::now();
                std::hint::black_box(batch::run(&mut state, [Input::Cluster(event)], &mut ctx));
                std::hint::black_box(state.view());
                core += at.elapsed();
            }
        }
    }
    let measured = (seconds.saturating_sub(INTERVAL_SECONDS)).max(1) as f64;
    report.runs = punctuality.runs.load(Ordering::Relaxed) - report.runs;
    report.late = punctuality.late.load(Ordering::Relaxed);
    report.worst_ms = punctuality.worst_ms.load(Ordering::Relaxed);
    report.probe_cpu = (thread_seconds("probe") - ahead) / measured;
    report.core_cpu = core.as_secs_f64() / measured;
    let whole = seen.iter().skip(INTERVAL_SECONDS as usize).take(seconds.saturating_sub(INTERVAL_SECONDS + 1) as usize);
    let counts: Vec<u64> = whole.map(|count| count.load(Ordering::Relaxed)).collect();
    report.a_second = (counts.iter().min().copied().unwrap_or_default(), counts.iter().max().copied().unwrap_or_default());
    // Without a receiver it has ended already.
    _ = stop.send(true);
    Ok(report)
}

fn is_passed(report: &crate::model::health::CheckReport) -> bool {
    use crate::model::health::{Finding, Outcome};
    matches!(report.finding, Finding::Health { outcome: Outcome::Passed, .. })
}

fn address(agent: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 9, (agent / 250) as u8, (agent % 250) as u8 + 1)
}

/// One listener for each node, on a thread of its own; their ports.
fn serve(agents: usize, seen: Arc<Vec<AtomicU64>>, began: Instant) -> std::io::Result<Vec<u16>> {
    let listeners: Vec<std::net::TcpListener> =
        (0..agents).map(|agent| std::net::TcpListener::bind(SocketAddr::new(IpAddr::V4(address(agent)), 0))).collect::<Result<_, _>>()?;
    let ports = listeners.iter().map(|listener| listener.local_addr().map(|address| address.port())).collect::<Result<_, _>>()?;
    listeners.iter().try_for_each(|listener| listener.set_nonblocking(true))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("served".into()).spawn(move || {
        runtime.block_on(async move {
            for listener in listeners.into_iter().filter_map(|listener| TcpListener::from_std(listener).ok()) {
                tokio::spawn(answer_all(listener, seen.clone(), began));
            }
            std::future::pending::<()>().await;
        });
    })?;
    Ok(ports)
}

async fn answer_all(listener: TcpListener, seen: Arc<Vec<AtomicU64>>, began: Instant) {
    while let Ok((mut stream, _)) = listener.accept().await {
        if let Some(count) = seen.get(began.elapsed().as_secs() as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        tokio::spawn(async move {
            let mut request = [0; 512];
            _ = stream.read(&mut request).await;
            _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        });
    }
}

/// One app with all of the instances, each running on the node that its number says.
fn records(count: usize, ports: &[u16]) -> Result<Vec<Record>, StoreError> {
    let id: PathId = "/bench/checked".parse().map_err(|_| failed("the app's id"))?;
    let check = json!({"protocol": "HTTP", "path": "/", "intervalSeconds": INTERVAL_SECONDS, "timeoutSeconds": 5});
    let body = json!({"cmd": "sleep 1", "instances": count, "portDefinitions": [{"port": 0}], "healthChecks": [check]});
    let input = AppInput::read(&body).map_err(|violations| failed(&format!("{violations:?}")))?;
    let mut app = input.create(&id, &Defaults::default()).map_err(|violations| failed(&format!("{violations:?}")))?;
    let when = Timestamp(1_704_067_200_000);
    app.version = when;
    let agents = ports.iter().enumerate().map(|(at, _)| Agent {
        id: AgentId::new(format!("agent-{at}")),
        host: format!("node{at}"),
        addresses: vec![address(at).into()],
        attributes: Vec::new(),
        region: None,
        zone: None,
        seen_at: when,
    });
    let instances = (0..count).map(|number| {
        let at = number / PER_AGENT;
        let host = format!("node{at}").into();
        Instance {
            id: InstanceId::new(id.clone(), Uuid::from_u128(number as u128 + 1)),
            version: when,
            incarnation: 1,
            condition: Condition::Running,
            goal: Goal::Running,
            since: when,
            placement: Some(Placement { agent: AgentId::new(format!("agent-{at}")), host, ports: vec![ports[at]] }),
            staged_at: Some(when),
            started_at: Some(when),
            addresses: Vec::new(),
            healthy: None,
            checks: Vec::new(),
            ready: false,
            containers: Vec::new(),
        }
    });
    let mut records = vec![Record::App(AppEntry { id: id.clone(), owner: Owner::default_owner() }.into()), Record::Definition(app.into())];
    records.extend(agents.map(|agent| Record::Agent(agent.into())));
    records.extend(instances.map(|instance| Record::Instance(instance.into())));
    Ok(records)
}

/// Processor time of this process' threads of a name (`/proc/self/task/*/stat`, in hundredths of a second); 0 where there is none.
fn thread_seconds(name: &str) -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    let of = stats.filter_map(|stat| {
        let (head, rest) = stat.rsplit_once(')')?;
        let fields: Vec<u64> = rest.split_whitespace().map(|field| field.parse().unwrap_or_default()).collect();
        head.ends_with(&format!("({name}")).then(|| (fields.get(11).unwrap_or(&0) + fields.get(12).unwrap_or(&0)) as f64 / 100.0)
    });
    of.sum()
}
