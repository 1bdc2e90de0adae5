//! `glasshead models`

use glasshead::{
    Error, Result,
    report::{Block, Document, RowKind, Table, table},
    weights::{catalogue, locate, pull},
};

use crate::{
    args::{ModelsArgs, ModelsVerb},
    printer,
    progress::Bars,
};

pub(crate) fn run(args: ModelsArgs) -> Result<()> {
    match args.verb.unwrap_or(ModelsVerb::List) {
        ModelsVerb::List => list(),
        ModelsVerb::Pull { name } => {
            let path = pull(&name, &mut Bars::default())?;
            printer::data(&format!("{}\n", path.display()))
        }
        ModelsVerb::Path { name } => match locate(&name)? {
            Some(path) => printer::data(&format!("{}\n", path.display())),
            None => Err(Error::environment(
                format!("{name} is not on this disk"),
                format!("fetch it with glasshead models pull {name}"),
            )),
        },
    }
}

fn list() -> Result<()> {
    let mut rows = Table::new(["name", ">MB", "what it is", "on this disk"]);
    for entry in catalogue::CATALOGUE {
        let here = locate(entry.name)?.map_or_else(|| "no".to_owned(), |path| path.display().to_string());
        let megabytes = format!("{:.0}", entry.bytes() as f64 / 1e6);
        rows.push(RowKind::Plain, vec![entry.name.into(), megabytes, entry.about.into(), here]);
    }
    printer::data(&table(&Document { blocks: vec![Block::Table(rows)] }, &printer::style()))
}
