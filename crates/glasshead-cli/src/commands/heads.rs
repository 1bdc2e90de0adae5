//! `glasshead heads`

use glasshead::{
    Error, Result,
    look::{
        heads::{Request, TEXTS, heads},
        scan::text_from_file,
    },
    report::{HEADS_FORMATS, write_heads},
    weights::{check_target, resolve},
};

use crate::{
    args::HeadsArgs,
    interrupt, printer,
    progress::{Bars, Layers},
};

pub(crate) fn run(args: HeadsArgs) -> Result<()> {
    let format = format(&args)?;
    if let Some(output) = &args.output {
        check_target(output, &args.texts.iter().map(std::path::PathBuf::as_path).collect::<Vec<_>>())?;
    }
    let texts = if args.texts.is_empty() {
        TEXTS.map(|(name, text)| (name.to_owned(), text.to_owned())).into()
    } else {
        let read = |path: &std::path::PathBuf| Ok((path.display().to_string(), text_from_file(path)?));
        args.texts.iter().map(read).collect::<Result<_>>()?
    };
    let path = resolve(&args.model, &mut Bars::default())?;
    interrupt::watch()?;
    let request = Request { model: args.model, path, texts, command: super::command_line() };
    let cards = super::attend::in_pool(args.threads, || heads(request, &mut Layers::new()))??;
    match args.output {
        None => printer::data(&write_heads(&cards, format, &printer::style())?),
        Some(path) => {
            let text = write_heads(&cards, format, &Default::default())?;
            interrupt::write(&path, |out| out.write_all(text.as_bytes()))
        }
    }
}

fn format(args: &HeadsArgs) -> Result<&'static str> {
    let named = |name: &str| HEADS_FORMATS.into_iter().find(|format| *format == name);
    let ending = match &args.output {
        None => Some("table"),
        Some(path) => match path.extension().and_then(|ending| ending.to_str()) {
            Some("txt") => Some("table"),
            ending => ending,
        },
    };
    args.format.as_deref().or(ending).and_then(named).ok_or_else(|| {
        let path = args.output.as_deref().unwrap_or("".as_ref());
        Error::request(
            format!("the ending of {} does not say which format is wanted", path.display()),
            format!("add --format with one of {}", HEADS_FORMATS.join(", ")),
        )
    })
}
