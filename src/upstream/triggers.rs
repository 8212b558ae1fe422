//! Triggers: what follows from a publication.
