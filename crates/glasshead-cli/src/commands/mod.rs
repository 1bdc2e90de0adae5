//! One file per verb.

pub(crate) mod attend;
pub(crate) mod bench;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod heads;
pub(crate) mod models;
pub(crate) mod scan;
pub(crate) mod verify;

/// The command line as one would type it again.
fn command_line() -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_=:,./@%+".contains(c);
    let quoted = std::env::args().skip(1).map(|word| {
        if !word.is_empty() && word.chars().all(plain) {
            word
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    std::iter::once("glasshead".to_owned()).chain(quoted).collect::<Vec<_>>().join(" ")
}
