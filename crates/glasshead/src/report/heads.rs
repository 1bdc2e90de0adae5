//! The cards of heads: as a table, JSON, or CSV.

use serde_json::{Value, json};

use super::{Block, Document, RowKind, Style, Table, table};
use crate::look::heads::{Heads, MEASURES, Spread};
use crate::{Error, Result};

/// How the cards are laid out: the names that `--format` takes.
pub const HEADS_FORMATS: [&str; 3] = ["table", "json", "csv"];

/// The cards in one of [`HEADS_FORMATS`], ending with a line break.
///
/// # Errors
/// Another format.
pub fn write_heads(heads: &Heads, format: &str, style: &Style) -> Result<String> {
    match format {
        "table" => Ok(table(&tell(heads), style)),
        "json" => Ok(format!("{}\n", as_json(heads))),
        "csv" => as_csv(heads),
        _ => Err(Error::request(
            format!("cards cannot be written as {format}"),
            format!("there are {}", HEADS_FORMATS.join(", ")),
        )),
    }
}

fn tell(heads: &Heads) -> Document {
    let texts: Vec<String> =
        heads.texts.iter().map(|(name, tokens)| format!("{name} ({tokens} tokens)")).collect();
    let mut rows = Table::new(
        [">layer".to_owned(), ">head".to_owned()].into_iter().chain(MEASURES.map(|name| format!(">{name}"))),
    );
    for card in &heads.cards {
        let cells = card.measures.iter().zip(MEASURES).map(|(measure, name)| match measure {
            None => "–".to_owned(),
            Some(Spread { mean, deviation, .. }) => match name {
                "entropy" => format!("{mean:.2} ± {deviation:.2}"),
                "distance" => format!("{mean:.1} ± {deviation:.1}"),
                _ => format!("{:.0} ± {:.0} %", 100.0 * mean, 100.0 * deviation),
            },
        });
        let place = [card.layer.to_string(), card.head.to_string()];
        rows.push(RowKind::Plain, place.into_iter().chain(cells).collect());
    }
    Document {
        blocks: vec![
            Block::Title(format!("The heads of {}, over {} texts", heads.model, texts.len())),
            Block::Text(format!("Texts: {}. Every number is the mean over texts ± their standard deviation.", texts.join(", "))),
            Block::Text(
                "entropy in nats; first, previous, self, induction, duplicate: the share of a query's weight on the \
                 first token, the token before, itself, what followed its token the last time, its token earlier; distance \
                 in tokens."
                    .into(),
            ),
            Block::Table(rows),
        ],
    }
}

fn as_json(heads: &Heads) -> Value {
    let spread = |measure: &Option<Spread>| match measure {
        None => Value::Null,
        Some(Spread { mean, deviation, texts }) => {
            json!({"mean": mean, "deviation": deviation, "texts": texts})
        }
    };
    let card = |card: &crate::look::heads::Card| {
        let mut object = json!({"layer": card.layer, "head": card.head});
        for (name, measure) in MEASURES.iter().zip(&card.measures) {
            object[*name] = spread(measure);
        }
        object
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "command": heads.command,
        "model": {"name": heads.model, "sha256": heads.info.sha256, "family": heads.info.family},
        "texts": heads.texts.iter().map(|(name, tokens)| json!({"name": name, "tokens": tokens})).collect::<Vec<_>>(),
        "heads": heads.cards.iter().map(card).collect::<Vec<_>>(),
    })
}

fn as_csv(heads: &Heads) -> Result<String> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::environment(format!("CSV cannot be written: {error}"), "try --format json")
    };
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    let names = MEASURES.iter().flat_map(|name| [(*name).to_owned(), format!("{name}_deviation")]);
    let heading = ["layer".to_owned(), "head".to_owned()].into_iter().chain(names);
    writer.write_record(heading).map_err(|error| failed(&error))?;
    for card in &heads.cards {
        let place = [card.layer.to_string(), card.head.to_string()];
        let cells = card.measures.iter().flat_map(|measure| match measure {
            None => [String::new(), String::new()],
            Some(Spread { mean, deviation, .. }) => [mean.to_string(), deviation.to_string()],
        });
        writer.write_record(place.into_iter().chain(cells)).map_err(|error| failed(&error))?;
    }
    let bytes = writer.into_inner().map_err(|error| failed(&error))?;
    String::from_utf8(bytes).map_err(|error| failed(&error))
}
