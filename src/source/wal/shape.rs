//! Geometric values as Debezium sends them: a point with its coordinates, others in well-known binary ("OpenGIS Simple
//! Features Access", part 1, section 8), a circle and a line in their parts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::source::wal::kind::Shape;

const POINT: u32 = 1;
const LINE_STRING: u32 = 2;
const POLYGON: u32 = 3;

/// Reads a value as Postgres prints it.
pub(super) fn read(shape: Shape, text: &str) -> Option<Value> {
    let numbers = numbers(text)?;
    let points = || pairs(&numbers);
    Some(match (shape, numbers.as_slice()) {
        (Shape::Point, &[x, y]) => point(x, y),
        (Shape::Circle, &[x, y, radius]) => json!({"center": point(x, y), "radius": radius}),
        (Shape::Line, &[a, b, c]) => json!({"a": a, "b": b, "c": c}),
        (Shape::Box, &[right, top, left, bottom]) => {
            let corners = [(right, top), (right, bottom), (left, bottom), (left, top), (right, top)];
            geometry(&ring(&corners), "box", None)
        }
        (Shape::Segment, [_, _, _, _]) => geometry(&string(&points()?), "lseg", None),
        (Shape::Path, _) => {
            let is_closed = text.starts_with('(');
            geometry(&string(&points()?), "path", Some(is_closed))
        }
        (Shape::Polygon, _) => {
            let mut points = points()?;
            points.push(*points.first()?);
            geometry(&ring(&points), "polygon", None)
        }
        _ => return None,
    })
}

/// The numbers of a text, which are separated by commas between brackets of any kind.
fn numbers(text: &str) -> Option<Vec<f64>> {
    let separate = |letter: char| matches!(letter, '(' | ')' | '[' | ']' | '{' | '}' | '<' | '>' | ',');
    let parts = text.split(separate).filter(|part| !part.is_empty());
    let numbers = parts.map(|part| part.parse().ok().filter(|number: &f64| number.is_finite()));
    numbers.collect()
}

fn pairs(numbers: &[f64]) -> Option<Vec<(f64, f64)>> {
    let pairs = numbers.chunks(2).map(|pair| match pair {
        &[x, y] => Some((x, y)),
        _ => None,
    });
    pairs.collect()
}

fn point(x: f64, y: f64) -> Value {
    let mut bytes = header(POINT);
    push(&mut bytes, x, y);
    json!({"x": x, "y": y, "wkb": BASE64.encode(bytes), "srid": null})
}

fn geometry(bytes: &[u8], kind: &str, is_closed: Option<bool>) -> Value {
    let extensions = match is_closed {
        Some(is_closed) => json!({"closed": is_closed.to_string(), "type": kind}),
        None => json!({"type": kind}),
    };
    json!({"wkb": BASE64.encode(bytes), "srid": null, "extensions": extensions})
}

fn string(points: &[(f64, f64)]) -> Vec<u8> {
    let mut bytes = header(LINE_STRING);
    push_all(&mut bytes, points);
    bytes
}

/// A polygon of one ring.
fn ring(points: &[(f64, f64)]) -> Vec<u8> {
    let mut bytes = header(POLYGON);
    bytes.extend(1_u32.to_le_bytes());
    push_all(&mut bytes, points);
    bytes
}

/// The order of bytes, little end first, and what follows.
fn header(kind: u32) -> Vec<u8> {
    let mut bytes = vec![1];
    bytes.extend(kind.to_le_bytes());
    bytes
}

fn push_all(bytes: &mut Vec<u8>, points: &[(f64, f64)]) {
    bytes.extend(u32::try_from(points.len()).unwrap_or(u32::MAX).to_le_bytes());
    for (x, y) in points {
        push(bytes, *x, *y);
    }
}

fn push(bytes: &mut Vec<u8>, x: f64, y: f64) {
    bytes.extend(x.to_le_bytes());
    bytes.extend(y.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wkb(shape: Shape, text: &str) -> String {
        let value = read(shape, text).unwrap_or_default();
        value["wkb"].as_str().unwrap_or_default().to_owned()
    }

    /// What Debezium 3.7.0 sent.
    #[test]
    fn shapes_are_sent_as_the_connector_sends_them() {
        assert_eq!(
            read(Shape::Point, "(1.5,-2)"),
            Some(json!({"x": 1.5, "y": -2.0, "wkb": "AQEAAAAAAAAAAAD4PwAAAAAAAADA", "srid": null}))
        );
        assert_eq!(
            wkb(Shape::Box, "(1,1),(0,0)"),
            "AQMAAAABAAAABQAAAAAAAAAAAPA/AAAAAAAA8D8AAAAAAADwPwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA8D8AAAAAAADwPwAAAAAAAPA/"
        );
        assert_eq!(
            wkb(Shape::Segment, "[(0,0),(1,1)]"),
            "AQIAAAACAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAPA/AAAAAAAA8D8="
        );
        assert_eq!(
            wkb(Shape::Polygon, "((0,0),(1,1),(2,0))"),
            "AQMAAAABAAAABAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAADwPwAAAAAAAPA/AAAAAAAAAEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
        );
        let path = read(Shape::Path, "((0,0),(1e300,-0))").unwrap_or_default();
        assert_eq!(path["wkb"], "AQIAAAACAAAAAAAAAAAAAAAAAAAAAAAAAJx1AIg85Dd+AAAAAAAAAIA=");
        assert_eq!(path["extensions"], json!({"closed": "true", "type": "path"}));
        assert_eq!(
            read(Shape::Circle, "<(0,0),5>").map(|circle| circle["radius"].clone()),
            Some(json!(5.0))
        );
        assert_eq!(
            read(Shape::Line, "{1,-1,0}"),
            Some(json!({"a": 1.0, "b": -1.0, "c": 0.0}))
        );
    }

    #[test]
    fn what_is_no_shape_is_none() {
        assert_eq!(read(Shape::Point, "(1)"), None);
        assert_eq!(read(Shape::Point, "(x,y)"), None);
        assert_eq!(read(Shape::Polygon, ""), None);
        assert_eq!(read(Shape::Path, "[(0,0),(1)]"), None);
    }
}
