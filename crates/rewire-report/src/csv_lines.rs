//! The contents of `effects.csv`: one number per line, with names of its node, tokens and unit.

use crate::axis_labels::{AxisLabels, SetLabels, at, is_of_positions, is_present, length, n_numbers, node_name};
use crate::error::ReportError;
use crate::tables::Table;

/// The axes that tables have, in the order of the CSV file's columns.
pub const AXES: [&str; 24] = [
    "prompt",
    "layer",
    "head",
    "neuron",
    "layer_end",
    "head_end",
    "input",
    "layer_start",
    "head_start",
    "writer",
    "reader",
    "pos",
    "dest",
    "src",
    "node",
    "edge",
    "pos_from_end",
    "dest_from_end",
    "src_from_end",
    "curve",
    "place",
    "circuit",
    "size",
    "figure",
];

/// Most numbers that a table in the CSV file may have. Places without an edge do not count. Larger
/// tables are only in the tensors, because nobody would read them as text.
pub const CSV_LIMIT: usize = 50_000;

/// The columns of the file.
struct Columns<'a> {
    has_nodes: bool,
    has_units: bool,
    /// The axes of any table, without the axes `node` and `edge`, whose names stand in the column
    /// `node`.
    axes: Vec<&'a str>,
    /// The axes of positions with a token in any row. The marked positions count as `pos`.
    tokens: Vec<&'a str>,
}

/// The tokens along an axis of positions.
enum Tokens<'a> {
    /// The tokens that all prompts have in common.
    Common(&'a SetLabels<'a>),
    /// The tokens of each prompt.
    ByPrompt(Vec<Vec<String>>),
    /// The token at the marked position of each prompt.
    Marked(Vec<String>),
}

/// Returns the contents of `effects.csv` for tables that were measured with the metric of this
/// name. A column that would be empty in every row is left out.
pub(crate) fn lines(tables: &[Table], metric: &str, labels: &AxisLabels) -> Result<Vec<u8>, ReportError> {
    let tables: Vec<&Table> = tables.iter().filter(|table| n_numbers(table) <= CSV_LIMIT).collect();
    let columns = Columns::of(&tables, metric, labels);
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(columns.header())?;
    for table in tables {
        let unit = columns.has_units.then(|| table.unit(metric).unwrap_or_default());
        let set = labels.of_table(&table.name);
        let tokens: Vec<_> = columns.tokens.iter().map(|axis| (*axis, tokens(table, axis, set))).collect();
        for (index, value) in table.values.indexed_iter() {
            let index = ndarray::Dimension::slice(&index);
            if !is_present(table, index) {
                continue;
            }
            let node = columns.has_nodes.then(|| node_name(table, index).unwrap_or_default());
            let places =
                columns.axes.iter().map(|axis| at(table, axis, index).map_or(String::new(), |i| i.to_string()));
            let tokens = tokens.iter().map(|(axis, tokens)| token(table, axis, tokens.as_ref(), index));
            let cells = [table.name.clone()].into_iter().chain(node).chain(places).chain(tokens);
            writer.write_record(cells.chain([value.to_string()]).chain(unit.map(str::to_owned)))?;
        }
    }
    writer.into_inner().map_err(|e| ReportError::Csv(csv::Error::from(e.into_error())))
}

impl<'a> Columns<'a> {
    fn of(tables: &[&'a Table], metric: &str, labels: &AxisLabels) -> Self {
        let mut axes: Vec<&str> = Vec::new();
        for axis in tables.iter().copied().flat_map(|table| &table.axes) {
            if axis != "node" && axis != "edge" && !axes.contains(&axis.as_str()) {
                axes.push(axis);
            }
        }
        axes.sort_by_key(|axis| AXES.iter().position(|known| known == axis).unwrap_or(AXES.len()));
        let has_token = |axis: &str| {
            tables.iter().any(|table| match tokens(table, axis, labels.of_table(&table.name)) {
                Some(Tokens::Common(set)) => (0..length(table, axis)).any(|i| set.common_token(axis, i).is_some()),
                Some(Tokens::Marked(tokens)) => length(table, "prompt") > 0 || shared(&tokens).is_some(),
                Some(Tokens::ByPrompt(_)) => true,
                None => false,
            })
        };
        let marked = (!axes.contains(&"pos")).then_some("pos");
        let candidates = axes.iter().copied().chain(marked);
        Self {
            has_nodes: tables.iter().any(|table| node_name(table, &vec![0; table.axes.len()]).is_some()),
            has_units: tables.iter().any(|table| table.unit(metric).is_some()),
            tokens: candidates.filter(|axis| has_token(axis)).collect(),
            axes,
        }
    }

    fn header(&self) -> Vec<String> {
        let node = self.has_nodes.then_some("node");
        let unit = self.has_units.then_some("unit");
        let tokens = self.tokens.iter().map(|axis| token_column(axis));
        let axes = node.into_iter().chain(self.axes.iter().copied()).map(str::to_owned);
        let last = ["value"].into_iter().chain(unit).map(str::to_owned);
        ["table".to_owned()].into_iter().chain(axes).chain(tokens).chain(last).collect()
    }
}

/// Returns the name of the column with the tokens of an axis: `token`, `dest_token`, `src_token`.
fn token_column(axis: &str) -> String {
    match axis {
        "pos" => "token".to_owned(),
        axis => format!("{axis}_token"),
    }
}

/// Returns the tokens along an axis, if it runs over positions of known prompts.
fn tokens<'a>(table: &Table, axis: &str, set: Option<&'a SetLabels<'a>>) -> Option<Tokens<'a>> {
    if axis == "pos" && table.is_at_marks {
        return set?.marked_tokens().map(Tokens::Marked);
    }
    let set = set.filter(|_| is_of_positions(axis) && length(table, axis) > 0)?;
    Some(match length(table, "prompt") {
        0 => Tokens::Common(set),
        prompts => Tokens::ByPrompt((0..prompts).map(|prompt| set.tokens_of_prompt(axis, prompt)).collect()),
    })
}

/// Returns the cell with the token at an index; empty where there is none, or where prompts differ.
fn token(table: &Table, axis: &str, tokens: Option<&Tokens>, index: &[usize]) -> String {
    let prompt = at(table, "prompt", index);
    let found = match (tokens, at(table, axis, index)) {
        (Some(Tokens::Marked(tokens)), _) => match prompt {
            Some(prompt) => tokens.get(prompt).map(String::as_str),
            None => shared(tokens),
        },
        (Some(Tokens::Common(set)), Some(position)) => set.common_token(axis, position),
        (Some(Tokens::ByPrompt(tokens)), Some(position)) => {
            prompt.and_then(|prompt| tokens.get(prompt)?.get(position)).map(String::as_str)
        }
        _ => None,
    };
    found.map_or(String::new(), printable)
}

/// Returns the token, if all are the same.
fn shared(tokens: &[String]) -> Option<&str> {
    let first = tokens.first()?;
    tokens.iter().all(|token| token == first).then_some(first.as_str())
}

/// Returns a token with its control characters escaped, so that each number keeps one line.
fn printable(token: &str) -> String {
    let escape = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    token.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use ndarray::{ArrayD, IxDyn};
    use rewire_analysis::edges::EdgeGraph;
    use rewire_analysis::run::Scale;
    use rewire_model::TransformerConfig;
    use rewire_tasks::{PromptPair, PromptPairs};

    use super::*;
    use crate::labels::Labels;
    use crate::tables::Quantity;

    fn table(name: &str, axes: &[&str], shape: &[usize]) -> Table {
        Table {
            name: name.to_owned(),
            axes: axes.iter().map(|axis| (*axis).to_owned()).collect(),
            values: ArrayD::zeros(IxDyn(shape)),
            quantity: Quantity::Effect,
            scale: Some(Scale::Metric),
            ..Table::default()
        }
    }

    #[test]
    fn a_table_of_edges_has_one_line_for_each_edge() {
        let graph = EdgeGraph::new(&TransformerConfig::gpt2(1, 1, 8, 11, 6));
        let table = Table { edges: Some(graph), ..table("edges", &["writer", "reader"], &[3, 5]) };
        let pairs = pairs(&[&[1, 2]]);
        let labels = Labels::Each(&pairs);
        let csv = String::from_utf8(lines(&[table], "logit-diff", &AxisLabels::new(&labels)).unwrap()).unwrap();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines[..2], ["table,node,writer,reader,value,unit", "edges,input->a0.h0<q>,0,0,0,logits"]);
        assert_eq!(lines.len(), 1 + graph.n_edges());
        assert!(lines.contains(&"edges,a0.h0->logits,1,4,0,logits"), "{csv}");
    }

    fn pairs(prompts: &[&[u32]]) -> PromptPairs {
        let pair = |clean: &&[u32]| PromptPair {
            clean: clean.to_vec(),
            corrupted: clean.to_vec(),
            answers: vec![0],
            wrong_answers: vec![1],
        };
        let pairs = PromptPairs::new(prompts.iter().map(pair).collect()).unwrap();
        pairs.with_token_labels(|token| if token == 9 { "\n".to_owned() } else { format!(" t{token}") })
    }

    fn written(tables: &[Table], labels: &Labels) -> Vec<String> {
        let bytes = lines(tables, "logit-diff", &AxisLabels::new(labels)).unwrap();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn large_tables_are_left_out() {
        let tables = [table("small", &["neuron"], &[CSV_LIMIT]), table("large", &["neuron"], &[CSV_LIMIT + 1])];
        let lines = written(&tables, &Labels::None);
        assert_eq!(lines.len(), 1 + CSV_LIMIT);
        assert!(lines.iter().all(|line| !line.contains("large")));
    }

    #[test]
    fn no_column_is_empty_in_every_row() {
        let heads = table("head_z", &["layer", "head"], &[1, 2]);
        let expected = ["table,node,layer,head,value,unit", "head_z,L0H0,0,0,0,logits", "head_z,L0H1,0,1,0,logits"];
        assert_eq!(written(&[heads], &Labels::None), expected);
        let curves = Table { quantity: Quantity::Other, ..table("curves", &["curve", "place"], &[1, 1]) };
        assert_eq!(written(&[curves], &Labels::None), ["table,curve,place,value", "curves,0,0,0"]);
        let later = table("later", &["layer", "an_axis_of_later"], &[1, 1]);
        assert_eq!(written(&[later], &Labels::None)[0], "table,node,layer,an_axis_of_later,value,unit");
    }

    #[test]
    fn positions_have_the_token_that_all_prompts_share() {
        let pairs = pairs(&[&[1, 2, 9], &[1, 5, 9]]);
        let found = written(&[table("mlp_out@position", &["layer", "pos"], &[1, 3])], &Labels::Each(&pairs));
        let expected = [
            "table,node,layer,pos,token,value,unit",
            "mlp_out@position,L0@0,0,0, t1,0,logits",
            "mlp_out@position,L0@1,0,1,,0,logits",
            "mlp_out@position,L0@2,0,2,\\n,0,logits",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn marked_positions_have_their_token() {
        let marked =
            |name: &str, axes: &[&str], shape: &[usize]| Table { is_at_marks: true, ..table(name, axes, shape) };
        let pairs = pairs(&[&[1, 2], &[3, 2]]).with_marked_positions(vec![0, 1]).unwrap();
        let each = marked("mlp_out@marked", &["prompt", "layer"], &[2, 1]);
        let expected = [
            "table,node,prompt,layer,token,value,unit",
            "mlp_out@marked,L0,0,0, t1,0,logits",
            "mlp_out@marked,L0,1,0, t2,0,logits",
        ];
        assert_eq!(written(&[each], &Labels::Each(&pairs)), expected);
        let mean = marked("mlp_out@marked", &["layer"], &[1]);
        assert_eq!(written(std::slice::from_ref(&mean), &Labels::Each(&pairs))[0], "table,node,layer,value,unit");
        let pairs = pairs.with_marked_positions(vec![1, 1]).unwrap();
        let expected = ["table,node,layer,token,value,unit", "mlp_out@marked,L0,0, t2,0,logits"];
        assert_eq!(written(&[mean], &Labels::Each(&pairs)), expected);
    }

    #[test]
    fn positions_of_single_prompts_have_the_tokens_of_the_prompt() {
        let pairs = pairs(&[&[1, 2], &[3]]);
        let cells = table("head_pattern@cell", &["prompt", "layer", "head", "dest", "src"], &[2, 1, 1, 2, 1]);
        let found = written(&[cells], &Labels::Each(&pairs));
        let expected = [
            "table,node,prompt,layer,head,dest,src,dest_token,src_token,value,unit",
            "head_pattern@cell,L0H0@0<-0,0,0,0,0,0, t1, t1,0,logits",
            "head_pattern@cell,L0H0@1<-0,0,0,0,1,0, t2, t1,0,logits",
            "head_pattern@cell,L0H0@0<-0,1,0,0,0,0, t3, t3,0,logits",
            "head_pattern@cell,L0H0@1<-0,1,0,0,1,0,, t3,0,logits",
        ];
        assert_eq!(found, expected);
    }
}
