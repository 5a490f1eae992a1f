//! How much output may wait for a client, and how much memory all clients may take.

use hypercache_stdx::size;

/// When a client's output is too much: hard bytes, soft bytes, seconds above soft; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputLimit {
    /// Close at once above this many bytes.
    pub hard: u64,
    /// Close above this many bytes …
    pub soft: u64,
    /// … for this many seconds.
    pub soft_s: u64,
}

/// The limits of each class of client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputLimits {
    /// Ordinary clients.
    pub normal: OutputLimit,
    /// Replicas.
    pub replica: OutputLimit,
    /// Clients in subscribe mode.
    pub pubsub: OutputLimit,
}

/// What the buffers of all clients may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ClientsBudget {
    /// What is left of `maxmemory`.
    #[default]
    None,
    /// So many bytes of it.
    Bytes(u64),
    /// So many per cent of it.
    Percent(u8),
}

impl ClientsBudget {
    pub(super) fn parse(text: &str) -> Option<ClientsBudget> {
        if let Some(number) = text.strip_suffix('%') {
            let percent = number.parse().ok().filter(|percent| *percent <= 100)?;
            return Some(if percent == 0 { Self::None } else { Self::Percent(percent) });
        }
        let bytes = size::parse_bytes(text.as_bytes())?;
        Some(if bytes == 0 { Self::None } else { Self::Bytes(bytes) })
    }
}

/// Checks a value of `maxmemory-clients`.
pub(super) fn clients_budget(text: &str) -> Result<String, String> {
    let budget = ClientsBudget::parse(text).ok_or("argument must be a memory or percent value")?;
    Ok(match budget {
        ClientsBudget::None => "0".into(),
        ClientsBudget::Bytes(bytes) => bytes.to_string(),
        ClientsBudget::Percent(percent) => format!("{percent}%"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_bytes_or_per_cent() {
        for (text, value) in [("0", "0"), ("0%", "0"), ("5%", "5%"), ("1mb", "1048576")] {
            assert_eq!(clients_budget(text).as_deref(), Ok(value));
        }
        for text in ["", "%", "-1", "101%", "5 %", "x"] {
            assert!(clients_budget(text).is_err(), "{text:?}");
        }
    }
}
