//! What an image that has a whole file system of its own says of its programs.

use guest::USER;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The directories with the programs of such an image that names none, as a variable of the environment.
pub const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The surroundings of programs in an image whose file system is their root, in place of the guest's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct System {
    /// Variables of the environment, each as `NAME=value`, in place of the usual ones with these names.
    #[serde(default)]
    pub env: Vec<String>,
    /// The words of the program that the image is for, if it is for one.
    #[serde(default)]
    pub command: Vec<String>,
    /// The directory in which that one runs, if that is not the root.
    #[serde(default)]
    pub workdir: Option<String>,
    /// The user and the group of programs; without them, or for the user 0, they are those of any other image.
    #[serde(default)]
    pub user: Option<u32>,
    #[serde(default)]
    pub group: Option<u32>,
}

impl System {
    /// Checks what the types of the fields do not.
    pub fn check(&self) -> Result<(), String> {
        if let Some(variable) = self.env.iter().find(|it| it.find('=').unwrap_or(0) == 0) {
            return Err(format!(
                "{variable:?} of its env is not of the form NAME=value"
            ));
        }
        if self.user == Some(u32::MAX) || self.group == Some(u32::MAX) {
            return Err(format!(
                "its user or its group is {}, which stands for none",
                u32::MAX
            ));
        }
        match &self.workdir {
            Some(path) if !path.starts_with('/') => {
                Err(format!("its workdir {path:?} is no absolute path"))
            }
            _ => Ok(()),
        }
    }

    /// Returns the numbers of the user and the group.
    pub fn owner(&self) -> (u32, u32) {
        let user = self.user.filter(|&user| user != 0);
        user.map_or((USER, USER), |user| (user, self.group.unwrap_or(user)))
    }
}
