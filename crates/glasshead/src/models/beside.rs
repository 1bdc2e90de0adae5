//! What a model folder says beside its weights: the chat template, and the tokens that begin and end a text.

use std::path::Path;

use serde_json::{Map, Value};

use crate::text::{ChatTemplate, Tokenizer};
use crate::weights::read_small;
use crate::{Error, Result};

/// What was found; a folder need not have any of it.
#[derive(Debug, Default)]
pub(super) struct Beside {
    pub(super) chat: Option<ChatTemplate>,
    pub(super) bos: Option<u32>,
    pub(super) eos: Vec<u32>,
}

/// The largest of these files that is read, in bytes; `tokenizer_config.json` repeats the added tokens.
const MAX_FILE: u64 = 16 << 20;

/// Reads `tokenizer_config.json`, `generation_config.json`, `chat_template.jinja` and the ids in `config.json`.
pub(super) fn read(folder: &Path, tokenizer: Option<&Tokenizer>) -> Result<Beside> {
    let names = object(&folder.join("tokenizer_config.json"))?;
    let generation = object(&folder.join("generation_config.json"))?;
    let config = object(&folder.join("config.json"))?;
    let name = |key: &str| names.get(key).and_then(token_name);
    let named = |key: &str| tokenizer?.id_of(&name(key)?);
    let listed = |key: &str| {
        // What is meant for generation comes first; either may be a number or a list of them.
        let value = generation.get(key).or_else(|| config.get(key));
        let ids = value.map(|value| value.as_array().map_or_else(|| vec![value.clone()], Clone::clone));
        let ids = ids.unwrap_or_default();
        ids.iter().filter_map(Value::as_u64).filter_map(|id| u32::try_from(id).ok()).collect::<Vec<_>>()
    };
    let bos = named("bos_token").or_else(|| listed("bos_token_id").first().copied());
    let mut eos: Vec<u32> = named("eos_token").into_iter().collect();
    for id in listed("eos_token_id") {
        if !eos.contains(&id) {
            eos.push(id);
        }
    }
    let jinja = folder.join("chat_template.jinja");
    let template = if jinja.exists() {
        let text = String::from_utf8(read_small(&jinja, MAX_FILE)?);
        let text = text.map_err(|_| refused(&jinja, "is not UTF-8 text"))?;
        Some((jinja.display().to_string(), text))
    } else {
        let source = names.get("chat_template").and_then(default_template);
        source.map(|text| {
            (format!("chat_template of {}", folder.join("tokenizer_config.json").display()), text.to_owned())
        })
    };
    let spelled =
        |key: &str, id: Option<u32>| name(key).or_else(|| tokenizer?.name_of(id?)).unwrap_or_default();
    let chat = template.map(|(called, source)| {
        let [bos, eos] = [spelled("bos_token", bos), spelled("eos_token", eos.first().copied())];
        ChatTemplate::new(&called, &source, &bos, &eos)
    });
    Ok(Beside { chat, bos, eos })
}

/// A special token is a text, or an object with a text in it.
fn token_name(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
}

/// A template, or the one called `default` of a list of them.
fn default_template(value: &Value) -> Option<&str> {
    let of_list = || {
        let templates = value.as_array()?;
        let default =
            templates.iter().find(|template| template.get("name").is_some_and(|name| name == "default"));
        default?.get("template")?.as_str()
    };
    value.as_str().or_else(of_list)
}

fn object(path: &Path) -> Result<Map<String, Value>> {
    if !path.exists() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(&read_small(path, MAX_FILE)?) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(refused(path, "is not a JSON object")),
        Err(cause) => Err(refused(path, &format!("is not JSON: {cause}"))),
    }
}

fn refused(path: &Path, what: &str) -> Error {
    Error::request(format!("{} {what}", path.display()), "use the file that belongs to the model")
}
