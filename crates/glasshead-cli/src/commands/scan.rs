//! `glasshead scan`

use std::path::{Path, PathBuf};

use glasshead::{
    Error, Result,
    look::scan::{Choice, Plan, Request, Scan, Source, ids_from_file, text_from_file},
    look::segments::Cut,
    report::{Output, ScanFormat},
    weights::{Writer, check_target, resolve, write_all_atomically},
};

use crate::{
    args::ScanArgs,
    interrupt::{self, Stoppable},
    printer,
    progress::{Bars, Layers},
};

pub(crate) fn run(args: ScanArgs) -> Result<()> {
    let format = format(&args)?;
    if let Some(output) = &args.output {
        let inputs: Vec<&Path> =
            [&args.file, &args.ids].into_iter().flatten().map(PathBuf::as_path).collect();
        check_target(output, &inputs)?;
    }
    let layers = Choice::parse("--layers", &args.layers)?;
    let heads = Choice::parse("--heads", &args.heads)?;
    let source = match (&args.ids, &args.file) {
        (Some(ids), _) => Source::Ids(ids_from_file(ids)?),
        (None, Some(file)) => Source::Text(text_from_file(file)?),
        (None, None) => {
            return Err(Error::request("there is no text", "give a file, or - for standard input"));
        }
    };
    let each = args.each.as_deref().map(each).transpose()?;
    format.check_each(each.is_some())?;
    let read = if args.read.is_empty() {
        format.default_read(&source, args.ask.is_some(), each.is_some())
    } else {
        args.read.join(",")
    };
    let instruction_set = args.isa.as_deref().map(super::attend::instruction_set).transpose()?;
    let path = resolve(&args.model, &mut Bars::default())?;
    interrupt::watch()?;
    let request = Request {
        source,
        model: args.model,
        path,
        layers,
        heads,
        read,
        ask: args.ask,
        answer: args.answer,
        each,
        force_context: args.force_context,
        instruction_set,
        command: super::command_line(),
    };
    let scan = super::attend::in_pool(args.threads, || {
        let plan = Plan::new(request)?;
        format.check_plan(&plan)?;
        plan.note().iter().for_each(|note| printer::note(note));
        printer::note(&plan.estimate().to_string());
        if let Some(warning) = format.warns(plan.estimate()) {
            printer::note(&warning);
        }
        let mut layers = Layers::new();
        let scan = plan.run(&mut layers)?;
        if let Some(line) = layers.of_answer() {
            printer::note(&line);
        }
        Ok::<_, Error>(scan)
    })??;
    write(format, &scan, args.output.as_deref())
}

fn each(text: &str) -> Result<Cut> {
    Cut::parse(text).ok_or_else(|| {
        let text: String = text.chars().take(40).collect();
        Error::request(
            format!("--each {text} is no way to cut a text"),
            "there are --each line, paragraph, sentence, and FILE.json",
        )
    })
}

fn write(format: &ScanFormat, scan: &Scan, path: Option<&Path>) -> Result<()> {
    let Some(path) = path else {
        let mut bytes = Vec::new();
        for output in format.outputs(scan, &printer::style())? {
            (output.write)(&mut bytes).map_err(|cause| {
                Error::environment(
                    format!("the report cannot be written: {cause}"),
                    "write to a file with -o FILE",
                )
            })?;
        }
        return printer::data(&String::from_utf8_lossy(&bytes));
    };
    let outputs = format.outputs(scan, &Default::default())?;
    let parts = outputs.len() > 1;
    let files: Vec<_> = outputs.into_iter().map(|output| stoppable(output, path)).collect();
    let names: Vec<String> = files.iter().map(|(path, _)| path.display().to_string()).collect();
    interrupt::while_writing(|| write_all_atomically(files))?;
    if parts {
        printer::note(&format!("one table per readout: {}", names.join(", ")));
    }
    Ok(())
}

/// Where a file goes, and what writes it as long as nobody presses Ctrl-C.
fn stoppable<'a>(output: Output<'a>, path: &Path) -> (PathBuf, Writer<'a>) {
    let target = output.path(path);
    (target, Box::new(move |out| (output.write)(&mut Stoppable(out))))
}

fn format(args: &ScanArgs) -> Result<&'static ScanFormat> {
    let by_name = args.format.as_deref().or(if args.output.is_none() { Some("table") } else { None });
    let known =
        || glasshead::report::SCAN_FORMATS.iter().map(|format| format.name).collect::<Vec<_>>().join(", ");
    let format = by_name
        .and_then(ScanFormat::from_name)
        .or_else(|| args.output.as_deref().and_then(ScanFormat::from_path))
        .ok_or_else(|| {
            let path = args.output.as_deref().unwrap_or("".as_ref());
            if path.is_dir() {
                let hint = "give the path of a file to write, for instance one that ends in .safetensors";
                return Error::request(format!("{} is a folder", path.display()), hint);
            }
            let what = format!("the ending of {} does not say which format is wanted", path.display());
            Error::request(what, format!("add --format with one of {}", known()))
        })?;
    if args.output.is_none() && !format.is_text {
        return Err(Error::request(
            format!("--format {} is not for a terminal", format.name),
            format!("add -o OUT.{}", format.name),
        ));
    }
    Ok(format)
}
