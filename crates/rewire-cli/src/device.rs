//! Chooses at run time among the backends that this program was built with.

use std::fmt;
use std::str::FromStr;

use rewire_input::did_you_mean;

/// A device to compute on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Device {
    /// The fastest device of this machine: CUDA if the program was built with it and a GPU is
    /// present, else flex.
    Auto,
    /// The CPU, with burn's SIMD backend.
    Flex,
    /// The CPU, with burn's ndarray backend.
    NdArray,
    /// The NVIDIA GPU of this index.
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
                let suggested = did_you_mean(other, ["auto", "flex", "ndarray", "cuda"]);
                index
                    .map(Device::Cuda)
                    .ok_or_else(|| format!("no device `{other}`; give auto, flex, ndarray or cuda[:N]{suggested}"))
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
    /// Returns the device that `auto` stands for on this machine, or the chosen device.
    pub(crate) fn resolve(self) -> Device {
        match self {
            Device::Auto => best(),
            chosen => chosen,
        }
    }

    /// Refuses a device that this program was built without or that this machine does not have.
    pub(crate) fn check(self) -> anyhow::Result<()> {
        match self {
            Device::Auto => self.resolve().check(),
            Device::Flex if !cfg!(feature = "flex") => {
                anyhow::bail!(
                    "--device flex: this program was built without burn's flex backend; rebuild it with --features flex"
                )
            }
            Device::NdArray if !cfg!(feature = "ndarray") => anyhow::bail!(
                "--device ndarray: this program was built without burn's ndarray backend; run `cargo run -p xtask \
                 --features ndarray -- ..`"
            ),
            Device::Flex | Device::NdArray => Ok(()),
            Device::Cuda(index) => match cuda_devices() {
                Err(why) => anyhow::bail!("--device {self}: {why}"),
                Ok(0) => anyhow::bail!("--device {self}: the NVIDIA driver finds no GPU on this machine"),
                Ok(n) if index >= n => {
                    anyhow::bail!("--device {self}: this machine has {n} GPUs, numbered from 0; give a lower number")
                }
                Ok(_) => Ok(()),
            },
        }
    }
}

/// Returns the fastest device of this machine. If there is an NVIDIA driver but its GPU cannot be
/// used, prints the reason, once.
#[cfg(feature = "cuda")]
fn best() -> Device {
    static BEST: std::sync::OnceLock<Device> = std::sync::OnceLock::new();
    *BEST.get_or_init(|| match rewire_tensor::devices() {
        Ok(1..) => Device::Cuda(0),
        Ok(0) | Err(rewire_tensor::CudaError::NoDriver) => Device::Flex,
        Err(why) => {
            crate::output::say(&format!("--device auto: computing on the CPU, because {why}"));
            Device::Flex
        }
    })
}

/// Returns flex: this program was built without CUDA.
#[cfg(not(feature = "cuda"))]
fn best() -> Device {
    Device::Flex
}

/// Returns the number of usable GPUs, or the reason if there is none.
#[cfg(feature = "cuda")]
fn cuda_devices() -> Result<usize, String> {
    rewire_tensor::devices().map_err(|error| error.to_string())
}

/// Returns the reason: this program was built without CUDA.
#[cfg(not(feature = "cuda"))]
fn cuda_devices() -> Result<usize, String> {
    Err("this program was built without CUDA; run `cargo run -p xtask --features cuda -- ..`".to_owned())
}
