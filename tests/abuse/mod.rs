//! The real binary among the careless, the hostile and the unlucky. All of it together takes less than three minutes.

mod hold;
