//! The way of a run through the blocks: the rows that enter at each depth, the keys and values
//! before them, and the positions that the last block computes.
//!
//! A plain run has one segment: its rows enter as tokens, pass every block and are read. The sweep
//! engine needs more. It lets rows enter as residual streams before a block or between its halves,
//! and computes the last block only at the positions that are read.
//! [`Transformer::forward`](crate::network::transformer::Transformer::forward) calls this file at
//! each step, to keep its own lines as simple as the paper's.

use std::iter::Peekable;
use std::ops::Range;
use std::vec::IntoIter;

use burn::tensor::{Int, Tensor, backend::Backend};

use crate::config::TransformerConfig;
use crate::error::ModelError;
use crate::network::attention::{AttentionContext, KeysValues, ReadRows};
use crate::network::backward::BackwardRule;
use crate::network::block::Midway;
use crate::network::rotary::{Rotary, Turning};
use crate::network::run::{LastBlock, Prefix, ReadPositions, Readout, Run, RunStart};

/// The segments of one run, checked against the model.
pub(crate) struct Segments<B: Backend> {
    /// Tokens that start the run. `None` after the model has embedded them.
    tokens: Option<Tensor<B, 2, Int>>,
    /// Residual streams that enter later, each with its depth in halves of a block, from shallow to
    /// deep.
    entering: Peekable<IntoIter<(usize, Tensor<B, 3>)>>,
    /// The number of rows that have entered.
    rows: usize,
    /// The first computed position.
    first: usize,
    /// The number of computed positions.
    pos: usize,
    prefix: Option<Prefix<B>>,
    /// How fast each layer turns, in rotary models; otherwise empty.
    turning: Vec<Turning>,
    /// Rotation angles of the computed positions, for each way of turning.
    rotary: Vec<(Turning, Rotary<B>)>,
    readout: Readout,
    last_block: LastBlock,
    n_layers: usize,
    stop_at: Option<usize>,
    backward: BackwardRule,
    device: B::Device,
}

/// The positions at which rows continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Computed,
    Read,
}

impl<B: Backend> Segments<B> {
    /// Makes the segments of `run`. Checks that its parts fit the model and each other.
    pub(crate) fn new(run: Run<B>, config: &TransformerConfig, device: &B::Device) -> Result<Self, ModelError> {
        let first = run.prefix.as_ref().map_or(0, Prefix::len);
        let [_, pos] = run.start.rows();
        check_starts(&run, config)?;
        check_positions(&run, config, first)?;
        check_readout(&run, config, first)?;
        let turning: Vec<Turning> = (0..config.n_layers).filter_map(|layer| Turning::of(config, layer)).collect();
        let mut rotary: Vec<(Turning, Rotary<B>)> = Vec::new();
        for &way in &turning {
            if rotary.iter().all(|(known, _)| *known != way) {
                rotary.push((way, Rotary::shared(way, first..first + pos, device)));
            }
        }
        let Run { start, joining, prefix, readout, last_block, stop_at, backward } = run;
        let (mut tokens, mut rows, mut entering) = (None, 0, Vec::new());
        for start in [start].into_iter().chain(joining) {
            let depth = start.depth();
            match start {
                RunStart::Tokens(ids) => (rows, tokens) = (ids.dims()[0], Some(ids)),
                RunStart::Residual { residual, .. } | RunStart::ResidMid { residual, .. } => {
                    entering.push((depth, residual))
                }
            }
        }
        let entering = entering.into_iter().peekable();
        let (n_layers, device) = (config.n_layers, device.clone());
        Ok(Self {
            tokens,
            entering,
            rows,
            first,
            pos,
            prefix,
            turning,
            rotary,
            readout,
            last_block,
            n_layers,
            stop_at,
            backward,
            device,
        })
    }

    /// Takes the tokens that start the run, if there are any, with the position of the first.
    pub(crate) fn tokens(&mut self) -> Option<(Tensor<B, 2, Int>, usize)> {
        self.tokens.take().map(|tokens| (tokens, self.first))
    }

    /// Returns what a backward pass through the run computes.
    pub(crate) fn backward(&self) -> BackwardRule {
        self.backward
    }

    /// Returns the largest number of blocks that the run passes.
    pub(crate) fn n_blocks(&self) -> usize {
        self.stop_at.unwrap_or(self.n_layers)
    }

    /// Returns the rows so far, `x`, followed by those that enter before block `layer`.
    pub(crate) fn enter_block(&mut self, layer: usize, x: Option<Tensor<B, 3>>) -> Option<Tensor<B, 3>> {
        self.enter(x, 2 * layer, At::Computed)
    }

    /// Returns the rows so far, `mid`, followed by those that enter between the halves of block
    /// `layer`.
    pub(crate) fn enter_mid(&mut self, layer: usize, mid: Option<Midway<B>>) -> Option<Midway<B>> {
        let at = if self.narrows(layer) { At::Read } else { At::Computed };
        let (residual, attn_out) = mid.map_or((None, None), |mid| (Some(mid.residual), mid.attn_out));
        self.enter(residual, 2 * layer + 1, at).map(|residual| Midway { residual, attn_out })
    }

    /// Returns the rows at the end of the run, at the positions that are read.
    pub(crate) fn leave(&mut self, x: Option<Tensor<B, 3>>) -> Option<Tensor<B, 3>> {
        let is_narrow = self.n_blocks() == self.n_layers && self.last_block == LastBlock::ReadPositions;
        let x = x.map(|x| match is_narrow {
            true => x,
            false => self.select(x, 0..self.rows, At::Read),
        });
        self.enter(x, 2 * self.n_blocks(), At::Read)
    }

    /// Returns the vocabulary columns that are read: `None` if the run ends without logits,
    /// `Some(None)` for all columns.
    pub(crate) fn columns(&self) -> Option<Option<&[usize]>> {
        match (self.stop_at, self.readout.columns.as_deref()) {
            (Some(_), _) | (None, Some([])) => None,
            (None, columns) => Some(columns),
        }
    }

    /// Returns the properties of the run that attention in block `layer` needs.
    pub(crate) fn attention(&self, layer: usize) -> AttentionContext<B> {
        let read = if self.narrows(layer) { self.read_rows(0..self.rows) } else { None };
        let shared =
            |way: &Turning| self.rotary.iter().find(|(known, _)| known == way).map(|(_, angles)| angles.clone());
        let rotary = self.turning.get(layer).and_then(|way| {
            let keys = shared(way)?;
            Some(match &read {
                Some(read) => [Rotary::each(*way, &read.positions, read.per_row, &self.device), keys],
                None => [keys.clone(), keys],
            })
        });
        let earlier = self.prefix.as_ref().map(|prefix| prefix.keys_values[layer].clone());
        AttentionContext { first: self.first, rotary, earlier, read, backward: self.backward }
    }

    /// Returns whether block `layer` computes its queries and everything after them only at the
    /// positions that are read.
    fn narrows(&self, layer: usize) -> bool {
        layer + 1 == self.n_layers && self.last_block == LastBlock::ReadPositions
    }

    /// Appends the rows that enter at `depth`, which counts halves of a block.
    fn enter(&mut self, x: Option<Tensor<B, 3>>, depth: usize, at: At) -> Option<Tensor<B, 3>> {
        let mut parts: Vec<Tensor<B, 3>> = x.into_iter().collect();
        while let Some((_, residual)) = self.entering.next_if(|(entry, _)| *entry == depth) {
            let from = self.rows;
            self.rows += residual.dims()[0];
            parts.push(self.select(residual, from..self.rows, at));
        }
        if parts.len() > 1 { Some(Tensor::cat(parts, 0)) } else { parts.pop() }
    }

    /// Returns `x`, which holds these rows of the batch, at the positions that `at` names.
    fn select(&self, x: Tensor<B, 3>, rows: Range<usize>, at: At) -> Tensor<B, 3> {
        match (at, self.read_rows(rows)) {
            (At::Read, Some(read)) => read.select(x),
            _ => x,
        }
    }

    /// Returns the positions at which these rows are read, or `None` if all positions are read.
    fn read_rows(&self, rows: Range<usize>) -> Option<ReadRows<B>> {
        match &self.readout.positions {
            ReadPositions::Each(positions) => {
                Some(ReadRows::new(&positions[rows], 1, self.first, self.pos, &self.device))
            }
            ReadPositions::Several { positions, per_prompt } => {
                let read = &positions[rows.start * per_prompt..rows.end * per_prompt];
                Some(ReadRows::new(read, *per_prompt, self.first, self.pos, &self.device))
            }
            ReadPositions::All => None,
        }
    }
}

fn agree(what: &'static str, expected: usize, found: usize) -> Result<(), ModelError> {
    if expected == found { Ok(()) } else { Err(ModelError::RunShape { what, expected, found }) }
}

fn below(what: &'static str, bound: usize, found: usize) -> Result<(), ModelError> {
    if found < bound { Ok(()) } else { Err(ModelError::RunShape { what, expected: bound, found }) }
}

/// Checks that rows enter at layers that the model has and the run passes, from shallow to deep.
fn check_starts<B: Backend>(run: &Run<B>, config: &TransformerConfig) -> Result<(), ModelError> {
    let starts = || [&run.start].into_iter().chain(&run.joining);
    let n_blocks = run.stop_at.unwrap_or(config.n_layers);
    below("layer to stop before (must be below the expected number)", config.n_layers + 1, n_blocks)?;
    for start in starts() {
        if let RunStart::Residual { layer, residual } | RunStart::ResidMid { layer, residual } = start {
            let from_mid = matches!(start, RunStart::ResidMid { .. });
            let layers = if from_mid { n_blocks } else { n_blocks + 1 };
            below("first layer of the run (must be below the expected number)", layers, *layer)?;
            if from_mid && config.parallel_block {
                let what = "starts between attention and MLP (this model runs both in parallel)";
                return Err(ModelError::RunShape { what, expected: 0, found: 1 });
            }
            agree("width of the residual stream", config.d_model, residual.dims()[2])?;
        }
    }
    let [_, pos] = run.start.rows();
    let mut depth = run.start.depth();
    for start in &run.joining {
        agree("positions of rows that join the run", pos, start.rows()[1])?;
        if matches!(start, RunStart::Tokens(_)) || start.depth() < depth {
            let what =
                "depth of rows that join, in halves of a block (they must be residual streams, from shallow to deep)";
            return Err(ModelError::RunShape { what, expected: depth, found: start.depth() });
        }
        depth = start.depth();
    }
    Ok(())
}

/// Checks that there are tokens, that the context holds them, and that the prefix has the same
/// prompts.
fn check_positions<B: Backend>(run: &Run<B>, config: &TransformerConfig, first: usize) -> Result<(), ModelError> {
    let [rows, pos] = run.start.rows();
    let batch = rows + run.joining.iter().map(|start| start.rows()[0]).sum::<usize>();
    if batch * pos == 0 {
        return Err(ModelError::NoTokens);
    }
    if first + pos > config.n_ctx {
        return Err(ModelError::ContextExceeded { found: first + pos, n_ctx: config.n_ctx });
    }
    let Some(prefix) = &run.prefix else { return Ok(()) };
    agree("layers of the key/value prefix", config.n_layers, prefix.keys_values.len())?;
    for KeysValues { keys, values } in &prefix.keys_values {
        for prompts in [keys.dims()[0], values.dims()[0]] {
            for [rows, _] in [&run.start].into_iter().chain(&run.joining).map(RunStart::rows) {
                let whole = rows - rows % prompts.max(1);
                agree("rows that hold whole copies of the prefix's prompts", rows, whole)?;
            }
        }
    }
    Ok(())
}

/// Checks that the positions and columns that are read are computed.
fn check_readout<B: Backend>(run: &Run<B>, config: &TransformerConfig, first: usize) -> Result<(), ModelError> {
    let [rows, pos] = run.start.rows();
    let batch = rows + run.joining.iter().map(|start| start.rows()[0]).sum::<usize>();
    let Readout { positions, columns } = &run.readout;
    let positions: &[usize] = match positions {
        ReadPositions::All => &[],
        ReadPositions::Each(positions) => {
            agree("positions read (one per prompt)", batch, positions.len())?;
            positions
        }
        ReadPositions::Several { positions, per_prompt } => {
            below("positions read of each prompt (must be more than the expected number)", *per_prompt, 0)?;
            agree("positions read (as many for each prompt)", batch * per_prompt, positions.len())?;
            positions
        }
    };
    for &position in positions {
        below("position read (must be below the expected number)", first + pos, position)?;
        below("first computed position (must not come after the position read)", position + 1, first)?;
    }
    for &column in columns.iter().flatten() {
        below("vocabulary column read (must be below the expected number)", config.d_vocab, column)?;
    }
    Ok(())
}
