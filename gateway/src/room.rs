//! The memory that is taken to read one request. Few bytes of it can stand for many in memory: a
//! number of two characters takes eight bytes, an empty text of three takes thirty. So what is
//! made of a request is counted before memory is taken for it.

use std::cell::Cell;

use bytes::Bytes;
use sluice_protocol::Datatype;

use crate::error::GatewayError;

/// What a body may have at least for this purpose, in bytes: a few names and shapes take a
/// thousand.
const LEAST_BODY: usize = 64 << 10;

/// Room for what is made of one request, beside its body: twice what a body may have.
#[derive(Debug)]
pub(crate) struct Room {
    whole: usize,
    left: Cell<usize>,
    /// Whether more was wanted than there was.
    exceeded: Cell<bool>,
    /// Whether bare words were put as numbers in the text that is read.
    words: Cell<bool>,
}

/// Room that is taken for as long as this lives.
#[derive(Debug)]
pub(crate) struct Lent<'r> {
    room: &'r Room,
    bytes: usize,
}

impl Room {
    /// The room for a request whose body has at most `max_body` bytes.
    pub(crate) fn new(max_body: usize) -> Self {
        Self::of_bytes(max_body.max(LEAST_BODY).saturating_mul(2))
    }

    /// Room of so many bytes.
    pub(crate) const fn of_bytes(whole: usize) -> Self {
        let (exceeded, words) = (Cell::new(false), Cell::new(false));
        Self { whole, left: Cell::new(whole), exceeded, words }
    }

    /// Takes `bytes` for good, or refuses the request.
    pub(crate) fn take(&self, bytes: usize) -> Result<(), GatewayError> {
        let Some(left) = self.left.get().checked_sub(bytes) else {
            self.exceeded.set(true);
            return Err(self.refusal());
        };
        self.left.set(left);
        Ok(())
    }

    /// Takes `bytes` for a while.
    pub(crate) fn lend(&self, bytes: usize) -> Result<Lent<'_>, GatewayError> {
        self.take(bytes)?;
        Ok(Lent { room: self, bytes })
    }

    /// Takes what `count` elements of `datatype` occupy, without the contents of texts.
    pub(crate) fn take_elements(
        &self,
        datatype: Datatype,
        count: usize,
    ) -> Result<(), GatewayError> {
        self.take(count.saturating_mul(datatype.size().unwrap_or(size_of::<Bytes>())))
    }

    /// Notes that the text that is read is one in which bare words were put as numbers.
    pub(crate) fn note_words(&self) {
        self.words.set(true);
    }

    /// Whether that was noted: only then does a number of ours stand for infinity.
    pub(crate) fn holds_words(&self) -> bool {
        self.words.get()
    }

    /// What comes of `reading`. Nothing stays taken if it fails.
    pub(crate) fn trying<T, E>(&self, reading: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let left = self.left.get();
        reading().inspect_err(|_| self.left.set(left))
    }

    /// `error`, or the refusal if that is what is behind it: readers of a format have errors of
    /// their own kind.
    pub(crate) fn reason(&self, error: GatewayError) -> GatewayError {
        if self.exceeded.get() { self.refusal() } else { error }
    }

    const fn refusal(&self) -> GatewayError {
        GatewayError::NoRoom { room: self.whole }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.room.left.set(self.room.left.get() + self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use sluice_protocol::{Code, Datatype};

    use super::Room;
    use crate::error::GatewayError;

    #[test]
    fn no_more_is_taken_than_there_is() {
        let room = Room::of_bytes(100);
        room.take(40).unwrap();
        drop(room.lend(60).unwrap());
        let read: Result<(), _> = room.trying(|| room.take(50).and(Err(other())));
        assert_eq!(room.reason(read.unwrap_err()).to_string(), "x");
        room.take_elements(Datatype::Fp64, 7).unwrap();
        let error = room.take(5).unwrap_err();
        assert_eq!(error.code(), Code::TooLarge);
        assert!(error.to_string().contains("more than 100 bytes of memory"), "{error}");
        assert_eq!(room.reason(other()).to_string(), error.to_string());
        assert!(room.take_elements(Datatype::Bytes, usize::MAX).is_err());
        room.take(4).unwrap();
    }

    #[test]
    fn a_small_limit_of_bodies_leaves_room_for_names() {
        assert!(Room::new(10).take(100_000).is_ok() && Room::new(10).take(200_000).is_err());
    }

    fn other() -> GatewayError {
        GatewayError::Invalid("x".to_owned())
    }
}
