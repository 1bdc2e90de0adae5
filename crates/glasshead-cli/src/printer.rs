//! Data to stdout, everything else to stderr. A reader that has gone away is no failure.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use glasshead::{Error, Fault, Result, report::Style};

/// Writes data to standard output.
pub(crate) fn data(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::environment(
            format!("standard output cannot be written: {error}"),
            "write to a file with -o FILE",
        )),
        _ => Ok(()),
    }
}

/// Says what went wrong and what to do; gives the exit code.
pub(crate) fn failure(error: &Error) -> ExitCode {
    let mut err = io::stderr().lock();
    // Nobody is left to tell if this fails.
    let _ = writeln!(err, "error: {error}");
    if !error.hint().is_empty() {
        let _ = writeln!(err, "hint: {}", error.hint());
    }
    match error.fault() {
        Fault::Request => ExitCode::from(2),
        Fault::Environment => ExitCode::FAILURE,
    }
}

/// Says what is wrong with the command line, in the same two lines as every other error; prints the help
/// where that was asked for.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return match data(&error.render().to_string()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failure(&error),
        };
    }
    let rendered = error.render().to_string();
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = write!(io::stderr(), "{rendered}");
        return ExitCode::from(2);
    }
    let sentence: Vec<&str> = rendered
        .lines()
        .take_while(|line| !line.is_empty())
        .map(str::trim)
        .filter(|line| !line.starts_with('['))
        .collect();
    let known = [
        ContextKind::ValidValue,
        ContextKind::SuggestedArg,
        ContextKind::SuggestedValue,
        ContextKind::SuggestedSubcommand,
    ]
    .into_iter()
    .find_map(|kind| match error.get(kind)? {
        ContextValue::Strings(values) if !values.is_empty() => Some(values.join(", ")),
        ContextValue::String(value) => Some(value.clone()),
        _ => None,
    });
    let verb = std::env::args()
        .nth(1)
        .filter(|verb| {
            ["explain", "scan", "heads", "verify", "attend", "bench", "models", "doctor"]
                .contains(&verb.as_str())
        })
        .unwrap_or_default();
    let help = format!("glasshead {verb} --help").replace("  ", " ");
    let first = |kind: ContextKind| match error.get(kind) {
        Some(ContextValue::String(value)) => value.clone(),
        _ => String::new(),
    };
    let hint = match (error.kind(), verb.as_str()) {
        _ if known.is_some() => format!("there is {}; see {help}", known.unwrap_or_default()),
        (ErrorKind::UnknownArgument, "explain") if !first(ContextKind::InvalidArg).starts_with('-') => {
            "put a text of several words into quotes: glasshead explain \"The quick brown fox\"".into()
        }
        (ErrorKind::MissingRequiredArgument, "scan") => {
            format!("for instance glasshead scan report.txt; see {help}")
        }
        (ErrorKind::MissingRequiredArgument, "attend") => {
            format!("for instance glasshead attend in.safetensors -o out.safetensors; see {help}")
        }
        _ => format!("see {help}"),
    };
    let sentence = sentence.join(" ");
    failure(&Error::request(sentence.strip_prefix("error: ").unwrap_or(&sentence), hint))
}

/// A line for the person who waits.
pub(crate) fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// What standard output can do: bold only on a terminal, and not where `NO_COLOR` is set.
pub(crate) fn style() -> Style {
    let terminal = io::stdout().is_terminal();
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let width = terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0);
    Style { bold: terminal && wanted && !dumb, width: width.filter(|_| terminal) }
}

/// Whether standard output is a terminal.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}
