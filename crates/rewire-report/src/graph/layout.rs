//! The places of the nodes and edges of a layered graph, whose rows are given.
//!
//! Edges that pass rows get a lane in each of them, so that no edge runs below a node. The order in
//! a row is that of the barycenters of the neighbors (Sugiyama et al. 1981), with the fewest
//! crossings of all sweeps. The places are then the nearest to the neighbors that keep the order
//! and the distances. General layout crates choose the rows themselves, and here a row is a layer.

/// Distance between two nodes of a row.
const NODE_GAP: f32 = 14.0;
/// Distance between lanes, and between a lane and a node.
const LANE_GAP: f32 = 5.0;
/// Width of a lane.
const LANE: f32 = 3.0;
/// Number of sweeps over all rows that order them, and that move their nodes.
const SWEEPS: usize = 24;
/// How much a connection pulls its ends together: of two lanes, of a lane and a node, of two nodes.
const PULLS: [f32; 3] = [8.0, 2.0, 1.0];

/// A node to place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    /// The row, from 0.
    pub(super) row: usize,
    /// The width.
    pub(super) width: f32,
}

/// The places in a layered graph, from 0 to `width`.
#[derive(Debug, Clone, Default)]
pub(super) struct Layout {
    /// The center of each node.
    pub(super) centers: Vec<f32>,
    /// The places at which each edge passes the rows between its ends, from its start to its end.
    pub(super) lanes: Vec<Vec<f32>>,
    /// The width of all.
    pub(super) width: f32,
}

/// A node, or the lane of an edge in a row.
#[derive(Debug)]
struct Cell {
    row: usize,
    width: f32,
    is_lane: bool,
    /// Connected cells of the row before and of the row after.
    neighbors: [Vec<usize>; 2],
    x: f32,
}

/// Places nodes in their rows, and edges in lanes between them. Edges end in a later row than they
/// start in; others have no lanes.
pub(super) fn layered(blocks: &[Block], edges: &[[usize; 2]]) -> Layout {
    let n_rows = blocks.iter().map(|block| block.row + 1).max().unwrap_or(0);
    let cell = |row, width, is_lane| Cell { row, width, is_lane, neighbors: [Vec::new(), Vec::new()], x: 0.0 };
    let mut cells: Vec<Cell> = blocks.iter().map(|block| cell(block.row, block.width, false)).collect();
    let mut lanes: Vec<Vec<usize>> = Vec::new();
    for &[from, to] in edges {
        let mut of_edge = Vec::new();
        let mut last = from;
        for row in blocks[from].row + 1..blocks[to].row {
            cells.push(cell(row, LANE, true));
            of_edge.push(cells.len() - 1);
            connect(&mut cells, last, cells_end(&of_edge, from));
            last = cells_end(&of_edge, from);
        }
        if blocks[from].row < blocks[to].row {
            connect(&mut cells, last, to);
        }
        lanes.push(of_edge);
    }
    let mut rows: Vec<Vec<usize>> = vec![Vec::new(); n_rows];
    (0..cells.len()).for_each(|at| rows[cells[at].row].push(at));
    order(&cells, &mut rows);
    place(&mut cells, &rows);
    let left = cells.iter().map(|cell| cell.x - cell.width / 2.0).fold(f32::INFINITY, f32::min);
    let at = |cell: usize| cells[cell].x - left;
    Layout {
        centers: (0..blocks.len()).map(at).collect(),
        lanes: lanes.iter().map(|of_edge| of_edge.iter().map(|&lane| at(lane)).collect()).collect(),
        width: cells.iter().map(|cell| cell.x + cell.width / 2.0 - left).fold(0.0, f32::max),
    }
}

/// Returns the last lane of an edge, or its start.
fn cells_end(lanes: &[usize], from: usize) -> usize {
    lanes.last().copied().unwrap_or(from)
}

fn connect(cells: &mut [Cell], before: usize, after: usize) {
    cells[before].neighbors[1].push(after);
    cells[after].neighbors[0].push(before);
}

/// Orders the cells of each row. Sweeps go up by the row before and down by the row after, in turn.
fn order(cells: &[Cell], rows: &mut Vec<Vec<usize>>) {
    let mut best = (crossings(cells, rows), rows.clone());
    for sweep in 0..SWEEPS {
        let side = sweep % 2;
        let places: Vec<usize> = if side == 0 { (0..rows.len()).collect() } else { (0..rows.len()).rev().collect() };
        let mut position = positions(cells.len(), rows);
        for row in places {
            let center = |at: &usize| {
                let of = &cells[*at].neighbors[side];
                match of.len() {
                    0 => position[*at],
                    n => of.iter().map(|&other| position[other]).sum::<f32>() / n as f32,
                }
            };
            let mut keyed: Vec<(f32, usize)> = rows[row].iter().map(|at| (center(at), *at)).collect();
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
            rows[row] = keyed.into_iter().map(|(_, at)| at).collect();
            set_positions(&rows[row], &mut position);
        }
        let now = crossings(cells, rows);
        if now < best.0 {
            best = (now, rows.clone());
        }
    }
    *rows = best.1;
}

/// Returns the place of each cell in its row, as a share of the row.
fn positions(n: usize, rows: &[Vec<usize>]) -> Vec<f32> {
    let mut position = vec![0.0; n];
    rows.iter().for_each(|row| set_positions(row, &mut position));
    position
}

fn set_positions(row: &[usize], position: &mut [f32]) {
    row.iter().enumerate().for_each(|(i, &at)| position[at] = (i as f32 + 0.5) / row.len() as f32);
}

/// Returns the number of crossings between neighboring rows.
fn crossings(cells: &[Cell], rows: &[Vec<usize>]) -> usize {
    let position = positions(cells.len(), rows);
    let between = |row: &Vec<usize>| {
        let ends = |&at: &usize| {
            let mut ends: Vec<f32> = cells[at].neighbors[1].iter().map(|&other| position[other]).collect();
            ends.sort_by(f32::total_cmp);
            ends
        };
        let ends: Vec<f32> = row.iter().flat_map(ends).collect();
        (0..ends.len()).map(|i| ends[..i].iter().filter(|end| **end > ends[i]).count()).sum::<usize>()
    };
    rows.iter().map(between).sum()
}

/// Places the cells, each near its neighbors.
fn place(cells: &mut [Cell], rows: &[Vec<usize>]) {
    for row in rows {
        let starts = starts(cells, row);
        row.iter().zip(starts).for_each(|(&at, start)| cells[at].x = start);
    }
    for sweep in 0..SWEEPS {
        let sides: &[usize] = if sweep + 2 < SWEEPS { [&[0], &[1]][sweep % 2] } else { &[0, 1] };
        for place in 0..rows.len() {
            let row = &rows[if sweep % 2 == 0 { place } else { rows.len() - 1 - place }];
            let wanted: Vec<[f32; 2]> = row.iter().map(|&at| wanted(cells, at, sides)).collect();
            let starts = starts(cells, row);
            let shifts: Vec<[f32; 2]> =
                wanted.iter().zip(&starts).map(|([x, weight], start)| [x - start, *weight]).collect();
            let shifts = increasing(&shifts);
            row.iter().enumerate().for_each(|(i, &at)| cells[at].x = starts[i] + shifts[i]);
        }
    }
}

/// Returns the places of a row's cells that are as close as they may be.
fn starts(cells: &[Cell], row: &[usize]) -> Vec<f32> {
    let mut x = 0.0;
    let mut starts = Vec::with_capacity(row.len());
    for (i, &at) in row.iter().enumerate() {
        if let Some(before) = i.checked_sub(1).map(|i| &cells[row[i]]) {
            let gap = if before.is_lane || cells[at].is_lane { LANE_GAP } else { NODE_GAP };
            x += before.width / 2.0 + gap + cells[at].width / 2.0;
        }
        starts.push(x);
    }
    starts
}

/// Returns the place that the neighbors of a cell want for it, and with what weight.
fn wanted(cells: &[Cell], at: usize, sides: &[usize]) -> [f32; 2] {
    let (mut sum, mut weight) = (0.0, 0.0);
    for &other in sides.iter().flat_map(|&side| &cells[at].neighbors[side]) {
        let pull = match (cells[at].is_lane, cells[other].is_lane) {
            (true, true) => PULLS[0],
            (false, false) => PULLS[2],
            _ => PULLS[1],
        };
        sum += pull * cells[other].x;
        weight += pull;
    }
    if weight > 0.0 { [sum / weight, weight] } else { [cells[at].x, 0.01] }
}

/// Returns the increasing values that are nearest to some, each `[value, weight]`, in the weighted
/// mean square (pool adjacent violators).
fn increasing(values: &[[f32; 2]]) -> Vec<f32> {
    // Blocks of equal values: sum of value times weight, sum of weights, length.
    let mut pools: Vec<(f32, f32, usize)> = Vec::new();
    for [value, weight] in values {
        let mut pool = (value * weight, *weight, 1);
        while let Some(before) = pools.last().filter(|before| before.0 / before.1 >= pool.0 / pool.1) {
            pool = (before.0 + pool.0, before.1 + pool.1, before.2 + pool.2);
            pools.pop();
        }
        pools.push(pool);
    }
    pools.iter().flat_map(|(sum, weight, n)| std::iter::repeat_n(sum / weight, *n)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns 40 nodes in eight rows, and 200 edges upward.
    fn dense() -> (Vec<Block>, Vec<[usize; 2]>) {
        let blocks: Vec<Block> = (0..40).map(|i| Block { row: i / 5, width: 64.0 + (i % 3) as f32 * 20.0 }).collect();
        let all = (0..40).flat_map(|from| (0..40).map(move |to| [from, to]));
        let edges = all.filter(|[from, to]| from / 5 < to / 5 && (from * 5 + to * 3) % 4 < 2).take(200).collect();
        (blocks, edges)
    }

    #[test]
    fn nodes_and_lanes_of_a_row_do_not_overlap() {
        let (blocks, edges) = dense();
        let found = layered(&blocks, &edges);
        assert_eq!(edges.len(), 200, "as many edges as the largest circuit that is drawn in tests");
        for row in 0..8 {
            let nodes = (0..40).filter(|&i| blocks[i].row == row).map(|i| [found.centers[i], blocks[i].width]);
            let lanes = edges.iter().zip(&found.lanes).filter_map(|([from, _], lanes)| {
                let passed = row.checked_sub(blocks[*from].row + 1)?;
                lanes.get(passed).map(|x| [*x, LANE])
            });
            let mut all: Vec<[f32; 2]> = nodes.chain(lanes).collect();
            all.sort_by(|a, b| a[0].total_cmp(&b[0]));
            assert!(all.len() > 5 || row == 0 || row == 7, "row {row} has lanes");
            for two in all.windows(2) {
                let gap = two[1][0] - two[0][0] - (two[0][1] + two[1][1]) / 2.0;
                assert!(gap > LANE_GAP - 0.1, "row {row}: {two:?}");
            }
            assert!(all.iter().all(|[x, w]| x - w / 2.0 > -0.1 && x + w / 2.0 < found.width + 0.1));
        }
    }

    #[test]
    fn crossings_that_an_order_can_avoid_are_avoided() {
        // A ladder whose rungs are crossed in the order of the input.
        let blocks: Vec<Block> = (0..8).map(|i| Block { row: i / 4, width: 60.0 }).collect();
        let edges = [[0, 7], [1, 6], [2, 5], [3, 4]];
        let found = layered(&blocks, &edges);
        for [from, to] in edges {
            assert!((found.centers[from] - found.centers[to]).abs() < 1.0, "{found:?}");
        }
    }

    #[test]
    fn an_edge_past_rows_is_straight_if_nothing_is_in_the_way() {
        let blocks: Vec<Block> = (0..4).map(|row| Block { row, width: 60.0 }).collect();
        let found = layered(&blocks, &[[0, 1], [1, 2], [2, 3], [0, 3]]);
        assert_eq!(found.lanes[3].len(), 2);
        assert!((found.lanes[3][0] - found.lanes[3][1]).abs() < 0.5, "{found:?}");
        assert!(layered(&[], &[]).centers.is_empty());
    }

    #[test]
    fn pools_of_adjacent_violators_are_the_nearest_increasing_values() {
        assert_eq!(increasing(&[[1.0, 1.0], [3.0, 1.0], [2.0, 3.0], [5.0, 1.0]]), [1.0, 2.25, 2.25, 5.0]);
    }
}
