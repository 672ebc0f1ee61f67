//! CSV tables of prompt pairs, as EAP-IG and CircuitKIT write them.

use std::collections::BTreeMap;

use super::foreign;
use super::record::{Answer, Place, Prompt, Record};

/// The columns of a table, by name.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    at: BTreeMap<String, usize>,
    names: Vec<String>,
    answers: AnswerColumns,
    clean: &'static str,
    corrupted: String,
}

/// Where a table's answers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AnswerColumns {
    /// Token ids, or lists of token ids, for one tokenizer, with text to check them if the table
    /// has it.
    Ids { right: &'static str, wrong: &'static str, text: IdText },
    /// Text, or lists of text.
    Text { right: &'static str, wrong: &'static str },
    /// A two-digit year: the later years are right, the others wrong.
    Years { column: &'static str },
}

/// The text that shows whether token ids are of the model's tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IdText {
    /// There is none.
    Absent,
    /// The answers, right then wrong, each of which its token begins.
    Answers([&'static str; 2]),
    /// The clean prompt, which names all answers.
    Prompt,
}

/// The column that only tables of indirect object identification have. Their answers are names in
/// the prompt.
const IOI: &str = "corrupted_hard";

/// Columns of token ids, right then wrong, and columns of the answers as text, in the tables of
/// EAP-IG.
const IDS: [(&str, &str, Option<[&str; 2]>); 4] = [
    ("correct_idx", "incorrect_idx", None),
    ("country_idx", "corrupted_country_idx", Some(["country", "corrupted_country"])),
    ("clean_answer_idx", "corrupted_answer_idx", None),
    ("answers_idx", "corrupted_answers_idx", Some(["answers", "corrupted_answers"])),
];

/// Columns of text answers, right then wrong.
const TEXTS: [(&str, &str); 5] = [
    ("answers", "wrong_answers"),
    ("answer", "wrong_answer"),
    ("answer", "corrupt_answer"),
    ("clean_answer", "corrupted_answer"),
    ("clean_answer", "patch_answer"),
];

/// Names of the column of clean prompts, and of corrupted prompts.
const CLEAN: [&str; 3] = ["clean", "question", "clean_prefix"];
const CORRUPTED: [&str; 3] = ["corrupted", "corrupt", "patch_prefix"];

impl Columns {
    /// Reads the header. `corrupted` names the column of corrupted prompts if it is not
    /// `corrupted`.
    ///
    /// # Errors
    /// A sentence that lists the columns that were found and those that are expected.
    pub(super) fn new<'a>(header: impl Iterator<Item = &'a str>, corrupted: Option<&str>) -> Result<Self, String> {
        let names: Vec<String> = header.map(|name| name.trim_start_matches('\u{feff}').trim().to_owned()).collect();
        let mut at = BTreeMap::new();
        for (place, name) in names.iter().enumerate() {
            if !name.is_empty() && at.insert(name.clone(), place).is_some() {
                return Err(format!("the column `{}` is there twice", rewire_input::cut(name)));
            }
        }
        let has = |name: &str| at.contains_key(name);
        let found = || {
            let shown: Vec<_> = names.iter().take(12).map(String::as_str).collect();
            rewire_input::cut(&shown.join(", "))
        };
        let clean = CLEAN.into_iter().find(|name| has(name));
        let other = match corrupted {
            Some(name) if has(name) => Some(name.to_owned()),
            Some(name) => return Err(format!("there is no column `{name}`; the columns are {}", found())),
            None => CORRUPTED.into_iter().find(|name| has(name)).map(str::to_owned),
        };
        let (Some(clean), Some(corrupted)) = (clean, other) else {
            let kind = foreign::clause(has);
            return Err(format!("expected the columns `clean` and `corrupted`, and found {}{kind}", found()));
        };
        let ids = IDS.into_iter().find(|(right, wrong, _)| has(right) && has(wrong));
        let texts = TEXTS.into_iter().find(|(right, wrong)| has(right) && has(wrong));
        let years = ["correct_idx", "label"].into_iter().find(|name| has(name));
        let answers = match (ids, texts, years) {
            (Some((right, wrong, text)), ..) => {
                let text = match text.filter(|names| names.iter().all(|name| has(name))) {
                    Some(names) => IdText::Answers(names),
                    None if has(IOI) => IdText::Prompt,
                    None => IdText::Absent,
                };
                AnswerColumns::Ids { right, wrong, text }
            }
            (None, Some((right, wrong)), _) => AnswerColumns::Text { right, wrong },
            (None, None, Some(column)) => AnswerColumns::Years { column },
            (None, None, None) if has("plural") => {
                return Err(
                    "subject-verb tables name no answers: they are a list of verbs elsewhere; write them into the \
                            columns `answers` and `wrong_answers`"
                        .to_owned(),
                );
            }
            (None, None, None) => {
                return Err(format!(
                    "expected answers in `answer` and `wrong_answer` (text) or `correct_idx` and `incorrect_idx` (token ids), \
                     and found the columns {}",
                    found()
                ));
            }
        };
        Ok(Self { at, names, answers, clean, corrupted })
    }

    /// Reads a row.
    ///
    /// # Errors
    /// A sentence that names the column.
    pub(super) fn record(&self, place: Place, row: &csv::StringRecord) -> Result<Record, String> {
        if row.len() != self.names.len() {
            return Err(format!("the row has {} fields, and the header {}", row.len(), self.names.len()));
        }
        let get = |name: &str| row.get(self.at[name]).unwrap_or_default();
        let clean = get(self.clean).to_owned();
        if let Some(empty) = [self.clean, self.corrupted.as_str()].into_iter().find(|name| get(name).is_empty()) {
            return Err(format!("the column `{empty}` is empty"));
        }
        let (answers, wrong_answers) = match self.answers {
            AnswerColumns::Ids { right, wrong, text } => {
                let [of_right, of_wrong] = match text {
                    IdText::Answers(columns) => columns.map(|column| OfId::Texts(texts(get(column)))),
                    IdText::Prompt => [OfId::Prompt(&clean), OfId::Prompt(&clean)],
                    IdText::Absent => [OfId::Nothing, OfId::Nothing],
                };
                (ids(right, get(right), &of_right)?, ids(wrong, get(wrong), &of_wrong)?)
            }
            AnswerColumns::Text { right, wrong } => {
                let of = |column: &str| {
                    let found = texts(get(column));
                    let space = if clean.ends_with(char::is_whitespace) { "" } else { " " };
                    let spaced = |text: String| match text.starts_with(char::is_whitespace) {
                        true => Answer::Text(text),
                        false => Answer::Text(format!("{space}{text}")),
                    };
                    match found.is_empty() {
                        true => Err(format!("the column `{column}` is empty")),
                        false => Ok(found.into_iter().map(spaced).collect()),
                    }
                };
                (of(right)?, of(wrong)?)
            }
            AnswerColumns::Years { column } => years(column, &clean, get(column))?,
        };
        Ok(Record {
            place,
            clean: Prompt::Text(clean),
            corrupted: Prompt::Text(get(&self.corrupted).to_owned()),
            answers,
            wrong_answers,
            position: None,
        })
    }
}

/// The elements of a list as Python prints it, `['a', "b"]` or `[1, 2]`; text that is no list is
/// one element.
fn texts(field: &str) -> Vec<String> {
    let Some(inner) = field.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else {
        return if field.is_empty() { Vec::new() } else { vec![field.to_owned()] };
    };
    let mut found = Vec::new();
    let mut rest = inner.trim_start();
    while !rest.is_empty() {
        let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'));
        let (element, after) = match quote {
            Some(quote) => quoted_element(&rest[1..], quote),
            None => match rest.split_once(',') {
                Some((element, after)) => (element.trim().to_owned(), after),
                None => (rest.trim().to_owned(), ""),
            },
        };
        found.push(element);
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    found
}

/// The text up to the closing quote, and what follows it.
fn quoted_element(text: &str, quote: char) -> (String, &str) {
    let mut element = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => element.extend(characters.next().map(|(_, escaped)| escaped)),
            end if end == quote => return (element, &text[at + end.len_utf8()..]),
            other => element.push(other),
        }
    }
    (element, "")
}

/// What a row says about the text of token ids.
enum OfId<'a> {
    Nothing,
    /// The text of each answer, which its token begins.
    Texts(Vec<String>),
    /// The prompt, which names the answers.
    Prompt(&'a str),
}

/// Token ids of a field, each with the text that shows whether they are of the model's tokenizer.
fn ids(column: &str, field: &str, of_id: &OfId) -> Result<Vec<Answer>, String> {
    let numbers = texts(field);
    if numbers.is_empty() {
        return Err(format!("the column `{column}` is empty"));
    }
    let id = |(place, number): (usize, &String)| {
        let id: u32 = number
            .parse()
            .map_err(|_| format!("the column `{column}` holds {}; expected token ids", rewire_input::quoted(number)))?;
        Ok(match of_id {
            OfId::Texts(texts) if texts.len() == numbers.len() => {
                Answer::IdOf { id, text: texts[place].trim().to_owned() }
            }
            OfId::Prompt(prompt) => Answer::IdIn { id, prompt: (*prompt).to_owned() },
            OfId::Texts(_) | OfId::Nothing => Answer::Id(id),
        })
    };
    numbers.iter().enumerate().map(id).collect()
}

/// The two-digit years after `year`, and the others, for a prompt that ends in a century.
fn years(column: &str, clean: &str, year: &str) -> Result<(Vec<Answer>, Vec<Answer>), String> {
    let ends_in_century = clean.chars().rev().take(2).filter(char::is_ascii_digit).count() == 2;
    let year = year.trim().parse::<usize>().ok().filter(|year| (1..99).contains(year));
    let (true, Some(year)) = (ends_in_century, year) else {
        return Err(format!(
            "the table has `{column}` and no column of wrong answers, which is the greater-than task: expected a prompt that \
             ends in two digits of a year, and a year from 1 to 98 in `{column}`"
        ));
    };
    let texts = |years: std::ops::Range<usize>| years.map(|year| Answer::Text(format!("{year:02}"))).collect();
    Ok((texts(year + 1..100), texts(0..year + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_list_literals_are_parsed() {
        assert_eq!(texts("['gem', \"jewel's\"]"), ["gem", "jewel's"]);
        assert_eq!(texts("[16840, 23685]"), ["16840", "23685"]);
        assert_eq!(texts(r"['it\'s', 'a, b']"), ["it's", "a, b"]);
        assert_eq!(texts("Paris"), ["Paris"]);
        assert!(texts("").is_empty() && texts("[]").is_empty());
    }

    #[test]
    fn ids_of_names_come_with_the_prompt_that_holds_them() {
        let row = ["When Mary met John, John saw", "When Mary met John, Tom saw", "", "3", "4"];
        let read = |hard: &str| {
            let header = ["clean", "corrupted", hard, "correct_idx", "incorrect_idx"];
            let columns = Columns::new(header.into_iter(), None).unwrap();
            columns.record(Place::Line(2), &csv::StringRecord::from(row.to_vec())).unwrap().answers
        };
        assert_eq!(read(IOI), [Answer::IdIn { id: 3, prompt: row[0].to_owned() }]);
        assert_eq!(read("other"), [Answer::Id(3)]);
    }

    #[test]
    fn greater_than_answers_are_the_later_years() {
        let (right, wrong) = years("correct_idx", "from the year 1352 to the year 13", "52").unwrap();
        assert_eq!((right.len(), wrong.len()), (47, 53));
        assert_eq!((&right[0], &wrong[52]), (&Answer::Text("53".to_owned()), &Answer::Text("52".to_owned())));
        assert!(years("correct_idx", "no year", "52").unwrap_err().contains("greater-than"));
    }
}
