//! Tests the CUDA backend on a stand-in for NVIDIA's driver that computes nothing
//! (`tests/stand-in/with-stand-in`): running out of memory is detected, and passes fill the free
//! memory. Its numbers are made up, so no test compares numbers. Without the stand-in nothing is
//! tested.
#![cfg(feature = "cuda")]

use std::sync::Mutex;

use burn::backend::Autodiff;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor};
use burn_cuda::{Cuda, CudaDevice};
use rewire_analysis::node::{Component, NodeKind};
use rewire_analysis::patching::activation_patching;
use rewire_analysis::run::{Direction, Execution, MemoryEstimate, ReducedBatch};
use rewire_model::{Transformer, TransformerConfig};
use rewire_tasks::{LogitDiff, PromptPair, PromptPairs};
use rewire_tensor::{
    DeviceError, MatmulPrecision, Memory, Precision, catch_device_faults, matmul, memory, set_matmul_precision,
};
use rewire_tests::asked;

/// Returns the stand-in, if the program runs on it. One test at a time holds it.
fn stand_in() -> Option<(CudaDevice, Memory, std::sync::MutexGuard<'static, ()>)> {
    static ONE: Mutex<()> = Mutex::new(());
    rewire_tests::device::see_faults();
    let guard = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let device = CudaDevice::new(0);
    let found = rewire_tensor::devices().ok().and_then(|_| memory::<Cuda>(&device));
    match found.filter(|memory| memory.name.as_deref() == Some("a stand-in")) {
        Some(memory) => Some((device, memory, guard)),
        None => {
            eprintln!("skipped: not on the stand-in");
            None
        }
    }
}

/// Runs one of this program's ignored tests in a separate process.
fn passes_alone(test: &str) {
    if stand_in().is_none() {
        return;
    }
    let alone = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", test])
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&alone.stdout);
    assert!(alone.status.success() && output.contains("1 passed"), "{output}");
}

#[test]
fn computing_without_the_fault_hook_is_refused() {
    passes_alone("work_without_an_installed_hook_is_refused");
}

/// The backend keeps a memory pool for each thread that computed, and a test can free only the pool
/// of its own thread. Next to other tests, the free memory would depend on their order.
#[test]
fn passes_fill_the_free_memory() {
    passes_alone("passes_fit_the_memory_of_an_unshared_device");
}

#[test]
#[ignore = "needs a process of its own: computing_without_the_fault_hook_is_refused runs it"]
fn work_without_an_installed_hook_is_refused() {
    let device = CudaDevice::new(0);
    let mut ran = false;
    assert_eq!(catch_device_faults::<Cuda, _>(&device, || ran = true), Err(DeviceError::Unseen));
    assert!(!ran);
}

/// The backend reads memory all the same, so only the watch reports the fault.
#[test]
fn running_out_of_memory_is_detected() {
    let Some((device, Memory { total, .. }, _guard)) = stand_in() else { return };
    let sum = |bytes: u64| {
        let rows = usize::try_from(bytes / 4 / 1024).unwrap();
        catch_device_faults::<Cuda, _>(&device, || {
            Tensor::<Cuda, 2>::zeros([rows, 1024], &device).sum().into_data().num_elements()
        })
    };
    assert_eq!(sum(total / 64), Ok(1));
    let fault = sum(2 * total).unwrap_err();
    assert!(matches!(&fault, DeviceError::OutOfMemory(reason) if reason.contains("allocate")), "{fault:?}");
}

#[test]
fn outer_and_later_inner_watches_report_the_fault_too() {
    let Some((device, Memory { total, .. }, _guard)) = stand_in() else { return };
    let rows = usize::try_from(2 * total / 4096).unwrap();
    let mut inner = Vec::new();
    let outer = catch_device_faults::<Cuda, _>(&device, || {
        inner.push(catch_device_faults::<Cuda, _>(&device, || Tensor::<Cuda, 2>::ones([rows, 1024], &device)).is_err());
        inner.push(catch_device_faults::<Cuda, _>(&device, || ()).is_err());
    });
    assert!(matches!(outer, Err(DeviceError::OutOfMemory(_))), "{outer:?}");
    assert_eq!(inner, [true, true]);
}

/// Returns pairs of five tokens that differ at the third.
fn pairs(n: u32) -> PromptPairs {
    let pair = |row: u32| PromptPair {
        clean: vec![1, 2, 10 + row % 40, 4, 5],
        corrupted: vec![1, 2, 60 + row % 40, 4, 5],
        answers: vec![7],
        wrong_answers: vec![8],
    };
    PromptPairs::new((0..n).map(pair).collect()).unwrap()
}

fn model(device: &CudaDevice) -> Transformer<Cuda> {
    Transformer::random_on_device(&TransformerConfig::gpt2(2, 4, 64, 100, 16), 0, device)
}

/// Patches every neuron; returns the reports of halved batches.
fn neurons(model: &Transformer<Cuda>, execution: &Execution) -> Vec<ReducedBatch> {
    let pairs = pairs(64);
    let reported = Mutex::new(Vec::new());
    let notice = |halved: &ReducedBatch| reported.lock().unwrap().push(halved.clone());
    let execution = Execution { on_reduced: &notice, ..*execution };
    let neurons = [NodeKind::all(Component::MlpPost)];
    let found =
        activation_patching(model, asked(&pairs, &LogitDiff::new(&pairs)), &neurons, Direction::Denoising, &execution)
            .unwrap();
    assert_eq!(found.effects[0].values.shape(), [64, 2, 256]);
    assert!(found.effects[0].values.iter().all(|effect| effect.is_finite()));
    reported.into_inner().unwrap()
}

#[test]
#[ignore = "needs a process of its own: passes_fill_the_free_memory runs it"]
fn passes_fit_the_memory_of_an_unshared_device() {
    let Some((device, Memory { total, .. }, _guard)) = stand_in() else { return };
    for precision in [Precision::Float32, Precision::BFloat16] {
        let model = model(&device).to_precision(precision);
        let execution = Execution::default().fitted(&model, 5, None);
        assert!(execution.token_budget > 4096 && execution.token_budget as u64 * 100 < total, "{execution:?}");
        assert_eq!(neurons(&model, &execution), []);
        // Another process takes most of the memory afterwards, so that half of the rest is less
        // than a pass needs.
        <Cuda>::memory_cleanup(&device);
        let estimate = MemoryEstimate::new(model.config(), 5, precision);
        let scarce = execution.token_budget as u64 * estimate.pass_a_token_without_logits * 3 / 2;
        let mut taken = Vec::new();
        while memory::<Cuda>(&device).unwrap().free > scarce {
            let part = Tensor::<Cuda, 1>::zeros([usize::try_from(scarce / 16 / 4).unwrap()], &device);
            let taking = catch_device_faults::<Cuda, _>(&device, || <Cuda>::sync(&device).unwrap());
            assert_eq!(taking, Ok(()), "{:?}", memory::<Cuda>(&device));
            taken.push(part);
        }
        let reported = neurons(&model, &execution);
        assert!(!reported.is_empty() && reported[0].to < reported[0].from, "{reported:?}");
        assert!(reported[0].to_string().contains("do not fit"), "{}", reported[0]);
        drop(taken);
        <Cuda>::memory_cleanup(&device);
    }
}

#[test]
fn both_kinds_of_matmul_have_kernels() {
    let Some((device, _, _guard)) = stand_in() else { return };
    for products in [MatmulPrecision::Float32, MatmulPrecision::Tf32] {
        set_matmul_precision(products);
        for shape in [[3, 5, 7], [512, 768, 3072], [1, 768, 50]] {
            let [n, k, m] = shape;
            let (a, b) = (Tensor::<Cuda, 2>::ones([n, k], &device), Tensor::<Cuda, 2>::ones([m, k], &device));
            let done = catch_device_faults::<Cuda, _>(&device, || matmul(a, b.transpose()).into_data().shape);
            assert_eq!(done.unwrap().to_vec(), [n, m], "{products} {shape:?}");
        }
    }
    set_matmul_precision(MatmulPrecision::Float32);
}

/// More matmuls than one launch allows, with a kernel that was tuned for a few.
#[test]
fn many_small_matmuls_run_like_few() {
    let Some((device, _, _guard)) = stand_in() else { return };
    for precision in [Precision::Float32, Precision::BFloat16] {
        for rows in [1, 8, 6144] {
            let [a, b] = [[rows, 12, 3, 8], [rows, 12, 8, 3]].map(|shape| {
                let ones = Tensor::<Autodiff<Cuda>, 4>::ones(shape, &device);
                (if precision == Precision::BFloat16 { ones.cast(DType::BF16) } else { ones }).require_grad()
            });
            let done = catch_device_faults::<Cuda, _>(&device, || {
                let out = matmul(a.clone(), b);
                let gradient = a.grad(&out.clone().sum().backward()).unwrap();
                [out.into_data().shape, gradient.into_data().shape].map(|shape| shape.to_vec())
            });
            assert_eq!(done.unwrap(), [[rows, 12, 3, 3], [rows, 12, 3, 8]], "{precision}");
        }
    }
}
