//! Where requests wait for the driver. The driver says how many of them are worth waking it for: one, if nothing else will wake it; several, if a crowd is
//! asking and it is woken soon anyway. To wake a thread and to let it sleep again is dear beside stepping one request.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering, fence},
};

use tokio::sync::{
    Notify,
    mpsc::{self, error::TrySendError},
};

/// The callers' end.
#[derive(Debug)]
pub struct Sender<T> {
    queue: mpsc::Sender<T>,
    bell: Arc<Bell>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), bell: self.bell.clone() }
    }
}

/// The driver's end.
#[derive(Debug)]
pub struct Inbox<T> {
    queue: mpsc::Receiver<T>,
    bell: Arc<Bell>,
}

/// It rings once for each time it is set.
#[derive(Debug)]
struct Bell {
    /// So many that wait make it ring; [`usize::MAX`] when it has rung, or was never set.
    enough: AtomicUsize,
    rung: Notify,
}

/// An inbox in which at most `limit` wait.
pub fn channel<T>(limit: usize) -> (Sender<T>, Inbox<T>) {
    let (sender, queue) = mpsc::channel(limit);
    let bell = Arc::new(Bell { enough: AtomicUsize::new(usize::MAX), rung: Notify::new() });
    (Sender { queue: sender, bell: bell.clone() }, Inbox { queue, bell })
}

impl<T> Sender<T> {
    /// Puts one more in, and rings if that is enough.
    ///
    /// # Errors
    /// The inbox is full, or is no more.
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        self.queue.try_send(item)?;
        // Here something is put in and then the bell looked at; the driver sets the bell and then looks what is in. One of the two sees the other's.
        fence(Ordering::SeqCst);
        let waiting = self.queue.max_capacity() - self.queue.capacity();
        if waiting >= self.bell.enough.load(Ordering::Relaxed) {
            self.bell.enough.store(usize::MAX, Ordering::Relaxed);
            self.bell.rung.notify_one();
        }
        Ok(())
    }
}

impl<T> Inbox<T> {
    /// Waits until so many are in; it may come back earlier. One who waits for more than one must be woken by something else too.
    pub async fn wait(&self, enough: usize) {
        self.bell.enough.store(enough, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.waiting() < enough {
            self.bell.rung.notified().await;
        }
    }

    /// The next one, if one is in.
    pub fn take(&mut self) -> Option<T> {
        self.queue.try_recv().ok()
    }

    /// How many are in.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    #[test]
    fn it_wakes_for_as_many_as_are_enough() {
        let check = |before: usize, enough: usize, expected: &[bool]| {
            let (sender, inbox) = channel(8);
            (0..before).for_each(|item| sender.try_send(item).unwrap());
            let mut waits = pin!(inbox.wait(enough));
            let mut is_woken = || waits.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(());
            let mut found = vec![is_woken()];
            while !found.last().is_some_and(|woken| *woken) && found.len() < 8 {
                sender.try_send(found.len()).unwrap();
                found.push(is_woken());
            }
            assert_eq!(found, expected, "{before} before, {enough} are enough");
        };
        check(0, 1, &[false, true]);
        check(0, 3, &[false, false, false, true]);
        check(1, 1, &[true]);
        check(2, 3, &[false, true]);
        check(3, 3, &[true]);
        check(5, 3, &[true]);
        check(0, 0, &[true]);
    }

    #[test]
    fn what_is_enough_may_change() {
        let (sender, mut inbox) = channel(8);
        let is_woken =
            |inbox: &Inbox<u8>, enough| pin!(inbox.wait(enough)).poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(());
        assert!(!is_woken(&inbox, 4));
        sender.try_send(1).unwrap();
        sender.try_send(2).unwrap();
        assert!(!is_woken(&inbox, 3));
        assert!(is_woken(&inbox, 2), "they were in before fewer were enough");
        assert_eq!((inbox.take(), inbox.take(), inbox.take(), inbox.waiting()), (Some(1), Some(2), None, 0));
    }

    #[test]
    fn it_has_room_for_so_many_and_ends_with_the_driver() {
        let (sender, inbox) = channel(2);
        sender.try_send(1).unwrap();
        sender.clone().try_send(2).unwrap();
        assert!(matches!(sender.try_send(3), Err(TrySendError::Full(3))));
        drop(inbox);
        assert!(matches!(sender.try_send(4), Err(TrySendError::Closed(4))));
    }

    /// Each is sent at about the moment at which the driver goes to sleep, sooner and later, and nothing comes after it that would wake the driver: a bell
    /// that is not heard hangs this.
    #[test]
    fn nothing_is_overlooked_whenever_it_comes() {
        const ROUNDS: usize = 200_000;
        let (sender, mut inbox) = channel(1);
        let turn = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=ROUNDS {
                    while turn.load(Ordering::Acquire) < round {
                        std::thread::yield_now();
                    }
                    sender.try_send(round).unwrap();
                }
            });
            tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
                for round in 1..=ROUNDS {
                    turn.store(round, Ordering::Release);
                    (0..round % 512).for_each(|_| std::hint::spin_loop());
                    let sent = loop {
                        inbox.wait(1).await;
                        if let Some(sent) = inbox.take() {
                            break sent;
                        }
                    };
                    assert_eq!(sent, round);
                }
            });
        });
    }
}
