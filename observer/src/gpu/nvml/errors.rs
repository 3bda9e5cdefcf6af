//! What an error says of the call, the GPU or the driver.

use nvml_wrapper::error::NvmlError;

/// `NVML_ERROR_GPU_NOT_FOUND`, which the wrapper has no name for.
pub(super) const NO_GPU: u32 = 28;

/// What cannot be asked any further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// This GPU.
    Gpu,
    /// The driver, and all that came of it.
    Driver(String),
}

/// The value of one call. `None`: the GPU or its driver does not have it, or did not give it this time.
pub(super) fn value<T>(result: Result<T, NvmlError>) -> Result<Option<T>, Lost> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => match loss(&error) {
            Some(lost) => Err(lost),
            None => Ok(None),
        },
    }
}

/// What is lost, if this says that something is.
pub(super) fn loss(error: &NvmlError) -> Option<Lost> {
    match error {
        NvmlError::GpuLost | NvmlError::ResetRequired => Some(Lost::Gpu),
        NvmlError::Uninitialized
        | NvmlError::DriverNotLoaded
        | NvmlError::LibRmVersionMismatch
        | NvmlError::UnexpectedVariant(NO_GPU) => Some(Lost::Driver(error.to_string())),
        _ => None,
    }
}
