//! Prompt pairs from BLiMP, which has single prompts: two rows make a pair.

use std::collections::HashMap;

use super::record::{Answer, Prompt, Record};
use super::row::BlimpRow;

/// Makes a pair of each row that another row corrupts, and counts the rows that none does.
///
/// A row's corrupted prompt is the next row's prefix, in a circle, whose good word is this row's
/// bad word and which has as many tokens. The answer is the good word and the wrong answer the bad
/// one, each after a space.
pub(super) fn pairs(rows: Vec<BlimpRow>, n_tokens: &dyn Fn(&str) -> Option<usize>) -> (Vec<Record>, usize) {
    let lengths: Vec<Option<usize>> = rows.iter().map(|row| n_tokens(&row.prefix)).collect();
    let mut by_word: HashMap<(&str, Option<usize>), Vec<usize>> = HashMap::new();
    for (number, row) in rows.iter().enumerate() {
        by_word.entry((row.good.as_str(), lengths[number])).or_default().push(number);
    }
    let mut records = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let key = (row.bad.as_str(), lengths[number]);
        let Some(partners) = by_word.get(&key).filter(|_| lengths[number].is_some()) else { continue };
        let next = partners.partition_point(|&partner| partner <= number);
        let Some(&partner) = partners.get(next).or(partners.first()) else { continue };
        let word = |word: &str| vec![Answer::Text(format!(" {word}"))];
        records.push(Record {
            place: row.place,
            clean: Prompt::Text(row.prefix.clone()),
            corrupted: Prompt::Text(rows[partner].prefix.clone()),
            answers: word(&row.good),
            wrong_answers: word(&row.bad),
            position: None,
        });
    }
    let left_out = rows.len() - records.len();
    (records, left_out)
}

#[cfg(test)]
mod tests {
    use super::super::record::Place;
    use super::*;

    #[test]
    fn blimp_rows_are_corrupted_by_the_next_row_of_equal_length_with_the_other_word() {
        let row = |line: usize, prefix: &str, good: &str, bad: &str| BlimpRow {
            place: Place::Line(line),
            prefix: prefix.to_owned(),
            good: good.to_owned(),
            bad: bad.to_owned(),
        };
        let rows = vec![
            row(1, "Laura can help", "herself", "himself"),
            row(2, "Paul can help", "himself", "herself"),
            row(3, "Paul can not help", "himself", "herself"),
            row(4, "Mark may help", "himself", "herself"),
        ];
        let words = |text: &str| Some(text.split(' ').count());
        let (found, left_out) = pairs(rows, &words);
        assert_eq!(left_out, 1);
        let shown: Vec<_> = found.iter().map(|r| (r.place, r.clean.clone(), r.corrupted.clone())).collect();
        let text = |text: &str| Prompt::Text(text.to_owned());
        assert_eq!(shown[0], (Place::Line(1), text("Laura can help"), text("Paul can help")));
        assert_eq!(shown[1], (Place::Line(2), text("Paul can help"), text("Laura can help")));
        assert_eq!(shown[2], (Place::Line(4), text("Mark may help"), text("Laura can help")));
    }
}
