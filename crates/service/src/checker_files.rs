//! The files of the safety checker that the operator names, for whoever looks at a picture.

use pentimento_types::SafetyPolicy;

use crate::inner::Inner;
use crate::named_models::find;
use crate::safety::CheckerFiles;
use crate::{ModelRole, ServiceError};

impl Inner {
    /// The files that looking at pictures takes, fetched where they are not here.
    pub(crate) async fn checker_files(&self, policy: SafetyPolicy) -> Result<CheckerFiles, ServiceError> {
        match &self.config.safety.model {
            Some(name) if policy != SafetyPolicy::Off => {
                let entry = find(&self.catalog, ModelRole::SafetyChecker, name)?;
                let located = self.usable(vec![(ModelRole::SafetyChecker, entry)]).await?;
                Ok(CheckerFiles(located.into_iter().next()))
            }
            Some(_) | None => Ok(CheckerFiles(None)),
        }
    }
}
