//! `imgcli`: images in the platform's registry, without Docker.

use std::process::ExitCode;

fn main() -> ExitCode {
    let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    ExitCode::from(xtao::cli::image::main(words))
}
