"""``kubectl fracgpu``: what the cluster's GPUs are, who has which part of them, why a pod waits, and what is wrong."""
