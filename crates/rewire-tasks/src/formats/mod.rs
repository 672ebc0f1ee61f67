//! Files of prompt pairs as this field writes them, recognized by their content.

mod auto_circuit;
mod blimp;
mod foreign;
mod look;
mod record;
mod row;
mod table;

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use rewire_input::{Line, cut, read_line};
use serde_json::Value;

use look::{Look, expected, look_of, not_json, other_encoding};
pub use record::Place;
pub(crate) use record::{Answer, Mark, Prompt, Record};
use row::{BlimpRow, Schema};

/// Most bytes of a line. Two texts of the longest that is tokenized fit, whatever JSON escapes in
/// them.
pub(crate) const MOST_LINE_BYTES: usize = 16 << 20;
/// Most bytes of a file that is parsed as a whole: a JSON object or a CSV table.
const MOST_WHOLE_BYTES: u64 = 256 << 20;

/// The format of a file of prompt pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON Lines with `clean`, `corrupt`, `answers` and `wrong_answers`.
    JsonLines,
    /// JSON Lines with `clean_prefix` and `patch_prefix`, as feature-circuits writes them.
    FeatureCircuits,
    /// JSON Lines with counterfactuals by name, as MIB has them.
    Mib,
    /// JSON Lines with one prefix and two words, as BLiMP has them.
    Blimp,
    /// A JSON object with a list `prompts`, as auto-circuit writes it.
    AutoCircuit,
    /// A CSV table, as EAP-IG writes it.
    Csv,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::JsonLines => "JSON Lines",
            Format::FeatureCircuits => "JSON Lines of feature-circuits",
            Format::Mib => "JSON Lines of MIB",
            Format::Blimp => "JSON Lines of BLiMP",
            Format::AutoCircuit => "a JSON object of auto-circuit",
            Format::Csv => "a CSV table",
        })
    }
}

/// Which of a file's alternatives are read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Choices<'a> {
    /// The counterfactual of MIB's rows, or the column of a table's corrupted prompts.
    pub counterfactual: Option<&'a str>,
    /// The word of auto-circuit's `word_idxs` whose position is marked.
    pub mark: Option<&'a str>,
}

impl Choices<'_> {
    /// Returns why a choice does not apply to a file of this format.
    fn misfit(self, format: Format) -> Option<String> {
        let (flag, of) = match (self.counterfactual, self.mark) {
            (Some(_), _) if !matches!(format, Format::Mib | Format::Csv) => {
                ("--counterfactual", "a counterfactual of MIB's rows or a column of a CSV table")
            }
            (_, Some(_)) if format != Format::AutoCircuit => ("--mark", "a word of auto-circuit's `word_idxs`"),
            _ => return None,
        };
        Some(format!("{flag} names {of}, and this file is {format}; remove {flag}"))
    }
}

/// Why a file's content is not read.
#[derive(Debug)]
pub(crate) enum Unread {
    /// The file cannot be read.
    Io(std::io::Error),
    /// A line is too long.
    LineTooLong(usize),
    /// A byte of a line is not UTF-8; both counted from 1.
    NotUtf8 { line: usize, column: usize },
    /// The file as a whole is not one of the formats.
    Whole(String),
}

impl From<std::io::Error> for Unread {
    fn from(error: std::io::Error) -> Self {
        Unread::Io(error)
    }
}

/// A file's pairs, and what else it says.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) format: Option<Format>,
    /// Names of the positions of every prompt's text, the BOS not counted.
    pub(crate) labels: Option<Vec<String>>,
    /// Rows of BLiMP that no other row makes a pair with.
    pub(crate) without_partner: usize,
}

/// Gives every record of the file to `work`, or the sentence that says why it is none. `n_tokens`
/// counts the tokens of a text; BLiMP's rows are paired by it.
pub(crate) fn each_record<E: From<Unread>>(
    path: &Path,
    choices: Choices,
    n_tokens: &dyn Fn(&str) -> Option<usize>,
    mut work: impl FnMut(Place, Result<Record, String>) -> Result<(), E>,
) -> Result<Found, E> {
    let mut reader = BufReader::new(File::open(path).map_err(Unread::Io)?);
    let (number, first) = match first_line(&mut reader)? {
        Some(first) => first,
        None => return Ok(Found::default()),
    };
    let found = match look_of(&first) {
        Look::Rows => rows(reader, (number, first), choices, n_tokens, work)?,
        Look::Object => {
            let mut text = first;
            read_whole(reader, &mut text)?;
            let object = whole_object(&text).map_err(Unread::Whole)?;
            let found = auto_circuit::object(&object, choices.mark).map_err(Unread::Whole)?;
            for (place, record) in found.records {
                work(place, record)?;
            }
            Found { format: Some(Format::AutoCircuit), labels: found.labels, without_partner: 0 }
        }
        Look::Array => {
            let mut text = first;
            read_whole(reader, &mut text)?;
            return Err(Unread::Whole(expected(&array(&text))).into());
        }
        Look::Table => {
            let mut text = first;
            read_whole(reader, &mut text)?;
            csv_rows(&text, number, choices, work)?
        }
        Look::Other(what) => return Err(Unread::Whole(expected(what)).into()),
    };
    match found.format.and_then(|format| choices.misfit(format)) {
        Some(reason) => Err(Unread::Whole(reason).into()),
        None => Ok(found),
    }
}

/// What a JSON array looks like: rows that are to be written one per line, or another file.
fn array(text: &str) -> String {
    let elements: Vec<Value> = serde_json::from_str(text).unwrap_or_default();
    match elements.first() {
        Some(Value::Object(element)) if row::schema(element).is_err() => {
            format!("a JSON array of objects with the keys {}", foreign::described(element))
        }
        _ => "a JSON array; write its elements one per line (jq -c '.[]' FILE > pairs.jsonl)".to_owned(),
    }
}

/// Returns the object that a text is, unless it is a pair.
fn whole_object(text: &str) -> Result<serde_json::Map<String, Value>, String> {
    let over_lines = "a JSON object over several lines; write each pair on one line (jq -c . FILE > pairs.jsonl)";
    if let Some(key) = rewire_input::repeated_key(text.as_bytes()) {
        return Err(format!("the key `{}` is there twice", cut(&key)));
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) if object.contains_key("prompts") || row::schema(&object).is_err() => Ok(object),
        Ok(_) => Err(expected(over_lines)),
        Err(error) if error.to_string().starts_with("trailing characters") => Err(expected(over_lines)),
        Err(error) => Err(format!("the file begins like a JSON object and is not one: {}", cut(&error.to_string()))),
    }
}

/// The first line that is not blank, without a byte order mark, and its number from 1.
fn first_line(reader: &mut impl BufRead) -> Result<Option<(usize, String)>, Unread> {
    let mut bytes = Vec::new();
    for number in 1.. {
        let Some(line) = next_line(reader, number, &mut bytes)? else { return Ok(None) };
        if !line.trim().is_empty() {
            return Ok(Some((number, line.to_owned())));
        }
    }
    Ok(None)
}

/// The next line as text; `None` at the end.
fn next_line<'a>(reader: &mut impl BufRead, number: usize, bytes: &'a mut Vec<u8>) -> Result<Option<&'a str>, Unread> {
    match read_line(reader, MOST_LINE_BYTES, bytes)? {
        Line::End => return Ok(None),
        Line::TooLong => return Err(Unread::LineTooLong(number)),
        Line::Whole => {}
    }
    let text = std::str::from_utf8(bytes).map_err(|error| match other_encoding(bytes).filter(|_| number == 1) {
        Some(reason) => Unread::Whole(reason.to_owned()),
        None => Unread::NotUtf8 { line: number, column: error.valid_up_to() + 1 },
    })?;
    Ok(Some(if number == 1 { text.trim_start_matches('\u{feff}') } else { text }))
}

/// Appends the rest of the file to `text`.
fn read_whole(reader: impl Read, text: &mut String) -> Result<(), Unread> {
    text.push('\n');
    let mut rest = reader.take(MOST_WHOLE_BYTES + 1);
    let read = rest.read_to_string(text).map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => Unread::Whole("the file is not UTF-8; save it as UTF-8".to_owned()),
        _ => Unread::Io(error),
    })?;
    if read as u64 > MOST_WHOLE_BYTES {
        return Err(Unread::Whole(format!(
            "the file has more than {MOST_WHOLE_BYTES} bytes, the most that is read of this format; write JSON Lines"
        )));
    }
    Ok(())
}

/// Reads JSON Lines; one line at a time is in memory.
fn rows<E: From<Unread>>(
    mut reader: impl BufRead,
    (mut number, first): (usize, String),
    choices: Choices,
    n_tokens: &dyn Fn(&str) -> Option<usize>,
    mut work: impl FnMut(Place, Result<Record, String>) -> Result<(), E>,
) -> Result<Found, E> {
    let mut found = Found::default();
    let mut of_file: Option<Schema> = None;
    let mut unpaired: Vec<BlimpRow> = Vec::new();
    let mut bytes = first.into_bytes();
    loop {
        let content = std::str::from_utf8(&bytes).unwrap_or_default();
        if !content.trim().is_empty() {
            let place = Place::Line(number);
            match row(content, place, choices, &mut of_file) {
                Ok(Row::Pair(record)) => work(place, Ok(record))?,
                Ok(Row::Blimp(row)) => unpaired.push(row),
                Err(reason) => work(place, Err(reason))?,
            }
        }
        number += 1;
        let mut next = Vec::new();
        if next_line(&mut reader, number, &mut next)?.is_none() {
            break;
        }
        bytes = next;
    }
    found.format = of_file.map(|schema| match schema {
        Schema::Own => Format::JsonLines,
        Schema::Prefixes => Format::FeatureCircuits,
        Schema::Mib => Format::Mib,
        Schema::Blimp => Format::Blimp,
    });
    let (records, without_partner) = blimp::pairs(unpaired, n_tokens);
    found.without_partner = without_partner;
    for record in records {
        work(record.place, Ok(record))?;
    }
    Ok(found)
}

/// What one line gives.
enum Row {
    Pair(Record),
    Blimp(BlimpRow),
}

fn row(content: &str, place: Place, choices: Choices, of_file: &mut Option<Schema>) -> Result<Row, String> {
    let value: Value = serde_json::from_str(content).map_err(|error| not_json(content, &error))?;
    let Value::Object(object) = value else {
        return Err(format!("expected a JSON object, and this is {}", record::kind(&value)));
    };
    if let Some(key) = rewire_input::repeated_key(content.as_bytes()) {
        return Err(format!("the key `{}` is there twice", cut(&key)));
    }
    let schema = row::schema(&object)?;
    if *of_file.get_or_insert(schema) != schema {
        return Err("its keys are of another format than those of the lines before".to_owned());
    }
    Ok(match schema {
        Schema::Own => Row::Pair(row::own(place, &object)?),
        Schema::Prefixes => Row::Pair(row::prefixes(place, &object)?),
        Schema::Mib => Row::Pair(row::mib(place, &object, choices.counterfactual)?),
        Schema::Blimp => Row::Blimp(row::blimp(place, &object)?),
    })
}

/// Reads a CSV table whose header is on line `header`.
fn csv_rows<E: From<Unread>>(
    text: &str,
    header: usize,
    choices: Choices,
    mut work: impl FnMut(Place, Result<Record, String>) -> Result<(), E>,
) -> Result<Found, E> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).has_headers(false).from_reader(text.as_bytes());
    let mut columns: Option<table::Columns> = None;
    for row in reader.records() {
        let row = row.map_err(|error| Unread::Whole(cut(&error.to_string())))?;
        let line = row.position().map_or(header, |position| header - 1 + position.line() as usize);
        match &columns {
            None => {
                let of_header = table::Columns::new(row.iter(), choices.counterfactual);
                columns = Some(of_header.map_err(|reason| Unread::Whole(format!("line {line}: {reason}")))?);
            }
            Some(columns) => work(Place::Line(line), columns.record(Place::Line(line), &row))?,
        }
    }
    Ok(Found { format: Some(Format::Csv), ..Found::default() })
}
