//! What every job store, queue and outbox must do, as test functions that any implementation can run.
//!
//! Each function takes a fresh [`Fixture`]; a broken promise is a panic that says which one. Nothing is asked that a
//! broker in another process cannot give: time passes as the implementation's own clock has it, and jobs whose leases
//! ran out come back in no promised order.

pub mod durable;
mod fixture;
pub mod idempotency;
pub mod outbox;
pub mod queue;
pub mod store;

pub use fixture::{Fixture, LetPass, sample_job};

/// Runs every check, each on a fresh fixture. `make` takes the bound on unfinished jobs.
pub async fn run_all(make: impl Fn(usize) -> Fixture) {
    store::a_stored_job_is_read_back_whole(&*make(10).store).await;
    store::an_id_is_taken_once(&*make(10).store).await;
    store::unknown_jobs_are_not_found(&*make(10).store).await;
    store::jobs_beyond_the_bound_are_refused(&*make(2).store).await;
    store::a_place_counts_from_its_reservation(&*make(1).store).await;
    store::one_owner_leaves_places_for_others(&*make(8).store).await;
    store::a_life_goes_through_its_states(&make(10)).await;
    store::a_job_whose_images_are_fetched_has_its_place(&*make(1).store).await;
    store::a_final_state_stays(&*make(10).store).await;
    store::one_of_two_racing_changes_wins(&make(10)).await;
    store::a_waiter_is_told_of_the_end(&make(10)).await;
    store::lists_are_filtered_and_paged(&*make(10).store).await;
    store::an_ended_job_is_removed(&*make(10).store).await;
    store::old_ends_expire(&make(10)).await;
    store::a_number_leads_to_its_job(&make(10)).await;
    idempotency::the_same_request_is_the_same_job(&make(10)).await;
    idempotency::another_request_under_its_key_is_refused(&make(10)).await;
    idempotency::one_of_many_twins_is_stored(&make(40)).await;
    idempotency::a_key_is_free_again_after_a_day(&make(10)).await;
    idempotency::a_failure_that_may_pass_frees_the_key(&make(10)).await;
    idempotency::a_forgotten_job_takes_its_key_along(&make(10)).await;
    outbox::an_end_is_in_the_outbox_with_it(&make(10)).await;
    outbox::one_sender_gets_a_webhook_until_its_lease_is_over(&make(10)).await;
    outbox::what_is_settled_is_not_sent_again(&make(10)).await;
    outbox::a_webhook_comes_again_when_it_is_due(&make(10)).await;
    outbox::the_webhooks_of_some_receivers_are_left(&make(10)).await;
    outbox::owners_get_their_webhooks_sent_in_turns(&make(10)).await;
    outbox::a_replay_sends_it_again_under_its_id(&make(10)).await;
    outbox::what_is_pending_too_long_is_given_up(&make(10)).await;
    outbox::a_job_is_kept_until_its_end_is_told(&make(10)).await;
    outbox::a_removed_job_takes_its_webhook_along(&make(10)).await;
    outbox::webhooks_are_filtered_and_paged(&make(10)).await;
    queue::claims_come_in_order_and_once(&*make(10).queue).await;
    queue::owners_take_turns_by_their_work(&*make(10).queue).await;
    queue::the_jobs_of_some_owners_are_left(&make(10)).await;
    queue::a_waiting_worker_gets_a_pushed_job(&make(10)).await;
    queue::an_entry_is_there_once(&*make(10).queue).await;
    queue::a_released_job_comes_first(&*make(10).queue).await;
    queue::a_job_released_for_later_rests_until_then(&make(10)).await;
    queue::a_forgotten_job_is_not_claimed(&*make(10).queue).await;
    queue::a_silent_worker_loses_its_job(&make(10)).await;
    queue::a_worker_that_was_stopped_keeps_its_job(&make(10)).await;
    queue::a_heartbeat_keeps_the_job(&make(10)).await;
    queue::a_lost_lease_wakes_a_worker_that_waited_before(&make(10)).await;
}

/// Runs every check of what outlives the process, each on fresh records. `make` takes the bound on unfinished jobs.
pub async fn run_durable(make: impl Fn(usize) -> durable::Reopen) {
    durable::waiting_jobs_wait_again_in_their_order(&make(20)).await;
    durable::a_job_that_was_not_pushed_is_queued(&make(10)).await;
    durable::a_crash_is_counted_and_its_attempt_is_fenced(&make(10)).await;
    durable::an_ended_job_is_found_again(&make(10)).await;
    durable::found_jobs_have_their_places(&make(2)).await;
    durable::a_job_without_its_images_is_not_queued(&make(10)).await;
    durable::a_resting_job_rests_on(&make(10)).await;
    durable::webhooks_outlive_the_process(&make(10)).await;
    durable::names_of_jobs_outlive_the_process(&make(10)).await;
}
