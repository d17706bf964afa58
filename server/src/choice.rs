//! Which packet gate this node has.

use buoy_core::spec::timing::NFT_MARGIN;
use buoy_fence::gate::{EbpfGate, EbpfOptions, Gate, GateError, NftGate, UserspaceGate};
use tracing::debug;

use crate::config::{Fence, WITHOUT_GATE};

/// The packet gate that `node.fence` asks for; and warnings where it is not the strongest.
///
/// # Errors
/// It cannot be had; for `auto`, neither of two.
pub fn make_gate(fence: Fence) -> Result<(Box<dyn Gate>, Vec<String>), GateError> {
    match fence {
        Fence::Ebpf => Ok((ebpf()?, Vec::new())),
        Fence::Nft => nft(),
        Fence::Auto => {
            let no_ebpf = match ebpf() {
                Ok(gate) => return Ok((gate, Vec::new())),
                Err(e) if may_fall_back(&e) => e,
                Err(e) => return Err(e),
            };
            let (gate, others) = nft().map_err(|e| GateError::Unavailable {
                action: "be installed in any way".to_owned(),
                problem: format!("eBPF: {no_ebpf}; nftables: {e}"),
                remedy: "provide one of the two".to_owned(),
            })?;
            let mut warnings = vec![format!(
                "packet gate: nftables, because eBPF cannot be had ({no_ebpf}); promises to this node are {} ms longer, \
                 and its leases do not count time that the machine is suspended",
                NFT_MARGIN.as_millis()
            )];
            warnings.extend(others);
            Ok((gate, warnings))
        }
        Fence::UserspaceOnly => {
            let warning = format!(
                "node.fence = \"userspace-only\": no packet gate; {WITHOUT_GATE}, beside the new owner"
            );
            Ok((Box::new(UserspaceGate::new()), vec![warning]))
        }
    }
}

fn ebpf() -> Result<Box<dyn Gate>, GateError> {
    Ok(Box::new(EbpfGate::new(EbpfOptions::default())?))
}

fn nft() -> Result<(Box<dyn Gate>, Vec<String>), GateError> {
    let gate = NftGate::new()?;
    let mut warnings = Vec::new();
    if !gate.fences_raw_sockets() {
        warnings.push(
            "this kernel's nftables has no egress hook (Linux 5.16): announcements that other programs send through raw \
             sockets are not fenced"
                .to_owned(),
        );
    }
    if !gate.is_owned() {
        debug!(
            "this kernel's nftables has no tables that are owned and persist (Linux 6.9): others can change them, which is repaired"
        );
    }
    Ok((Box::new(gate), warnings))
}

/// Whether another kind of gate may do: a clock that cannot be trusted is nobody's.
fn may_fall_back(e: &GateError) -> bool {
    matches!(
        e,
        GateError::Unavailable { .. } | GateError::Rejected { .. } | GateError::Kernel { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_another_gate_could_do_better_is_a_reason_to_fall_back() {
        let lacking = GateError::Unavailable {
            action: String::new(),
            problem: String::new(),
            remedy: String::new(),
        };
        assert!(may_fall_back(&lacking));
        assert!(!may_fall_back(&GateError::InUse));
        let (gate, warnings) = make_gate(Fence::UserspaceOnly).unwrap();
        assert_eq!(gate.kind().to_string(), "userspace-only");
        assert!(warnings[0].contains("no packet gate"));
    }
}
