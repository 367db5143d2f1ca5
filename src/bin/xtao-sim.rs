//! `xtao-sim`: plays seeds of the deterministic world against the real core, and prints what breaks.

use std::{process::ExitCode, time::Instant};

use clap::{Args, Parser, Subcommand};
use xtao::sim::{Options, explain_failure, play, sabotage::Sabotage, trace::Trace};

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
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Bench(_)) => ExitCode::SUCCESS,
        None => play_seeds(&cli.play),
    }
}

fn play_seeds(asked: &Play) -> ExitCode {
    let options = Options { agents: asked.agents, minutes: asked.minutes, sabotage: asked.sabotage };
    let seeds = asked.seed.map_or(asked.from..asked.from + asked.seeds, |seed| seed..seed + 1);
    let began = Instant::now();
    let (mut played, mut failed, mut saturated, mut frames, mut launches) = (0, 0, 0, 0, 0);
    for seed in seeds {
        if asked.time_limit.is_some_and(|limit| began.elapsed().as_secs() >= limit) {
            break;
        }
        let outcome = play(seed, options, if asked.verbose { Trace::printed() } else { Trace::off() });
        played += 1;
        frames += outcome.stats.frames;
        launches += outcome.stats.launches;
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
        "{played} seeds in {:.1} s: {failed} failed, {saturated} without room for everything; {frames} frames, {launches} launches",
        began.elapsed().as_secs_f64()
    );
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
