"""How this node's GPUs are to be shared: what policies, file and flags say, and which of them wins."""
