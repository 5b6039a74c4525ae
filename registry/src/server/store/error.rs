//! What the database's errors mean to a caller.

use crate::RegistryError;

const BUSY: u32 = 5;
const LOCKED: u32 = 6;
const READ_ONLY: u32 = 8;
const IO_ERROR: u32 = 10;
const FULL: u32 = 13;
const CANNOT_OPEN: u32 = 14;

impl From<sqlx::Error> for RegistryError {
    fn from(error: sqlx::Error) -> Self {
        let text = format!("database: {error}");
        let primary = error.as_database_error().and_then(|error| {
            // The low byte of an extended result code is the primary one.
            error.code().and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff)
        });
        match (&error, primary) {
            (_, Some(BUSY | LOCKED | READ_ONLY | IO_ERROR | FULL | CANNOT_OPEN))
            | (
                sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed
                | sqlx::Error::Io(_),
                _,
            ) => Self::Unavailable(text),
            _ => Self::Internal(text),
        }
    }
}
