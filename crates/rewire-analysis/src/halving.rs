//! Going on where a device's memory runs out: what was too much at once is halved, and told.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::backend::Backend;
use rewire_device::Fault;

use crate::{AnalysisError, Halved, Options};

/// Does `work`, and does not believe its result where the device failed meanwhile.
pub(crate) fn watched<B: Backend, T>(
    device: &B::Device,
    work: impl FnOnce() -> Result<T, AnalysisError>,
) -> Result<T, AnalysisError> {
    rewire_device::watched::<B, _>(device, work).unwrap_or_else(|fault| Err(AnalysisError::Device(fault)))
}

/// Does a whole analysis of `n` prompts; where memory runs out in it and nothing in it could be halved, again with half the prompts
/// held and half the tokens in a pass.
pub(crate) fn within_memory<B: Backend, T>(
    device: &B::Device,
    n: usize,
    options: &Options,
    analyse: impl Fn(&Options) -> Result<T, AnalysisError>,
) -> Result<T, AnalysisError> {
    let mut options = Options { prompt_batch: options.prompt_batch.min(n), ..*options };
    loop {
        match watched::<B, _>(device, || analyse(&options)) {
            Err(AnalysisError::Device(Fault::OutOfMemory(reason)))
                if options.prompt_batch > 1 || options.token_budget > 1 =>
            {
                let from = options.prompt_batch;
                let half = |size: usize| (size / 2).max(1);
                options.prompt_batch = half(options.prompt_batch);
                options.gradient_batch = half(options.gradient_batch.min(n));
                options.token_budget = half(options.token_budget);
                B::memory_cleanup(device);
                (options.notice)(&Halved { what: "prompt pairs held at once", from, to: options.prompt_batch, reason });
            }
            result => return result,
        }
    }
}

/// Work on items that lie side by side, cut smaller where they do not fit.
pub(crate) struct Halving<'a, B: Backend> {
    device: B::Device,
    options: &'a Options<'a>,
    /// What the items are called.
    what: &'static str,
    /// The most tokens that are still tried at once.
    most: AtomicUsize,
}

impl<'a, B: Backend> Halving<'a, B> {
    pub(crate) fn new(device: B::Device, options: &'a Options<'a>, what: &'static str) -> Self {
        Self { device, options, what, most: AtomicUsize::new(usize::MAX) }
    }

    /// What `work` gives for each of `items`, in their order; each is of `tokens` tokens. Where memory runs out, half of them are
    /// done, and then the others; what comes later is cut so from the start.
    pub(crate) fn run(
        &self,
        items: Range<usize>,
        tokens: usize,
        work: &impl Fn(Range<usize>) -> Result<Vec<f32>, AnalysisError>,
    ) -> Result<Vec<f32>, AnalysisError> {
        let at_once = (self.most.load(Ordering::Relaxed) / tokens.max(1)).max(1);
        if items.len() > at_once {
            return self.in_parts(&items, at_once, tokens, work);
        }
        match watched::<B, _>(&self.device, || work(items.clone())) {
            Err(AnalysisError::Device(Fault::OutOfMemory(reason))) if items.len() > 1 => {
                let half = items.len().div_ceil(2);
                self.most.store(half * tokens.max(1), Ordering::Relaxed);
                B::memory_cleanup(&self.device);
                (self.options.notice)(&Halved { what: self.what, from: items.len(), to: half, reason });
                self.in_parts(&items, half, tokens, work)
            }
            result => result,
        }
    }

    fn in_parts(
        &self,
        items: &Range<usize>,
        size: usize,
        tokens: usize,
        work: &impl Fn(Range<usize>) -> Result<Vec<f32>, AnalysisError>,
    ) -> Result<Vec<f32>, AnalysisError> {
        let mut all = Vec::new();
        for from in items.clone().step_by(size) {
            all.extend(self.run(from..items.end.min(from + size), tokens, work)?);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use burn::backend::Flex;

    use super::*;

    fn full() -> AnalysisError {
        AnalysisError::Device(Fault::OutOfMemory("can't allocate".into()))
    }

    /// A device on which `room` items fit.
    fn on(
        room: usize,
        notice: &(dyn Fn(&Halved) + Sync),
        items: &[Range<usize>],
    ) -> (Vec<Result<Vec<f32>, AnalysisError>>, usize) {
        let options = Options { notice, ..Options::default() };
        let halving = Halving::<Flex>::new(Default::default(), &options, "patches");
        let tries = AtomicUsize::new(0);
        let work = |items: Range<usize>| {
            tries.fetch_add(1, Ordering::Relaxed);
            if items.len() > room { Err(full()) } else { Ok(items.map(|i| i as f32).collect()) }
        };
        let results = items.iter().map(|items| halving.run(items.clone(), 10, &work)).collect();
        (results, tries.into_inner())
    }

    #[test]
    fn what_does_not_fit_is_halved_and_told_once() {
        let told = Mutex::new(Vec::new());
        let notice = |halved: &Halved| told.lock().unwrap().push((halved.from, halved.to));
        let (results, tries) = on(3, &notice, &[0..10, 10..16, 16..18]);
        let found: Vec<f32> = results.into_iter().flat_map(Result::unwrap).collect();
        assert_eq!(found, (0..18).map(|i| i as f32).collect::<Vec<_>>());
        assert_eq!(*told.lock().unwrap(), [(10, 5), (5, 3)]);
        // 10 and 5 in vain; 3 and 2, 3 and 2; then 3 and 3, and 2.
        assert_eq!(tries, 2 + 4 + 2 + 1);
    }

    #[test]
    fn one_that_does_not_fit_is_an_error() {
        let (results, _) = on(0, &|_| {}, &[0..4]);
        let error = results.into_iter().next().unwrap().unwrap_err().to_string();
        assert!(error.contains("not enough memory") && error.contains("bfloat16"), "{error}");
    }

    #[test]
    fn a_whole_analysis_is_halved_down_to_one_prompt() {
        let told = Mutex::new(Vec::new());
        let notice = |halved: &Halved| told.lock().unwrap().push((halved.from, halved.to));
        let options = Options { prompt_batch: 32, notice: &notice, ..Options::default() };
        let fits = |options: &Options| if options.prompt_batch > 2 { Err(full()) } else { Ok(options.prompt_batch) };
        assert_eq!(within_memory::<Flex, _>(&Default::default(), 8, &options, fits).unwrap(), 2);
        assert_eq!(*told.lock().unwrap(), [(8, 4), (4, 2)]);
        let never = |_: &Options| Err::<(), _>(full());
        assert!(within_memory::<Flex, _>(&Default::default(), 8, &options, never).is_err());
    }
}
