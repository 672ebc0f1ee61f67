//! Runs independent work on one thread per core.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// Runs `work(0) .. work(n - 1)` on `workers` threads and passes each result to `finish` on the
/// calling thread, in the order in which they finish. Stops at the first error.
///
/// Each thread has its own pool of one thread, which keeps the backend from splitting operations
/// further. Each core then computes its own matmuls, and no core waits for the others after each.
pub(crate) fn run<T: Send, E: Send>(
    n: usize,
    workers: usize,
    work: impl Fn(usize) -> Result<T, E> + Sync,
    mut finish: impl FnMut(usize, T) -> Result<(), E>,
) -> Result<(), E> {
    let pools: Vec<_> = match workers.min(n) {
        0 | 1 => Vec::new(),
        many => (0..many).filter_map(|_| rayon::ThreadPoolBuilder::new().num_threads(1).build().ok()).collect(),
    };
    if pools.is_empty() {
        return (0..n).try_for_each(|i| finish(i, work(i)?));
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (sender, results) = mpsc::channel();
        for pool in &pools {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || {
                pool.install(|| {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        // The receiver is dropped after an error.
                        if i >= n || sender.send((i, work(i))).is_err() {
                            break;
                        }
                    }
                });
            });
        }
        drop(sender);
        let outcome = results.iter().try_for_each(|(i, result)| finish(i, result?));
        drop(results);
        outcome
    })
}

#[cfg(test)]
mod tests {
    use super::run;

    #[test]
    fn workers_process_each_item_once() {
        for workers in [1, 3] {
            let mut seen = vec![0; 20];
            run(
                20,
                workers,
                |i| Ok::<_, ()>(i * i),
                |i, square| {
                    assert_eq!(square, i * i);
                    seen[i] += 1;
                    Ok(())
                },
            )
            .unwrap();
            assert_eq!(seen, [1; 20]);
        }
    }

    #[test]
    fn an_error_stops_the_workers() {
        let mut done = 0;
        let result = run(
            1000,
            2,
            |i| if i == 3 { Err("no") } else { Ok(()) },
            |_, ()| {
                done += 1;
                Ok(())
            },
        );
        assert_eq!(result, Err("no"));
        assert!(done < 1000);
    }
}
