"""The API server: store, HTTP, admission, watches, and the faults that tests ask for."""
