"""What `kubectl fracgpu doctor` checks: each a pure function on what was read, one line for what it found."""
