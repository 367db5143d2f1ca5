//! Logging: lines on standard error, one for each event. `RUST_LOG` counts before the configured level and can name modules; while the server runs,
//! [`Levels`] can change how much is said.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, filter::ParseError};

mod levels;

pub use levels::{Level, Levels, TooMany};

/// Libraries that say at `info` what is of no interest to whoever runs the server.
const QUIET: &str = "fjall=warn,lsm_tree=warn,hyper=warn,hickory_proto=warn,hickory_server=warn";

/// Modules of libraries that say below `info` what they send and receive: of Docker's, the variables of containers, secrets among them. At whatever level
/// everything else is logged, they say nothing of it.
const DISCREET: [&str; 5] = ["bollard", "bollard::docker", "bollard::uri", "bollard::read", "bollard::exec"];

/// Why logging cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `RUST_LOG` cannot be read.
    #[error("RUST_LOG='{value}' is no filter: {source}; an example: info,xtao::store=debug")]
    Filter {
        /// What it is set to.
        value: String,
        /// Why it cannot be read.
        #[source]
        source: ParseError,
    },
    /// It was called before.
    #[error("logging has begun already")]
    Begun,
}

/// Begins logging at `level` (off, error, warn, info, debug, trace), or as `RUST_LOG` says. Once in a process.
///
/// # Errors
/// See [`TelemetryError`].
pub fn init(level: &str) -> Result<Levels, TelemetryError> {
    let directives = directives(level, std::env::var("RUST_LOG").ok().as_deref());
    let builder = tracing_subscriber::fmt()
        .compact()
        .with_env_filter(discreet(filter(&directives)?))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_filter_reloading();
    let handle = builder.reload_handle();
    builder.try_init().map_err(|_| TelemetryError::Begun)?;
    // It fails only when the subscriber is gone, and then nothing is logged any more.
    Ok(Levels::new(&directives, move |filter| _ = handle.reload(discreet(filter))))
}

/// What a filter is made of: `level` or `module=level`, separated by commas.
fn directives(level: &str, rust_log: Option<&str>) -> String {
    match rust_log.filter(|value| !value.trim().is_empty()) {
        Some(value) => value.to_owned(),
        None if matches!(level, "info" | "warn") => format!("{level},{QUIET}"),
        None => level.to_owned(),
    }
}

fn filter(directives: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::try_new(directives).map_err(|source| TelemetryError::Filter { value: directives.to_owned(), source })
}

/// Without what must not be in a log.
fn discreet(filter: EnvFilter) -> EnvFilter {
    // The last directive for a module counts, and the more exact one before others.
    let limits = DISCREET.iter().filter_map(|module| format!("{module}=info").parse().ok());
    limits.fold(filter, EnvFilter::add_directive)
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_sent_to_docker_is_in_no_log() {
        for directives in ["trace", "debug,bollard=trace", "info,bollard::docker=trace,bollard::uri=debug"] {
            let written = Written::default();
            let writer = written.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_env_filter(discreet(filter(directives).unwrap()))
                .with_writer(move || writer.clone())
                .finish();
            tracing::subscriber::with_default(subscriber, || {
                tracing::debug!(target: "bollard::docker", "PW=hush");
                tracing::trace!(target: "bollard::uri", "PW=hush");
                tracing::warn!(target: "bollard::docker", "said");
                tracing::info!("said too");
            });
            let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
            assert!(!text.contains("hush") && text.contains("said\n"), "{directives}: {text}");
        }
    }

    #[test]
    fn the_variable_counts_before_the_level() {
        let check = |level: &str, rust_log: Option<&str>, expected: &str| {
            let found = filter(&directives(level, rust_log)).map_or_else(|error| error.to_string(), |filter| filter.to_string());
            assert!(found.contains(expected), "{level} {rust_log:?}: {found}");
        };
        check("debug", None, "debug");
        check("info", None, "fjall=warn");
        check("info", Some(""), "fjall=warn");
        check("info", Some("xtao::store=trace"), "xtao::store=trace");
        check("info", Some("x=y=z"), "RUST_LOG='x=y=z' is no filter");
    }
}
