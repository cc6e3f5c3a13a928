"""What people and monitoring read of the extender, on a port of its own."""
