//! What can be said of a recipe's run before anything is stored: that there is no such run or that something does not fit the
//! checkpoint, which scheduler it will be, and what of LoRAs and embeddings will have no effect.

use pentimento_engine::{Beside, LoraReport, PipelineError, ResolvedModels, RunPlan};
use pentimento_types::{ErrorKind, HasKind as _, JobNote, Recipe, Task, describe_chain};

use crate::device_time::DeviceTime;
use crate::embeddings::unused_notes;
use crate::inner::{Inner, PLANS_AT_ONCE};
use crate::looks::PATIENCE;
use crate::off_thread::off_thread;
use crate::{ModelRole, ServiceError};

impl Inner {
    /// Refuses what the device would refuse later, and names in the recipe what it leaves to the checkpoint, so that who
    /// asks for the job or reads the image's parameters is told what ran.
    pub(crate) async fn plan(
        &self,
        models: &ResolvedModels,
        recipe: &mut Recipe,
        task: Task,
    ) -> Result<(DeviceTime, Vec<JobNote>), ServiceError> {
        let (planned, asked) = (models.clone(), recipe.clone());
        let turns = self.plan_turns.get_or_make(
            (ModelRole::Checkpoint, models.checkpoint.name.clone()),
            PLANS_AT_ONCE,
        );
        let planned = async move {
            let turn = turns.acquire_owned().await.map_err(ServiceError::internal)?;
            off_thread(move || {
                // It goes along, because this runs on when the caller hangs up.
                let _turn = turn;
                let plan =
                    RunPlan::of(&planned, &asked, task).map_err(|error| (error.refused_setting(), error));
                Ok((plan, model_notes(&planned, &asked)?))
            })
            .await
        };
        let (plan, notes) = tokio::select! {
            planned = planned => planned?,
            // Without a plan the job goes on, and the load says what is wrong.
            () = self.clock.sleep_until(self.clock.now() + PATIENCE) => {
                tracing::warn!(model = %models.checkpoint.name, "a model's disk does not answer; its run is not planned");
                return Ok((DeviceTime::unplanned(recipe, task), Vec::new()));
            }
        };
        match plan {
            Ok(plan) => {
                recipe.scheduler = plan.named(recipe.scheduler);
                let time = DeviceTime {
                    task,
                    rows: plan.rows,
                    evaluations: plan.evaluations,
                };
                Ok((time, notes))
            }
            Err((Some((setting, problem)), _)) => Err(ServiceError::RunRefused { setting, problem }),
            Err((None, error)) => {
                if let Some((beside, name, reason)) = error.refused_beside() {
                    return Err(ServiceError::ModelUnfit {
                        role: match beside {
                            Beside::Vae => ModelRole::Vae,
                            Beside::Embedding => ModelRole::Embedding,
                            Beside::IpAdapter => ModelRole::IpAdapter,
                        },
                        name: name.to_owned(),
                        checkpoint: models.checkpoint.name.clone(),
                        reason,
                    });
                }
                let name = &models.checkpoint.name;
                tracing::debug!(model = %name, error = describe_chain(&error), "no plan yet");
                Ok((DeviceTime::unplanned(recipe, task), notes))
            }
        }
    }
}

/// What a caller should be told about the LoRAs and embeddings of a run before anything is loaded. Reads the beginnings of files,
/// so it waits for the disk.
///
/// # Errors
/// [`ServiceError::ModelUnfit`] and [`ServiceError::ModelUnavailable`] for a LoRA that cannot be used.
pub fn model_notes(models: &ResolvedModels, recipe: &Recipe) -> Result<Vec<JobNote>, ServiceError> {
    let mut notes = lora_notes(models, LoraReport::of(models))?;
    notes.extend(unused_notes(recipe, &models.embeddings));
    Ok(notes)
}

/// What a caller should be told about the LoRAs, or the refusal of one that does not fit.
fn lora_notes(
    models: &ResolvedModels,
    report: Result<LoraReport, PipelineError>,
) -> Result<Vec<JobNote>, ServiceError> {
    let checkpoint = models.checkpoint.name.clone();
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            let Some((name, reason)) = error.refused_lora() else {
                // The load says what is wrong with the checkpoint.
                tracing::debug!(model = %checkpoint, error = describe_chain(&error), "no look at its LoRAs yet");
                return Ok(Vec::new());
            };
            tracing::info!(lora = %name, model = %checkpoint, error = describe_chain(&error), "refused");
            let (role, name) = (ModelRole::Lora, name.to_owned());
            let may_help = matches!(
                error.kind(),
                ErrorKind::Unavailable | ErrorKind::Internal | ErrorKind::Overloaded
            );
            return Err(if may_help {
                ServiceError::ModelUnavailable { role, name, reason }
            } else {
                ServiceError::ModelUnfit {
                    role,
                    name,
                    checkpoint,
                    reason,
                }
            });
        }
    };
    let unmatched = report
        .unmatched
        .into_iter()
        .map(|(lora, names)| JobNote::LoraUnmatched {
            lora,
            count: names.len() as u64,
            first: names.iter().take(NAMES_SHOWN).map(|name| shown(name)).collect(),
        });
    let missing = report.lcm_is_missing.then_some(JobNote::NoLcmLora { checkpoint });
    Ok(unmatched.chain(missing).collect())
}

/// How many tensors of a LoRA are named that have no effect.
const NAMES_SHOWN: usize = 3;

/// A name from a file made safe to repeat: short, and without characters that move a cursor.
fn shown(name: &str) -> String {
    const LONGEST: usize = 100;
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    name.chars().take(LONGEST).map(clean).collect()
}
