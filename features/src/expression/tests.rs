//! Expressions: input -> expected tables and laws.

