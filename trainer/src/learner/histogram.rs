//! Sums of a leaf's rows by the bin of each column.

use super::bins::Binned;
use super::gradient::{Fixed, Scale, Sum};

/// The cells of one column, by bin; the last that is used is for missing values.
pub(super) type Cells = [Sum; CELLS];

/// More than the 256 that are used: at 4096 bytes a column, the same bin of all columns would
/// compete for the same few places of the processor's first cache.
const CELLS: usize = 260;
/// So many rows' bins and sums stay in the processor's nearer caches until every column has
/// had them.
const ROWS_AT_ONCE: usize = 512;

/// A leaf's cells, for each column that the tree may use.
#[derive(Debug, Clone)]
pub(super) struct Histogram(Vec<Cells>);

/// Some rows, and what each adds to its cells.
#[derive(Debug, Clone, Copy)]
struct Addends<'a> {
    binned: &'a Binned,
    rows: &'a [u32],
    sums: &'a [Sum],
}

impl Histogram {
    /// Empty cells for `columns` columns.
    pub(super) fn new(columns: usize) -> Self {
        Self(vec![[Sum::default(); CELLS]; columns])
    }

    /// The cells of each of the tree's columns.
    pub(super) fn columns(&self) -> &[Cells] {
        &self.0
    }

    /// Replaces the cells by the sums over `rows`; `columns` are the tree's columns.
    pub(super) fn fill(
        &mut self,
        binned: &Binned,
        columns: &[usize],
        rows: &[u32],
        fixed: &[Fixed],
        scale: Scale,
    ) {
        self.0.fill([Sum::default(); CELLS]);
        let mut sums = Vec::with_capacity(ROWS_AT_ONCE);
        for rows in rows.chunks(ROWS_AT_ONCE) {
            sums.clear();
            let mut touched = 0;
            sums.extend(rows.iter().map(|&row| {
                touched |= binned.row(row as usize)[0];
                scale.sum(fixed[row as usize])
            }));
            // Reading a byte of each row here, where little else is done, lets the processor
            // fetch many rows from memory at the same time.
            std::hint::black_box(touched);
            let addends = Addends { binned, rows, sums: &sums };
            let rest = addends.add_to_blocks::<16>((&mut self.0, columns));
            let rest = addends.add_to_blocks::<8>(rest);
            let rest = addends.add_to_blocks::<4>(rest);
            let rest = addends.add_to_blocks::<2>(rest);
            addends.add_to_blocks::<1>(rest);
        }
    }

    /// Takes away the cells of a child, which leaves those of its sibling.
    pub(super) fn subtract(&mut self, child: &Self) {
        for (cells, theirs) in self.0.iter_mut().zip(&child.0) {
            for (cell, &theirs) in cells.iter_mut().zip(theirs) {
                *cell = *cell - theirs;
            }
        }
    }
}

impl Addends<'_> {
    /// Adds to as many whole blocks of `N` columns as there are, and gives the other columns.
    fn add_to_blocks<'c, const N: usize>(
        self,
        (cells, columns): (&'c mut [Cells], &'c [usize]),
    ) -> (&'c mut [Cells], &'c [usize]) {
        let (cell_blocks, cells) = cells.as_chunks_mut::<N>();
        let (column_blocks, columns) = columns.as_chunks::<N>();
        for (cells, columns) in cell_blocks.iter_mut().zip(column_blocks) {
            self.add(cells, columns);
        }
        (cells, columns)
    }

    /// Adds to `N` columns in one pass over the rows; known when compiled, `N` costs no loop.
    fn add<const N: usize>(self, cells: &mut [Cells; N], columns: &[usize; N]) {
        for (&row, &sum) in self.rows.iter().zip(self.sums) {
            let bins = self.binned.row(row as usize);
            for (cells, &column) in cells.iter_mut().zip(columns) {
                cells[usize::from(bins[column])] += sum;
            }
        }
    }
}
