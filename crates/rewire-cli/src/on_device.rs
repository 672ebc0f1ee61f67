//! Runs generic code on the backend of a session's device.

/// Runs `$body`, an `anyhow::Result`, with `$Backend` as the type of the session's backend and
/// `$device` as its device. The result is an error if the device reported a fault in the meantime.
macro_rules! on_device {
    ($session:expr, |$Backend:ident, $device:ident| $body:expr) => {{
        let session: &$crate::session::Session = $session;
        match session.device() {
            #[cfg(feature = "ndarray")]
            $crate::device::Device::NdArray => {
                type $Backend = burn_ndarray::NdArray;
                let $device = Default::default();
                session.watched::<$Backend, _>(&$device, || $body)
            }
            #[cfg(feature = "cuda")]
            $crate::device::Device::Cuda(index) => {
                type $Backend = burn_cuda::Cuda;
                let $device = burn_cuda::CudaDevice::new(index);
                session.watched::<$Backend, _>(&$device, || $body)
            }
            #[cfg(feature = "flex")]
            $crate::device::Device::Flex => {
                type $Backend = burn_flex::Flex;
                let $device = Default::default();
                session.watched::<$Backend, _>(&$device, || $body)
            }
            #[allow(unreachable_patterns)]
            other => anyhow::bail!("--device {other}: this program was built without it; rebuild it with its feature"),
        }
    }};
}
pub(crate) use on_device;
