//! A picture as SVG.

use std::fmt::Write as _;

use super::picture::{CHARACTER, Colour, LINE, Picture, Shape};

pub(super) fn svg(picture: &Picture) -> String {
    let Picture { width, height, title, shapes } = picture;
    let title = escaped(title);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\" font-family=\"ui-monospace,Menlo,Consolas,monospace\" \
         font-size=\"13\" shape-rendering=\"crispEdges\">\n<title>{title}</title>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    for shape in shapes {
        // Writing to a string cannot fail.
        let _ = match shape {
            Shape::Rectangle([x, y, w, h], colour) => {
                writeln!(
                    svg,
                    "<rect x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" fill=\"{}\"/>",
                    hex(*colour)
                )
            }
            // The length is said, so that a font of another width changes nothing.
            Shape::Text([x, y], colour, text) => writeln!(
                svg,
                "<text x=\"{x}\" y=\"{}\" fill=\"{}\" textLength=\"{}\" lengthAdjust=\"spacingAndGlyphs\" \
                 xml:space=\"preserve\">{}</text>",
                y + LINE - 4,
                hex(*colour),
                text.chars().count() * CHARACTER,
                escaped(text)
            ),
        };
    }
    svg.push_str("</svg>\n");
    svg
}

fn hex([red, green, blue]: Colour) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// Text as XML holds it; what XML cannot hold at all is shown as a replacement character.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            c if c.is_control() => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_leave_its_element() {
        let text = "</text><script>alert(\"1\")</script>&\u{1}\u{ffff}".to_owned();
        let shapes = vec![Shape::Text([1, 2], [0, 1, 255], text)];
        let picture = Picture { width: 10, height: 10, title: "<a>".into(), shapes };
        let svg = svg(&picture);
        assert!(!svg.contains("<script") && !svg.contains("<a>") && svg.contains("&lt;script&gt;"));
        assert!(svg.contains("fill=\"#0001ff\"") && svg.contains("&amp;\u{fffd}\u{fffd}"));
    }
}
