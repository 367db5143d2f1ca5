//! A connection that does not wake itself for nothing.
//!
//! hyper's body channel wakes its sender for each piece that is taken out of it. On a connection the sender is the one who is taking: with each request
//! that has a body the whole stack would be polled once more, by whichever thread is free, to find nothing to do. Whoever takes the last piece mutes that.

use std::{
    cell::Cell,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ear {
    Open,
    Muted,
    /// Muted, and something would have been heard.
    Rung,
}

thread_local! {
    static EAR: Cell<Ear> = const { Cell::new(Ear::Open) };
}

/// Calls `take`, which wakes no [`Quiet`] future on this thread. True: it would have. It must be about the caller's own connection, which the caller wakes
/// if it has to be.
pub fn muted<T>(take: impl FnOnce() -> T) -> (T, bool) {
    struct Unmute;

    impl Drop for Unmute {
        fn drop(&mut self) {
            EAR.set(Ear::Open);
        }
    }

    EAR.set(Ear::Muted);
    let _unmute = Unmute;
    let taken = take();
    (taken, EAR.get() == Ear::Rung)
}

/// A future that is woken as always, but for what happens in [`muted`].
pub struct Quiet<F> {
    future: F,
    /// The task's waker, and that of the future.
    wakers: Option<(Waker, Waker)>,
}

impl<F> Quiet<F> {
    /// Around `future`.
    pub fn new(future: F) -> Self {
        Self { future, wakers: None }
    }

    /// What is inside.
    pub fn get_mut(&mut self) -> &mut F {
        &mut self.future
    }
}

struct Bell(Waker);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        match EAR.get() {
            Ear::Open => self.0.wake_by_ref(),
            Ear::Muted | Ear::Rung => EAR.set(Ear::Rung),
        }
    }
}

impl<F: Future + Unpin> Future for Quiet<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let (_, bell) = match &mut this.wakers {
            Some(wakers) if wakers.0.will_wake(context.waker()) => wakers,
            wakers => wakers.insert((context.waker().clone(), Arc::new(Bell(context.waker().clone())).into())),
        };
        Pin::new(&mut this.future).poll(&mut Context::from_waker(bell))
    }
}

/// How often a quiet `future` wakes its task while it is polled once.
#[cfg(test)]
pub fn wakes_of(future: impl Future) -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    let count = Arc::new(Count::default());
    _ = Pin::new(&mut Quiet::new(std::pin::pin!(future))).poll(&mut Context::from_waker(&count.clone().into()));
    count.0.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::ready};

    use super::*;

    /// What wakes itself while it is polled: `wake` calls its waker.
    fn wakes(wake: impl Fn(&Waker)) -> usize {
        wakes_of(poll_fn(|context| {
            wake(context.waker());
            Poll::<()>::Pending
        }))
    }

    #[test]
    fn only_what_is_muted_on_its_own_thread_is_not_heard() {
        assert_eq!(wakes(Waker::wake_by_ref), 1);
        assert_eq!(wakes(|waker| [waker.clone()].into_iter().for_each(Waker::wake)), 1);
        assert_eq!(wakes(|waker| assert_eq!(muted(|| waker.wake_by_ref()), ((), true))), 0);
        assert_eq!(wakes(|_| assert_eq!(muted(|| 1), (1, false))), 0);
        let elsewhere = |waker: &Waker| std::thread::scope(|scope| scope.spawn(|| waker.wake_by_ref()).join().unwrap());
        assert_eq!(wakes(|waker| assert_eq!(muted(|| elsewhere(waker)), ((), false))), 1);
        let broken = |waker: &Waker| {
            assert!(std::panic::catch_unwind(|| muted(|| panic!("broken"))).is_err());
            waker.wake_by_ref();
        };
        assert_eq!(wakes(broken), 1);
    }

    #[tokio::test]
    async fn it_may_be_polled_by_one_task_after_the_other() {
        let (told, heard) = tokio::sync::oneshot::channel();
        let mut quiet = Quiet::new(heard);
        poll_fn(|context| {
            assert!(Pin::new(&mut quiet).poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        let waits = tokio::spawn(poll_fn(move |context| Poll::Ready(ready!(Pin::new(&mut quiet).poll(context)))));
        tokio::task::yield_now().await;
        told.send(1).unwrap();
        assert_eq!(waits.await.unwrap(), Ok(1));
    }
}
