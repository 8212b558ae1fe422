//! Schemas of payloads: which versions a namespace takes, and what each looks like.
