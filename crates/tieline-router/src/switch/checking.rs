//! What judges the first answer of a cascade: its confidence, then the program that an alias has for it.

use std::sync::{Arc, Mutex};

use tieline_types::{DataClass, Private};

use super::planned::{Account, Planned, judge, lock};
use crate::carry::{Check, Checked, Gate, Verdict, check};
use crate::choose::bare;

impl Planned {
    /// What judges the first answer of a cascade, and says how by its seat.
    pub(super) fn gate(&self, seat: u32) -> Gate {
        let cascade = self.decision.cascade.as_ref();
        let most_error = cascade.map_or(0.0, |cascade| cascade.most_error);
        let calibration = self.calibration.clone();
        let account = Arc::clone(&self.account);
        Arc::new(move |features| {
            let judged = judge(features, calibration.as_deref(), most_error);
            lock(&account).judged.push((seat, judged));
            if judged.kept { Verdict::Keep } else { Verdict::Escalate }
        })
    }

    /// Looks through the first answer of a cascade, and says what came of it by its seat.
    pub(super) fn check(&self, seat: u32) -> Option<Check> {
        let alias = self.setup.policy.aliases.get(bare(&self.asked.asked))?;
        let program = Arc::new(alias.check.clone()?);
        // What is secret is shown to no program, whatever it is for.
        let shown = self.decision.class < DataClass::Secret;
        let checker = self.setup.checker.clone().filter(|_| shown);
        let account = Arc::clone(&self.account);
        Some(Arc::new(move |text| {
            let (program, checker) = (Arc::clone(&program), checker.clone());
            let account = Arc::clone(&account);
            Box::pin(async move {
                let code = Private::new(check::code(text.expose()).to_owned());
                // Who is not waited for any more is late.
                note(&account, seat, Checked::Late);
                let checked = match checker {
                    Some(checker) => checker.check(&program, code).await,
                    None => Checked::NotRun,
                };
                note(&account, seat, checked);
                checked == Checked::Passed
            })
        }))
    }
}

fn note(account: &Mutex<Account>, seat: u32, checked: Checked) {
    let mut account = lock(account);
    if let Some((_, judged)) = account.judged.iter_mut().find(|(at, _)| *at == seat) {
        judged.check = Some(checked);
        judged.kept = checked == Checked::Passed;
    }
}
