//! Where memory lies.

use std::fmt;

/// Where the elements of a matrix or vector lie. Only those on the host may be read here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    #[default]
    Host,
    /// A CUDA device, by its ordinal.
    Cuda(i32),
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Host => formatter.write_str("the CPU"),
            Device::Cuda(ordinal) => write!(formatter, "CUDA device {ordinal}"),
        }
    }
}
