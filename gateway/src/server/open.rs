//! The connections of one core: how many there are, which only idle, and how they are asked to
//! leave.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use tokio::time::timeout;

use crate::tls::Port;

/// How many connections are looked at for one that only idles.
const MOST_LOOKS: usize = 64;
/// As many connections may be on their way out while others take their places.
const MOST_LEAVING: usize = 64;
/// How long a gRPC client may take to leave that was asked to make room and has no call open.
const LEAVING_TIME: Duration = Duration::from_secs(5);

/// All connections of a core.
#[derive(Debug)]
pub(super) struct Open {
    /// How many there may be.
    most: usize,
    /// Those that were not asked to leave, and some that have left. Those in front have been unused
    /// for longest, about.
    places: VecDeque<Weak<Place>>,
    all: Rc<All>,
}

#[derive(Debug, Default)]
struct All {
    count: Cell<usize>,
    /// Who waits until there is none.
    waker: RefCell<Option<Waker>>,
}

/// One connection, which is there for as long as this is.
#[derive(Debug)]
pub(super) struct Place {
    all: Rc<All>,
    port: Port,
    /// Its requests that are being answered.
    running: Cell<usize>,
    /// Whether one has begun since it was looked at last.
    used: Cell<bool>,
    /// Whether its first request is waited for, as of a client that has just connected to ask.
    is_fresh: Cell<bool>,
    asked_to_leave: Cell<Option<Why>>,
    waker: RefCell<Option<Waker>>,
}

/// Why a connection is asked to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Others need its place.
    ForOthers,
    /// The server ends.
    End,
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Running(Rc<Place>);

/// An answer's body, for as long as which its request is being answered.
#[derive(Debug)]
pub(super) struct Counted<B> {
    body: B,
    _running: Running,
}

impl Open {
    /// None yet, and `most` at a time.
    pub(super) fn new(most: usize) -> Self {
        Self { most, places: VecDeque::new(), all: Rc::default() }
    }

    /// A place for a connection to `port`. Where all are taken, one that only idles is asked to leave
    /// for it; none when there is no such one.
    pub(super) fn admit(&mut self, port: Port) -> Option<Rc<Place>> {
        let count = self.all.count.get();
        // Who is refused anyhow costs nobody a connection.
        if count >= self.most.saturating_add(MOST_LEAVING)
            || (count >= self.most && !self.ask_an_idle_one_to_leave())
        {
            return None;
        }
        if self.places.len() > self.most.saturating_mul(2) {
            self.places.retain(|place| place.strong_count() > 0);
        }
        let place = Rc::new(Place {
            all: self.all.clone(),
            port,
            running: Cell::default(),
            used: Cell::default(),
            is_fresh: Cell::new(true),
            asked_to_leave: Cell::default(),
            waker: RefCell::default(),
        });
        self.all.count.set(self.all.count.get() + 1);
        self.places.push_back(Rc::downgrade(&place));
        Some(place)
    }

    /// Asks a connection that only idles to leave, so that its descriptor comes free: the first one
    /// that was not used since it was looked at last, else the first one. False when none that was
    /// looked at idles.
    pub(super) fn ask_an_idle_one_to_leave(&mut self) -> bool {
        let mut looks = 0;
        let mut idle = None;
        for _ in 0..self.places.len() {
            if looks == MOST_LOOKS {
                break;
            }
            let Some(place) = self.places.pop_front() else { break };
            // One that has left is no look, and is passed once.
            let Some(found) = place.upgrade() else { continue };
            looks += 1;
            let idles = found.running.get() == 0;
            if idles && !found.used.take() {
                found.ask_to_leave(Why::ForOthers);
                self.places.extend(idle.as_ref().map(Rc::downgrade));
                return true;
            }
            if idles && idle.is_none() {
                idle = Some(found);
            } else {
                self.places.push_back(place);
            }
        }
        if let Some(idle) = &idle {
            idle.ask_to_leave(Why::ForOthers);
        }
        idle.is_some()
    }

    /// Whether somebody has connected who has not asked yet.
    pub(super) fn has_fresh(&self) -> bool {
        self.places.iter().filter_map(Weak::upgrade).any(|place| place.is_fresh.get())
    }

    /// Asks all of them to leave, and waits until they have.
    pub(super) async fn end(self) {
        self.places.iter().filter_map(Weak::upgrade).for_each(|place| place.ask_to_leave(Why::End));
        poll_fn(|context| {
            if self.all.count.get() == 0 {
                return Poll::Ready(());
            }
            *self.all.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Place {
    /// Notes that a request begins.
    pub(super) fn begin(self: &Rc<Self>) -> Running {
        self.running.set(self.running.get() + 1);
        self.used.set(true);
        self.is_fresh.set(false);
        Running(self.clone())
    }

    /// Drives `connection` to its end. Asked to leave, it is told so by `leave`, and goes on with what
    /// it has begun. None when it was given up: over gRPC, a client that never asked anything, or that
    /// does not leave for others, could stay for as long as it likes.
    pub(super) async fn keep<C: Future>(
        &self,
        connection: C,
        leave: impl FnOnce(Pin<&mut C>),
    ) -> Option<C::Output> {
        let mut connection = pin!(connection);
        let why = tokio::select! {
            ended = connection.as_mut() => return Some(ended),
            why = self.left() => why,
        };
        leave(connection.as_mut());
        match (self.port, why) {
            (Port::Grpc, _) if self.is_fresh.get() => return None,
            (Port::Grpc, Why::ForOthers) => {
                let ended = timeout(LEAVING_TIME, connection.as_mut()).await;
                if ended.is_ok() || self.running.get() == 0 {
                    return ended.ok();
                }
            }
            _ => {}
        }
        Some(connection.await)
    }

    /// Waits until the connection is asked to leave.
    pub(super) async fn left(&self) -> Why {
        poll_fn(|context| {
            if let Some(why) = self.asked_to_leave.get() {
                return Poll::Ready(why);
            }
            let mut waker = self.waker.borrow_mut();
            match waker.as_mut() {
                Some(waker) => waker.clone_from(context.waker()),
                None => *waker = Some(context.waker().clone()),
            }
            Poll::Pending
        })
        .await
    }

    fn ask_to_leave(&self, why: Why) {
        self.asked_to_leave.set(Some(why));
        wake(&self.waker);
    }
}

fn wake(waker: &RefCell<Option<Waker>>) {
    let waker = waker.borrow_mut().take();
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.count.set(self.all.count.get() - 1);
        wake(&self.all.waker);
    }
}

impl<B> Counted<B> {
    pub(super) const fn new(body: B, running: Running) -> Self {
        Self { body, _running: running }
    }
}

impl<B: Body + Unpin> Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use futures::FutureExt;

    use super::{MOST_LEAVING, MOST_LOOKS, Open, Place};
    use crate::tls::Port;

    fn is_asked_to_leave(place: &Place) -> bool {
        place.left().now_or_never().is_some()
    }

    fn full(most: usize) -> (Open, Vec<Rc<Place>>) {
        let mut open = Open::new(most);
        let places = (0..most).map(|_| open.admit(Port::Http).unwrap()).collect();
        (open, places)
    }

    #[test]
    fn the_one_that_has_idled_for_longest_leaves_for_a_new_one() {
        let (mut open, places) = full(4);
        let _running = places[0].begin();
        drop(places[1].begin());
        let _fifth = open.admit(Port::Http).unwrap();
        let leaving: Vec<_> = places.iter().map(|place| is_asked_to_leave(place)).collect();
        assert_eq!(leaving, [false, false, true, false]);
    }

    #[test]
    fn where_all_are_busy_or_leave_already_a_new_one_is_refused() {
        let (mut open, places) = full(2);
        let running: Vec<_> = places.iter().map(Place::begin).collect();
        assert!(open.admit(Port::Grpc).is_none());
        drop(running);
        let _third = open.admit(Port::Grpc).unwrap();
        assert!(is_asked_to_leave(&places[0]) && !is_asked_to_leave(&places[1]));
        let (mut open, places) = full(2 * MOST_LEAVING);
        let more: Vec<_> = std::iter::from_fn(|| open.admit(Port::Grpc)).collect();
        assert_eq!(more.len(), MOST_LEAVING);
        let all = || places.iter().chain(&more);
        assert_eq!(all().filter(|place| is_asked_to_leave(place)).count(), MOST_LEAVING);
        assert!(open.admit(Port::Grpc).is_none());
        let leaving = all().filter(|place| is_asked_to_leave(place)).count();
        assert_eq!(leaving, MOST_LEAVING, "who is refused costs nobody a connection");
    }

    /// Whenever they were used: a pool that has asked once and waits is as idle as one that never did.
    #[test]
    fn every_newcomer_finds_a_place_among_many_that_idle() {
        let (mut open, places) = full(4 * MOST_LOOKS);
        for place in &places {
            drop(place.begin());
        }
        let new: Vec<_> = std::iter::from_fn(|| open.admit(Port::Http)).collect();
        assert_eq!(new.len(), MOST_LEAVING);
        let leaving = places.iter().chain(&new).filter(|place| is_asked_to_leave(place)).count();
        assert_eq!(leaving, MOST_LEAVING);
    }

    #[test]
    fn those_that_have_left_are_no_looks() {
        let mut open = Open::new(4 * MOST_LOOKS);
        for _ in 0..2 * MOST_LOOKS {
            drop(open.admit(Port::Http).unwrap());
        }
        let _idle: Vec<_> = (0..4 * MOST_LOOKS).map(|_| open.admit(Port::Http).unwrap()).collect();
        assert!(open.admit(Port::Http).is_some());
    }

    #[test]
    fn those_that_have_left_take_no_place() {
        let mut open = Open::new(2);
        for _ in 0..100 {
            drop(open.admit(Port::Http).unwrap());
        }
        assert!(open.places.len() <= 5);
    }

    #[tokio::test]
    async fn the_end_comes_when_all_have_left() {
        let (open, places) = full(2);
        assert!(open.has_fresh());
        let running = places[0].begin();
        drop(places[1].begin());
        assert!(!open.has_fresh());
        let end = open.end();
        tokio::pin!(end);
        assert!(end.as_mut().now_or_never().is_none());
        assert!(places.iter().all(|place| is_asked_to_leave(place)));
        drop(places);
        assert!(end.as_mut().now_or_never().is_none());
        drop(running);
        end.await;
    }
}
