//! The `glasshead` command: [`args`] → `commands/<verb>` → [`printer`].

mod args;
mod commands;
mod interrupt;
mod printer;
mod progress;

use std::{alloc::System, process::ExitCode};

use clap::Parser;
use peakmem_alloc::PeakMemAlloc;

use args::{Args, Command};

/// Knows the most memory that was held, for `bench`.
#[global_allocator]
pub(crate) static MEMORY: PeakMemAlloc<System> = PeakMemAlloc::new(System);

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return printer::usage(&error),
    };
    let outcome = match args.command {
        Command::Explain(args) => commands::explain::run(args),
        Command::Scan(args) => commands::scan::run(args),
        Command::Heads(args) => commands::heads::run(args),
        Command::Verify(args) => commands::verify::run(args),
        Command::Attend(args) => commands::attend::run(args),
        Command::Bench(args) => commands::bench::run(args),
        Command::Models(args) => commands::models::run(args),
        Command::Doctor => commands::doctor::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => printer::failure(&error),
    }
}
