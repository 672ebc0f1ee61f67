//! The backends that this program was built with, and choosing one at run time.

use std::fmt;
use std::str::FromStr;

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Device {
    /// The best that is there: CUDA if it was built in and a device is present, else flex.
    Auto,
    /// The CPU, by burn's SIMD backend.
    Flex,
    /// The CPU, by burn's ndarray backend.
    NdArray,
    /// An NVIDIA GPU.
    Cuda(usize),
}

impl FromStr for Device {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "auto" => Ok(Device::Auto),
            "flex" => Ok(Device::Flex),
            "ndarray" => Ok(Device::NdArray),
            "cuda" => Ok(Device::Cuda(0)),
            other => {
                let index = other.strip_prefix("cuda:").and_then(|n| n.parse().ok());
                index
                    .map(Device::Cuda)
                    .ok_or_else(|| format!("no device `{other}`; there are auto, flex, ndarray, cuda[:N]"))
            }
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => f.write_str("auto"),
            Device::Flex => f.write_str("flex"),
            Device::NdArray => f.write_str("ndarray"),
            Device::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl Device {
    /// The device that `auto` stands for here; other choices are themselves.
    pub(crate) fn resolve(self) -> Device {
        match self {
            Device::Auto => best(),
            chosen => chosen,
        }
    }

    /// Refuses a device that this program lacks or this machine has not.
    pub(crate) fn check(self) -> anyhow::Result<()> {
        match self {
            Device::Auto => self.resolve().check(),
            Device::Flex if !cfg!(feature = "flex") => {
                anyhow::bail!("--device flex: this program was built without burn's flex backend")
            }
            Device::NdArray if !cfg!(feature = "ndarray") => anyhow::bail!(
                "--device ndarray: this program was built without burn's ndarray backend; run `cargo run -p xtask --features \
                 ndarray -- ..`"
            ),
            Device::Flex | Device::NdArray => Ok(()),
            Device::Cuda(index) => match cuda_devices() {
                Err(why) => anyhow::bail!("--device {self}: {why}"),
                Ok(0) => anyhow::bail!("--device {self}: the NVIDIA driver finds no GPU on this machine"),
                Ok(n) if index >= n => anyhow::bail!("--device {self}: this machine has {n} GPUs, numbered from 0"),
                Ok(_) => Ok(()),
            },
        }
    }
}

/// The fastest device here. Where there is an NVIDIA driver and yet nothing can be computed on its GPU, it says why, once.
#[cfg(feature = "cuda")]
fn best() -> Device {
    static BEST: std::sync::OnceLock<Device> = std::sync::OnceLock::new();
    *BEST.get_or_init(|| match rewire_tensor::devices() {
        Ok(1..) => Device::Cuda(0),
        Ok(0) | Err(rewire_tensor::CudaError::NoDriver) => Device::Flex,
        Err(why) => {
            crate::output::say(&format!("--device auto: computing on the CPU, since {why}"));
            Device::Flex
        }
    })
}

/// The same of a program without CUDA.
#[cfg(not(feature = "cuda"))]
fn best() -> Device {
    Device::Flex
}

/// How many GPUs can be computed on here; in the other case why none can.
#[cfg(feature = "cuda")]
fn cuda_devices() -> Result<usize, String> {
    rewire_tensor::devices().map_err(|error| error.to_string())
}

/// The same of a program without CUDA.
#[cfg(not(feature = "cuda"))]
fn cuda_devices() -> Result<usize, String> {
    Err("this program was built without CUDA; run `cargo run -p xtask --features cuda -- ..`".to_owned())
}
