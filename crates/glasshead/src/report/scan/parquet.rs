//! One tidy table per readout: a line per number, beside it the layer, the head, and the token it is of.

use std::io::{self, Write};
use std::sync::Arc;

use ::parquet::basic::Compression;
use ::parquet::column::writer::ColumnWriter;
use ::parquet::data_type::ByteArray;
use ::parquet::errors::ParquetError;
use ::parquet::file::{metadata::KeyValue, properties::WriterProperties, writer::SerializedFileWriter};
use ::parquet::schema::parser::parse_message_type;
use glasshead_attention::Array;

use super::Output;
use crate::look::scan::Scan;

/// A column: its number or text by `(layer and head, line)`.
enum Column<'a> {
    Int(Box<dyn Fn(usize, usize) -> usize + 'a>),
    Text(Box<dyn Fn(usize, usize) -> ByteArray + 'a>),
    Float(&'a [f32]),
}

/// A table without its columns `layer` and `head`, which all tables have.
struct Table<'a> {
    name: &'static str,
    columns: Vec<(&'static str, Column<'a>)>,
    /// Lines of one layer and head.
    lines: usize,
    /// Whether a line is there at all, by `(layer and head) · lines + line`.
    there: Box<dyn Fn(usize) -> bool + 'a>,
}

/// Every readout as a file of its own; a single one has no `part`.
pub(super) fn tables<'a>(scan: &'a Scan) -> Vec<Output<'a>> {
    let texts: Arc<[ByteArray]> = scan.tokens.iter().map(|token| token.text.as_str().into()).collect();
    // Of the two arrays of the heaviest keys it is the weights that make the table.
    let tables: Vec<_> = scan.readouts.iter().filter(|array| array.name != "top_index").collect();
    let single = tables.len() == 1;
    let tables = tables.into_iter().filter_map(|array| table(scan, array, &texts));
    let output = |table: Table<'a>| Output {
        part: (!single).then_some(table.name),
        write: Box::new(move |out| write(scan, &table, out).map_err(io_error)),
    };
    tables.map(output).collect()
}

fn table<'a>(scan: &'a Scan, array: &'a Array, texts: &Arc<[ByteArray]>) -> Option<Table<'a>> {
    let values = array.f32()?;
    let places = (scan.layers.len() * scan.heads.len()).max(1);
    let lines = values.len() / places;
    let axis = |from_last: usize| array.shape.iter().rev().nth(from_last).copied().unwrap_or(1).max(1);
    let (last, name) = (axis(0), array.name);
    let mut columns = Vec::new();
    let mut there: Box<dyn Fn(usize) -> bool> = Box::new(|_| true);
    match name {
        "received" => of_token(scan, texts, ["key", "key_text"], |_, line| line, &mut columns),
        "top_weight" => {
            let index = scan.readout("top_index")?.i64()?;
            let key = move |place: usize, line: usize| index[place * lines + line].max(0) as usize;
            of_token(scan, texts, ["token", "text"], move |_, line| line / last, &mut columns);
            columns.push(("rank", int(move |_, line| line % last)));
            columns.push(("key", int(key)));
            let texts = texts.clone();
            columns.push((
                "key_text",
                Column::Text(Box::new(move |place, line| text(&texts, key(place, line)))),
            ));
            there = Box::new(move |at| index[at] >= 0);
        }
        "rows" => {
            let rows = &scan.rows;
            let query = move |_, line: usize| rows.get(line / last).copied().unwrap_or(0);
            of_token(scan, texts, ["token", "text"], query, &mut columns);
            columns.push(("key", int(move |_, line| line % last)));
            let texts = texts.clone();
            columns.push(("key_text", Column::Text(Box::new(move |_, line| text(&texts, line % last)))));
        }
        "segments" => {
            let labels: Vec<ByteArray> =
                scan.segments.iter().map(|segment| segment.label.as_str().into()).collect();
            of_token(scan, texts, ["token", "text"], move |_, line| line / last, &mut columns);
            columns.push(("segment", int(move |_, line| line % last)));
            columns.push(("label", Column::Text(Box::new(move |_, line| text(&labels, line % last)))));
        }
        "blocks" => {
            let size = scan.block.unwrap_or(1);
            columns.push(("query_block", int(move |_, line| line / last)));
            columns.push(("key_block", int(move |_, line| line % last)));
            columns.push(("first_query", int(move |_, line| line / last * size)));
            columns.push(("first_key", int(move |_, line| line % last * size)));
        }
        _ => of_token(scan, texts, ["token", "text"], |_, line| line, &mut columns),
    }
    let (name, value) = if name == "top_weight" { ("top", "weight") } else { (name, "value") };
    columns.push((value, Column::Float(values)));
    Some(Table { name, columns, lines, there })
}

/// The columns that say which token a line is of: its index, text, bytes and role; of several texts which one.
fn of_token<'a>(
    scan: &'a Scan,
    texts: &Arc<[ByteArray]>,
    [index_name, text_name]: [&'static str; 2],
    token: impl Fn(usize, usize) -> usize + Copy + 'a,
    columns: &mut Vec<(&'static str, Column<'a>)>,
) {
    let texts = texts.clone();
    let tokens = &scan.tokens;
    if !scan.texts.is_empty() {
        let starts = scan.text_starts();
        let text_of = move |token: usize| starts.partition_point(|start| *start <= token) - 1;
        columns.push(("text_index", int(move |place, line| text_of(token(place, line)))));
    }
    let of = move |place, line| tokens.get(token(place, line));
    let role = move |place, line| of(place, line).map_or("", |token| token.role.name()).into();
    columns.push((index_name, int(token)));
    columns.push((text_name, Column::Text(Box::new(move |place, line| text(&texts, token(place, line))))));
    columns.push(("start", int(move |place, line| of(place, line).map_or(0, |token| token.start))));
    columns.push(("end", int(move |place, line| of(place, line).map_or(0, |token| token.end))));
    columns.push(("role", Column::Text(Box::new(role))));
}

fn int<'a>(of: impl Fn(usize, usize) -> usize + 'a) -> Column<'a> {
    Column::Int(Box::new(of))
}

fn text(texts: &[ByteArray], index: usize) -> ByteArray {
    texts.get(index).cloned().unwrap_or_default()
}

/// Writes a table, a group of lines per layer.
fn write(scan: &Scan, table: &Table<'_>, out: &mut (dyn Write + Send)) -> Result<(), ParquetError> {
    let kinds = table.columns.iter().map(|(name, column)| match column {
        Column::Int(_) => format!("REQUIRED INT64 {name};"),
        Column::Text(_) => format!("REQUIRED BYTE_ARRAY {name} (STRING);"),
        Column::Float(_) => format!("REQUIRED FLOAT {name};"),
    });
    let schema = format!(
        "message {} {{ REQUIRED INT64 layer; REQUIRED INT64 head; {} }}",
        table.name,
        kinds.collect::<Vec<_>>().join(" ")
    );
    let schema = Arc::new(parse_message_type(&schema)?);
    let recipe = scan.metadata().into_iter().map(|(key, value)| KeyValue::new(key, value)).collect();
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_key_value_metadata(Some(recipe))
        .build();
    let mut file = SerializedFileWriter::new(out, schema, Arc::new(properties))?;
    for (layer_place, &layer) in scan.layers.iter().enumerate() {
        let mut group = file.next_row_group()?;
        let places: Vec<usize> =
            (0..scan.heads.len()).map(|head| layer_place * scan.heads.len() + head).collect();
        let layer_column = Column::Int(Box::new(move |_, _| layer));
        let head_column = Column::Int(Box::new(|place, _| scan.heads[place % scan.heads.len()]));
        let columns = [&layer_column, &head_column].into_iter().chain(table.columns.iter().map(|(_, c)| c));
        for column in columns {
            let mut writer = group
                .next_column()?
                .ok_or_else(|| ParquetError::General("a column that the schema does not have".into()))?;
            for &place in &places {
                let lines = (0..table.lines).filter(|line| (table.there)(place * table.lines + line));
                write_column(column, place, lines, table.lines, writer.untyped())?;
            }
            writer.close()?;
        }
        group.close()?;
    }
    file.close()?;
    Ok(())
}

/// The numbers of one layer and head.
fn write_column(
    column: &Column<'_>,
    place: usize,
    lines: impl Iterator<Item = usize>,
    per_place: usize,
    writer: &mut ColumnWriter<'_>,
) -> Result<(), ParquetError> {
    match (column, writer) {
        (Column::Int(of), ColumnWriter::Int64ColumnWriter(writer)) => {
            let values: Vec<i64> = lines.map(|line| of(place, line) as i64).collect();
            writer.write_batch(&values, None, None)?;
        }
        (Column::Text(of), ColumnWriter::ByteArrayColumnWriter(writer)) => {
            let values: Vec<ByteArray> = lines.map(|line| of(place, line)).collect();
            writer.write_batch(&values, None, None)?;
        }
        (Column::Float(values), ColumnWriter::FloatColumnWriter(writer)) => {
            let values: Vec<f32> = lines.map(|line| values[place * per_place + line]).collect();
            writer.write_batch(&values, None, None)?;
        }
        _ => return Err(ParquetError::General("a column of another type than the schema says".into())),
    }
    Ok(())
}

/// A full disk is told as such, not as an error of the format.
fn io_error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(cause) => match cause.downcast::<io::Error>() {
            Ok(cause) => *cause,
            Err(cause) => io::Error::other(cause),
        },
        error => io::Error::other(error),
    }
}
