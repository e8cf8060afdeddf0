//! What can be said of a recipe's run before anything is stored: that there is no such run, and which scheduler it will be.

use pentimento_engine::{ResolvedModels, RunPlan};
use pentimento_types::{Recipe, Size, describe_chain};

use crate::ServiceError;
use crate::forecast::Expected;
use crate::inner::Inner;
use crate::looks::PATIENCE;
use crate::off_thread::off_thread;

/// How much of the device each image takes, whatever its size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceTime {
    rows: u32,
    evaluations: u32,
}

impl DeviceTime {
    /// At most, about, where the checkpoint could not be asked, which its load will explain.
    fn unplanned(recipe: &Recipe) -> Self {
        Self {
            rows: if recipe.is_guided() { 2 } else { 1 },
            evaluations: recipe.steps,
        }
    }

    /// What the job costs in the queue.
    pub(crate) fn work(self, recipe: &Recipe, size: Size) -> u64 {
        recipe.work(size, self.rows, self.evaluations)
    }

    /// What is forecast for it.
    pub(crate) fn expected(self, models: &ResolvedModels, recipe: &Recipe, size: Size) -> Expected {
        Expected::new(
            &models.checkpoint.name,
            (size.pixels(), self.rows),
            (recipe.image_count, self.evaluations),
        )
    }
}

/// How many plans of one model are made at once: so many threads can a disk without an answer hold, however many callers
/// come and go.
const PLANS_AT_ONCE: usize = 4;

impl Inner {
    /// Refuses what the device would refuse later, and names in the recipe what it leaves to the checkpoint, so that who
    /// asks for the job or reads the image's parameters is told what ran.
    pub(crate) async fn plan(
        &self,
        models: &ResolvedModels,
        recipe: &mut Recipe,
    ) -> Result<DeviceTime, ServiceError> {
        let (planned, asked) = (models.clone(), recipe.clone());
        let turns = self
            .plan_turns
            .get_or_make(models.checkpoint.name.clone(), PLANS_AT_ONCE);
        let planned = async move {
            let turn = turns.acquire_owned().await.map_err(ServiceError::internal)?;
            off_thread(move || {
                // It goes along, because this runs on when the caller hangs up.
                let _turn = turn;
                Ok(RunPlan::of(&planned, &asked).map_err(|error| (error.refused_setting(), error)))
            })
            .await
        };
        let planned = tokio::select! {
            planned = planned => planned?,
            // Without a plan the job goes on, and the load says what is wrong.
            () = self.clock.sleep_until(self.clock.now() + PATIENCE) => {
                tracing::warn!(model = %models.checkpoint.name, "a model's disk does not answer; its run is not planned");
                return Ok(DeviceTime::unplanned(recipe));
            }
        };
        match planned {
            Ok(plan) => {
                recipe.scheduler = plan.named(recipe.scheduler);
                Ok(DeviceTime {
                    rows: plan.rows,
                    evaluations: plan.evaluations,
                })
            }
            Err((Some((setting, problem)), _)) => Err(ServiceError::RunRefused { setting, problem }),
            Err((None, error)) => {
                let name = &models.checkpoint.name;
                tracing::debug!(model = %name, error = describe_chain(&error), "no plan yet");
                Ok(DeviceTime::unplanned(recipe))
            }
        }
    }
}
