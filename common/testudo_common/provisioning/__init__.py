"""Documents and certificates by which a data owner joins a federation. Opens no connection."""
