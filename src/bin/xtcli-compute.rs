//! `xtcli-compute`: services for their users, as one command or in a shell.

use std::process::ExitCode;

fn main() -> ExitCode {
    let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    ExitCode::from(xtao::cli::compute::main(words))
}
