//! The progress while a template is found or built, as messages between processes.

use crate::error::Error;
use crate::template::builder::Listener;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A piece of progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Notice {
    Refused(String),
    Waiting,
    Building {
        stage: String,
        elapsed: Duration,
        last: Option<Duration>,
    },
    Built(Duration),
    Unsaved(Error),
    Booting(String),
    Emulating(String),
}

impl Notice {
    /// Tells it to a listener in the process that it was sent to.
    pub fn tell(&self, listener: &mut dyn Listener) {
        match self {
            Self::Refused(why) => listener.refused(why),
            Self::Waiting => listener.waiting(),
            Self::Building {
                stage,
                elapsed,
                last,
            } => listener.building(stage, *elapsed, *last),
            Self::Built(elapsed) => listener.built(*elapsed),
            Self::Unsaved(why) => listener.unsaved(why),
            Self::Booting(variable) => listener.booting(variable),
            Self::Emulating(how) => listener.emulating(how),
        }
    }
}

/// A listener that makes notices of what it hears, for this function to send.
pub struct Notices<F>(pub F);

impl<F: FnMut(Notice)> Listener for Notices<F> {
    fn refused(&mut self, why: &str) {
        (self.0)(Notice::Refused(why.into()));
    }

    fn waiting(&mut self) {
        (self.0)(Notice::Waiting);
    }

    fn building(&mut self, stage: &str, elapsed: Duration, last: Option<Duration>) {
        (self.0)(Notice::Building {
            stage: stage.into(),
            elapsed,
            last,
        });
    }

    fn built(&mut self, elapsed: Duration) {
        (self.0)(Notice::Built(elapsed));
    }

    fn unsaved(&mut self, why: &Error) {
        (self.0)(Notice::Unsaved(why.clone()));
    }

    fn booting(&mut self, variable: &str) {
        (self.0)(Notice::Booting(variable.into()));
    }

    fn emulating(&mut self, how: &str) {
        (self.0)(Notice::Emulating(how.into()));
    }
}
