//! Models a caller keeps in memory.

use super::{Caller, Outcome, Reaction};
use crate::bus::Call;
use crate::describe::HOLD;
use crate::failure::Failure;
use crate::limits::{HOLDS_PER_CALLER_MAX, REASON_BYTES_MAX};
use crate::mirror::Held;
use crate::names::Kind;
use crate::options::Options;
use crate::values::Dict;
use mote_wire::types::Request;
use std::collections::BTreeMap;
use zbus::OwnedVariant;

/// A hold.
pub struct Hold {
    model: String,
    reason: String,
    /// Once the model is pinned.
    counted: Option<Held>,
}

impl Hold {
    pub fn properties(&self) -> Dict {
        Dict::from([
            ("Model".into(), self.model.clone().into()),
            ("Reason".into(), self.reason.clone().into()),
        ])
    }
}

impl Caller {
    /// `HoldModel(model, reason, options)`: a pin on the caller's connection.
    pub(super) fn hold_model(&mut self, call: &Call) -> Result<Reaction, Failure> {
        let (model, reason, options): (String, String, BTreeMap<String, OwnedVariant>) =
            call.arguments()?;
        let mut options = Options::new(options)?;
        let token = self.token(Kind::Hold, &mut options)?;
        options.finish()?;
        if reason.len() > REASON_BYTES_MAX {
            return Err(Failure::over(
                "bytes of reason",
                reason.len(),
                REASON_BYTES_MAX,
            ));
        }
        let model = self.resolve(model)?;
        let have = self.state.holds.len() + 1;
        if have > HOLDS_PER_CALLER_MAX {
            return Err(Failure::over("holds", have, HOLDS_PER_CALLER_MAX));
        }
        let wire = self.wire()?;
        let path = self.path(Kind::Hold, &token);
        let hold = Hold {
            model: model.clone(),
            reason,
            counted: None,
        };
        self.state.holds.insert(token.clone(), hold);
        let (replier, call) = (self.replier(), call.clone());
        self.running.spawn(async move {
            let pinned = wire.call(Request::Pin {
                model,
                pinned: true,
            });
            let answer = match pinned.await {
                Ok(_) => call.answer_path(&path),
                Err(status) => Err(status.into()),
            };
            let outcome = match &answer {
                Ok(_) => Outcome::HoldBegun(token),
                Err(_) => Outcome::Refused(Kind::Hold, token),
            };
            replier.reply(&call, answer).await;
            outcome
        });
        Ok(Reaction::Later)
    }

    /// The model is pinned.
    pub(super) async fn begin_hold(&mut self, token: &str) {
        if let Some(hold) = self.state.holds.get_mut(token) {
            hold.counted = Some(self.shared.mirror.hold(&hold.model));
            self.tell_added(Kind::Hold, token, &HOLD).await;
        }
    }

    /// `Hold.Release(options)`: the last hold of a model unpins it.
    pub(super) async fn release_hold(
        &mut self,
        call: &Call,
        token: &str,
    ) -> Result<Reaction, Failure> {
        Options::new(call.arguments()?)?.finish()?;
        let Some(hold) = self.state.holds.remove(token) else {
            return Ok(Reaction::Now(call.answer(&())));
        };
        self.tell_removed(Kind::Hold, token, &HOLD).await;
        let mut others = self.state.holds.values();
        if others.any(|other| other.model == hold.model) {
            return Ok(Reaction::Now(call.answer(&())));
        }
        let wire = self.wire()?;
        let request = Request::Pin {
            model: hold.model.clone(),
            pinned: false,
        };
        Ok(self.beside(call, |call| async move {
            wire.call(request).await?;
            call.answer(&())
        }))
    }

    /// How often this caller holds a model.
    pub(super) fn holds_of(&self, model: &str) -> usize {
        let holds = self.state.holds.values();
        holds
            .filter(|hold| hold.counted.is_some() && hold.model == model)
            .count()
    }
}
