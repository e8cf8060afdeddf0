//! A whole matrix product, cut into tasks for all threads.

use super::pairs;
use super::product::{Operands, Panels, product, room};
use super::{Epilogue, Target};
use crate::buffer::{SharedPtr, with_scratch};
use crate::isa::Isa;
use crate::pairs::{Order, PairUnit, ROWS as ROWS_OF_A_TILE};
use crate::pieces::{self, Cut};
use crate::pool::{for_each, threads};
use crate::simd::{Kernel, PANEL, Simd};

/// About the most rows of a task. With 320 of their columns, 240 KiB, they stay in the L2 cache while one panel of
/// weights after the other is multiplied.
const ROWS: usize = 192;

/// The most output panels of a task: 320 and 640 columns, the narrowest and commonest layers, divide into equal groups.
const PANELS: usize = 10;

/// The most rows and output panels of a task. Products of AMX take so little time that rounding their operands, rows once
/// for all panels and panels once for all rows, would be most of the work otherwise; nobody has measured it yet.
fn largest(unit: Option<PairUnit>) -> (usize, usize) {
    match unit.map(PairUnit::order) {
        Some(Order::Tile) => (2 * ROWS, 2 * PANELS),
        Some(Order::Chain) | None => (ROWS, PANELS),
    }
}

/// Rows times packed weights, with an epilogue, into a target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Multiply<'a> {
    pub(crate) main: Operands<'a>,
    /// How many of the rows are those of one image, whatever the batch is, whose size must not change a result.
    pub(crate) rows_of_image: usize,
    /// What is added to the sums before the epilogue: as many rows, by weights of as many columns in the same order.
    pub(crate) branch: Option<Operands<'a>>,
    /// Whether packed panels alternate between hidden columns and their gates, as GEGLU needs them.
    pub(crate) gated: bool,
    pub(crate) epilogue: Epilogue,
    pub(crate) target: Target,
}

impl Multiply<'_> {
    /// Computes all rows. Cutting into tasks does not change a result.
    ///
    /// # Safety
    /// Rows and target are as large as they say, weights as deep as their rows, and no two rows of the target overlap.
    pub(crate) unsafe fn run(self, isa: Isa) {
        let whole = SharedPtr::new(self);
        let panels = self.epilogue.columns.div_ceil(PANEL);
        let unit = self.unit(isa);
        let tile_rows = unit.map_or(isa.rows(), PairUnit::rows);
        let (most_rows, most_panels) = largest(unit);
        let most = pieces::even(self.main.rows.count, most_rows, tile_rows);
        let blocks = self.main.rows.count.div_ceil(most);
        let cut = Cut {
            most: most_panels,
            unit: 2,
            // The rows are read for every group.
            overhead: 1,
        };
        let wide = pieces::shared(threads(), panels, cut, blocks);
        let groups = panels.div_ceil(wide);
        for_each(blocks * groups, |task| {
            let whole = whole.get();
            let (row, panel) = (task / groups * most, task % groups * wide);
            let count = most.min(whole.main.rows.count - row);
            // SAFETY: the rows exist in all of them, as the caller vouches.
            let (main, branch, target) = unsafe {
                let branch = whole.branch.map(|branch| branch.part(row, count));
                (whole.main.part(row, count), branch, whole.target.part(row, count))
            };
            let each = if whole.gated { 2 } else { 1 };
            let block = Block {
                operands: (main, branch),
                panels: Panels {
                    first: panel * each,
                    count: wide.min(panels - panel) * each,
                    each,
                },
                epilogue: whole.epilogue,
                target,
                unit,
                scratch: std::ptr::null_mut(),
            };
            let room = match unit {
                None => room(count, block.panels.count),
                Some(_) => pairs::room(count, block.panels.count),
            };
            with_scratch(room, |scratch| {
                isa.run(Block { scratch, ..block });
            });
        });
    }

    /// What multiplies it as pairs, where that is asked for by the form of the weights or the faster way to f32. It is no faster
    /// where an image has fewer rows than a tile: the work is then to read the weights, and to split them would be more.
    fn unit(&self, isa: Isa) -> Option<PairUnit> {
        let branch = self.branch.is_none_or(|branch| branch.packed.is_pairs());
        let are_pairs = self.main.packed.is_pairs() && branch;
        let splits = isa.splits() && self.rows_of_image >= ROWS_OF_A_TILE;
        isa.pairs().filter(|_| are_pairs || splits)
    }
}

/// One task: a block of rows times a group of output panels.
#[derive(Clone, Copy)]
struct Block<'a> {
    operands: (Operands<'a>, Option<Operands<'a>>),
    panels: Panels,
    epilogue: Epilogue,
    target: Target,
    unit: Option<PairUnit>,
    scratch: *mut f32,
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            operands,
            panels,
            epilogue,
            target,
            unit,
            scratch,
        } = self;
        // SAFETY: the buffer has the size that it was asked for; rows, panels and target are those of a checked product.
        unsafe {
            match unit {
                None => product(s, operands, panels, (epilogue, target), scratch),
                Some(unit) => {
                    let work = unit.begin();
                    pairs::product(s, &work, operands, panels, (epilogue, target), scratch);
                }
            }
        }
    }
}
