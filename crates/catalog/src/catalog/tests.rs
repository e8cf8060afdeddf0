//! Reading catalogues, right and wrong, and finding names in them.
