//! One tidy table: a line per word or token, every number of every step.

use crate::{Error, Result, look::explain::Explained};

/// `index,text,start,end,focus,score,weight,influence,value_0…,contribution_0…`; a hidden score is empty.
pub(super) fn csv(seen: &Explained) -> Result<String> {
    let Explained { encoded, steps, .. } = seen;
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    let mut heading: Vec<String> = ["index", "text", "start", "end", "focus", "score", "weight", "influence"]
        .map(str::to_owned)
        .to_vec();
    for name in ["value", "contribution"] {
        heading.extend((0..steps.values.columns()).map(|d| format!("{name}_{d}")));
    }
    let failed = |error: ::csv::Error| {
        Error::environment(format!("CSV cannot be written: {error}"), "try --format json")
    };
    writer.write_record(&heading).map_err(failed)?;
    let influence = steps.influence();
    for (index, unit) in encoded.units.iter().enumerate() {
        let mut line = vec![
            index.to_string(),
            unit.text.clone(),
            unit.start.to_string(),
            unit.end.to_string(),
            (index == steps.focus).to_string(),
            steps.scores[index].map_or(String::new(), |score| score.to_string()),
            steps.weights[index].to_string(),
            influence[index].to_string(),
        ];
        line.extend(steps.values.row(index).iter().map(f64::to_string));
        line.extend(steps.contributions.row(index).iter().map(f64::to_string));
        writer.write_record(&line).map_err(failed)?;
    }
    let bytes =
        writer.into_inner().map_err(|error| Error::environment(error.to_string(), "try --format json"))?;
    String::from_utf8(bytes).map_err(|error| Error::environment(error.to_string(), "try --format json"))
}
