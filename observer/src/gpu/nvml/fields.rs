//! Values that NVML numbers. Asked for directly, since the wrapper cannot name the link of a link's counter.

use nvml_wrapper::{
    Device, FieldIdScheme,
    error::{NvmlError, nvml_sym, nvml_try},
    sys_exports::field_id::{
        NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN, NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN,
        NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN, NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX,
        NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, NVML_FI_DEV_PCIE_COUNT_RX_BYTES, NVML_FI_DEV_PCIE_COUNT_TX_BYTES,
    },
};
use nvml_wrapper_sys::bindings::{
    nvmlFieldValue_t, nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_LONG_LONG as SIGNED_LONG_LONG,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT as UNSIGNED_INT,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG as UNSIGNED_LONG,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG as UNSIGNED_LONG_LONG,
};

use super::{
    Book,
    errors::{Lost, value},
};
use crate::gpu::snapshot::Traffic;

/// All links together, in place of one.
const ALL_LINKS: u32 = u32::MAX;
/// Most links of a GPU.
const LINKS_MAX: u32 = 18;
const KIB: u64 = 1024;

/// Which counters of links a GPU has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Links {
    /// Nobody has asked.
    #[default]
    Unknown,
    /// One over all links.
    Sum,
    /// One for each of so many links.
    Each(u32),
    /// None.
    None,
}

impl Links {
    fn scopes(self) -> Vec<u32> {
        match self {
            Self::Unknown | Self::Sum => vec![ALL_LINKS],
            Self::Each(count) => (0..count).collect(),
            Self::None => Vec::new(),
        }
    }
}

/// Time that the hardware's own counters of slowdowns measure, in nanoseconds.
pub(super) const SLOWDOWNS: [(&str, u32); 3] = [
    ("sw_thermal", NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN),
    ("hw_thermal", NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN),
    ("hw_power_brake", NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN),
];

/// Number of a field in the numbering of this driver: some moved in 580.82.
fn number(device: &Device<'_>, id: u32) -> u32 {
    match (device.nvml().field_id_scheme(), id) {
        (FieldIdScheme::V13Update1, 251..=255) => id + 18,
        _ => id,
    }
}

/// Values of these fields (number, and the link or 0), each `None` where there is none. One call.
pub(super) fn read(device: &Device<'_>, fields: &[(u32, u32)]) -> Result<Vec<Option<u64>>, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetFieldValues.as_ref())?;
    let request = |(id, scope): &(u32, u32)| {
        // SAFETY: all of it is numbers, for which zero is valid.
        let mut field: nvmlFieldValue_t = unsafe { std::mem::zeroed() };
        field.fieldId = number(device, *id);
        field.scopeId = *scope;
        field
    };
    let mut values: Vec<_> = fields.iter().map(request).collect();
    let count = i32::try_from(values.len()).map_err(|_| NvmlError::InvalidArg)?;
    // SAFETY: the handle is alive with its library, and there are `count` fields.
    nvml_try(unsafe { call(device.handle(), count, values.as_mut_ptr()) })?;
    Ok(values.iter().map(number_of).collect())
}

fn number_of(field: &nvmlFieldValue_t) -> Option<u64> {
    nvml_try(field.nvmlReturn).ok()?;
    // SAFETY: the tag says which part of the union was written.
    unsafe {
        match field.valueType {
            UNSIGNED_INT => Some(field.value.uiVal.into()),
            UNSIGNED_LONG => Some(field.value.ulVal),
            UNSIGNED_LONG_LONG => Some(field.value.ullVal),
            SIGNED_LONG_LONG => u64::try_from(field.value.sllVal).ok(),
            _ => None,
        }
    }
}

/// Bytes over PCIe and over NVLink.
pub(super) fn traffic(device: &Device<'_>, links: &mut Links, book: &mut Book) -> Result<(Traffic, Traffic), Lost> {
    let scopes = links.scopes();
    let mut fields = vec![(NVML_FI_DEV_PCIE_COUNT_TX_BYTES, 0), (NVML_FI_DEV_PCIE_COUNT_RX_BYTES, 0)];
    for id in [NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX] {
        fields.extend(scopes.iter().map(|scope| (id, *scope)));
    }
    let Some(values) = value(read(device, &fields))? else { return Ok(Default::default()) };
    let (pcie, nvlink) = values.split_at(2);
    let (transmit, receive) = nvlink.split_at(scopes.len());
    if *links == Links::Unknown {
        *links = if nvlink.iter().any(Option::is_some) { Links::Sum } else { count_links(device)? };
    }
    let sum = |values: &[Option<u64>]| -> Option<u64> {
        let all: Option<Vec<u64>> = values.iter().copied().collect();
        all.filter(|all| !all.is_empty()).map(|all| all.iter().sum::<u64>().saturating_mul(KIB))
    };
    let [pcie_transmit, pcie_receive] = &mut book.pcie;
    let [link_transmit, link_receive] = &mut book.nvlink;
    let pcie = Traffic {
        transmit: pcie[0].map(|bytes| pcie_transmit.read_wrapping(bytes)),
        receive: pcie[1].map(|bytes| pcie_receive.read_wrapping(bytes)),
    };
    let nvlink = Traffic {
        transmit: sum(transmit).map(|bytes| link_transmit.read(bytes)),
        receive: sum(receive).map(|bytes| link_receive.read(bytes)),
    };
    Ok((pcie, nvlink))
}

/// Links that have counters of their own.
fn count_links(device: &Device<'_>) -> Result<Links, Lost> {
    let each: Vec<_> = (0..LINKS_MAX).map(|link| (NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, link)).collect();
    let values = value(read(device, &each))?.unwrap_or_default();
    Ok(match values.iter().take_while(|value| value.is_some()).count() {
        0 => Links::None,
        count => Links::Each(u32::try_from(count).unwrap_or(LINKS_MAX)),
    })
}
