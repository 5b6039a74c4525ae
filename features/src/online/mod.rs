//! The online half: the store that look-ups read, and the batches that fill it.

mod file;
mod row;
mod rows;
mod store;
#[cfg(test)]
mod tests;

pub use row::Row;
pub use rows::{ViewHeader, ViewRows};
pub use store::{EmbeddedStore, WriteReport};
