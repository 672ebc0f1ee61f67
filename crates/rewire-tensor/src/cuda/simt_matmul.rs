//! Float32 matmul on the GPU's ordinary (SIMT) units, which round no number to a shorter type.
//!
//! By default, the backend tries every kernel that it has for a matmul and keeps the fastest. Some
//! of these kernels round float32 to TF32 for the matrix units. The precision of a matmul would
//! then depend on timings.

use burn::tensor::DType;
use burn_cubecl::kernel::matmul::init_matmul_output;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeRuntime, CubeTuneId};
use cubecl::tune::{LocalTuner, Tunable, TunableSet, local_tuner};
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::{MatmulAutotuneKey, Strategy, launch_ref};
use cubek::matmul::routines::simple_unit::SimpleUnitSelectionArgs;
use cubek::matmul::routines::{BlueprintStrategy, TileSizeSelection};
use cubek::std::InputBinding;

/// Two factors, and the tensor for their product.
type Inputs<R> = (CubeTensor<R>, CubeTensor<R>, CubeTensor<R>);

/// Returns `a @ b` for float32 tensors, computed by the fastest kernel that keeps every bit.
pub(super) fn matmul<R: CubeRuntime>(a: CubeTensor<R>, b: CubeTensor<R>) -> CubeTensor<R> {
    static TUNER: LocalTuner<MatmulAutotuneKey, CubeTuneId> = local_tuner!("float32-product");
    let out = init_matmul_output(&a, &b, DType::F32);
    let (id, client) = (CubeTuneId::new(&a.client, &a.device), a.client.clone());
    let kernels = TUNER.init(|| {
        let set = TunableSet::new(key::<R>, |_key: &MatmulAutotuneKey, (a, b, out): &Inputs<R>| {
            (a.clone(), b.clone(), out.copy())
        });
        strategies().into_iter().fold(set, |set, strategy| {
            let name = strategy.to_string();
            let launched = move |(a, b, out): Inputs<R>| launch(&strategy, a, b, out);
            set.with(Tunable::new(&name, launched))
        })
    });
    TUNER.execute(&id, &client, kernels, (a, b, out.clone()));
    out
}

/// Returns the kernels to choose from. The first one works for every shape.
///
/// Kernels with two buffers (`DoubleUnit`) are left out: on a software Vulkan device, cubek 0.2's
/// gave wrong numbers for batches of small matmuls, such as attention's.
fn strategies() -> Vec<Strategy> {
    let sizes = [TileSizeSelection::MaxTileSize, TileSizeSelection::MinTileSize];
    let simple =
        sizes.map(|tile_size| Strategy::SimpleUnit(BlueprintStrategy::Inferred(SimpleUnitSelectionArgs { tile_size })));
    [Strategy::Naive].into_iter().chain(simple).collect()
}

fn key<R: CubeRuntime>((a, b, out): &Inputs<R>) -> MatmulAutotuneKey {
    MatmulAutotuneKey::generate(
        &a.client,
        a.meta.shape(),
        b.meta.shape(),
        a.meta.strides(),
        b.meta.strides(),
        a.dtype.into(),
        b.dtype.into(),
        out.dtype.into(),
        None,
        None,
    )
}

fn launch<R: CubeRuntime>(
    strategy: &Strategy,
    a: CubeTensor<R>,
    b: CubeTensor<R>,
    out: CubeTensor<R>,
) -> Result<(), String> {
    let (of_a, of_b, of_out) = (a.dtype.into(), b.dtype.into(), out.dtype.into());
    let mut types = MatmulElems::from_globals(&MatmulGlobalElems { lhs: of_a, rhs: of_b, out: of_out });
    let client = out.client.clone();
    let (a, b) = (InputBinding::new(a.binding(), of_a), InputBinding::new(b.binding(), of_b));
    launch_ref(strategy, &client, a, b, out.binding(), &mut types).map_err(|error| format!("{error:?}"))
}
