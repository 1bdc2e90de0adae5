//! `glasshead explain`

use glasshead::{
    Error, Result,
    look::{
        explain::{Origin, Request, Units, explain},
        own::list_or_file,
    },
    report::Format,
    weights::{resolve, write_atomically},
};

use crate::{
    args::{ExplainArgs, UnitsArg},
    printer,
    progress::Bars,
};

/// The model of a text without `--model`.
const DEFAULT_MODEL: &str = "minilm";

pub(crate) fn run(args: ExplainArgs) -> Result<()> {
    let format = format(&args)?;
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
            Error::request(
                "the ending of the output file says no format",
                "add --format table, markdown, json, csv or html",
            )
        })
}
