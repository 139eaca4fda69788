"""Privacy events and the accountant that composes them."""
