"""Who may have what: the decisions of an admission, and the book of what was given."""
