//! `glasshead explain`

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use glasshead::{
    Error, Result,
    look::{
        explain::{Origin, Request, Units, explain},
        own::list_or_file,
    },
    report::Format,
    weights::{check_target, resolve, write_atomically},
};

use crate::{
    args::{ExplainArgs, UnitsArg},
    printer,
    progress::Bars,
};

/// The model of a text without `--model`.
const DEFAULT_MODEL: &str = "minilm";

/// More text than any model reads.
const MAX_TEXT: u64 = 64 << 20;

pub(crate) fn run(mut args: ExplainArgs) -> Result<()> {
    let format = format(&args)?;
    if let Some(output) = &args.output {
        check_target(output, &args.vectors.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
    }
    if let Some(text) = args.text.as_deref().filter(|text| Path::new(text).is_file()) {
        printer::note(&format!(
            "note: these are the words of a file's name; to read it: glasshead explain - < {text}"
        ));
    }
    if args.text.as_deref() == Some("-") {
        args.text = Some(standard_input()?);
    }
    let list =
        |flag, given: &Option<String>| given.as_deref().map(|given| list_or_file(flag, given)).transpose();
    if args.text.as_deref().is_some_and(|text| text.trim().is_empty()) {
        return Err(Error::request(
            "the text is empty",
            "give a sentence, for instance \"The quick brown fox\"",
        ));
    }
    let mut request = Request {
        scores: list("--scores", &args.scores)?,
        claimed: list("--claimed", &args.claimed)?,
        text: args.text,
        focus: args.focus,
        origin: Origin::Example,
        layer: args.layer,
        head: args.head,
        units: match args.units {
            UnitsArg::Words => Units::Words,
            UnitsArg::Tokens => Units::Tokens,
        },
        scale: args.scale,
        temperature: args.temperature,
        command: super::command_line(),
    };
    let model = args.model.or_else(|| request.text.is_some().then(|| DEFAULT_MODEL.to_owned()));
    request.origin = match (args.vectors, model) {
        (Some(file), _) => Origin::Vectors(file),
        (None, Some(name)) => {
            let path = resolve(&name, &mut Bars::default())?;
            Origin::Model { name, path }
        }
        (None, None) => Origin::Example,
    };
    let seen = explain(request)?;
    match args.output {
        None => printer::data(&format.write(&seen, &printer::style())?),
        Some(path) => {
            let text = format.write(&seen, &Default::default())?;
            write_atomically(&path, |out| out.write_all(text.as_bytes()))
        }
    }
}

fn format(args: &ExplainArgs) -> Result<&'static Format> {
    let by_name = args.format.as_deref().or(match &args.output {
        Some(_) => None,
        None if printer::is_terminal() => Some("table"),
        None => Some("markdown"),
    });
    by_name
        .and_then(Format::from_name)
        .or_else(|| args.output.as_deref().and_then(Format::from_path))
        .ok_or_else(|| {
            let path = args.output.as_deref().unwrap_or("".as_ref());
            if path.is_dir() {
                let hint = "give the path of a file to write, for instance one that ends in .html";
                return Error::request(format!("{} is a folder", path.display()), hint);
            }
            let what = format!("the ending of {} does not say which format is wanted", path.display());
            Error::request(what, "add --format table, markdown, json, csv or html")
        })
}

fn standard_input() -> Result<String> {
    let wrong = |problem: String| {
        Error::request(format!("standard input {problem}"), "pipe a text in, or give it as an argument")
    };
    let mut text = String::new();
    let read = std::io::stdin().lock().take(MAX_TEXT + 1).read_to_string(&mut text);
    read.map_err(|error| wrong(format!("is not readable UTF-8 text ({error})")))?;
    if text.len() as u64 > MAX_TEXT {
        return Err(wrong(format!("has more than {} MB", MAX_TEXT >> 20)));
    }
    // The line break that ends a piped line is not part of the sentence.
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(text)
}
