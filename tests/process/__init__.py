"""Settings, logs, serving and the life of a process."""
