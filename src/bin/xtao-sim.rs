//! `xtao-sim`: plays seeds of the deterministic world against the real core, and prints what breaks.

use std::{path::PathBuf, process::ExitCode, time::Instant};

use clap::{Args, Parser, Subcommand};
use xtao::{
    config::Config,
    server,
    sim::{Options, bench, cluster, explain_failure, play, sabotage::Sabotage, trace::Trace, world::Stats},
    telemetry,
};

/// As in the server, but for its settings.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Plays seeds of the deterministic world against the real core.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    play: Play,
}

#[derive(Subcommand)]
enum Command {
    /// Measures launches a second, memory an instance and the restart, with the real store.
    Bench(Bench),
    /// Measures how punctual health checks are, how evenly they are spread, and what they cost.
    BenchChecks(BenchChecks),
    /// Runs the server as `xtao serve` does, with its flags, but on a simulated cluster in which everything succeeds at once.
    Serve(Serve),
}

#[derive(Args)]
struct Play {
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// Only this seed.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Nodes (default: a few, by the seed).
    #[arg(long)]
    agents: Option<u64>,
    /// Instances that are asked for, about (default: a few for each app, by the seed).
    #[arg(long)]
    instances: Option<u64>,
    /// Minutes of the world's time in which things go wrong (default: by the seed).
    #[arg(long)]
    minutes: Option<u64>,
    /// Stop after this many seconds, whatever seeds are left.
    #[arg(long, value_name = "SECONDS")]
    time_limit: Option<u64>,
    /// Put a fault in deliberately: it must be found.
    #[arg(long, value_name = "NAME")]
    sabotage: Option<Sabotage>,
    /// Print everything that happens.
    #[arg(short, long)]
    verbose: bool,
    /// Go on after a failing seed, and do not make failing plans smaller.
    #[arg(long)]
    keep_going: bool,
}

#[derive(Args)]
struct Bench {
    /// Nodes.
    #[arg(long, default_value_t = 1_000)]
    agents: usize,
    /// Instances.
    #[arg(long, default_value_t = 100_000)]
    instances: usize,
    /// Apps.
    #[arg(long, default_value_t = 100)]
    apps: usize,
    /// Where the store is made; it is removed afterwards (default: a new directory in the system's temporary one).
    #[arg(long)]
    work_dir: Option<PathBuf>,
    /// Make the store in this directory, which must be new, and leave it there: `xtao serve --work_dir` goes on with it.
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "work_dir")]
    keep: Option<PathBuf>,
}

#[derive(Args)]
struct Serve {
    /// Those of `xtao serve`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    flags: Vec<String>,
}

#[derive(Args)]
struct BenchChecks {
    /// Checks, one every 10 seconds each.
    #[arg(long, default_value_t = 25_000)]
    checks: usize,
    /// For so many seconds; the first 10 are not measured.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Bench(bench)) => measure(&bench),
        Some(Command::BenchChecks(bench)) => measure_checks(&bench),
        Some(Command::Serve(Serve { flags })) => serve(&flags),
        None => play_seeds(&cli.play),
    }
}

fn serve(flags: &[String]) -> ExitCode {
    let run = async || {
        let (config, _) = Config::load(flags).map_err(|error| error.to_string())?;
        let levels = telemetry::init(&config.logging_level).map_err(|error| error.to_string())?;
        let start = |calls, events, stopping| Box::pin(cluster::run(calls, events, stopping)) as server::Running;
        server::run(config, levels, server::Cluster::Other(Box::new(start))).await.map_err(|error| error.to_string())
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.map_err(|error| error.to_string()).and_then(|runtime| runtime.block_on(run())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("serve: {error}");
            ExitCode::FAILURE
        }
    }
}

fn play_seeds(asked: &Play) -> ExitCode {
    let options = Options { agents: asked.agents, instances: asked.instances, minutes: asked.minutes, sabotage: asked.sabotage };
    let seeds = asked.seed.map_or(asked.from..asked.from + asked.seeds, |seed| seed..seed + 1);
    let began = Instant::now();
    let (mut played, mut failed, mut saturated, mut total) = (0, 0, 0, Stats::default());
    for seed in seeds {
        if asked.time_limit.is_some_and(|limit| began.elapsed().as_secs() >= limit) {
            break;
        }
        let outcome = play(seed, options, if asked.verbose { Trace::printed() } else { Trace::off() });
        played += 1;
        total = total.plus(outcome.stats);
        saturated += u64::from(outcome.stats.saturated);
        if asked.seed.is_some() {
            println!("seed {seed}: {:?}", outcome.stats);
        }
        if let Some(violation) = outcome.violation {
            failed += 1;
            println!("seed {seed}: {violation}");
            if !asked.keep_going {
                print!("{}", explain_failure(seed, options, &violation));
                break;
            }
        }
    }
    println!(
        "{played} seeds in {:.1} s: {failed} failed, {saturated} without room for everything; {} frames, {} launches",
        began.elapsed().as_secs_f64(),
        total.frames,
        total.launches
    );
    if asked.seed.is_none() {
        println!("{total:?}");
    }
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn measure_checks(asked: &BenchChecks) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let report = match runtime {
        Ok(runtime) => runtime.block_on(bench::checks::run(asked.checks.max(1), asked.seconds.max(12))).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            eprintln!("bench-checks: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("{} checks, one every 10 s each: {} runs", asked.checks, report.runs);
    println!(
        "more than 0.1 s late:   {} ({:.2} %), the latest by {} ms",
        report.late,
        report.late as f64 * 100.0 / report.runs.max(1) as f64,
        report.worst_ms
    );
    println!("connections a second:   {} to {}", report.a_second.0, report.a_second.1);
    println!("processor time:         {:.2} for the checks, {:.3} for the core", report.probe_cpu, report.core_cpu);
    println!("results not passed:     {}", report.not_passed);
    if report.not_passed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn measure(asked: &Bench) -> ExitCode {
    let size = bench::Size { agents: asked.agents.max(1), instances: asked.instances.max(1), apps: asked.apps.max(1) };
    let parent = asked.work_dir.clone().unwrap_or_else(std::env::temp_dir);
    let work_dir = asked.keep.clone().unwrap_or_else(|| parent.join(format!("xtao-sim-bench-{}", std::process::id())));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let report = match runtime {
        Ok(runtime) => runtime.block_on(bench::run(size, &work_dir)).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let removed = if asked.keep.is_some() { Ok(()) } else { std::fs::remove_dir_all(&work_dir) };
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            eprintln!("bench: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = removed {
        eprintln!("bench: cannot remove {}: {error}", work_dir.display());
    }
    let ms = |time: std::time::Duration| time.as_secs_f64() * 1000.0;
    println!("{} instances of {} apps on {} nodes", report.instances.0, size.apps, size.agents);
    println!("create (accepted and durable):         {:>10.0} ms", ms(report.create));
    println!("launches (offer to durable launch):    {:>10.0} a second", report.launches_per_second());
    println!("last thousand against the first:       {:>10.2}", report.last_to_first());
    println!("all running (a durable status each):   {:>10.0} ms", ms(report.running));
    println!("memory:                                {:>10.0} bytes an instance", report.memory as f64 / size.instances as f64);
    println!("restart: store {:.0} ms, state {:.0} ms; {} instances", ms(report.load), ms(report.recover), report.instances.1);
    if report.instances.0 == report.instances.1 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
