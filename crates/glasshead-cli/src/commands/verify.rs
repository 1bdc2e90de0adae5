//! `glasshead verify`

use glasshead::{
    Error, Result,
    look::verify::{Verified, verify},
    report::{Block, Document, RowKind, Table, table},
    weights::resolve,
};

use crate::{args::VerifyArgs, printer, progress::Bars};

pub(crate) fn run(args: VerifyArgs) -> Result<()> {
    let path = resolve(&args.model, &mut Bars::default())?;
    let verified = super::attend::in_pool(args.threads, || verify(&path))??;
    printer::data(&table(&tell(&verified), &printer::style()))?;
    if verified.holds() {
        return Ok(());
    }
    let off: Vec<&str> =
        verified.checks.iter().filter(|check| !check.holds()).map(|check| check.what).collect();
    Err(Error::environment(
        format!("{} of this build differ from transformers by more than the tolerance", off.join(" and ")),
        "this is a bug of glasshead; please report it with the output of glasshead doctor",
    ))
}

fn tell(verified: &Verified) -> Document {
    let mut rows = Table::new(["what", ">numbers", ">worst difference", ">tolerance", "within", "where"]);
    for check in &verified.checks {
        let verdict = if check.holds() { "yes" } else { "NO" };
        rows.push(
            RowKind::Plain,
            vec![
                check.what.into(),
                check.count.to_string(),
                format!("{:.1e}", check.worst),
                format!("{:.1e}", check.tolerance),
                verdict.into(),
                check.place.clone(),
            ],
        );
    }
    Document {
        blocks: vec![
            Block::Title(format!("{} over {} tokens", verified.model, verified.tokens)),
            Block::Text(format!("Golden: {}. Weights: SHA-256 {}.", verified.made_by, verified.sha256)),
            Block::Table(rows),
        ],
    }
}
