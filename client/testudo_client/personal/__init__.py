"""An owner's own model: adapted from a published meta-model, kept in versions, asked with a contract."""
