//! A conversation as one text, by the chat template that a model brings along.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, ErrorKind, UndefinedBehavior, context};
use serde::Serialize;
use serde_json::ser::Formatter;

use super::tokens::one_line;
use crate::{Error, Result};

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A turn of the person.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: "user".to_owned(), content: content.into() }
    }
}

/// The chat template of a model: a program in the language of Jinja, from its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatTemplate {
    name: String,
    source: String,
    bos: String,
    eos: String,
}

/// Steps after which a template is stopped: one of 1,000 turns takes some 50,000.
const FUEL: u64 = 10_000_000;

impl ChatTemplate {
    /// Takes a template; `name` is what errors call it, `bos` and `eos` are the names of the tokens that begin
    /// and end a text, empty if there are none.
    pub fn new(name: &str, source: &str, bos: &str, eos: &str) -> Self {
        Self { name: name.to_owned(), source: source.to_owned(), bos: bos.to_owned(), eos: eos.to_owned() }
    }

    /// The template itself.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The conversation as the model was trained to read it. Special tokens stand in the text by their names;
    /// with `answer` it ends where the model is to go on. [`crate::text::Tokenizer::encode_as_is`] cuts it.
    ///
    /// Templates get what transformers gives them, but neither tools nor the date of today: a text has to be the
    /// same tomorrow, and the templates that ask for the date have one of their own in reserve.
    ///
    /// # Errors
    /// A template that is not sound, does not end, or refuses the conversation.
    pub fn render(&self, messages: &[Message], answer: bool) -> Result<String> {
        let mut environment = Environment::new();
        if let Ok(syntax) = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build() {
            environment.set_syntax(syntax);
        }
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |why: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, why))
        });
        environment.add_filter("tojson", to_json);
        let turns = messages
            .iter()
            .map(|turn| context! { role => turn.role.as_str(), content => turn.content.as_str() });
        let values = context! {
            messages => turns.collect::<Vec<Value>>(),
            add_generation_prompt => answer,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
        };
        environment.render_str(&self.source, values).map_err(|cause| {
            let cause = cause.detail().map_or_else(|| cause.to_string(), str::to_owned);
            Error::request(
                format!("{} cannot write this conversation: {}", self.name, one_line(&cause)),
                "some models allow no system message, or want user and assistant in turns",
            )
        })
    }
}

/// JSON as Python writes it, which is what templates were written for: blanks behind commas and colons.
fn to_json(value: Value, options: Kwargs) -> Result<Value, minijinja::Error> {
    let wrong =
        |cause: serde_json::Error| minijinja::Error::new(ErrorKind::BadSerialization, cause.to_string());
    let indent: Option<usize> = options.get("indent")?;
    let mut out = Vec::new();
    match indent {
        Some(indent) => {
            let indent = " ".repeat(indent.min(16));
            let pretty = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, pretty)).map_err(wrong)?;
        }
        None => {
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Python)).map_err(wrong)?
        }
    }
    Ok(Value::from_safe_string(String::from_utf8_lossy(&out).into_owned()))
}

struct Python;

impl Formatter for Python {
    fn begin_array_value<W: std::io::Write + ?Sized>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: std::io::Write + ?Sized>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: std::io::Write + ?Sized>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(source: &str) -> Result<String> {
        let turns =
            [Message { role: "system".to_owned(), content: " Be brief. ".to_owned() }, Message::user("Hi?")];
        ChatTemplate::new("the template", source, "<s>", "</s>").render(&turns, true)
    }

    #[test]
    fn turns_tokens_and_blocks() {
        let source = "{{ bos_token }}\n{% for m in messages %}\n  {% if m['role'] == 'user' %}\n{{ m['content'] | trim }}{{ eos_token }}\n  \
            {% endif %}\n{% endfor %}\n{% if add_generation_prompt %}A:{% endif %}\n";
        assert_eq!(says(source).expect("rendered"), "<s>\nHi?</s>\nA:");
    }

    #[test]
    fn what_templates_take_from_python() {
        let source = "{{ messages[0].content.strip().split(' ')[-1].startswith('brief') }} {{ messages[-1] | tojson }} {{ messages[1:] | length }}";
        assert_eq!(says(source).expect("rendered"), "True {\"role\": \"user\", \"content\": \"Hi?\"} 1");
        assert_eq!(
            says("{{ strftime_now is defined }} {{ tools is defined }}").expect("rendered"),
            "False False"
        );
        assert_eq!(
            says("{% for x in [1, 2, 3] %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% endfor %}")
                .expect("rendered"),
            "1"
        );
    }

    #[test]
    fn refusals_are_one_sentence() {
        let refused = says("{{ raise_exception('Only user and\\nassistant!') }}").expect_err("refused");
        assert!(
            refused.to_string().contains("the template cannot write")
                && refused.to_string().contains("Only user and assistant!")
        );
        for broken in [
            "{% for",
            "{{ 1 | nothing_like_it }}",
            "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        ] {
            let error = says(broken).expect_err("refused").to_string();
            assert!(!error.contains('\n') && error.contains("the template"), "{error}");
        }
    }
}
