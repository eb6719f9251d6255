//! The tasks of the control loop, as part of its root future.
//!
//! monoio does not free tasks that wait for a descriptor when their runtime is dropped: the driver
//! holds their wakers and they hold the driver. In a program that runs the proxy inside, the admin
//! listener would stay open and the fleet alive. There are a few tasks, seldom woken, so one future
//! that polls them all costs nothing, and ends them all.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Tasks that have not been polled yet; the others are in [`Tasks::run_beside`].
#[derive(Default)]
pub(super) struct Tasks(RefCell<Vec<Task>>);

impl Tasks {
    /// Adds a task. To be called from the root future or from another task.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.borrow_mut().push(Box::pin(task));
    }

    /// Runs `main` to its end and the tasks beside it; those that run still are dropped with it.
    pub(super) async fn run_beside<T>(&self, main: impl Future<Output = T>) -> T {
        let mut main = pin!(main);
        let mut running = Vec::new();
        let result = poll_fn(|cx| {
            if let Poll::Ready(result) = main.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            running.retain_mut(|task: &mut Task| task.as_mut().poll(cx).is_pending());
            // `main` and the tasks may have added some, and those may add more.
            loop {
                let mut added = self.0.take();
                if added.is_empty() {
                    return Poll::Pending;
                }
                added.retain_mut(|task| task.as_mut().poll(cx).is_pending());
                running.append(&mut added);
            }
        })
        .await;
        self.0.take();
        result
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn tasks_run_and_end_with_the_root() {
        let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().expect("an epoll descriptor");
        let tasks = Rc::new(Tasks::default());
        let (ran, owned) = (Rc::new(Cell::new(0)), Rc::new(()));
        for _ in 0..2 {
            let (tasks_in, ran, owned) = (Rc::clone(&tasks), Rc::clone(&ran), Rc::clone(&owned));
            tasks.spawn(async move {
                let counted = Rc::clone(&ran);
                tasks_in.spawn(async move { counted.set(counted.get() + 1) });
                ran.set(ran.get() + 1);
                std::future::pending::<()>().await;
                drop(owned);
            });
        }
        let mut polls = 0;
        let main = poll_fn(|cx| {
            polls += 1;
            cx.waker().wake_by_ref();
            if polls < 3 { Poll::Pending } else { Poll::Ready(()) }
        });
        runtime.block_on(tasks.run_beside(main));
        assert_eq!((ran.get(), Rc::strong_count(&owned)), (4, 1));
    }
}
