"""What every report is made of: a page that loads nothing, its figures, its words, and its cards. Measures nothing."""
