//! The ownership history: events, their kinds and causes.

use buoy_core::state::{Cause, Event, EventKind};
use buoy_core::{Epoch, NodeName, VipName};

use super::{ConvertError, absent_if_empty, unknown_value};
use crate::v1;

/// One pair of functions for an enumeration whose proto form has a zero value that core lacks.
macro_rules! same_values {
    ($core:ident, $zero:ident, $($value:ident),+ $(,)?) => {
        impl From<$core> for v1::$core {
            fn from(v: $core) -> Self {
                match v {
                    $($core::$value => v1::$core::$value,)+
                }
            }
        }

        impl v1::$core {
            /// Core's value; `None` for the zero value.
            pub fn to_core(self) -> Option<$core> {
                match self {
                    v1::$core::$zero => None,
                    $(v1::$core::$value => Some($core::$value),)+
                }
            }
        }

        #[cfg(test)]
        impl v1::$core {
            const ALL: &[$core] = &[$($core::$value),+];
        }
    };
}

same_values!(
    EventKind,
    Unspecified,
    VipPut,
    VipEdited,
    VipDeleted,
    Assigned,
    Unassigned,
    NodeDrained,
    NodeUndrained,
    NodePut,
    SettingsChanged,
);
same_values!(
    Cause,
    Unspecified,
    Placement,
    OwnerSilent,
    OwnerUnfit,
    LeaseLost,
    OwnerStopping,
    Drained,
    Preempted,
    Operator,
    Group,
    Edited,
    Yielded,
    Unfenced,
);

fn or_empty<T: ToString>(value: Option<&T>) -> String {
    value.map(T::to_string).unwrap_or_default()
}

impl From<&Event> for v1::Change {
    fn from(e: &Event) -> Self {
        v1::Change {
            revision: e.revision,
            index: e.index,
            at_unix_ms: e.at_unix_ms,
            kind: v1::EventKind::from(e.kind).into(),
            vip: or_empty(e.vip.as_ref()),
            node: or_empty(e.node.as_ref()),
            epoch: e.epoch.unwrap_or_default().0,
            from: or_empty(e.from.as_ref()),
            to: or_empty(e.to.as_ref()),
            cause: e
                .cause
                .map_or(v1::Cause::Unspecified, v1::Cause::from)
                .into(),
            evidence: e.evidence.clone(),
        }
    }
}

fn name<T: std::str::FromStr<Err = buoy_core::ids::NameError>>(
    field: &str,
    text: &str,
) -> Result<Option<T>, ConvertError> {
    absent_if_empty(text)
        .map(|t| t.parse().map_err(|e| ConvertError::new(field, e)))
        .transpose()
}

impl TryFrom<v1::Change> for Event {
    type Error = ConvertError;

    fn try_from(c: v1::Change) -> Result<Self, ConvertError> {
        let kind = v1::EventKind::try_from(c.kind)
            .ok()
            .and_then(v1::EventKind::to_core)
            .ok_or_else(|| unknown_value("kind", c.kind))?;
        let cause = v1::Cause::try_from(c.cause).map_err(|_| unknown_value("cause", c.cause))?;
        Ok(Event {
            revision: c.revision,
            index: c.index,
            at_unix_ms: c.at_unix_ms,
            kind,
            vip: name::<VipName>("vip", &c.vip)?,
            node: name::<NodeName>("node", &c.node)?,
            epoch: (c.epoch != 0).then_some(Epoch(c.epoch)),
            from: name::<NodeName>("from", &c.from)?,
            to: name::<NodeName>("to", &c.to)?,
            cause: cause.to_core(),
            evidence: c.evidence,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Event {
        Event {
            revision: 7,
            index: 42,
            at_unix_ms: 1_700_000_000_000,
            kind: EventKind::Assigned,
            vip: Some("web".parse().unwrap()),
            node: None,
            epoch: Some(Epoch(42)),
            from: Some("n1".parse().unwrap()),
            to: Some("n2".parse().unwrap()),
            cause: Some(Cause::OwnerSilent),
            evidence: "n1 silent for 182 ms".into(),
        }
    }

    #[test]
    fn events_of_every_kind_and_cause_come_back() {
        for kind in v1::EventKind::ALL {
            let event = Event {
                kind: *kind,
                ..sample()
            };
            assert_eq!(Event::try_from(v1::Change::from(&event)).unwrap(), event);
        }
        for cause in v1::Cause::ALL {
            let event = Event {
                cause: Some(*cause),
                ..sample()
            };
            assert_eq!(Event::try_from(v1::Change::from(&event)).unwrap(), event);
        }
        let node_event = Event {
            kind: EventKind::NodeDrained,
            vip: None,
            node: Some("n3".parse().unwrap()),
            epoch: None,
            from: None,
            to: None,
            cause: None,
            ..sample()
        };
        assert_eq!(
            Event::try_from(v1::Change::from(&node_event)).unwrap(),
            node_event
        );
    }

    #[test]
    fn errors_name_the_field() {
        type Spoil = fn(&mut v1::Change);
        let cases: [(Spoil, &str); 5] = [
            (|c| c.kind = 0, "kind"),
            (|c| c.kind = 99, "kind"),
            (|c| c.cause = -1, "cause"),
            (|c| c.vip = "not a name".into(), "vip"),
            (|c| c.to = "-".into(), "to"),
        ];
        for (spoil, field) in cases {
            let mut change = v1::Change::from(&sample());
            spoil(&mut change);
            assert_eq!(Event::try_from(change).unwrap_err().field, field);
        }
    }
}
