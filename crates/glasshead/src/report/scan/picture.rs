//! What a picture shows, before anyone decides how it is drawn: the map of one head, or the text as a strip
//! of shaded tokens. The recipe stands at its foot.

use super::missing;
use crate::look::scan::{Origin, Scan};
use crate::{Error, Result};

/// Rectangles and lines of text, in units of a pixel of the screen; text is monospaced, [`CHARACTER`] wide.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) width: usize,
    pub(super) height: usize,
    /// What a screen reader says.
    pub(super) title: String,
    pub(super) shapes: Vec<Shape>,
}

/// One thing that is drawn; later ones lie on top.
#[derive(Debug)]
pub(super) enum Shape {
    /// `x`, `y`, width, height.
    Rectangle([usize; 4], Colour),
    /// Its upper left corner, and what it says.
    Text([usize; 2], Colour, String),
}

/// Red, green, blue.
pub(super) type Colour = [u8; 3];

/// Width of a character of text.
pub(super) const CHARACTER: usize = 8;
/// Height of a line of text.
pub(super) const LINE: usize = 16;
const MARGIN: usize = 16;
/// Characters in a line of the strip, and of the recipe at least.
const COLUMNS: usize = 100;
/// The side of a map, about.
const MAP: usize = 512;
/// Higher pictures are opened by few programs.
const HIGHEST: usize = 16_000;
/// Shades of the scale: as many as an eye can tell apart.
const SHADES: usize = 64;

const INK: Colour = [32, 33, 36];
const PALE: Colour = [95, 99, 104];
const WHITE: Colour = [255, 255, 255];

/// Refuses what a picture cannot show: it has one head of one layer, and one readout.
pub(super) fn check([layers, heads]: [usize; 2], readouts: &[&str]) -> Result<()> {
    if [layers, heads] != [1, 1] {
        let what = format!("shows one head of one layer; {layers} layers and {heads} heads were chosen");
        return Err(missing("a picture", &what, "--layers 3 --heads 1"));
    }
    if !matches!(readouts, ["blocks" | "rows" | "received"]) {
        let what = format!("shows one readout: blocks, rows or received; there are {}", readouts.join(", "));
        return Err(missing("a picture", &what, "--read blocks, or --read rows=last"));
    }
    Ok(())
}

/// The picture of a scan of one layer and one head.
pub(super) fn picture(scan: &Scan) -> Result<Picture> {
    let names: Vec<&str> = scan.readouts.iter().map(|array| array.name).collect();
    check([scan.layers.len(), scan.heads.len()], &names)?;
    let ([layer, ..], [head, ..], [array, ..]) = (&scan.layers[..], &scan.heads[..], &scan.readouts[..])
    else {
        return Err(missing("a picture", "shows one head of one layer", "--layers 3 --heads 1"));
    };
    let values = array.f32().unwrap_or_default();
    let columns = array.shape.last().copied().unwrap_or(0);
    let (shapes, what, [width, height]) = match (array.name, scan.block, scan.rows.as_slice()) {
        ("blocks", Some(size), _) => {
            let last = scan.tokens.len() % size;
            let rows = values.len() / columns.max(1);
            let queries = |row: usize| if row + 1 == rows && last > 0 { last } else { size } as f32;
            let shares: Vec<f32> =
                values.iter().enumerate().map(|(at, sum)| sum / queries(at / columns.max(1))).collect();
            let (shapes, side) = map(&shares, columns, &down(rows, size), size);
            let squares = format!("squares of {size} × {size} tokens, mean share of a query's weight");
            (shapes, format!("map of queries (down) and keys (across), {squares}"), side)
        }
        ("rows", _, &[query]) => {
            let (shapes, side) = strip(scan, values)?;
            let word = scan.tokens.get(query).map_or_else(String::new, |token| token.text.trim().to_owned());
            (shapes, format!("weights of the query at token {query} \"{word}\""), side)
        }
        ("rows", ..) => {
            let (shapes, side) = map(values, columns, &scan.rows, 1);
            (shapes, format!("weights of {} queries (down) on all keys (across)", scan.rows.len()), side)
        }
        _ => {
            let most = values.iter().copied().fold(0.0, f32::max);
            let shares: Vec<f32> = values.iter().map(|x| if most > 0.0 { x / most } else { 0.0 }).collect();
            let (shapes, side) = strip(scan, &shares)?;
            (
                shapes,
                format!("received: weight summed over queries, as a share of the largest, {most:.2}"),
                side,
            )
        }
    };
    Ok(framed(scan, shapes, [width, height], &format!("layer {layer}, head {head}: {what}")))
}

/// Puts a title above and the recipe below.
fn framed(scan: &Scan, body: Vec<Shape>, [width, height]: [usize; 2], title: &str) -> Picture {
    let width = width.max(COLUMNS * CHARACTER);
    let fit = width / CHARACTER;
    let above = wrap(title, fit);
    let mut shapes = Vec::new();
    let mut y = MARGIN;
    for line in &above {
        shapes.push(Shape::Text([MARGIN, y], INK, line.clone()));
        y += LINE;
    }
    y += LINE / 2;
    for shape in body {
        shapes.push(match shape {
            Shape::Rectangle([left, top, w, h], colour) => {
                Shape::Rectangle([left + MARGIN, top + y, w, h], colour)
            }
            Shape::Text([left, top], colour, text) => Shape::Text([left + MARGIN, top + y], colour, text),
        });
    }
    y += height + LINE;
    // The scale: white is 0, the darkest shade 1, and shades go with the root, so that small shares show.
    shapes.push(Shape::Text([MARGIN, y], PALE, "0".into()));
    for shade in 0..SHADES {
        let left = MARGIN + 2 * CHARACTER + shade * 4;
        shapes.push(Shape::Rectangle([left, y, 4, LINE - 4], colour(shade)));
    }
    let right = MARGIN + 3 * CHARACTER + SHADES * 4;
    shapes.push(Shape::Text([right, y], PALE, "1   (the shade is the square root of the share)".into()));
    y += LINE + LINE / 2;
    for line in recipe(scan).iter().flat_map(|line| wrap(line, fit)) {
        shapes.push(Shape::Text([MARGIN, y], PALE, line));
        y += LINE;
    }
    let title = title.to_owned();
    Picture { width: width + 2 * MARGIN, height: y + MARGIN, title, shapes }
}

/// How the picture was made.
pub(super) fn recipe(scan: &Scan) -> Vec<String> {
    let (weights, made) = match &scan.recipe.origin {
        Origin::Command { line, sha256 } => {
            (format!(" SHA-256 {},", sha256.get(..16).unwrap_or(sha256)), line.clone())
        }
        Origin::Python { call } => (String::new(), call.clone()),
    };
    let (model, tokens) = (scan.model.with_family(), scan.tokens.len());
    vec![format!("{model}, {tokens} tokens,{weights} glasshead {}", scan.recipe.version), made]
}

/// The first query of each row of squares.
fn down(rows: usize, size: usize) -> Vec<usize> {
    (0..rows).map(|row| row * size).collect()
}

/// Of numbers that are marked on an axis, those that have room: so many, one after the other, take as many pixels.
fn marked(cells: usize, side: usize, room: usize) -> impl Iterator<Item = usize> {
    let least = room.div_ceil(side);
    // 1, 2, 5, 10, 20, …
    let steps = (0..).flat_map(|power| [1, 2, 5].map(|digit| digit * 10usize.pow(power)));
    (0..cells).step_by(steps.into_iter().find(|step| *step >= least).unwrap_or(1))
}

/// `shares [rows, columns]` as squares, each of `size` keys; neighbours of one shade are drawn at once. `queries` are the
/// first of each row. Numbers of tokens stand on the left and below.
fn map(shares: &[f32], columns: usize, queries: &[usize], size: usize) -> (Vec<Shape>, [usize; 2]) {
    let rows = shares.len() / columns.max(1);
    let side = (MAP / rows.max(columns).max(1)).max(1);
    // Few rows are as high as a line of text.
    let high = (MAP / rows.max(1)).clamp(side, LINE.max(side));
    // The keys that no query sees stay as pale as paper; a frame shows how far the map goes.
    let (width, height) = (columns * side, rows * high);
    let last = [queries.last().copied().unwrap_or(0), columns.saturating_sub(1) * size];
    let digits = last.map(|last| last.to_string().len());
    let (left, below) = ((digits[0] + 1) * CHARACTER, height + 2 + LINE / 4);
    let mut numbers = Vec::new();
    for row in marked(rows, high, if high < LINE { 2 * LINE } else { LINE }) {
        let number = queries.get(row).map_or_else(String::new, usize::to_string);
        let x = (digits[0] - number.len().min(digits[0])) * CHARACTER;
        numbers.push(Shape::Text([x, row * high], PALE, number));
    }
    for column in marked(columns, side, (digits[1] + 2) * CHARACTER) {
        let number = (column * size).to_string();
        numbers.push(Shape::Text([left + 1 + column * side, below], PALE, number));
    }
    let mut shapes = vec![
        Shape::Rectangle([left, 0, width + 2, height + 2], [218, 220, 224]),
        Shape::Rectangle([left + 1, 1, width, height], WHITE),
    ];
    shapes.append(&mut numbers);
    for (row, shares) in shares.chunks_exact(columns.max(1)).enumerate() {
        let mut column = 0;
        while column < columns {
            let shade = shade(shares[column]);
            let same = shares[column..].iter().take_while(|&&share| self::shade(share) == shade).count();
            if shade > 0 {
                let place = [left + 1 + column * side, 1 + row * high, same * side, high];
                shapes.push(Shape::Rectangle(place, colour(shade)));
            }
            column += same;
        }
    }
    (shapes, [left + width + 2 + digits[1] * CHARACTER, below + LINE])
}

/// The tokens as text, each on the shade of its share; what lies between tokens is left white.
fn strip(scan: &Scan, shares: &[f32]) -> Result<(Vec<Shape>, [usize; 2])> {
    let mut strip = Strip { shapes: Vec::new(), x: 0, y: 0 };
    let mut end = 0;
    for (token, &share) in scan.tokens.iter().zip(shares) {
        let placed = token.start < token.end;
        match scan.text.get(end..token.start) {
            Some(between) if placed => strip.write(between, None),
            // Ids and special tokens have no place in the text: a blank keeps them apart.
            _ if !placed && strip.x > 0 => strip.write(" ", None),
            _ => {}
        }
        strip.write(&token.text, Some(shade(share)));
        end = end.max(token.end);
        if strip.y > HIGHEST || strip.x > HIGHEST {
            return Err(Error::request(
                format!("the strip of {} tokens is too large for a picture", scan.tokens.len()),
                "draw the map with --read blocks, or scan a part of the text",
            ));
        }
    }
    let side = [COLUMNS * CHARACTER, strip.y + LINE];
    Ok((strip.shapes, side))
}

/// A page that is written from left to right.
struct Strip {
    shapes: Vec<Shape>,
    x: usize,
    y: usize,
}

impl Strip {
    /// Writes a token on its shade, or what lies between tokens on none.
    fn write(&mut self, text: &str, shade: Option<usize>) {
        for (index, part) in text.split('\n').enumerate() {
            if index > 0 {
                // A line break can carry weight as well: it is shaded as one character.
                if let Some(shade) = shade {
                    self.shapes.push(Shape::Rectangle([self.x, self.y, CHARACTER, LINE], colour(shade)));
                }
                (self.x, self.y) = (0, self.y + LINE);
            }
            let part: String = part.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            let width = part.chars().count() * CHARACTER;
            if self.x > 0 && self.x + width > COLUMNS * CHARACTER {
                (self.x, self.y) = (0, self.y + LINE);
            }
            if let Some(shade) = shade.filter(|_| width > 0) {
                let ink = if shade > SHADES / 2 { WHITE } else { INK };
                self.shapes.push(Shape::Rectangle([self.x, self.y, width, LINE], colour(shade)));
                self.shapes.push(Shape::Text([self.x, self.y], ink, part));
            }
            self.x += width;
        }
    }
}

fn shade(share: f32) -> usize {
    // NaN casts to 0.
    (share.clamp(0.0, 1.0).sqrt() * (SHADES - 1) as f32).round() as usize
}

/// From white to a dark blue.
fn colour(shade: usize) -> Colour {
    const DARK: Colour = [8, 48, 107];
    let part = |channel: usize| {
        let (from, to) = (f64::from(WHITE[channel]), f64::from(DARK[channel]));
        (from + (to - from) * shade as f64 / (SHADES - 1) as f64).round() as u8
    };
    [part(0), part(1), part(2)]
}

/// Lines of at most `fit` characters, cut at blanks where there are some.
fn wrap(text: &str, fit: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let characters: Vec<char> = word.chars().collect();
        for piece in characters.chunks(fit) {
            let used = line.chars().count();
            if used > 0 && used + 1 + piece.len() > fit {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.extend(piece.iter().map(|&c| if c.is_control() { '\u{fffd}' } else { c }));
        }
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_at_blanks_and_long_words_anywhere() {
        assert_eq!(wrap("ab cd efghijk", 5), ["ab cd", "efghi", "jk"]);
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn shades_go_from_white_to_dark_and_odd_numbers_draw_nothing() {
        assert_eq!((shade(0.0), shade(1.0), shade(7.0), shade(-1.0)), (0, 63, 63, 0));
        assert_eq!(shade(f32::NAN), 0);
        assert_eq!((colour(0), colour(63)), (WHITE, [8, 48, 107]));
    }

    #[test]
    fn a_map_draws_neighbours_of_one_shade_at_once() {
        let (shapes, side) = map(&[1.0, 1.0, 0.0, 0.0, 0.25, 1.0], 3, &[0, 10], 10);
        assert_eq!(side, [24 + 512 / 3 * 3 + 2 + 16, 512 / 3 * 2 + 2 + 4 + LINE]);
        let squares = shapes.iter().filter(|shape| matches!(shape, Shape::Rectangle(..))).count();
        assert_eq!(squares, 2 + 3);
        let number =
            |shape: &Shape| if let Shape::Text(_, _, text) = shape { Some(text.clone()) } else { None };
        let numbers: Vec<_> = shapes.iter().filter_map(number).collect();
        assert_eq!(numbers, ["0", "10", "0", "10", "20"]);
    }

    #[test]
    fn few_rows_are_as_high_as_a_line() {
        let (_, [_, height]) = map(&[0.5; 2000], 1000, &[3, 999], 1);
        assert_eq!(height, 2 * LINE + 2 + 4 + LINE);
    }

    #[test]
    fn numbers_on_an_axis_do_not_touch() {
        assert_eq!(marked(5, 100, 40).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!(marked(300, 2, 40).collect::<Vec<_>>(), (0..300).step_by(20).collect::<Vec<_>>());
    }
}
